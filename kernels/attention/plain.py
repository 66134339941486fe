"""The reference: all scores at once, softmax in float32."""

import jax


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """``q [b, T, N, D], k and v [b, S, N, D] -> [b, T, N, D]``, scaled by ``1 / sqrt(D)``."""
    with jax.numpy_dtype_promotion("standard"):  # it mixes float32 scores with half precision
        return jax.nn.dot_product_attention(q, k, v, implementation="xla")
