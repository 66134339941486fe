"""Devices and hosts: meshes, where arrays lie, and the player as a program of many devices.

The clips of a row (its windows, with guidance twice as many) are split over the devices; each calls
the network on its share, and one ``all_gather`` of the predictions gives every device all of them.
What follows (guidance, fusing, the collaborative score, the optimiser) is small beside the network
and computed by every device for itself. Fusing locally and a sum (``psum``) would exchange fewer
bytes in a pass of co-denoising, but the refinement needs all windows anyway, and a sum would depend
on the number of devices in its last bits. `benchmarks/communication.py` counts the bytes.

The tape, and so the carry, are the same for any number of devices. Hosts work together through
``jax.distributed``; every process runs the same program.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from typing import Any, Literal, get_args

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from syncos_jax.errors import InputError
from syncos_jax.sampling.scan import Bad, Carry, Inputs, Program, loop_rows, scan_rows
from syncos_jax.sampling.tape import Row

Parallel = Literal["shard_map", "pmap"]

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


def no_platform(error: BaseException) -> str | None:
    """What to say where JAX has no device of the platform that it was told to use; None for errors
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


@dataclass(frozen=True)
class Rules:
    """Which mesh axis each axis of the arrays is split over; None for none: a copy on each device.

    Attributes:
      video: videos of a batch.
      window: windows of a row.
      feature: last axis of each weight that has more than one axis and can be divided so. With
        ``"model"``, a network that is too large for one device is spread over that axis; XLA
        inserts the exchange.
    """

    video: str | None = DATA
    window: str | None = SEGMENT
    feature: str | None = None

    def __post_init__(self) -> None:
        taken: dict[str, str] = {}
        for field in fields(self):
            axis = getattr(self, field.name)
            if axis in taken:
                raise InputError(
                    f"Rules: {taken[axis]} and {field.name} are both split over the mesh axis "
                    f"{axis!r}; give each its own"
                )
            if axis is not None:
                taken[axis] = field.name

    def check(self, mesh: Mesh) -> None:
        """InputError where `mesh` has no such axis."""
        for field in fields(self):
            axis = getattr(self, field.name)
            if axis is not None and axis not in mesh.axis_names:
                raise InputError(
                    f"Rules: {field.name} is split over {axis!r}, but the mesh has the axes "
                    f"{', '.join(map(str, mesh.axis_names))}"
                )

    def weights(self, mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
        """Where a weight of `shape` lies."""
        split = self.feature is not None and len(shape) > 1
        if split and shape[-1] % mesh.shape[self.feature] == 0:
            return NamedSharding(mesh, P(*[None] * (len(shape) - 1), self.feature))
        return NamedSharding(mesh, P())


REPLICATED = Rules()
"""The default: windows and videos are split, every device has all the weights."""


@dataclass(frozen=True)
class Spread:
    """How a run is spread over devices.

    Attributes:
      mesh: the devices.
      parallel: ``"shard_map"``, or ``"pmap"``: the same function, called by ``jax.pmap``.
      rules: mesh axes of windows, videos and weights.
      batched: whether there are several videos, each with its own part of the devices. A single
        one has all of them.
    """

    mesh: Mesh
    parallel: Parallel = "shard_map"
    rules: Rules = REPLICATED
    batched: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.mesh, Mesh):
            raise InputError(f"mesh must be a jax.sharding.Mesh (make_mesh), got {self.mesh!r}")
        if self.parallel not in get_args(Parallel):
            raise InputError(
                f"parallel: unknown {self.parallel!r}; one of {', '.join(get_args(Parallel))}"
            )
        self.rules.check(self.mesh)
        if self.parallel == "pmap" and (self.batched or self.rules.feature):
            raise InputError(
                "parallel: pmap splits the windows of one video only; take shard_map for a batch "
                "of videos or for weights that are split"
            )
        if self.batched and self.rules.video is None:
            raise InputError("Rules: video is None; a batch of videos needs a mesh axis")

    @property
    def split(self) -> tuple[str, ...]:
        """Mesh axes that a row's windows are split over."""
        if self.parallel == "pmap":
            return (SEGMENT,)
        axes = (self.rules.window,) if self.batched else (self.rules.video, self.rules.window)
        return tuple(axis for axis in axes if axis is not None)

    @property
    def videos(self) -> int:
        """Videos of a batch."""
        return self.mesh.shape[self.rules.video] if self.batched else 1

    @property
    def _mesh_here(self) -> Mesh:
        # What pmap is given lies on the devices of the process alone.
        return self.mesh.local_mesh if self.parallel == "pmap" else self.mesh

    @property
    def devices_here(self) -> int:
        """Devices that `divide` divides among."""
        return self._mesh_here.size

    def place(self, tree: Any) -> Any:
        """The same values on every device."""
        sharding = NamedSharding(self._mesh_here, P())
        return jax.tree.map(lambda leaf: put(leaf, sharding), tree)

    def divide(self, x: np.ndarray) -> jax.Array:
        """`x` with its leading axis divided among the devices (`devices_here` divides it)."""
        return put(x, NamedSharding(self._mesh_here, P(self._mesh_here.axis_names)))

    def place_videos(self, tree: Any) -> Any:
        """Arrays with the videos of a batch as leading axis, each on the devices of its video."""
        if not self.batched:
            return self.place(tree)
        sharding = NamedSharding(self.mesh, P(self.rules.video))
        return jax.tree.map(lambda leaf: put(leaf, sharding), tree)

    def place_weights(self, params: Any) -> Any:
        """Weights where the rules want them; those that lie there already are not copied."""
        if self.parallel == "pmap":
            return self.place(params)
        return jax.tree.map(
            lambda leaf: put(leaf, self.rules.weights(self.mesh, np.shape(leaf))), params
        )

    def gathered(self, x: jax.Array) -> jax.Array:
        """`x` in full on every device, so that any process can read it."""
        if x.is_fully_replicated:
            return x
        return _copy_to(NamedSharding(self._mesh_here, P()))(x)


@lru_cache(maxsize=8)
def _copy_to(sharding: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda x: x, out_shardings=sharding)


def put(x: Any, sharding: NamedSharding) -> jax.Array:
    """An array that every process has, as one array of all processes."""
    if isinstance(x, jax.Array):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(x), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        if x.sharding.is_equivalent_to(sharding, x.ndim):
            return x
        if not x.is_fully_addressable and x.sharding.device_set == sharding.device_set:
            return _copy_to(sharding)(x)
    if sharding.is_fully_addressable:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:  # of all processes: our copy
            x = x.addressable_data(0)
        return jax.device_put(x, sharding)
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


@lru_cache(maxsize=32)
def players(program: Program, spread: Spread) -> tuple[Any, Any]:
    """`syncos_jax.sampling.scan.play` and `play_part` as programs of many devices.

    Both give the carry and its `Bad`, the latter on all devices; both donate the carry.
    """

    def whole(carry: Carry, rows: Row, inputs: Inputs) -> tuple[Carry, Bad]:
        carry = scan_rows(carry, rows, inputs, program)
        return carry, Bad(carry.bad, carry.hit)

    def part(
        carry: Carry, rows: Row, start: jax.Array, stop: jax.Array, inputs: Inputs
    ) -> tuple[Carry, Bad]:
        carry = loop_rows(carry, rows, start, stop, inputs, program)
        return carry, Bad(carry.bad, carry.hit)

    if spread.parallel == "pmap":
        return _pmapped(whole, 3, spread), _pmapped(part, 5, spread)
    video = P(spread.rules.video) if spread.batched else P()
    specs: tuple[Any, ...] = (P(), video, video, video, P(), P(), P(), video)
    of_inputs = Inputs(*specs)
    return (
        _shard_mapped(whole, (video, video, of_inputs), spread),
        _shard_mapped(part, (video, video, P(), P(), of_inputs), spread),
    )


def _shard_mapped(function: Callable, in_specs: tuple, spread: Spread) -> Callable:
    video = in_specs[0]

    def per_device(*args: Any) -> tuple[Carry, Bad]:
        if not spread.batched:
            return function(*args)
        # A device has one video of the batch; its leading axis is taken off and put back.
        first = partial(jax.tree.map, lambda leaf: leaf[0])
        carry, rows, *bounds, inputs = args
        own = {name: first(getattr(inputs, name)) for name in ("cond", "uncond", "key")}
        own["step_noise"] = first(inputs.step_noise)
        carry, bad = function(first(carry), first(rows), *bounds, inputs._replace(**own))
        bad = jax.tree.map(lambda leaf: lax.all_gather(leaf, spread.rules.video), bad)
        return jax.tree.map(lambda leaf: leaf[None], carry), bad

    mapped = jax.shard_map(
        per_device,
        mesh=spread.mesh,
        in_specs=in_specs,
        out_specs=(video, P()),
        # A `model` axis stays with XLA, which splits the network along its weights.
        axis_names=set(spread.mesh.axis_names) - {spread.rules.feature},
        # That the outputs are alike on all devices is known (they come from gathered outputs and
        # from equal inputs), but not to the checker, which takes a gathered array for varying.
        check_vma=False,
    )
    shardings = (NamedSharding(spread.mesh, video), NamedSharding(spread.mesh, P()))
    return jax.jit(mapped, donate_argnums=0, out_shardings=shardings)


def _pmapped(function: Callable, count: int, spread: Spread) -> Callable:
    # pmap wants one argument that is mapped; all others are the same on every device.
    mapped = jax.pmap(
        lambda _, *args: function(*args),
        axis_name=SEGMENT,
        in_axes=(0, *[None] * count),
        out_axes=None,
        devices=tuple(spread.mesh.devices.flat),
        donate_argnums=1,
    )
    here = np.zeros(len(spread.mesh.local_mesh.devices.flat), np.int32)
    return lambda *args: mapped(here, *args)


def initialize(
    coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins this process to those of the other hosts; before anything else of JAX is used.

    Args:
      coordinator: ``HOST:PORT`` of process 0; with the other two None, JAX reads the environment
        of SLURM, Open MPI, Kubernetes or Cloud TPU.
      processes: how many there are.
      process_id: which one this is, from 0.

    Raises:
      InputError: if arguments are missing or wrong, there is no such environment, or the others
        do not come.
    """
    given = (coordinator, processes, process_id)
    if any(value is not None for value in given):
        if coordinator is None or processes is None or process_id is None:
            raise InputError(
                "distributed: coordinator (HOST:PORT), processes and process_id go together; give "
                "all three, or none where the cluster's environment says them"
            )
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise InputError(f"coordinator: must be HOST:PORT, got {coordinator!r}")
        if not 0 <= process_id < processes:
            raise InputError(
                f"process_id: is {process_id} of {processes} processes; give 0 to {processes - 1}"
            )
    try:
        jax.distributed.initialize(coordinator, processes, process_id)
    except (ValueError, RuntimeError) as error:
        remedy = (
            "is process 0 running, and its port open?"
            if coordinator
            else "no cluster was found in the environment; give coordinator, processes and "
            "process_id"
        )
        raise InputError(f"distributed: {remedy} ({error})") from None


def is_main_process() -> bool:
    """Whether this process writes the files: the first of several, or the only one."""
    return jax.process_index() == 0


def agreed(value: int) -> int:
    """The first process's number, in all of them."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
