"""Devices: meshes, and CPU cores as devices."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from syncos_jax.errors import InputError

DATA, SEGMENT, MODEL = "data", "segment", "model"


def make_mesh(
    devices: int | Sequence[jax.Device] | None = None, *, data: int = 1, model: int = 1
) -> Mesh:
    """A mesh with the axes ``data`` (videos of a batch) and ``segment`` (windows of a video).

    Args:
      devices: how many, or which; None for all of all hosts.
      data: size of the axis ``data``; the other devices share the windows of each video.
      model: size of a third axis ``model``, over which `Rules` may split the weights; there is no
        such axis where it is 1.

    Raises:
      InputError: if there are not as many devices, or they cannot be divided so.
    """
    there = list(jax.devices())
    if devices is None:
        chosen = there
    elif isinstance(devices, int):
        if not 1 <= devices <= len(there):
            raise InputError(
                f"devices: {devices} asked for, but there are {len(there)} ({there[0].platform}); "
                f"give 1 to {len(there)}"
            )
        chosen = there[:devices]
    else:
        chosen = list(devices)
    if min(data, model) < 1 or len(chosen) % (data * model):
        raise InputError(
            f"make_mesh: {len(chosen)} devices cannot be divided into data={data} times "
            f"model={model}; make them divide it"
        )
    missing = set(range(jax.process_count())) - {device.process_index for device in chosen}
    if missing:
        raise InputError(
            f"devices: the {len(chosen)} chosen leave process {min(missing)} without one; take "
            f"them all ({len(there)}), or start fewer processes"
        )
    shape = (data, len(chosen) // (data * model), model)[: 3 if model > 1 else 2]
    names = (DATA, SEGMENT, MODEL)[: len(shape)]
    return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(shape), devices=chosen)


def default_mesh() -> Mesh:
    """JAX's default device, as a mesh of one; with several processes each has its own."""
    device = next(iter(jnp.zeros(()).devices()))
    return Mesh(np.asarray([[device]]), (DATA, SEGMENT), axis_types=(AxisType.Auto,) * 2)


def no_platform(error: BaseException) -> str | None:
    """What to say where JAX has no device of the platform that it was asked to use; None for errors
    that are something else.

    JAX raises a RuntimeError that begins with "Unable to initialize backend", or where no plugin of
    the platform is installed an AssertionError, both from its module ``xla_bridge``.
    """
    if not isinstance(error, RuntimeError | AssertionError):
        return None
    trace = error.__traceback__
    if trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    if os.path.basename(trace.tb_frame.f_code.co_filename) != "xla_bridge.py":
        return None
    asked = str(jax.config.jax_platforms or "")  # type: ignore[attr-defined]
    reason = " ".join(str(error).split())[:200]
    named = next((name for name in ("cuda", "rocm", "tpu") if name in asked), "cuda")
    return (
        f"JAX finds no {asked or 'such'} device here (JAX_PLATFORMS={asked}): install its plugin "
        f'(pip install ".[{named}]"), run on a machine that has one, or set JAX_PLATFORMS=cpu'
        + (f" ({reason})" if reason else "")
    )


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def provide_cpu_devices(count: int | None) -> None:
    """Lets the CPU be `count` devices (at most one for each core; None for that, at most 8).

    Many of a network's operations keep only one core busy; with a device for each core, the cores
    work on windows of their own. Does nothing once JAX has begun to use its devices, or where
    ``XLA_FLAGS`` says how many there are; other platforms are not touched.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    count = min(cores(), 8 if count is None else count)
    with contextlib.suppress(RuntimeError):  # too late: there are as many as there are
        jax.config.update("jax_num_cpu_devices", count)
