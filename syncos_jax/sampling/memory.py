"""How many windows a call of the network may have before the devices run out of memory.

Read from the compiled program itself: XLA's analysis says what it needs beside its arguments.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax

from syncos_jax.errors import InputError

if TYPE_CHECKING:
    from syncos_jax.sampling.run import Run

SHARE = 0.9
"""Of the free memory, what a program may take: allocators lose some to gaps."""


@dataclass(frozen=True)
class BatchFit:
    """What fits.

    Attributes:
      windows: windows of a call, of all devices together.
      of: windows of the longest update, more than which no call can have.
      devices: devices that share a call.
      needed: bytes that the program takes on each device beside its arguments.
      room: bytes that it may take.
    """

    windows: int
    of: int
    devices: int
    needed: int
    room: int

    def __str__(self) -> str:
        devices = f" on {self.devices} devices" if self.devices > 1 else ""
        return (
            f"{self.windows} of {self.of} windows in a call{devices}: needs "
            f"{self.needed / 2**30:.2f} GiB of {self.room / 2**30:.2f} GiB"
        )


def largest_batch(run: Run, room: int | None = None) -> BatchFit:
    """The most windows of a call with which `run`'s program fits; compiles it two to four times.

    Two sizes give a straight line, the line a guess, and the guess is compiled to see whether it
    holds. Of the sizes with as few calls the smallest is taken, which has the fewest unused places.

    Args:
      run: with any number of samples in a call; not advanced.
      room: bytes free on each device; None to ask the device.

    Raises:
      InputError: if not even one window for each device fits.
    """
    room = int(SHARE * free_bytes(run)) if room is None else room
    devices, each = run.devices, run.clips_per_window
    of = run.longest
    most = -(-of // devices)
    points: dict[int, int] = {}

    def needs(share: int) -> int:  # windows of each device
        if share not in points:
            samples = min(-(-of * each // devices), share * each)
            points[share] = program_bytes(run, samples * devices)
        return points[share]

    if needs(1) > room:
        raise InputError(
            f"one window for each device needs {needs(1) / 2**30:.2f} GiB beside weights and "
            f"latents, but only {room / 2**30:.2f} GiB are free; take a smaller frame or model, "
            "or bfloat16"
        )
    good, bad = 1, most + 1
    guess = min(2, most)
    while bad - good > 1:
        if needs(guess) <= room:
            good = guess
        else:
            bad = guess
        if len(points) >= 4:
            break
        (x0, y0), (x1, y1) = sorted(points.items())[-2:] if len(points) > 1 else [(0, 0), (1, 1)]
        slope = max((y1 - y0) / (x1 - x0), 1.0)
        guess = min(max(int(x0 + (room - y0) / slope), good + 1), bad - 1)
    calls = -(-of // (good * devices))
    windows = -(-of // calls)
    return BatchFit(windows, of, devices, points[good], room)


def choose_batch(run: Run) -> int:
    """Windows of a call that `run` should have: its own number, or where the device's memory is
    smaller than that needs, as many as fit. The same on every start, since it goes by the memory
    that the device has, not by what is free; on a CPU, its own.

    Raises:
      InputError: if not even one window for each device fits.
    """
    room = _whole_room(run)
    if room is None or program_bytes(run, run.call_schedule.samples_per_call) <= room:
        return run.windows
    return min(run.windows, largest_batch(run, room).windows)


def reports_memory(mesh: jax.sharding.Mesh) -> bool:
    """Whether the devices say how much memory they have; CPUs do not."""
    return _limit(mesh) is not None


def _limit(mesh: jax.sharding.Mesh) -> int | None:
    device = mesh.local_mesh.devices.flat[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    return int(stats["bytes_limit"]) if stats and "bytes_limit" in stats else None


def _whole_room(run: Run) -> int | None:
    """Bytes beside the run's own arrays on each device, were nothing else there; None where the
    device does not say."""
    limit = _limit(run.mesh)
    return None if limit is None else int(SHARE * limit) - _held(run)


def _held(run: Run) -> int:
    """Bytes of the run's own arrays on each device."""
    leaves = jax.tree.leaves((run.carry, run.calls, run.updates, run.inputs))
    arrays = [leaf for leaf in leaves if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in arrays
    )


def program_bytes(run: Run, samples: int) -> int:
    """Bytes on each device that `run`'s program would need beside its arguments, with as many
    samples in a call."""
    compiled = run.lower(samples).compile()
    analysis = compiled.memory_analysis()
    if analysis is None:
        raise InputError("this device's compiler does not say what a program needs; give a number")
    return int(
        analysis.temp_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.generated_code_size_in_bytes
    )


def free_bytes(run: Run) -> int:
    """Bytes free on the fullest device of this process that the run uses."""
    devices = [part.device for part in run.carry.predictions.addressable_shards]
    stats: list[dict[str, int] | None] = [device.memory_stats() for device in devices]
    known = [s for s in stats if s and "bytes_limit" in s]
    if known:
        return min(int(s["bytes_limit"]) - int(s["bytes_in_use"]) for s in known)
    return _free_ram() // len(devices)


def _free_ram() -> int:
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def resized(run: Run, samples: int) -> tuple[Any, Any]:
    """Shapes of the carry and calls that `run` would have with `samples` in a call (but for the
    number
    of calls, which says nothing about the memory)."""
    carry, calls = jax.tree.map(_shape, (run.carry, run.calls))
    last = calls.windows.ndim - 1
    columns = {
        name: _with_axis(getattr(calls, name), last, samples)
        for name in ("windows", "cond_index", "weights")
    }
    return carry, calls._replace(**columns)


def _shape(x: jax.Array) -> jax.ShapeDtypeStruct:
    # An array that nobody put anywhere may go to any device, and must stay free to.
    sharding = x.sharding if len(x.sharding.device_set) > 1 else None
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _with_axis(x: jax.ShapeDtypeStruct, axis: int, size: int) -> jax.ShapeDtypeStruct:
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=x.sharding)
