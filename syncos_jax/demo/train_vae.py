"""Training of the demo model's autoencoder on single frames of the world."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.demo.loop import Training
from syncos_jax.demo.sizes import DemoSizes
from syncos_jax.demo.world import BACKGROUNDS, CLIP_FRAMES, backgrounds, render, sample_scene
from syncos_jax.models.unet_clip.model import UNetClip
from syncos_jax.models.unet_clip.vae import AutoencoderKL

KL_WEIGHT = 5e-4
SUBJECT_WEIGHT = 8.0
LATENT_NOISE = (
    0.05  # of the latents' standard deviation; makes the decoder forgive the UNet's errors
)


def frames(sizes: DemoSizes, seed: tuple[int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches without end: frames ``[n, H, W, 3]`` in [-1, 1], weights ``[n, H, W, 1]``, float32.

    The subject covers a twentieth of a frame and carries nearly all that a caption tells, so its
    pixels weigh more.
    """
    rng = np.random.default_rng(seed)
    plain = dict(zip(BACKGROUNDS, backgrounds(), strict=True))
    while True:
        scenes = [sample_scene(rng) for _ in range(sizes.vae_batch // 4)]
        clips = render(scenes)[:, rng.permutation(CLIP_FRAMES)[:4]].astype(np.float32)
        behind = np.stack([plain[scene.background] for scene in scenes])[:, None]
        subject = np.abs(clips - behind.astype(np.float32)).max(axis=-1, keepdims=True) > 8
        weights = np.where(subject, np.float32(SUBJECT_WEIGHT), np.float32(1))
        images = clips / np.float32(127.5) - 1
        yield images.reshape(-1, *images.shape[2:]), weights.reshape(-1, *weights.shape[2:])


def train_vae(
    sizes: DemoSizes, folder: Path, steps: int, seed: int = 0, first: UNetClip | None = None
) -> AutoencoderKL:
    """Train (or resume) in ``folder``, from random weights or those of ``first``.

    Returns the network with its averaged weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network = first.vae if first else AutoencoderKL(sizes.vae, rngs=nnx.Rngs(seed))
    graph, params = nnx.split(network)

    def loss(params, batch: tuple[jax.Array, jax.Array], key: jax.Array) -> jax.Array:
        images, weights = batch
        vae = nnx.merge(graph, params)
        mean, logvar = vae.encode(images)
        spread = jnp.exp(0.5 * logvar) + LATENT_NOISE * jax.lax.stop_gradient(mean.std())
        decoded = vae.decode(mean + spread * jax.random.normal(key, mean.shape))
        difference = jnp.abs(decoded - images)
        error = (weights * (difference + jnp.square(difference))).mean()
        divergence = 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1 - logvar).mean()
        return error + KL_WEIGHT * divergence

    training = Training(folder, steps, sizes.vae_rate, loss)
    return nnx.merge(graph, training.run(params, lambda start: frames(sizes, (seed, start)), seed))
