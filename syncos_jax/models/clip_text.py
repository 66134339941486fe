"""The CLIP text encoder (OpenAI's and OpenCLIP's towers are the same network).

Names follow transformers' ``CLIPTextModel``. What diffusion models are conditioned on is the last
hidden state after the final norm. Models trained on the penultimate layer (VideoCrafter2,
ModelScope) are the same with one layer less.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.models.layers import AbstractRngs, DType, LayerNorm, Linear


@dataclasses.dataclass(frozen=True)
class CLIPTextConfig:
    """Sizes of the text encoder.

    Attributes:
        vocabulary: number of tokens.
        tokens: length ``S`` of a tokenised prompt.
        features: ``D``.
        inner: width of the MLP.
        layers, heads: of the transformer.
        activation: "gelu" (exact; OpenCLIP) or "quick_gelu" (OpenAI).
        eps: of the layer norms.
    """

    vocabulary: int = 49408
    tokens: int = 77
    features: int = 1024
    inner: int = 4096
    layers: int = 23
    heads: int = 16
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    eps: float = 1e-5


class Embeddings(nnx.Module):
    """Sum of token and position embeddings: ``[b, S] -> [b, S, D]``."""

    def __init__(self, config: CLIPTextConfig, *, dtype, rngs):
        kw = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        shapes_only = isinstance(rngs, AbstractRngs)
        init = nnx.initializers.zeros_init() if shapes_only else nnx.initializers.normal(0.02)
        self.token_embedding = nnx.Embed(
            config.vocabulary, config.features, embedding_init=init, **kw
        )
        self.position_embedding = nnx.Embed(
            config.tokens, config.features, embedding_init=init, **kw
        )

    def __call__(self, ids: jax.Array) -> jax.Array:
        positions = self.position_embedding(jnp.arange(ids.shape[1]))
        return self.token_embedding(ids) + positions[None]


class SelfAttention(nnx.Module):
    """Causal self-attention. There is no padding mask, as in the reference pipelines."""

    def __init__(self, config: CLIPTextConfig, *, dtype, rngs):
        kw = {"dtype": dtype, "rngs": rngs}
        self.heads = config.heads
        self.q_proj = Linear(config.features, config.features, **kw)
        self.k_proj = Linear(config.features, config.features, **kw)
        self.v_proj = Linear(config.features, config.features, **kw)
        self.out_proj = Linear(config.features, config.features, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        split = lambda y: y.reshape(*y.shape[:2], self.heads, -1)  # noqa: E731
        q, k, v = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
        return self.out_proj(jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape))


class MLP(nnx.Module):
    """Two dense layers with an activation."""

    def __init__(self, config: CLIPTextConfig, *, dtype, rngs):
        self.fc1 = Linear(config.features, config.inner, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(config.inner, config.features, dtype=dtype, rngs=rngs)
        self.activation = config.activation

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.fc1(x)
        if self.activation == "quick_gelu":
            y = y * jax.nn.sigmoid(1.702 * y)
        else:
            y = jax.nn.gelu(y, approximate=False)
        return self.fc2(y)


class EncoderLayer(nnx.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: CLIPTextConfig, *, dtype, rngs):
        self.layer_norm1 = LayerNorm(config.features, eps=config.eps, dtype=dtype)
        self.self_attn = SelfAttention(config, dtype=dtype, rngs=rngs)
        self.layer_norm2 = LayerNorm(config.features, eps=config.eps, dtype=dtype)
        self.mlp = MLP(config, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class CLIPTextEncoder(nnx.Module):
    """Token ids to the features that a UNet is conditioned on.

    Args:
        config: sizes.
        dtype: of weights and computation (norm statistics stay in float32).
    """

    def __init__(self, config: CLIPTextConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        kw: dict[str, Any] = {"dtype": jnp.dtype(dtype), "rngs": rngs}
        self.embeddings = Embeddings(config, **kw)
        self.layers = nnx.List([EncoderLayer(config, **kw) for _ in range(config.layers)])
        self.final_layer_norm = LayerNorm(config.features, eps=config.eps, dtype=kw["dtype"])

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Encode ``ids [b, S]`` (int32, S at most ``config.tokens``) to ``[b, S, D]``."""
        x = self.embeddings(ids)
        for layer in self.layers:
            x = layer(x)
        return self.final_layer_norm(x)
