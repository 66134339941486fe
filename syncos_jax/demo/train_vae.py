"""Training of the demo model's autoencoder on single frames of the world."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.demo.loop import Training
from syncos_jax.demo.sizes import DemoSizes
from syncos_jax.models.vae import AutoencoderKL
from syncos_jax.world import render, sample_scene

KL_WEIGHT = 1e-4
LATENT_NOISE = (
    0.05  # of the latents' standard deviation; makes the decoder forgive the UNet's errors
)


def frames(sizes: DemoSizes, seed: tuple[int, int]) -> Iterator[np.ndarray]:
    """Batches of frames ``[n, H, W, 3]`` float32 in [-1, 1], without end."""
    rng = np.random.default_rng(seed)
    while True:
        clips = render([sample_scene(rng) for _ in range(sizes.vae_batch // 4)])
        picked = clips[:, rng.permutation(clips.shape[1])[:4]]
        yield picked.reshape(-1, *clips.shape[2:]).astype(np.float32) / np.float32(127.5) - 1


def train_vae(sizes: DemoSizes, folder: Path, steps: int, seed: int = 0) -> AutoencoderKL:
    """Train (or resume) in ``folder``; returns the network with its averaged weights."""
    folder.mkdir(parents=True, exist_ok=True)
    graph, params = nnx.split(AutoencoderKL(sizes.vae, rngs=nnx.Rngs(seed)))

    def loss(params, images: jax.Array, key: jax.Array) -> jax.Array:
        vae = nnx.merge(graph, params)
        mean, logvar = vae.encode(images)
        spread = jnp.exp(0.5 * logvar) + LATENT_NOISE * jax.lax.stop_gradient(mean.std())
        decoded = vae.decode(mean + spread * jax.random.normal(key, mean.shape))
        error = jnp.abs(decoded - images).mean() + jnp.square(decoded - images).mean()
        divergence = 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1 - logvar).mean()
        return error + KL_WEIGHT * divergence

    training = Training(folder, steps, sizes.vae_rate, loss)
    return nnx.merge(graph, training.run(params, lambda start: frames(sizes, (seed, start)), seed))
