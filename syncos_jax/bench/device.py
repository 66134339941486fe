"""The machine: what it is, and what it can do at most, measured in the same run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from syncos_jax.models.layers import DType
from syncos_jax.sampling.devices import cores

VERSIONS = ("syncos-jax", "jax", "jaxlib", "flax", "torch", "diffusers")


def machine() -> dict[str, Any]:
    """Device, host and versions, as plain values."""
    device = jax.devices()[0]
    return {
        "device": _processor() if device.platform == "cpu" else device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "cores": cores(),
        "others_busy": others_busy(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in VERSIONS if _version(name)},
    }


def others_busy(seconds: float = 0.5) -> float | None:
    """How many cores other programs keep busy while this one sleeps; None where the system has no
    ``/proc/stat``. (The load average would count the measurement itself.)"""

    def ticks() -> int:
        user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().split()[1:9])
        return user + nice + system + sum(rest)

    try:
        before, begin = ticks(), time.monotonic()
        time.sleep(seconds)
        spent = (ticks() - before) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None
    return round(spent / (time.monotonic() - begin), 2)


def kind() -> str:
    """A file name for this kind of device: ``cpu-2-cores``, ``nvidia-h100-80gb-hbm3``."""
    device = jax.devices()[0]
    name = f"cpu {cores()} cores" if device.platform == "cpu" else device.device_kind
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "CPU"
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else "CPU"


@dataclass(frozen=True)
class Peak:
    """What the device reached here.

    Attributes:
        flops: of a large matrix product, FLOP/s.
        bytes: read and written by copying a large array, B/s.
        size: of the product, `size` cubed.
        dtype: of the product.
    """

    flops: float
    bytes: float
    size: int
    dtype: str


@partial(jax.jit, static_argnums=2)
def _products(a: jax.Array, b: jax.Array, count: int) -> jax.Array:
    return jax.lax.fori_loop(0, count, lambda _, x: (x @ b).astype(a.dtype), a)


@jax.jit
def _copy(x: jax.Array) -> jax.Array:
    return x + jnp.ones((), x.dtype)


def measure_peak(dtype: DType, repeat: int = 5) -> Peak:
    """Times a matrix product in `dtype` and a copy; the best of `repeat`."""
    on_cpu = jax.default_backend() == "cpu"
    size, count = (1024, 2) if on_cpu else (8192, 8)
    a = jnp.full((size, size), 0.5, dtype)
    b = jnp.eye(size, dtype=dtype)
    seconds = _best(lambda: _products(a, b, count), repeat)
    x = jnp.zeros((64 if on_cpu else 1024) * 2**18, jnp.float32)
    copying = _best(lambda: _copy(x), repeat)
    return Peak(
        flops=2 * size**3 * count / seconds,
        bytes=2 * x.nbytes / copying,
        size=size,
        dtype=str(jnp.dtype(dtype)),
    )


def _best(work: Any, repeat: int) -> float:
    jax.block_until_ready(work())
    return min(seconds(work) for _ in range(max(1, repeat)))


def seconds(work: Any) -> float:
    """How long `work()` takes until its result is there."""
    begin = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - begin


def spread(values: list[float]) -> float:
    """Half the distance of the quartiles over the median: how much a median is worth."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / statistics.median(values)
