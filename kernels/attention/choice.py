"""Which implementation computes an attention: by the platform that the program is lowered for."""

import math
from functools import partial
from typing import Any, Literal, get_args

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from syncos_jax.errors import InputError
from syncos_jax.kernels.attention import chunked, cudnn, flash, flat, plain

Implementation = Literal["plain", "chunked", "cudnn", "flash", "flat"]
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)

SMALL = 2**16
"""Scores of a head of which all are held anywhere: 256 tokens among themselves."""
CPU_SCORES = 2**23
"""Bytes of scores that are held at a time on a CPU: more do not stay in its caches."""

_PLATFORMS = {"cudnn": "cuda", "flash": "tpu", "flat": "tpu"}


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Softmax attention, unmasked, scaled by ``1 / sqrt(D)``; statistics in float32.

    Args:
        q: ``[b, T, N, D]``.
        k, v: ``[b, S, N, D]``, in the dtype of `q`.
        implementation: one of `IMPLEMENTATIONS`; None for what `choose` names for the platform that
            the program is lowered for, whatever devices the process has.

    Returns:
        ``[b, T, N, D]`` in the dtype of `q`.

    Raises:
        InputError: the one named is unknown or cannot compute these shapes.
        NotImplementedError: the program is lowered for a platform that it does not run on.
    """
    if implementation is not None:
        reason = unsupported_reason(implementation, q, k.shape[1])
        if reason is not None:
            raise InputError(f"attention: {implementation} cannot be used: {reason}")
    return _attention(q, k, v, implementation)


# Within a network that is compiled, equal shapes are traced and lowered once.
@partial(jax.jit, static_argnums=3)
def _attention(
    q: jax.Array, k: jax.Array, v: jax.Array, implementation: Implementation | None
) -> jax.Array:
    if implementation is not None:
        platform = _PLATFORMS.get(implementation)
        attend = _ATTEND[implementation]
        if platform is None:
            return attend(q, k, v)
        return jax.lax.platform_dependent(q, k, v, **{platform: attend})
    keys = k.shape[1]
    others = _ATTEND[choose(q, keys, "other")]
    chosen = {name: _ATTEND[choose(q, keys, name)] for name in ("cpu", "cuda", "tpu")}
    return jax.lax.platform_dependent(q, k, v, **chosen, default=others)


def choose(q: Any, keys: int, platform: str) -> Implementation:
    """The implementation for q of a shape and dtype, with as many keys, on "cpu", "cuda", "tpu" or
    another platform."""
    T = q.shape[1]
    if platform == "cpu":
        return "chunked"
    if T * keys <= SMALL:
        return "plain"
    if platform == "cuda" and cudnn.unsupported_reason(q, keys) is None:
        return "cudnn"
    if platform == "tpu" and flat.unsupported_reason(q, keys) is None:
        return "flat"
    if platform == "tpu" and flash.unsupported_reason(q, keys) is None:
        return "flash"
    return "chunked"


def unsupported_reason(implementation: str, q: Any, keys: int) -> str | None:
    """Why an implementation cannot compute q of a shape and dtype; None where it can."""
    if implementation not in IMPLEMENTATIONS:
        return f"there is none of that name; known: {', '.join(IMPLEMENTATIONS)}"
    of_kernel: Any = {
        "cudnn": cudnn.unsupported_reason,
        "flash": flash.unsupported_reason,
        "flat": flat.unsupported_reason,
    }.get(implementation)
    return None if of_kernel is None else of_kernel(q, keys)


def _divided(attend: Any, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """`attend`; where axes of the mesh are left to the compiler (weights that are divided,
    frames that are decoded), each device has some of the heads or of the batch, since the compiler
    cannot divide a kernel."""
    mesh = jax.sharding.get_abstract_mesh()
    left = tuple(
        name
        for name, kind in zip(mesh.axis_names, mesh.axis_types or (), strict=True)
        if kind == AxisType.Auto
    )
    if all(mesh.shape[name] == 1 for name in left):
        return attend(q, k, v)
    devices = math.prod(mesh.shape[name] for name in left)
    split = P()
    if q.shape[2] % devices == 0:
        split = P(None, None, left)
    elif q.shape[0] % devices == 0:
        split = P(left)
    return jax.shard_map(
        attend,
        in_specs=(split,) * 3,
        out_specs=split,
        axis_names=set(left),
        check_vma=False,
    )(q, k, v)


def _chunked(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """`chunked.attend`, with as many scores as suit the platform."""
    on_cpu = partial(chunked.attend, scores=CPU_SCORES)
    return jax.lax.platform_dependent(q, k, v, cpu=on_cpu, default=chunked.attend)


def _flat(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """`flat.attend`, where a device's own heads suit it."""
    able = flat.unsupported_reason(q, k.shape[1]) is None
    return flat.attend(q, k, v) if able else flash.attend(q, k, v)


_ATTEND: dict[str, Any] = {
    "plain": plain.attend,
    "chunked": _chunked,
    "cudnn": cudnn.attend,
    "flash": partial(_divided, flash.attend),
    "flat": partial(_divided, _flat),
}
