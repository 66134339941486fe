"""What a compiled program needs of a device: memory, FLOPs, memory and collective traffic."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from syncos_jax.pipeline.hardware.targets import Target, parse

SHARE = 0.95
"""Fraction of a device's memory for programs: the driver and fragmentation need some."""


@dataclass(frozen=True)
class Memory:
    """Bytes on each device.

    Attributes:
        weights: of the denoiser.
        others: weights of the text encoder and the autoencoder, and whatever else is not the
            denoiser.
        state: latents, noise, optimiser, call schedule and conditionings.
        temporary: whatever else the program needs at once, including its code and results that
            replace no argument.
    """

    weights: int
    others: int
    state: int
    temporary: int

    @property
    def total(self) -> int:
        """Sum of all."""
        return self.weights + self.others + self.state + self.temporary


@dataclass(frozen=True)
class Compiled:
    """One program, compiled for a target; all figures are of one device.

    Attributes:
        name: "run" (one network call with its update) or "decode".
        clips: samples of a call, all devices together; 1 for "decode".
        windows: likewise.
        rows: how often it runs for the whole video.
        memory: bytes.
        fits: whether the device has that memory.
        flops: of one call.
        bytes: memory traffic of one call, by the compiler's count if it has one, else `counted`.
        counted: the same, counted from the program's text.
        exchanged: collective traffic received by each device: kind -> (count, bytes).
        copies: separate transposes and copies: kind -> (count, bytes).
        wide: float32 matrix products and convolutions of a million elements or more.
        compile_seconds: duration of the compilation.
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
    """Lower bound of a program's time on a chip, by its data sheet.

    Attributes:
        arithmetic, memory, exchange: seconds of a call by each.
    """

    arithmetic: float
    memory: float
    exchange: float

    @property
    def seconds(self) -> float:
        """Of a call: the largest of them."""
        return max(self.arithmetic, self.memory, self.exchange)

    @property
    def bound(self) -> str:
        """Name of the largest."""
        names = {"arithmetic": self.arithmetic, "memory": self.memory, "exchange": self.exchange}
        return max(names, key=lambda name: names[name])


def roofline(compiled: Compiled, target: Target) -> Roofline:
    """The roofline of a program on each chip of a target."""
    chip = target.chip
    exchanged = sum(moved for _, moved in compiled.exchanged.values())
    return Roofline(
        arithmetic=compiled.flops / chip.flops,
        memory=compiled.bytes / chip.bandwidth,
        exchange=exchanged / chip.exchange if target.count > 1 else 0.0,
    )


@dataclass(frozen=True)
class Report:
    """A request on hardware you don't have.

    Attributes:
        target: such as ``v5e:8``.
        model: its name.
        dtype: of weights and computation.
        weights_over: devices over which the denoiser's weights are sharded.
        run: the run's program with as many windows per call as fit, or with the fewest.
        decode: the program that decodes a chunk of latents; None if the model has none.
        tried: windows per call -> whether they fit, for all that were compiled.
        advice: what would make it fit; empty if it does.
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
        """Roofline lower bound of the whole run, without decoding."""
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
