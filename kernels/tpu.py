"""What the Pallas kernels for TPUs share."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from syncos_jax.errors import InputError

FAST_MEMORY = 48 * 2**20
"""Bytes of a core's fast memory (VMEM) that a kernel may use; from v5e on there are 64 MiB or
more."""
WEIGHTS = 16 * 2**20
"""Bytes of weights that a kernel may hold there."""


def whole() -> pl.BlockSpec:
    """An array that lies in the fast memory while the kernel runs."""
    return pl.BlockSpec(memory_space=pltpu.VMEM)


def parameters(axes: int) -> pltpu.CompilerParams:
    """For a grid of so many axes, whose blocks do not depend on one another."""
    return pltpu.CompilerParams(
        dimension_semantics=(pltpu.PARALLEL,) * axes, vmem_limit_bytes=FAST_MEMORY
    )


def bytes_of(*arrays: Any) -> int:
    """Of all of them."""
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(arrays))


def why_not(weights: Any) -> str | None:
    """Why no kernel can hold these weights in a program of this mesh; None where one can."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types or (), strict=True)
    auto = jax.sharding.AxisType.Auto
    if any(kind == auto and mesh.shape[name] > 1 for name, kind in kinds):
        return "axes of the mesh are left to the compiler, which cannot divide a kernel"
    held = bytes_of(weights)
    if held > WEIGHTS:
        return f"its weights ({held >> 20} MiB) are more than it can hold in the fast memory"
    return None


def with_gradient(kernel: Callable[..., jax.Array], reference: Callable[..., jax.Array]) -> Any:
    """`kernel`, with the gradient of `reference`, which computes the same from the same arrays."""

    @jax.custom_vjp
    @functools.wraps(kernel)
    def function(*arrays: Any) -> jax.Array:
        return kernel(*arrays)

    def forward(*arrays: Any) -> tuple[jax.Array, tuple[Any, ...]]:
        return kernel(*arrays), arrays

    def backward(arrays: tuple[Any, ...], gradient: jax.Array) -> tuple[Any, ...]:
        return jax.vjp(reference, *arrays)[1](gradient)

    function.defvjp(forward, backward)
    return function


def choose(
    operation: str,
    ways: dict[str, Callable[..., jax.Array]],
    implementation: str | None,
    reason: str | None,
    *arrays: Any,
) -> jax.Array:
    """Computes by "plain" or "fused", of which the second is a kernel for TPUs.

    Args:
        operation: as errors name it.
        ways: both functions.
        implementation: None for the kernel where the program is lowered for a TPU and there is no
            reason against it.
        reason: why the kernel cannot compute these arrays; None where it can.
        arrays: what the functions take.

    Raises:
        InputError: the one named is unknown or cannot compute these arrays.
        NotImplementedError: the program is lowered for another platform.
    """
    if implementation is not None and implementation not in ways:
        known = ", ".join(ways)
        raise InputError(f"{operation}: no implementation {implementation!r}; known: {known}")
    if implementation == "fused" and reason:
        raise InputError(f"{operation}: fused cannot be used: {reason}")
    if implementation == "plain" or (implementation is None and reason):
        return ways["plain"](*arrays)
    others = {} if implementation else {"default": ways["plain"]}
    return jax.lax.platform_dependent(*arrays, tpu=ways["fused"], **others)
