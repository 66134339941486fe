"""Gaussian noise by counter, so that it depends on nothing but the seed.

Each frame of each draw has its own key, ``fold_in(fold_in(key, draw), frame)``: how many devices
there are, how windows are batched, or where a run was resumed cannot change the noise.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax.errors import InputError

INITIAL = 0
"""Draw number of the latents a video starts from."""

OWN = np.uint32(2**32 - 1)
"""Draw number of what frames do not share in them (`partly_shuffled`); no step has it."""

MAX_STEPS = 2**15 - 1
"""Most denoising steps for which `ddim_draw` and `baseline_draw` stay distinct."""


def ddim_draw(step: int) -> int:
    """Draw number of the noise that DDIM adds after a step when ``eta > 0``."""
    return 2 * step + 1


def baseline_draw(step: int, iteration: int = 0) -> int:
    """Draw number of a step's baseline noise (its first, unless the noise is not fixed)."""
    return 2 * step + 2 + (iteration << 16)


@partial(jax.jit, static_argnames=("frames", "frame_shape"))
def frame_noise(
    key: jax.Array, draw: jax.Array | int, *, frames: int, frame_shape: tuple[int, ...]
) -> jax.Array:
    """Standard normal noise for a whole video.

    Args:
      key: scalar PRNG key.
      draw: which draw, uint32 scalar.
      frames: length ``F``.
      frame_shape: ``(H, W, C)``.

    Returns:
      float32 ``[F, H, W, C]``.
    """
    of_draw = jax.random.fold_in(key, draw)

    def frame(number: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(of_draw, number), frame_shape, jnp.float32)

    # Not vmap: keys of the "rbg" kind draw something else under it.
    return jax.lax.map(frame, jnp.arange(frames))


def shuffled_frames(key: jax.Array, *, frames: int, window: int, stride: int) -> jax.Array:
    """Which frame's noise each frame of a video begins with, after FreeNoise.

    The first `window` frames have their own; each `stride` of frames after them has what the stride
    of frames one window before has, in a new order (Qiu et al., arXiv 2310.15169, equation 6).

    Args:
      key: scalar PRNG key; the order of every stride is counted from it.
      frames: length ``F``.
      window, stride: frames.

    Returns:
      int32 ``[F]``, all below `window`.
    """
    blocks = -(-max(0, frames - window) // stride)
    source = jnp.pad(jnp.arange(window, dtype=jnp.int32), (0, blocks * stride))

    def shuffle(block: jax.Array, source: jax.Array) -> jax.Array:
        before = jax.lax.dynamic_slice_in_dim(source, block * stride, stride)
        order = jax.random.permutation(jax.random.fold_in(key, block), before)
        return jax.lax.dynamic_update_slice_in_dim(source, order, window + block * stride, 0)

    return jax.lax.fori_loop(0, blocks, shuffle, source)[:frames]


def partly_shuffled(
    key: jax.Array, fresh: jax.Array, share: float, *, window: int, stride: int
) -> jax.Array:
    """Noise of which a share is that of the first clip's frames in a new order.

    Args:
      key: scalar PRNG key.
      fresh: independent noise, float32 ``[F, H, W, C]``.
      share: of the variance, 0 to 1.
      window, stride: frames.

    Returns:
      Standard normal noise ``[F, H, W, C]``.
    """
    order = shuffled_frames(key, frames=fresh.shape[0], window=window, stride=stride)
    if share == 1:
        return fresh[order]
    own = frame_noise(key, OWN, frames=fresh.shape[0], frame_shape=fresh.shape[1:])
    return np.float32(np.sqrt(share)) * fresh[order] + np.float32(np.sqrt(1 - share)) * own


_KEY_SHAPES = {"threefry2x32": (2,), "rbg": (4,), "unsafe_rbg": (4,)}
"""Generators and the shape of the data of their keys."""


def _generator_of(shape: tuple[int, ...]) -> str | None:
    """Generator of an old-style key: JAX's default where the shape fits, as in JAX itself."""
    default: str = jax.config.jax_default_prng_impl  # type: ignore[attr-defined]
    names = (default, *_KEY_SHAPES)
    return next((name for name in names if _KEY_SHAPES.get(name) == shape), None)


GENERATOR = "threefry2x32"
"""The generator of a video's noise (partitionable, as JAX has it by default)."""


def video_key(seed: int) -> jax.Array:
    """The key of a video's seed: of `GENERATOR`, whatever ``jax_default_prng_impl`` is."""
    return jax.random.key(seed, impl=GENERATOR)


def as_key(key: jax.Array) -> jax.Array:
    """Accepts ``jax.random.key(0)`` or an old-style ``PRNGKey(0)``; returns a typed scalar key.

    Raises:
      InputError: if it is neither.
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        typed = key
    else:
        data = key if isinstance(key, jax.Array) else np.asarray(key)
        impl = _generator_of(data.shape)
        if data.dtype != np.uint32 or impl is None:
            raise InputError(f"key must be a JAX PRNG key such as jax.random.key(0), got {key!r}")
        with jax.ensure_compile_time_eval():  # a known key stays known within a caller's jit
            typed = jax.random.wrap_key_data(jnp.asarray(data), impl=impl)
    if typed.shape != ():
        raise InputError(f"key must be one key, got an array of keys of shape {typed.shape}")
    return typed


def seed_words(key: jax.Array) -> tuple[int, ...]:
    """The key's content as integers, to seed what is drawn on the host."""
    with jax.ensure_compile_time_eval():  # within a caller's jit, too
        return tuple(int(word) for word in np.asarray(jax.random.key_data(key)).ravel())
