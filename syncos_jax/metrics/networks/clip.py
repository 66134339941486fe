"""CLIP: images and prompts in one space (Radford et al., arXiv 2103.00020)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.models.clip_text import CLIPTextConfig, CLIPTextEncoder
from syncos_jax.models.layers import DType, Linear
from syncos_jax.models.vit import VisionTransformer, ViTConfig


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """Sizes of both towers.

    Attributes:
        vision, text: the towers.
        features: ``E``, of the space that they share.
        end: id of the token that ends a prompt.
    """

    vision: ViTConfig
    text: CLIPTextConfig
    features: int = 512
    end: int = 49407

    @classmethod
    def vitb32(cls) -> CLIPConfig:
        """OpenAI's ViT-B/32."""
        text = CLIPTextConfig(features=512, inner=2048, layers=12, heads=8, activation="quick_gelu")
        return cls(ViTConfig.clip_vitb32(), text)

    @classmethod
    def vitl14(cls) -> CLIPConfig:
        """OpenAI's ViT-L/14."""
        text = CLIPTextConfig(
            features=768, inner=3072, layers=12, heads=12, activation="quick_gelu"
        )
        return cls(ViTConfig.clip_vitl14(), text, features=768)


class CLIP(nnx.Module):
    """Both towers with their projections.

    Args:
        config: sizes.
        dtype: of weights and computation (norm statistics stay in float32).
    """

    def __init__(self, config: CLIPConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        kw: dict[str, Any] = {"dtype": jnp.dtype(dtype), "rngs": rngs}
        self.vision = VisionTransformer(config.vision, **kw)
        self.text = CLIPTextEncoder(config.text, **kw)
        size = config.features
        self.visual_projection = Linear(config.vision.features, size, bias=False, **kw)
        self.text_projection = Linear(config.text.features, size, bias=False, **kw)

    def image_features(self, images: jax.Array) -> jax.Array:
        """Normalised images ``[B, H, W, 3]`` to ``[B, E]``, not of length 1."""
        return self.visual_projection(self.vision(images)[:, 0])

    def text_features(self, ids: jax.Array) -> jax.Array:
        """Token ids ``[b, S]`` int32 to ``[b, E]``, not of length 1: of the first end token."""
        hidden = self.text(ids)
        ends = jnp.argmax(ids == self.config.end, axis=1)
        return self.text_projection(hidden[jnp.arange(len(ids)), ends])
