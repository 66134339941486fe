"""What lets a new UNet tell its frames apart.

Nothing in this network says which frame is which: temporal attention has no positions, and the
temporal convolutions only have the zeros beyond the first and the last frame. A large model finds
that out by itself. Ours is helped: before training, the first temporal convolutions of the network
are fitted to write each frame's place into some of their channels, whatever they are given. With
them a trial on one colour and one background learned the motion in 40 steps, without in 100.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from syncos_jax.models.unet_clip.unet3d import TemporalConvLayer, UNet3D

STEPS = 400
RATE = 3e-3
BATCH, SIDE = 8, 4  # of the random input
STRENGTH = 0.7  # of a mark, relative to an input of mean square one


def marks(frames: int, channels: int) -> np.ndarray:
    """Cosines over the frames in every eighth channel (four of them at least), else 0.

    Returns:
        ``[F, C]`` float32; the marked channels have a mean square of ``STRENGTH ** 2``.
    """
    count = max(4, channels // 8)
    waves = 1 + np.arange(count) % 4
    at = np.pi * (np.arange(frames)[:, None] + 0.5) / frames
    out = np.zeros((frames, channels), np.float32)
    out[:, :: channels // count][:, :count] = STRENGTH * np.sqrt(2) * np.cos(at * waves[None])
    return out


def mark_frames(unet: UNet3D, frames: int, seed: int = 0) -> None:
    """Fit the first temporal convolutions of the two finest levels and the middle, in place."""
    levels = [*unet.down_blocks[:2], unet.mid_block]
    for place, level in enumerate(levels):
        _fit(level.temp_convs[0], frames, jax.random.key(seed + place))


def _fit(layer: TemporalConvLayer, frames: int, key: jax.Array) -> None:
    channels = layer.conv1.norm.scale.shape[0]
    target = jnp.asarray(marks(frames, channels)).reshape(1, frames, 1, 1, channels)
    graph, params = nnx.split(layer)
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(RATE, STEPS))
    )

    def loss(params, x: jax.Array) -> jax.Array:
        return jnp.square(nnx.merge(graph, params)(x) - x - target).mean()

    def step(state, key: jax.Array):
        params, moments = state
        x = jax.random.normal(key, (BATCH, frames, SIDE, SIDE, channels))
        with jax.numpy_dtype_promotion("standard"):  # optax mixes float and integer counts
            updates, moments = optimiser.update(jax.grad(loss)(params, x), moments, params)
        return (optax.apply_updates(params, updates), moments), None

    keys = jax.random.split(key, STEPS)
    fitted = jax.jit(lambda state: jax.lax.scan(step, state, keys)[0][0])
    nnx.update(layer, fitted((params, optimiser.init(params))))
