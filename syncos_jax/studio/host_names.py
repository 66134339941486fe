"""Names under which a server is reached."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Set

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/\\]+)(?::(\d{1,5}))?")


def host_name(header: str) -> str:
    """The lower-case name in a Host header, without its port; empty if it is malformed."""
    match = _HOST.fullmatch(header)
    return match[1].strip("[]").casefold() if match else ""


def is_allowed(header: str, hosts: Set[str] | None) -> bool:
    """Whether a Host header names this server.

    A page elsewhere can reach this server through a name of its own that resolves here (DNS
    rebinding). Addresses and ``localhost`` are not such names. (Starlette's TrustedHostMiddleware
    cannot allow every address.)

    Args:
        header: value of the header.
        hosts: further names, in lower case; None allows every name.
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
