"""Sentence features: BERT's encoder (Devlin et al., arXiv 1810.04805), its tokens' mean.

That is sentence-transformers' all-MiniLM-L6-v2 (Reimers and Gurevych, arXiv 1908.10084; Wang et
al., arXiv 2002.10957).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.models.layers import AbstractRngs, DType, LayerNorm, Linear


@dataclasses.dataclass(frozen=True)
class BERTConfig:
    """Sizes; the defaults are MiniLM-L6's.

    Attributes:
        vocabulary: number of tokens.
        tokens: most that a text may have.
        types: kinds of segments; only the first is used.
        features: ``D``.
        inner: width of the MLP.
        layers, heads: of the transformer.
        eps: of the layer norms.
        pooler: whether there is one (sentence features do not use it).
    """

    vocabulary: int = 30522
    tokens: int = 512
    types: int = 2
    features: int = 384
    inner: int = 1536
    layers: int = 6
    heads: int = 12
    eps: float = 1e-12
    pooler: bool = True


class Layer(nnx.Module):
    """Post-norm transformer layer."""

    def __init__(self, config: BERTConfig, *, dtype: DType, rngs: nnx.Rngs):
        size = config.features
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.heads = config.heads
        self.query, self.key, self.value, self.out = (Linear(size, size, **kw) for _ in range(4))
        self.norm1 = LayerNorm(size, eps=config.eps, dtype=dtype)
        self.fc1 = Linear(size, config.inner, **kw)
        self.fc2 = Linear(config.inner, size, **kw)
        self.norm2 = LayerNorm(size, eps=config.eps, dtype=dtype)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        q, k, v = (
            layer(x).reshape(*x.shape[:2], self.heads, -1)
            for layer in (self.query, self.key, self.value)
        )
        seen = mask[:, None, None, :]
        attended = jax.nn.dot_product_attention(q, k, v, mask=seen).reshape(x.shape)
        x = self.norm1(x + self.out(attended))
        return self.norm2(x + self.fc2(jax.nn.gelu(self.fc1(x), approximate=False)))


class SentenceEncoder(nnx.Module):
    """Token ids to one vector of length 1 per sentence.

    Args:
        config: sizes.
        dtype: of weights and computation (norm statistics stay in float32).
    """

    def __init__(self, config: BERTConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        kw: dict[str, Any] = {"dtype": jnp.dtype(dtype), "rngs": rngs}
        zeros = isinstance(rngs, AbstractRngs)
        init = nnx.initializers.zeros_init() if zeros else nnx.initializers.normal(0.02)
        self.words, self.positions, self.types = (
            nnx.Param(init(rngs.params(), (rows, config.features), kw["dtype"]))
            for rows in (config.vocabulary, config.tokens, config.types)
        )
        self.norm = LayerNorm(config.features, eps=config.eps, dtype=kw["dtype"])
        self.layers = nnx.List([Layer(config, **kw) for _ in range(config.layers)])
        self.pooler = Linear(config.features, config.features, **kw) if config.pooler else None

    def hidden(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """Last hidden state ``[b, S, D]`` of ids ``[b, S]`` int32; ``mask [b, S]`` bool: no pad."""
        places = self.positions[...][: ids.shape[1]] + self.types[...][0][None]
        x = self.norm(self.words[...][ids] + places[None])
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """The mean of a sentence's tokens, of length 1: ``[b, S] -> [b, D]``."""
        weight = mask.astype(jnp.float32)[..., None]
        total = (self.hidden(ids, mask) * weight).sum(axis=1)
        mean = total / jnp.maximum(weight.sum(axis=1), 1)
        return mean / jnp.maximum(jnp.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
