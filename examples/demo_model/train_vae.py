"""Training of the demo model's autoencoder on single frames of the world."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from demo_model.loop import Training
from demo_model.sizes import DemoSizes, Stage
from demo_model.world import Scene, Subjects, render, sample_scene
from demo_model.world.objects import SCENERY, scenery
from syncos_jax.metrics.world import CLIP_FRAMES
from syncos_jax.models.unet_clip.vae import AutoencoderKL

KL_WEIGHT = 1e-4
SUBJECT_WEIGHT = 8.0
EDGE_WEIGHT = 0.5  # of the errors of differences between neighbours: edges, in place of halos
OUTLINE = 2  # pixels around a subject that weigh as much as the subject
# Of the latents' standard deviation; makes the decoder forgive the UNet's errors.
LATENT_NOISE = 0.05
NORM_FRAMES = 1024  # frames that the latents' mean and standard deviation are taken of

Batch = tuple[Any, Any]


def stills(rng: np.random.Generator, number: int, subjects: Subjects) -> list[Scene]:
    """Scenes whose first frames are random frames of random clips."""
    return [sample_scene(rng, subjects).at(int(rng.integers(CLIP_FRAMES))) for _ in range(number)]


def frames(batch: int, subjects: Subjects, seed: tuple[int, ...]) -> Iterator[Batch]:
    """Batches without end: frames ``[n, H, W, 3]`` in [-1, 1], subjects ``[n, H, W, 1]``, float32.

    The second is 1 where a subject is, else 0.
    """
    rng = np.random.default_rng(seed)
    plain = dict(zip(SCENERY, scenery(), strict=True))
    while True:
        scenes = stills(rng, batch, subjects)
        images = render(scenes, frames=1)[:, 0].astype(np.float32)
        behind = np.stack([plain[scene.background] for scene in scenes])
        subject = np.abs(images - behind).max(axis=-1, keepdims=True) > 8
        yield images / np.float32(127.5) - 1, subject.astype(np.float32)


def reconstruction_error(decoded: jax.Array, batch: Batch) -> jax.Array:
    """Absolute and square error, and that of the differences between neighbouring pixels.

    The subject covers a tenth of a frame and carries nearly all that a caption tells, so its pixels
    and its outline weigh more.
    """
    images, subject = batch
    side = 2 * OUTLINE + 1
    near = jax.lax.reduce_window(
        subject, np.float32(0), jax.lax.max, (1, side, side, 1), (1, 1, 1, 1), "SAME"
    )
    weights = 1 + (SUBJECT_WEIGHT - 1) * near
    off = decoded - images
    error = (weights * (jnp.abs(off) + jnp.square(off))).mean()
    for axis in (1, 2):
        steps = jnp.abs(jnp.diff(off, axis=axis))
        inner = jax.lax.slice_in_dim(weights, 1, weights.shape[axis], axis=axis)
        error += EDGE_WEIGHT * (inner * steps).mean()
    return error


def train_vae(sizes: DemoSizes, folder: Path, seed: int = 0) -> AutoencoderKL:
    """Train (or resume) from random weights, in ``folder`` and ``folder-decoder``.

    Returns the network with its averaged weights, whose latents have mean 0 and variance 1 in every
    channel.
    """
    vae = AutoencoderKL(sizes.vae, rngs=nnx.Rngs(seed))
    _train_whole(vae, sizes, folder, seed)
    _train_decoder(vae, sizes, folder.with_name(f"{folder.name}-decoder"), seed)
    normalise_latents(vae, sizes.subjects, seed)
    return vae


def _noisy(mean: jax.Array, logvar: jax.Array, key: jax.Array) -> jax.Array:
    spread = jnp.exp(0.5 * logvar) + LATENT_NOISE * jax.lax.stop_gradient(mean.std())
    return mean + spread * jax.random.normal(key, mean.shape)


def _train_whole(vae: AutoencoderKL, sizes: DemoSizes, folder: Path, seed: int) -> None:
    graph, params = nnx.split(vae)

    def loss(params, batch: Batch, key: jax.Array) -> jax.Array:
        network = nnx.merge(graph, params)
        mean, logvar = network.encode(batch[0])
        error = reconstruction_error(network.decode(_noisy(mean, logvar, key)), batch)
        divergence = 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1 - logvar).mean()
        return error + KL_WEIGHT * divergence

    nnx.update(vae, _run(sizes.autoencoder, sizes.subjects, folder, loss, params, (seed, 0)))


def _train_decoder(vae: AutoencoderKL, sizes: DemoSizes, folder: Path, seed: int) -> None:
    """The encoder stays as it is, and with it the latents that the UNet is trained on."""
    decoding = lambda path, _: path[0] in ("decoder", "post_quant_conv")  # noqa: E731
    graph, params, encoding = nnx.split(vae, decoding, ...)  # type: ignore[misc]

    def loss(params, batch: Batch, key: jax.Array) -> jax.Array:
        network = nnx.merge(graph, params, encoding)
        mean, logvar = jax.lax.stop_gradient(network.encode(batch[0]))
        return reconstruction_error(network.decode(_noisy(mean, logvar, key)), batch)

    nnx.update(vae, _run(sizes.decoder, sizes.subjects, folder, loss, params, (seed, 1)))


def _run(stage: Stage, subjects: Subjects, folder: Path, loss, params, seed: tuple[int, int]):
    folder.mkdir(parents=True, exist_ok=True)
    training = Training(folder, stage.steps, stage.rate, loss)
    stream = lambda start: frames(stage.batch, subjects, (*seed, start))  # noqa: E731
    return training.run(params, stream, seed[0])


def normalise_latents(vae: AutoencoderKL, subjects: Subjects, seed: int) -> None:
    """Let every channel of the latents have mean 0 and variance 1; what is decoded stays the same.

    The 1 x 1 convolutions at the latents take it up, so that one scale serves all channels.
    """
    images, _ = next(frames(NORM_FRAMES, subjects, (seed, 2)))
    encode: Any = nnx.jit(AutoencoderKL.encode)
    means = np.concatenate([encode(vae, part)[0] for part in np.split(images, NORM_FRAMES // 64)])
    mean, std = (jnp.asarray(f(means, axis=(0, 1, 2))) for f in (np.mean, np.std))
    into: Any = vae.quant_conv
    out: Any = vae.post_quant_conv
    # The second half are log-variances, which shift by what the latents are divided by.
    factor = jnp.concatenate([1 / std, jnp.ones_like(std)])
    shift = jnp.concatenate([-mean / std, -2 * jnp.log(std)])
    into.kernel.set_value(into.kernel[...] * factor.reshape(1, 1, 1, -1))
    into.bias.set_value(into.bias[...] * factor + shift)
    out.bias.set_value(out.bias[...] + mean @ out.kernel[0, 0])
    out.kernel.set_value(out.kernel[...] * std.reshape(1, 1, -1, 1))
