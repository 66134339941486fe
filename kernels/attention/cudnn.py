"""cuDNN's fused attention on NVIDIA GPUs."""

import jax
import jax.numpy as jnp

from syncos_jax.kernels import cuda
from syncos_jax.kernels.choice import Shaped

MOST = 128
"""Largest head size."""


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """``q [b, T, N, D], k and v [b, S, N, D] -> [b, T, N, D]``, scaled by ``1 / sqrt(D)``."""
    with jax.numpy_dtype_promotion("standard"):
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")


def unsupported_reason(q: Shaped, keys: int) -> str | None:
    """Why it cannot compute `q` with as many keys; None where it can."""
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it computes in half precision, not in {q.dtype}"
    if q.shape[-1] % 8 or q.shape[-1] > MOST:
        return f"heads have {q.shape[-1]} features, but it takes multiples of 8 to {MOST}"
    if not _installed():
        return "the CUDA plugin of JAX, which brings cuDNN, is not installed"
    return cuda.unsupported_reason()


def _installed() -> bool:
    try:
        from jax._src.lib import cuda_versions
    except ImportError:
        return False
    return cuda_versions is not None
