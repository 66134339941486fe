"""Names under which a server may be asked for."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Set

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/\\]+)(?::(\d{1,5}))?")


def host_name(header: str) -> str:
    """The name of a header ``Host`` without its port, in lower case; empty where it is none."""
    match = _HOST.fullmatch(header)
    return match[1].strip("[]").casefold() if match else ""


def is_allowed(header: str, hosts: Set[str] | None) -> bool:
    """Whether a header ``Host`` names this server.

    A page elsewhere reaches a server on this machine through a name of its own that it makes lead
    here (DNS rebinding): an address is no such name, and neither is ``localhost``.

    Args:
        header: the header's value.
        hosts: further names, in lower case; None for every name.
    """
    name = host_name(header)
    if not name:
        return False
    if hosts is None or name == "localhost" or name in hosts:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
