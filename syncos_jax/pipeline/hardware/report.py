"""What a compiled program takes of a device: memory, arithmetic, bytes, exchange, and what of it
decides."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from syncos_jax.pipeline.hardware.targets import Target, parse

SHARE = 0.95
"""Of a device's memory, what programs may take: the driver and gaps need some."""


@dataclass(frozen=True)
class Memory:
    """Bytes on each device.

    Attributes:
        weights: of the denoiser.
        others: weights of the text encoder and the autoencoder, which lie there too.
        state: latents, noise, optimiser, tape and conditionings.
        temporary: what the program needs besides, at once; its results that take the place of no
            argument and its own code among it.
    """

    weights: int
    others: int
    state: int
    temporary: int

    @property
    def total(self) -> int:
        """All together."""
        return self.weights + self.others + self.state + self.temporary


@dataclass(frozen=True)
class Compiled:
    """One program, compiled for a target; all figures are of one device.

    Attributes:
        name: "run" (a row: one call of the network and what belongs to it) or "decode".
        clips: of a call, of all devices together; of "decode" 1.
        windows: likewise.
        rows: how often it runs for the whole video.
        memory: bytes.
        fits: whether these are there.
        flops: of one row.
        bytes: that one row reads and writes; by the compiler's count where it has one, else counted
            from the program.
        counted: the same, counted from the program in either case.
        exchanged: bytes that each device gets from the others, by kind of collective: how many
            and bytes.
        copies: transposes and copies that stand for themselves: how many and bytes.
        wide: matrix products and convolutions in float32, of arrays of a million elements or more.
        compile_seconds: how long the compiler took.
        note: why it could not be compiled, else empty.
    """

    name: str
    clips: int
    windows: int
    rows: int
    memory: Memory
    fits: bool
    flops: float = 0.0
    bytes: float = 0.0
    counted: float = 0.0
    exchanged: dict[str, tuple[int, int]] = field(default_factory=dict)
    copies: dict[str, tuple[int, int]] = field(default_factory=dict)
    wide: tuple[str, ...] = ()
    compile_seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Roofline:
    """The least time that a program can take on a chip, by its data sheet.

    Attributes:
        arithmetic, memory, exchange: seconds of a row by each.
    """

    arithmetic: float
    memory: float
    exchange: float

    @property
    def seconds(self) -> float:
        """Of a row: the largest of them."""
        return max(self.arithmetic, self.memory, self.exchange)

    @property
    def bound(self) -> str:
        """Which of them it is."""
        names = {"arithmetic": self.arithmetic, "memory": self.memory, "exchange": self.exchange}
        return max(names, key=lambda name: names[name])


def roofline(compiled: Compiled, target: Target) -> Roofline:
    """The roofline of a program on each of a target's chips."""
    chip = target.chip
    exchanged = sum(moved for _, moved in compiled.exchanged.values())
    return Roofline(
        arithmetic=compiled.flops / chip.flops,
        memory=compiled.bytes / chip.bandwidth,
        exchange=exchanged / chip.exchange if target.count > 1 else 0.0,
    )


@dataclass(frozen=True)
class Report:
    """A request on hardware that is not there.

    Attributes:
        target: as it was asked for, ``v5e:8``.
        model: its name.
        dtype: of weights and computation.
        weights_over: devices over which the denoiser's weights are divided.
        run: the program of the run with as many windows a call as fit, or with the fewest.
        decode: of decoding one piece of latents; None where the model has none.
        tried: windows of a call -> whether that fits, of all that were compiled.
        advice: what would make it fit; empty where it does.
    """

    target: str
    model: str
    dtype: str
    weights_over: int
    run: Compiled
    decode: Compiled | None
    tried: dict[str, bool]
    advice: str = ""

    @property
    def seconds(self) -> float:
        """The least time of the whole run, by the roofline, without decoding."""
        return self.run.rows * roofline(self.run, parse(self.target)).seconds

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        values = asdict(self)
        target = parse(self.target)
        for name in ("run", "decode"):
            compiled: Compiled | None = getattr(self, name)
            if compiled is not None:
                line = roofline(compiled, target)
                values[name]["memory"]["total"] = compiled.memory.total
                values[name]["roofline"] = {**asdict(line), "bound": line.bound}
        values["seconds"] = self.seconds
        return values


def from_dict(values: dict[str, Any]) -> Report:
    """The inverse of `Report.to_dict`."""

    def program(entry: dict[str, Any] | None) -> Compiled | None:
        if entry is None:
            return None
        entry = {key: value for key, value in entry.items() if key != "roofline"}
        memory = {key: value for key, value in entry["memory"].items() if key != "total"}
        pairs = {
            key: {kind: (int(pair[0]), int(pair[1])) for kind, pair in entry[key].items()}
            for key in ("exchanged", "copies")
        }
        given = {**entry, **pairs, "memory": Memory(**memory), "wide": tuple(entry["wide"])}
        return Compiled(**given)

    run = program(values["run"])
    assert run is not None
    rest = {key: value for key, value in values.items() if key != "seconds"}
    return Report(**{**rest, "run": run, "decode": program(values["decode"])})
