"""cuDNN's fused attention on NVIDIA GPUs."""

import jax
import jax.numpy as jnp

MOST = 128
"""Largest head size."""


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """``q [b, T, N, D], k and v [b, S, N, D] -> [b, T, N, D]``, scaled by ``1 / sqrt(D)``."""
    with jax.numpy_dtype_promotion("standard"):
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")


def why_not(q: jax.ShapeDtypeStruct, keys: int) -> str | None:
    """Why it cannot compute `q` with as many keys; None where it can."""
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it computes in half precision, not in {q.dtype}"
    if q.shape[-1] % 8 or q.shape[-1] > MOST:
        return f"heads have {q.shape[-1]} features, but it takes multiples of 8 to {MOST}"
    if not _installed():
        return "the CUDA plugin of JAX, which brings cuDNN, is not installed"
    if _capability() < 8.0:
        return f"the GPU's compute capability is {_capability()}, but it needs 8.0 (Ampere)"
    return None


def _installed() -> bool:
    try:
        from jax._src.lib import cuda_versions
    except ImportError:
        return False
    return cuda_versions is not None


def _capability() -> float:
    """Of this process's GPU. Without one the program is compiled for another machine."""
    if jax.default_backend() != "gpu":
        return 8.0
    return float(getattr(jax.local_devices()[0], "compute_capability", "0"))
