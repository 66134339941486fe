"""Placement: which device has which arrays, and the scan as a program of many devices.

The samples of a call are divided over the devices; each calls the network on its share, and one
``all_gather`` of the predictions gives every device all of them. What follows (guidance, fusing,
the collaborative score, the optimiser) is small beside the network and computed by every device for
itself. Fusing locally and a sum (``psum``) would exchange fewer bytes in a pass of co-denoising,
but the refinement needs all windows anyway, and a sum would depend on the number of devices in its
last bits. `benchmarks/communication.py` counts the bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from typing import Any, Literal, get_args

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from syncos_jax.errors import InputError
from syncos_jax.sampling.devices import DATA, SEGMENT
from syncos_jax.sampling.loop import Carry, Failure, Inputs, Program, run_calls

Parallel = Literal["shard_map", "pmap"]


@dataclass(frozen=True)
class Rules:
    """Which mesh axis each axis of the arrays is split over; None for none: a copy on each device.

    Attributes:
      video: videos of a batch.
      window: samples of a call.
      feature: last axis of each weight that has more than one axis and can be divided so. With
        ``"model"``, a network that is too large for one device is spread over that axis; XLA
        inserts the exchange.

    Raises:
      InputError: if two axes of arrays are split over one axis of the mesh.
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
"""The default: samples and videos are divided, every device has all the weights."""


@dataclass(frozen=True)
class Placement:
    """How a run is placed on devices.

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
        if any(kind != AxisType.Auto for kind in self.mesh.axis_types):  # plain jax.make_mesh
            automatic = (AxisType.Auto,) * len(self.mesh.axis_names)
            mesh = Mesh(self.mesh.devices, self.mesh.axis_names, axis_types=automatic)
            object.__setattr__(self, "mesh", mesh)
        self.rules.check(self.mesh)
        if self.parallel == "pmap" and (self.batched or self.rules.feature):
            raise InputError(
                "parallel: pmap splits the windows of one video only; take shard_map for a batch "
                "of videos or for weights that are split"
            )
        if self.batched and self.rules.video is None:
            raise InputError("Rules: video is None; a batch of videos needs a mesh axis")

    @property
    def clip_axes(self) -> tuple[str, ...]:
        """Mesh axes that a call's samples are divided over."""
        if self.parallel == "pmap":
            return (SEGMENT,)
        axes = (self.rules.window,) if self.batched else (self.rules.video, self.rules.window)
        return tuple(axis for axis in axes if axis is not None)

    @property
    def num_clip_shards(self) -> int:
        """Devices that divide a call's samples."""
        if self.parallel == "pmap":
            return self.mesh.size
        return math.prod(self.mesh.shape[axis] for axis in self.clip_axes)

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

    def compiling(self) -> AbstractContextManager[Any]:
        """Within it, programs that leave their division to the compiler know the devices."""
        return jax.set_mesh(self._mesh_here)

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
        """Weights placed by the rules; those already in place are not copied."""
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
        # Equal, not only equivalent: a program is traced anew for an equivalent one.
        if x.sharding == sharding:
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
def compiled(program: Program, placement: Placement) -> Callable[..., tuple[Carry, Failure]]:
    """`run_calls` as a program of the placement's devices, ``(carry, (calls, updates), (start,
    stop), inputs) -> (carry, failure)``: the failure on all devices, the carry donated."""

    def part(carry: Carry, schedule: Any, bounds: Any, inputs: Inputs) -> tuple[Carry, Failure]:
        return run_calls(carry, schedule, bounds, inputs, program)

    if placement.parallel == "pmap":
        return _pmapped(part, placement)
    return _shard_mapped(part, placement)


PER_VIDEO = ("cond", "key", "step_noise", "constants", "known", "window_cond")
"""The `Inputs` that each video of a batch has for itself."""


def _shard_mapped(function: Callable, placement: Placement) -> Callable:
    mesh, batched = placement.mesh, placement.batched
    video = P(placement.rules.video) if batched else P()
    each: dict[str, Any] = {name: video if name in PER_VIDEO else P() for name in Inputs._fields}
    of_inputs = Inputs(**each)

    def per_device(carry: Any, schedule: Any, bounds: Any, inputs: Inputs) -> Any:
        if not batched:
            return function(carry, schedule, bounds, inputs)
        # A device has one video of the batch; its leading axis is removed and added again.
        first = partial(jax.tree.map, lambda leaf: leaf[0])
        own = inputs._replace(**{name: first(getattr(inputs, name)) for name in PER_VIDEO})
        carry, failure = function(first(carry), first(schedule), bounds, own)
        failure = jax.tree.map(lambda leaf: lax.all_gather(leaf, placement.rules.video), failure)
        return jax.tree.map(lambda leaf: leaf[None], carry), failure

    mapped = jax.shard_map(
        per_device,
        mesh=mesh,
        in_specs=(video, video, P(), of_inputs),
        out_specs=(video, P()),
        # A `model` axis stays with XLA, which splits the network along its weights.
        axis_names=set(mesh.axis_names) - {placement.rules.feature},
        # Outputs are equal on all devices (they come from gathered outputs and equal inputs), but
        # the checker takes a gathered array for varying.
        check_vma=False,
    )
    shardings = (NamedSharding(mesh, video), NamedSharding(mesh, P()))
    return jax.jit(mapped, donate_argnums=0, out_shardings=shardings)


def _pmapped(function: Callable, placement: Placement) -> Callable:
    # pmap needs one mapped argument; all others are equal on every device.
    mapped = jax.pmap(
        lambda _, *args: function(*args),
        axis_name=SEGMENT,
        in_axes=(0, *[None] * 4),
        out_axes=None,
        devices=tuple(placement.mesh.devices.flat),
        donate_argnums=1,
    )
    here = np.zeros(len(placement.mesh.local_mesh.devices.flat), np.int32)
    # Its results lie on a mesh of its own, and would be traced again if passed so. Not copied.
    return lambda *args: placement.place(mapped(here, *args))
