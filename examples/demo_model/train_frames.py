"""Training of the demo model's UNet on single frames: what things look like, at an eighth the cost.

The temporal layers are skipped. The training on clips continues from here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from demo_model.bank import encode_bank
from demo_model.diffusion import TextToVideo, over_space, velocity_error, without_time
from demo_model.loop import Training
from demo_model.sizes import DemoSizes
from demo_model.train_vae import stills
from demo_model.world import Scene, caption
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet_clip.vae import AutoencoderKL

EMPTY_CAPTIONS = 0.1  # what guidance needs an unconditional model for
FORMING = (0.2, 0.75)  # of the schedule: where shapes come out of the noise
FORMING_SHARE = 0.7


class Frames(NamedTuple):
    """A step's frames: latents ``[B, 1, h, w, C]`` float32, tokens of the captions ``[B, S]``."""

    latents: Any
    ids: Any


class Captions:
    """Freshly worded captions as tokens, one in ten of them empty."""

    def __init__(self, tokenizer: PromptTokenizer, rng: np.random.Generator):
        self._tokenizer, self._rng = tokenizer, rng
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, scenes: list[Scene]) -> np.ndarray:
        """Tokens ``[len(scenes), S]``."""
        return np.stack([self._tokens(scene) for scene in scenes])

    def _tokens(self, scene: Scene) -> np.ndarray:
        text = "" if self._rng.random() < EMPTY_CAPTIONS else caption(scene, self._rng)
        if text not in self._known:
            self._known[text] = self._tokenizer([text])[0]
        return self._known[text]


def frame_batches(
    latents: np.ndarray,
    scenes: list[Scene],
    tokenizer: PromptTokenizer,
    size: int,
    seed: tuple[int, ...],
) -> Iterator[Frames]:
    """Random frames of ``latents [N, 1, h, w, C]``, of ``scenes``, with captions; without end."""
    rng = np.random.default_rng(seed)
    captions = Captions(tokenizer, rng)
    while True:
        chosen = rng.integers(len(scenes), size=size)
        ids = captions([scenes[i] for i in chosen])
        yield Frames(latents[chosen].astype(np.float32), ids)


def still_timesteps(key: jax.Array, number: int, total: int) -> jax.Array:
    """Timesteps ``[number]``: most where shapes come out of the noise, the others anywhere.

    One draw in each of ``number`` equal intervals: less spread than free draws.
    """
    key_kind, key_u = jax.random.split(key)
    u = (jnp.arange(number, dtype=jnp.float32) + jax.random.uniform(key_u, (number,))) / number
    low, high = FORMING
    forming = jax.random.uniform(key_kind, (number,)) < FORMING_SHARE
    level = jnp.where(forming, low + (high - low) * u, u)
    return jnp.minimum((level * total).astype(jnp.int32), total - 1)


def still_bank(
    vae: AutoencoderKL, sizes: DemoSizes, folder: Path, seed: int
) -> tuple[np.ndarray, list[Scene]]:
    """Latents ``[sizes.stills, 1, h, w, C]`` of single frames, and their scenes."""
    scenes = stills(np.random.default_rng((seed, 3)), sizes.stills, sizes.subjects)
    return encode_bank(vae, scenes, 1, folder / "stills.npz"), scenes


def train_frames(
    networks: TextToVideo,
    vae: AutoencoderKL,
    tokenizer: PromptTokenizer,
    sizes: DemoSizes,
    folder: Path,
    seed: int = 0,
) -> None:
    """Train (or resume) in ``folder``; ``networks.unet`` gets the averaged weights.

    Its temporal layers stay as they are. The text encoder does too: trained along, it forgets.
    """
    latents, scenes = still_bank(vae, sizes, folder, seed)
    graph = without_time(networks.unet)
    params = nnx.state(networks.unet, over_space)

    def loss(params, batch: Frames, key: jax.Array) -> jax.Array:
        key_t, key_noise = jax.random.split(key)
        t = still_timesteps(key_t, batch.latents.shape[0], 1000)[:, None]
        text = networks.text_encoder(batch.ids)
        unet = nnx.merge(graph, params)
        return velocity_error(unet, batch.latents, t, text, key_noise).mean()

    stage = sizes.frames
    average = Training(folder, stage.steps, stage.rate, loss).run(
        params,
        lambda start: frame_batches(latents, scenes, tokenizer, stage.batch, (seed, 4, start)),
        seed,
    )
    nnx.update(networks.unet, average)
