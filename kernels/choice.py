"""Which of several implementations computes an operation: by the platform that the program is
lowered for, whatever devices the process has."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from syncos_jax.errors import InputError

Function = Callable[..., jax.Array]
Shaped = jax.Array | jax.ShapeDtypeStruct
"""Anything with a shape and a dtype."""

PLAIN = "plain"
"""The implementation that is the reference and runs everywhere."""


@dataclass(frozen=True)
class Kernel:
    """An implementation for one platform.

    Attributes:
        platform: "tpu" or "cuda".
        function: takes what the reference takes; has a gradient.
        reason: why it cannot compute these arrays; None where it can.
    """

    platform: str
    function: Function
    reason: str | None


def compute(
    operation: str,
    plain: Function,
    kernels: dict[str, Kernel],
    implementation: str | None,
    *arrays: Any,
) -> jax.Array:
    """Computes an operation.

    Args:
        operation: as errors name it.
        plain: the reference.
        kernels: other implementations by name, at most one for each platform.
        implementation: one of them, or "plain"; None for the kernel of the platform that the
            program is lowered for, where it can compute these arrays, else the reference.
        arrays: what all of them take.

    Raises:
        InputError: the one named is unknown or cannot compute these arrays.
        NotImplementedError: the program is lowered for a platform that it does not run on.
    """
    if implementation == PLAIN:
        return plain(*arrays)
    if implementation is not None:
        kernel = kernels.get(implementation)
        if kernel is None:
            known = ", ".join((PLAIN, *kernels))
            raise InputError(f"{operation}: no implementation {implementation!r}; known: {known}")
        if kernel.reason is not None:
            raise InputError(f"{operation}: {implementation} cannot be used: {kernel.reason}")
        return jax.lax.platform_dependent(*arrays, **{kernel.platform: kernel.function})
    able = {k.platform: k.function for k in kernels.values() if k.reason is None}
    if not able:
        return plain(*arrays)
    return jax.lax.platform_dependent(*arrays, default=plain, **able)


@functools.cache
def with_gradient(kernel: Function, reference: Function, **static: Any) -> Any:
    """`kernel`, with the gradient of `reference`, which computes the same from the same arrays.

    Args:
        kernel, reference: take arrays, and `static` by name.
        static: hashable.
    """
    kernel = functools.partial(kernel, **static)
    reference = functools.partial(reference, **static)

    @jax.custom_vjp
    def function(*arrays: Any) -> jax.Array:
        return kernel(*arrays)

    def forward(*arrays: Any) -> tuple[jax.Array, tuple[Any, ...]]:
        return kernel(*arrays), arrays

    def backward(arrays: tuple[Any, ...], gradient: jax.Array) -> tuple[Any, ...]:
        return jax.vjp(reference, *arrays)[1](gradient)

    function.defvjp(forward, backward)
    return function


def mesh_unsupported_reason() -> str | None:
    """Why no kernel can stand in a program of this mesh; None where one can."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types or (), strict=True)
    auto = jax.sharding.AxisType.Auto
    if any(kind == auto and mesh.shape[name] > 1 for name, kind in kinds):
        return "axes of the mesh are left to the compiler, which cannot divide a kernel"
    return None
