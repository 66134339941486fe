"""What the stages of the UNet's training share: the diffusion process, the networks, the loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from demo_model.sizes import DemoSizes
from syncos_jax.models.clip_text import CLIPTextEncoder
from syncos_jax.models.unet_clip.unet3d import UNet3D
from syncos_jax.sampling.schedule import NoiseSchedule

# Arguments of ``NoiseSchedule.from_betas``. With the usual last beta, 0.012, a subject this large
# is still seen at the last timestep (signal 0.07): the caption would not be needed in training, but
# in sampling, which begins with noise alone. With 0.02 the last signal is 0.015, not 0 (zero
# terminal SNR), by which the solvers of higher order would divide.
SCHEDULE: dict[str, Any] = {
    "betas": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.02,
    "train_steps": 1000,
    "prediction": "v",
    "spacing": "trailing",
    "offset": 1,
    "final_timestep": None,
    "zero_terminal_snr": False,
}


class TextToVideo(nnx.Module):
    """The two networks that make clips of captions."""

    def __init__(self, sizes: DemoSizes, vocabulary: int, *, rngs: nnx.Rngs):
        self.unet = UNet3D(sizes.unet, rngs=rngs)
        self.text_encoder = CLIPTextEncoder(sizes.text(vocabulary), rngs=rngs)


class _Through(nnx.Module):
    """Stands where a temporal layer was."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


def over_time(path: tuple, _value: Any) -> bool:
    """Whether a weight of the UNet, by its path, belongs to a layer that joins frames."""
    return any(part in ("temp_convs", "temp_attentions", "transformer_in") for part in path)


over_space = nnx.Not(over_time)
"""The other weights: those of layers that see one frame at a time."""


def _levels(unet: UNet3D) -> list[Any]:
    return [*unet.down_blocks, unet.mid_block, *unet.up_blocks]


def without_time(unet: UNet3D) -> nnx.GraphDef:
    """The graph of the network without its temporal layers: of images, an eighth of the work.

    It merges with what ``over_time`` leaves of the whole network's weights.
    """
    still = nnx.eval_shape(lambda: UNet3D(unet.config, rngs=nnx.Rngs(0)))
    still.transformer_in = nnx.data(None)
    for level in _levels(still):
        level.temp_convs = nnx.List([_Through() for _ in level.temp_convs])
        level.temp_attentions = nnx.List([_Through() for _ in level.temp_attentions])
    return nnx.graphdef(still)


def zero_last(unet: UNet3D) -> None:
    """Start every branch at zero, as the reference networks do: much better to train from."""
    first = unet.transformer_in
    layers: list[Any] = [unet.conv_out, *([] if first is None else [first.proj_out])]
    for level in _levels(unet):
        layers += [block.conv2 for block in level.resnets]
        layers += [block.conv4.conv for block in level.temp_convs]
        layers += [block.proj_out for block in (*level.attentions, *level.temp_attentions)]
    for layer in layers:
        layer.kernel.set_value(jnp.zeros_like(layer.kernel[...]))


def schedule_rates() -> tuple[jax.Array, jax.Array]:
    """Signal and noise rates ``[T]`` float32."""
    schedule = NoiseSchedule.from_betas(**SCHEDULE)
    return jnp.asarray(schedule.signal, jnp.float32), jnp.asarray(schedule.noise, jnp.float32)


def velocity_error(
    unet: Callable[..., jax.Array],
    x0: jax.Array,
    t: jax.Array,
    text: jax.Array,
    key: jax.Array,
    known: jax.Array | None = None,
) -> jax.Array:
    """Mean square error of the predicted ``v`` of each clip.

    Args:
        unet: ``(x [B, F, h, w, C], t [B, F], text [B, S, D]) -> like x``.
        x0: latents ``[B, F, h, w, C]``.
        t: timesteps ``[B, F]``.
        text: features of the captions ``[B, S, D]``.
        key: of the noise.
        known: ``[B, F]``, 1 for frames that enter clean, at timestep 0, as in sampling from a
            picture; their predictions do not count. None: no frame is known.

    Returns:
        ``[B]``.
    """
    signal, noise = schedule_rates()
    a, b = signal[t][..., None, None, None], noise[t][..., None, None, None]
    eps = jax.random.normal(key, x0.shape)
    x = a * x0 + b * eps
    if known is not None:
        t = jnp.where(known > 0, 0, t)
        x = jnp.where(known[..., None, None, None] > 0, x0, x)
    error = jnp.square(unet(x, t, text) - (a * eps - b * x0)).mean(axis=(2, 3, 4))
    if known is None:
        return error.mean(axis=1)
    return (error * (1 - known)).sum(axis=1) / (1 - known).sum(axis=1)
