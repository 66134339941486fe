"""The encoders of T5 (v1.0, v1.1) and UMT5, which transformer video models read prompts with.

Raffel et al., arXiv 1910.10683; Chung et al., arXiv 2304.09151. The two differ in one thing: T5
has one table of relative position biases, in the first layer, for all of them; in UMT5 every layer
has its own.
"""

import dataclasses
import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.blocks import call_block
from syncos_jax.models.layers import AbstractRngs, DType, Linear

Activation = Literal["gelu_tanh", "gelu", "relu", "silu"]


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Sizes of the encoder; the defaults are T5 v1.1 XXL's, which CogVideoX reads with.

    Attributes:
        vocabulary: number of tokens.
        features: ``D``.
        inner: width of the feed-forward layer.
        layers: of the encoder.
        heads, head_size: of the attention; their product need not be ``features``.
        buckets: number of relative positions that are distinguished, over both directions.
        max_distance: from this distance on, all positions share the last bucket.
        bias_per_layer: every layer has its own position biases (UMT5), not only the first.
        gated: the feed-forward layer is gated (T5 v1.1, UMT5).
        activation: of the feed-forward layer, or of its gate.
        eps: of the norms.
    """

    vocabulary: int = 32128
    features: int = 4096
    inner: int = 10240
    layers: int = 24
    heads: int = 64
    head_size: int = 64
    buckets: int = 32
    max_distance: int = 128
    bias_per_layer: bool = False
    gated: bool = True
    activation: Activation = "gelu_tanh"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("vocabulary", "features", "inner", "layers", "heads", "head_size"):
            if getattr(self, name) < 1:
                raise InputError(f"T5Config: {name} must be at least 1, got {getattr(self, name)}")
        if self.buckets < 4 or self.max_distance <= self.buckets // 4:
            raise InputError(
                f"T5Config: buckets {self.buckets} must be at least 4, and max_distance "
                f"{self.max_distance} more than a quarter of them"
            )
        if self.activation not in get_args(Activation):
            raise InputError(
                f"T5Config: unknown activation {self.activation!r}; one of "
                f"{', '.join(get_args(Activation))}"
            )

    @classmethod
    def t5_xxl(cls) -> "T5Config":
        """T5 v1.1 XXL's encoder (CogVideoX)."""
        return cls()

    @classmethod
    def umt5_xxl(cls) -> "T5Config":
        """UMT5 XXL's encoder (Wan)."""
        return cls(vocabulary=256384, bias_per_layer=True)


def relative_buckets(tokens: int, buckets: int, max_distance: int) -> np.ndarray:
    """The bucket of key ``j`` seen from query ``i``: int32 ``[tokens, tokens]``, on the host.

    Half of the buckets are for each direction; of these, half are exact distances and the rest grow
    with the logarithm up to ``max_distance`` (arXiv 1910.10683, section 2.1).
    """
    position = np.arange(tokens)
    offset = position[None, :] - position[:, None]
    half = buckets // 2
    exact = half // 2
    distance = np.abs(offset)
    # In float32 and in this order, as the models were trained: whole numbers lie on the edges.
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    ratio = ratio / np.float32(math.log(max_distance / exact)) * np.float32(half - exact)
    far = np.minimum(exact + ratio.astype(np.int64), half - 1)
    return ((offset > 0) * half + np.where(distance < exact, distance, far)).astype(np.int32)


def _embedding(entries: int, features: int, *, dtype: DType, rngs: Any) -> nnx.Embed:
    shapes_only = isinstance(rngs, AbstractRngs)
    init = nnx.initializers.zeros_init() if shapes_only else nnx.initializers.normal(0.02)
    return nnx.Embed(
        entries, features, embedding_init=init, dtype=dtype, param_dtype=dtype, rngs=rngs
    )


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation of the last axis with a scale; statistics in float32."""

    def __init__(self, channels: int, *, eps: float, dtype: DType):
        self.scale = nnx.Param(jnp.ones((channels,), dtype))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        with jax.named_scope("norm"):
            y = x.astype(jnp.float32)
            y = y * jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + self.eps)
            scale = self.scale[...].astype(jnp.float32)
            return (y * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


class Attention(nnx.Module):
    """Self-attention with position biases and without scaling: ``[b, S, D] -> [b, S, D]``."""

    def __init__(self, config: T5Config, *, bias: bool, dtype: DType, rngs: nnx.Rngs):
        inner = config.heads * config.head_size
        kw: dict[str, Any] = {"bias": False, "dtype": dtype, "rngs": rngs}
        self.heads = config.heads
        self.q = Linear(config.features, inner, **kw)
        self.k = Linear(config.features, inner, **kw)
        self.v = Linear(config.features, inner, **kw)
        self.o = Linear(inner, config.features, **kw)
        self.relative_bias = nnx.data(
            _embedding(config.buckets, config.heads, dtype=dtype, rngs=rngs) if bias else None
        )

    def position_bias(self, buckets: np.ndarray) -> jax.Array:
        """``[1, heads, S, S]`` of bucket numbers ``[S, S]``."""
        assert self.relative_bias is not None
        return self.relative_bias(jnp.asarray(buckets)).transpose(2, 0, 1)[None]

    def __call__(self, x: jax.Array, bias: jax.Array, mask: jax.Array | None) -> jax.Array:
        split = lambda y: y.reshape(*y.shape[:2], self.heads, -1)  # noqa: E731
        q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
        scores = jnp.einsum("bqnd,bknd->bnqk", q, k, preferred_element_type=jnp.float32)
        scores = scores + bias.astype(jnp.float32)
        if mask is not None:
            scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        y = jnp.einsum("bnqk,bknd->bqnd", weights, v)
        return self.o(y.reshape(*x.shape[:2], -1))


class FeedForward(nnx.Module):
    """``wo(act(wi x))``, or gated ``wo(act(wi_0 x) * wi_1 x)``: ``[b, S, D] -> [b, S, D]``."""

    def __init__(self, config: T5Config, *, dtype: DType, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"bias": False, "dtype": dtype, "rngs": rngs}
        self.activation = config.activation
        self.wi = Linear(config.features, config.inner, **kw)
        self.gated = nnx.data(Linear(config.features, config.inner, **kw) if config.gated else None)
        self.wo = Linear(config.inner, config.features, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.wi(x)
        if self.activation in ("gelu", "gelu_tanh"):
            y = jax.nn.gelu(y, approximate=self.activation == "gelu_tanh")
        else:
            y = {"relu": jax.nn.relu, "silu": jax.nn.silu}[self.activation](y)
        return self.wo(y if self.gated is None else y * self.gated(x))


class Block(nnx.Module):
    """Attention and feed-forward layer, each after a norm and added to its input."""

    def __init__(self, config: T5Config, *, bias: bool, dtype: DType, rngs: nnx.Rngs):
        self.norm1 = RMSNorm(config.features, eps=config.eps, dtype=dtype)
        self.attention = Attention(config, bias=bias, dtype=dtype, rngs=rngs)
        self.norm2 = RMSNorm(config.features, eps=config.eps, dtype=dtype)
        self.feed_forward = FeedForward(config, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, bias: jax.Array, mask: jax.Array | None) -> jax.Array:
        x = x + self.attention(self.norm1(x), bias, mask)
        return x + self.feed_forward(self.norm2(x))


class T5Encoder(nnx.Module):
    """Token ids to text features.

    Args:
        config: sizes.
        dtype: of weights and computation (norm statistics and attention weights in float32).
    """

    def __init__(self, config: T5Config, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        kw: dict[str, Any] = {"dtype": jnp.dtype(dtype), "rngs": rngs}
        self.embedding = _embedding(config.vocabulary, config.features, **kw)
        self.blocks = nnx.List(
            [
                Block(config, bias=config.bias_per_layer or i == 0, **kw)
                for i in range(config.layers)
            ]
        )
        self.final_norm = RMSNorm(config.features, eps=config.eps, dtype=kw["dtype"])

    def __call__(self, ids: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Features ``[b, S, D]`` of tokens.

        Args:
            ids: ``[b, S]`` int32.
            mask: ``[b, S]``, bool or whole numbers, false or 0 where a token is padding that no
                other may look at; None where all count, as CogVideoX has it. What comes out at
                masked places is without meaning.
        """
        config = self.config
        buckets = relative_buckets(ids.shape[1], config.buckets, config.max_distance)
        keys = None if mask is None else mask.astype(bool)[:, None, None, :]
        x = self.embedding(ids)
        bias: Any = None
        for block in self.blocks:
            if block.attention.relative_bias is not None:
                bias = block.attention.position_bias(buckets)
            x = call_block(block, x, bias, keys)
        return self.final_norm(x)
