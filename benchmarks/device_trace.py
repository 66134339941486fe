"""Where time goes: a trace of the profiler, summed up by the kind of operation.

The networks name their parts (`jax.named_scope`); XLA carries these names through to what it
compiles, and the profiler says how long each compiled operation took.
"""

from __future__ import annotations

import collections
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

SCOPES = (
    ("cross_attention", "cross-attention"),
    ("feed_forward", "feed-forward"),
    ("norm", "norms"),
    ("temporal_convolution", "temporal convolutions"),
    ("temporal_attention", "temporal attention"),
    ("spatial_attention", "spatial attention"),
)
"""Part of an operation's name -> what to call it; the part that stands last in the name counts."""

OTHER_NETWORK = "rest of the network"
SAMPLER = "sampler's arithmetic"

_METADATA = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name="([^"]*)"', re.MULTILINE)
_NETWORK = re.compile(r"/(in|down|mid|up|out)/")


def kind_of(name: str) -> str:
    """The kind of operation, from its ``op_name`` such as ``jit(play)/down/norm/sub``."""
    parts = name.split("/")
    for part in reversed(parts):
        for scope, kind in SCOPES:
            if part == scope:
                return kind
    if "conv_general_dilated" in parts[-1]:
        return "convolutions"
    return OTHER_NETWORK if _NETWORK.search(name) else SAMPLER


def names_of(hlo: str) -> dict[str, str]:
    """Compiled operation -> the ``op_name`` it comes from, from a compiled program's text."""
    return dict(_METADATA.findall(hlo))


def trace(work: Callable[[], Any], folder: Path | None = None) -> dict[str, float]:
    """Runs `work` under the profiler; seconds by compiled operation.

    Args:
        work: what to run; its result is waited for.
        folder: keeps the trace there (TensorBoard and Perfetto read it); default: thrown away.
    """
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) if folder is None else folder
        before = set(place.rglob("*.xplane.pb"))
        with jax.profiler.trace(str(place)):
            jax.block_until_ready(work())
        (written,) = set(place.rglob("*.xplane.pb")) - before
        return durations(written)


def durations(path: Path) -> dict[str, float]:
    """Seconds by compiled operation in a trace. Operations that contain others, loops and
    conditionals, are left out: what they contain is there."""
    data = jax.profiler.ProfileData.from_file(str(path))
    total: dict[str, float] = collections.defaultdict(float)
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                operation = stats.get("hlo_op")
                if operation is not None and not _CONTAINER.match(str(operation)):
                    total[str(operation)] += event.duration_ns / 1e9
    return dict(total)


_CONTAINER = re.compile(r"(while|conditional|call)(\.|$)")


def by_kind(seconds: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    """Seconds by kind of operation, most first.

    Args:
        seconds: by compiled operation.
        names: of compiled operations, from `names_of`.
    """
    total: dict[str, float] = collections.defaultdict(float)
    for operation, spent in seconds.items():
        # Copies that the compiler adds have no name of their own.
        total[kind_of(names[operation]) if operation in names else "copies"] += spent
    return dict(sorted(total.items(), key=lambda item: -item[1]))
