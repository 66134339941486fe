"""Measurements as a table and as JSON."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from syncos_jax.bench.device import Peak
from syncos_jax.bench.measure import Measurement
from syncos_jax.files import replacing

HEADER = (
    "what",
    "per call",
    "lower",
    "compile",
    "first",
    "median",
    "±",
    "memory",
    "operations",
    "of peak",
)


def duration(seconds: float | None) -> str:
    """``0.0123`` -> ``12.3 ms``."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{1e3 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"


def size(count: int | None) -> str:
    """Bytes in binary units."""
    return "-" if count is None else readable_binary(count)


def readable_binary(count: float) -> str:
    """``2**21`` -> ``2 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.3g} {unit}"
        count /= 1024
    raise AssertionError


def readable(count: float, unit: str = "FLOP") -> str:
    """``12_600_000_000_000`` -> ``12.6 TFLOP``."""
    step = min(int(math.log10(count)) // 3, 5) if count >= 1 else 0
    return f"{count / 1000**step:.3g} {['', 'k', 'M', 'G', 'T', 'P'][step]}{unit}"


def row(m: Measurement) -> tuple[str, ...]:
    """One line of the table, as in `HEADER`."""
    return (
        m.name,
        m.unit,
        duration(m.lowering),
        duration(m.compilation),
        duration(m.first),
        duration(m.median),
        f"{100 * m.spread:.0f} %",
        size(m.device_memory if m.memory is None else m.memory),
        readable(m.flops) if m.flops else "-",
        f"{100 * m.share:.1f} %" if m.share else "-",
    )


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)], *map(list, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def peak_line(peak: Peak) -> str:
    """What the device reached, in words."""
    return (
        f"measured peak: {readable(peak.flops)}/s ({peak.size}³ product in {peak.dtype}), "
        f"{peak.bytes / 1e9:.3g} GB/s copied"
    )


def command() -> str:
    """The command of this process, for people to repeat it; without where the JSON goes."""
    program, *rest = sys.argv
    if Path(program).name == "syncos":
        program = "syncos"
    else:
        program = f"python {os.path.relpath(program)}"
    words = [word for i, word in enumerate(rest) if "--json" not in rest[max(0, i - 1) : i + 1]]
    return shlex.join([*program.split(" "), *words])


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes ``path``, complete or not at all."""
    with replacing(path) as part:
        text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")
