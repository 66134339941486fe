"""A model that is none: the interface of a loaded one, and networks of a few numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.models.family import Geometry
from syncos_jax.models.unet_clip.model import UNetClip
from syncos_jax.sampling.schedule import NoiseSchedule


@dataclasses.dataclass(frozen=True)
class FakeConfig:
    name: str = "fake"
    window: int = 4
    stride: int = 2
    fps: float = 4
    height: int = 16
    width: int = 24
    latent_channels: int = 4
    latent_factor: int = 8
    latent_scale: float = 0.5
    guidance: float = 2.0
    steps: int = 4
    known_rule: str = "replace"
    training: dict = dataclasses.field(default_factory=lambda: {"clips_seen": 7}, hash=False)

    def geometry(self):
        return Geometry(
            window=self.window,
            stride=self.stride,
            channels=self.latent_channels,
            cell=self.latent_factor,
            height=self.height,
            width=self.width,
            fps=self.fps,
        )


class FakeUNet(nnx.Module):
    """Predicts a shade of what it is given, tinted by the text."""

    def __init__(self):
        self.weight = nnx.Param(jnp.full((2, 4), 0.1))

    def __call__(self, x, t, text, *, fps=None):
        assert fps is None and t.shape in (x.shape[:1], x.shape[:2]) and len(text) == len(x)
        tint = text.mean(axis=1) @ self.weight[...]
        return 0.5 * x + tint[:, None, None, None, :]


class FakeVAE(nnx.Module):
    """Every latent becomes a block of 8 × 8 pixels of its first three channels, and these the
    mean of the block."""

    def __init__(self):
        self.gain = nnx.Param(jnp.ones(()))

    def encode(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        count, height, width, _ = images.shape
        blocks = images.reshape(count, height // 8, 8, width // 8, 8, 3).mean(axis=(2, 4))
        mean = jnp.pad(blocks / self.gain[...], ((0, 0), (0, 0), (0, 0), (0, 1)))
        return mean, jnp.zeros_like(mean)

    def decode(self, latents: jax.Array) -> jax.Array:
        return self.gain[...] * latents[..., :3].repeat(8, axis=1).repeat(8, axis=2)


class FakeText(nnx.Module):
    def __init__(self):
        self.table = nnx.Param(jax.random.normal(jax.random.key(1), (128, 2)))

    def __call__(self, ids: jax.Array) -> jax.Array:
        return self.table[...][ids]


class FakeModel(UNetClip):
    def __init__(self):
        super().__init__(
            FakeConfig(),
            NoiseSchedule.from_betas("scaled_linear"),
            unet=FakeUNet(),
            vae=FakeVAE(),
            text_encoder=FakeText(),
            tokenizer=self.tokenize,
        )
        self.tokenized = []

    def tokenize(self, texts: list[str]) -> np.ndarray:
        self.tokenized.append(list(texts))
        rows = [[min(ord(c), 127) for c in text[:20].ljust(20)] for text in texts]
        return np.asarray(rows, np.int32)

    def conditioning_shapes(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        return jax.eval_shape(lambda: self.encode_prompts([""] * count))
