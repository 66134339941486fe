"""One measurement: lowering, compilation, first call and the calls after it, separately."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from syncos_jax.bench.device import seconds, spread


@dataclass(frozen=True)
class Work:
    """Something to measure.

    Attributes:
        name: for the table, such as "unet guided".
        what: of which kind: unet, vae, text, call or video.
        lower: gives the lowered program.
        call: calls the compiled program with its arguments.
        flops: operations of a call (`syncos_jax.pipeline.flops`); None where they are not known.
        unit: what a call makes, such as "2 clips".
    """

    name: str
    what: str
    lower: Callable[[], jax.stages.Lowered]
    call: Callable[[jax.stages.Compiled], Any]
    flops: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class Measurement:
    """Seconds, bytes and operations of one call. What could not be had is None.

    Attributes:
        lowering, compilation: seconds, once a shape.
        first: seconds of the first call.
        median: seconds of a call after that; ``times`` are all of them, ``spread`` half the
            distance of their quartiles over the median.
        memory: peak bytes of the compiled program with its arguments, from its analysis.
        device_memory: peak bytes of the process on the device so far, from the device.
        flops: floating-point operations (`syncos_jax.pipeline.flops`).
        share: of the device's measured peak that the median call reached.
    """

    name: str
    what: str
    unit: str
    lowering: float | None
    compilation: float | None
    first: float
    median: float
    spread: float
    times: list[float]
    memory: int | None
    device_memory: int | None
    flops: float | None
    share: float | None

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return dataclasses.asdict(self)


def measure(work: Work, *, repeat: int, peak_flops: float | None = None) -> Measurement:
    """Compiles `work` apart from running it, and times it `repeat` times.

    Args:
        work: what to measure.
        repeat: calls after the first.
        peak_flops: of the device, FLOP/s, for the share.
    """
    begin = time.perf_counter()
    lowered = work.lower()
    lowering = time.perf_counter() - begin
    begin = time.perf_counter()
    compiled = lowered.compile()
    compilation = time.perf_counter() - begin
    first = seconds(lambda: work.call(compiled))
    times = [seconds(lambda: work.call(compiled)) for _ in range(repeat)]
    return summarise(
        times,
        name=work.name,
        what=work.what,
        unit=work.unit,
        first=first,
        flops=work.flops,
        lowering=lowering,
        compilation=compilation,
        memory=peak_memory(compiled),
        peak_flops=peak_flops,
    )


def summarise(
    times: list[float], *, flops: float | None, peak_flops: float | None, **facts: Any
) -> Measurement:
    """A `Measurement` of calls that took `times` seconds.

    Args:
        times: of the calls after the first, in seconds.
        flops: of one call.
        peak_flops: FLOP/s that the device reaches.
        facts: the other fields of `Measurement` that are known.
    """
    median = statistics.median(times)
    known = {"lowering": None, "compilation": None, "memory": None, **facts}
    return Measurement(
        **known,
        median=median,
        spread=spread(times),
        times=times,
        device_memory=device_memory(),
        flops=flops,
        share=flops / median / peak_flops if flops and peak_flops else None,
    )


def peak_memory(compiled: Any) -> int | None:
    """Bytes that a compiled program needs at most, its arguments and results included."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return int(
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
    )


def device_memory() -> int | None:
    """Most bytes the process has had on the device; None where the device does not say (CPU)."""
    stats = jax.devices()[0].memory_stats()
    return int(stats["peak_bytes_in_use"]) if stats and "peak_bytes_in_use" in stats else None
