"""How many windows a network call can have before the devices run out of memory.

Read from XLA's memory analysis of the compiled program.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, Protocol

import jax

from syncos_jax.errors import InputError

SHARE = 0.9
"""Fraction of the free memory that a program may use: allocators lose some to gaps."""


class Measurable(Protocol):
    """What is read of a `syncos_jax.sampling.run.Run`."""

    carry: Any
    calls: Any
    updates: Any
    inputs: Any

    @property
    def mesh(self) -> jax.sharding.Mesh: ...
    @property
    def samples_per_call(self) -> int: ...
    @property
    def samples_per_window(self) -> int: ...
    @property
    def windows(self) -> int: ...
    @property
    def max_windows(self) -> int: ...
    @property
    def devices(self) -> int: ...
    def lower(self, samples: int | None = None) -> jax.stages.Lowered: ...


@dataclass(frozen=True)
class BatchFit:
    """What fits.

    Attributes:
      windows: windows of a call, of all devices together.
      of: windows of the largest update step, the most that a call can use.
      devices: devices that split a call.
      needed: bytes that the program needs on each device besides its arguments.
      room: bytes available to it.
    """

    windows: int
    of: int
    devices: int
    needed: int
    room: int

    def __str__(self) -> str:
        devices = f" on {self.devices} devices" if self.devices > 1 else ""
        return (
            f"{self.windows} of {self.of} windows per call{devices}: needs "
            f"{self.needed / 2**30:.2f} GiB of {self.room / 2**30:.2f} GiB"
        )


def largest_batch(run: Measurable, room: int | None = None) -> BatchFit:
    """The largest number of windows per call with which `run`'s program fits; compiles it two to
    four times.

    Two sizes give a straight line, the line a guess, and the guess is compiled to check it. Of the
    sizes with equally few calls the smallest is taken, which has the fewest empty slots.

    Args:
      run: with any number of samples per call; not advanced.
      room: bytes free on each device; None: ask the device.

    Raises:
      InputError: if not even one window per device fits.
    """
    room = int(SHARE * free_bytes(run)) if room is None else room
    devices, each = run.devices, run.samples_per_window
    of = run.max_windows
    most = -(-of // devices)
    points: dict[int, int] = {}

    def needs(share: int) -> int:  # windows of each device
        if share not in points:
            samples = min(-(-of * each // devices), share * each)
            points[share] = program_bytes(run, samples * devices)
        return points[share]

    if needs(1) > room:
        raise InputError(
            f"one window per device needs {needs(1) / 2**30:.2f} GiB besides weights and latents, "
            f"but only {room / 2**30:.2f} GiB are free",
            remedy="use a smaller frame or model, or bfloat16",
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


def choose_batch(run: Measurable) -> int:
    """Windows per call that `run` should have: its own number, or as many as fit where the device's
    memory is too small. Equal on every start, since it depends on the device's memory and not on
    what is free; on a CPU, its own number.

    Raises:
      InputError: if not even one window per device fits.
    """
    room = _whole_room(run)
    if room is None or program_bytes(run, run.samples_per_call) <= room:
        return run.windows
    return min(run.windows, largest_batch(run, room).windows)


def reports_memory(mesh: jax.sharding.Mesh) -> bool:
    """Whether the devices report how much memory they have; CPUs do not."""
    return _limit(mesh) is not None


def _limit(mesh: jax.sharding.Mesh) -> int | None:
    device = mesh.local_mesh.devices.flat[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    return int(stats["bytes_limit"]) if stats and "bytes_limit" in stats else None


def _whole_room(run: Measurable) -> int | None:
    """Bytes besides the run's own arrays on each device, were nothing else there; None where the
    device does not report its memory."""
    limit = _limit(run.mesh)
    return None if limit is None else int(SHARE * limit) - _held(run)


def _held(run: Measurable) -> int:
    """Bytes of the run's own arrays on each device."""
    leaves = jax.tree.leaves((run.carry, run.calls, run.updates, run.inputs))
    arrays = [leaf for leaf in leaves if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in arrays
    )


def program_bytes(run: Measurable, samples: int) -> int:
    """Bytes on each device that `run`'s program would need besides its arguments, with `samples`
    per call: temporaries, outputs that do not reuse an argument's buffer, and code."""
    analysis = run.lower(samples).compile().memory_analysis()
    if analysis is None:
        raise InputError(
            "this device's compiler does not report a program's memory",
            remedy="set windows_per_call",
        )
    return int(
        analysis.temp_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.generated_code_size_in_bytes
    )


def free_bytes(run: Measurable) -> int:
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


def resized(run: Measurable, samples: int) -> tuple[Any, Any]:
    """Shapes of the carry and calls that `run` would have with `samples` per call (except the
    number of calls, which does not affect the memory)."""
    carry, calls = jax.tree.map(_shape, (run.carry, run.calls))
    last = calls.windows.ndim - 1
    columns = {
        name: _with_axis(getattr(calls, name), last, samples)
        for name in ("windows", "cond_index", "weights")
    }
    return carry, calls._replace(**columns)


def _shape(x: jax.Array) -> jax.ShapeDtypeStruct:
    # An array without an explicit placement must stay free to go to any device.
    sharding = x.sharding if len(x.sharding.device_set) > 1 else None
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _with_axis(x: jax.ShapeDtypeStruct, axis: int, size: int) -> jax.ShapeDtypeStruct:
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=x.sharding)
