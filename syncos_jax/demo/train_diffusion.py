"""Training of the demo model's UNet on encoded clips of the world; its text encoder comes first."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.demo.clips import batches, encode_bank
from syncos_jax.demo.frames import mark_frames
from syncos_jax.demo.loop import Training
from syncos_jax.demo.sizes import DemoSizes
from syncos_jax.demo.train_text import train_text
from syncos_jax.models.clip_text import CLIPTextEncoder
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet_clip.model import UNetClip
from syncos_jax.models.unet_clip.unet3d import UNet3D
from syncos_jax.models.unet_clip.vae import AutoencoderKL
from syncos_jax.sampling.schedule import NoiseSchedule

TEXT_STEPS = 1500
LESSON_AT = 1500  # of a new network's steps: it should know colours and places by then

# The diffusion process: the usual rates, v-prediction; arguments of ``NoiseSchedule.from_betas``.
SCHEDULE: dict[str, Any] = {
    "betas": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "train_steps": 1000,
    "prediction": "v",
    "spacing": "leading",
    "offset": 1,
    "final_timestep": None,
    "zero_terminal_snr": False,
}


def zero_last(unet: UNet3D) -> None:
    """Start every branch at zero, as the reference networks do: much better to train from."""
    layers: list[Any] = [unet.conv_out, unet.transformer_in.proj_out]
    levels: list[Any] = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    for level in levels:
        layers += [block.conv2 for block in level.resnets]
        layers += [block.conv4.conv for block in level.temp_convs]
        layers += [block.proj_out for block in (*level.attentions, *level.temp_attentions)]
    for layer in layers:
        layer.kernel.set_value(jnp.zeros_like(layer.kernel[...]))


def frame_timesteps(
    key: jax.Array, u: jax.Array, noisy: jax.Array, frames: int, total: int
) -> jax.Array:
    """Timesteps ``[B, F]`` to train at, of draws ``u [B]`` in 0..1.

    Those that are ``noisy [B]`` have one for all frames, in the highest 15 % of the schedule. Of
    the others six in ten have one for all frames, as in sampling, four in ten of them above 85 %
    of the schedule, where the caption tells what the noisy clip does not. In three in ten one frame
    is nearly clean, mostly the first or the last, and the others very noisy: then what the caption
    says of the motion decides where the subject is in all the rest. In one in ten the frames are
    independent (Diffusion Forcing, arXiv 2407.01392), as diagonal denoising wants it.
    """
    B = u.shape[0]
    key_kind, key_anchor, key_end, key_low, key_free = jax.random.split(key, 5)
    kind = jax.random.uniform(key_kind, (B, 1))
    anchor = jax.random.randint(key_anchor, (B, 1), 0, frames)
    end = jax.random.uniform(key_end, (B, 1))
    anchor = jnp.where(end < 0.3, 0, jnp.where(end < 0.6, frames - 1, anchor))
    low = 0.3 * jax.random.uniform(key_low, (B, 1))
    late = lambda u: 1 - jnp.square(1 - u)  # noqa: E731
    shared = jnp.broadcast_to(late(u)[:, None], (B, frames))
    anchored = jnp.where(anchor == jnp.arange(frames)[None], low, late(shared))
    free = late(jax.random.uniform(key_free, (B, frames)))
    level = jnp.where(kind < 0.6, shared, jnp.where(kind < 0.9, anchored, free))
    highest = jnp.broadcast_to(1 - 0.15 * jnp.square(u)[:, None], (B, frames))
    level = jnp.where(noisy[:, None] > 0, highest, level)
    return jnp.minimum((level * total).astype(jnp.int32), total - 1)


class TextToVideo(nnx.Module):
    """The two networks that make clips of captions."""

    def __init__(self, sizes: DemoSizes, vocabulary: int, *, rngs: nnx.Rngs):
        self.unet = UNet3D(sizes.unet, rngs=rngs)
        self.text_encoder = CLIPTextEncoder(sizes.text(vocabulary), rngs=rngs)


def train_diffusion(
    sizes: DemoSizes,
    vae: AutoencoderKL,
    tokenizer: PromptTokenizer,
    folder: Path,
    steps: int,
    seed: int = 0,
    first: UNetClip | None = None,
) -> tuple[TextToVideo, float]:
    """Train (or resume) in ``folder``, from random weights or those of ``first``.

    Returns:
        The networks with their averaged weights, and the latents' scale (one over their standard
        deviation), which the diffusion was trained with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    latents, scenes = encode_bank(vae, sizes.bank, seed, folder / "bank.npy")
    scale = float(np.float32(1 / latents[:4096].astype(np.float32).std()))
    model = TextToVideo(sizes, tokenizer.vocabulary, rngs=nnx.Rngs(seed))
    zero_last(model.unet)
    known, lesson_at = False, LESSON_AT
    if first is not None:
        scale = first.config.latent_scale
        if first.config.unet == sizes.unet and first.config.text == model.text_encoder.config:
            model.unet, model.text_encoder = first.unet, first.text_encoder
            known, lesson_at = True, 0
    if not known:
        mark_frames(model.unet, frames=latents.shape[1], seed=seed)
        model.text_encoder = train_text(
            model.text_encoder, tokenizer, folder.with_name("text"), TEXT_STEPS, seed
        )
    graph, params = nnx.split(model.unet)
    schedule = NoiseSchedule.from_betas(**SCHEDULE)
    signal = jnp.asarray(schedule.signal, jnp.float32)
    noise = jnp.asarray(schedule.noise, jnp.float32)

    def loss(params, batch, key: jax.Array) -> jax.Array:
        x0 = batch.latents * scale
        key_t, key_frames, key_noise = jax.random.split(key, 3)
        B = x0.shape[0]
        # One draw in each of B equal intervals: less spread than B free draws.
        u = (jnp.arange(B) + jax.random.uniform(key_t, (B,))) / B
        t = frame_timesteps(key_frames, u, batch.noisy, x0.shape[1], signal.shape[0])
        a, b = signal[t][..., None, None, None], noise[t][..., None, None, None]
        eps = jax.random.normal(key_noise, x0.shape)
        # The text encoder stays as it is. Trained along, it forgets: Adam's steps are as long where
        # the gradient is mostly noise, and most of what told the motion was gone in 300 steps.
        text = model.text_encoder(batch.ids)
        prediction = nnx.merge(graph, params)(a * x0 + b * eps, t, text)
        return jnp.square(prediction - (a * eps - b * x0)).mean()

    average = Training(folder, steps, sizes.rate, loss).run(
        params,
        lambda start: batches(latents, scenes, tokenizer, sizes.batch, (seed, start), lesson_at),
        seed,
    )
    model.unet = nnx.merge(graph, average)
    return model, scale
