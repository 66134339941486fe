"""The text stack of Gemma 3 (arXiv 2503.19786) as an encoder: the hidden states of all layers."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.layers import AbstractRngs, DType, Linear


@dataclasses.dataclass(frozen=True)
class Gemma3Config:
    """Sizes of the language model. The defaults are Gemma 3 12B's.

    Attributes:
        vocabulary: number of tokens.
        features: ``D``.
        inner: width of the feed-forward.
        full: for each layer whether its attention sees all earlier tokens; the others see the
            last `window`.
        heads, key_heads, head_size: of the attention; heads share keys and values in groups.
        window: tokens that a sliding layer sees, its own included.
        theta, sliding_theta: bases of the rotary frequencies of full and sliding layers.
        factor: positions of full layers are divided by this.
        query_scale: scores are divided by its square root.
        eps: of the norms.
    """

    vocabulary: int = 262208
    features: int = 3840
    inner: int = 15360
    full: tuple[bool, ...] = tuple(i % 6 == 5 for i in range(48))
    heads: int = 16
    key_heads: int = 8
    head_size: int = 256
    window: int = 1024
    theta: float = 1e6
    sliding_theta: float = 1e4
    factor: float = 8.0
    query_scale: float = 256.0
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.key_heads < 1 or self.heads % self.key_heads or self.head_size % 2:
            raise InputError(
                f"Gemma3Config: {self.heads} heads must be a multiple of {self.key_heads} key "
                f"heads, and head_size {self.head_size} even"
            )

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.full)

    @property
    def states(self) -> int:
        """Hidden states that the encoder returns."""
        return self.layers + 1

    @classmethod
    def gemma3_12b(cls) -> "Gemma3Config":
        """Gemma 3 12B."""
        return cls()


class Norm(nnx.Module):
    """``x / rms(x) (1 + scale)`` over the last axis; statistics in float32."""

    def __init__(self, channels: int, *, eps: float, dtype: DType):
        self.scale = nnx.Param(jnp.zeros((channels,), dtype))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + self.eps)
        scale = 1.0 + self.scale[...].astype(jnp.float32)
        return (y * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


def rotation(tokens: int, size: int, theta: float, factor: float) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines ``[1, S, 1, D/2]`` of the positions ``0 .. S-1``, float32."""
    exponent = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    frequency = (np.float32(1.0) / np.power(np.float32(theta), exponent)) / np.float32(factor)
    angle = np.arange(tokens, dtype=np.float32)[:, None] * frequency[None]
    return tuple(jnp.asarray(f(angle))[None, :, None] for f in (np.cos, np.sin))  # type: ignore[return-value]


def _rotated(x: jax.Array, angle: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turns the pairs ``(i, i + D/2)`` of ``x [b, S, N, D]``."""
    cos, sin = angle
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


class Attention(nnx.Module):
    """Causal self-attention with grouped keys: ``[b, S, D] -> [b, S, D]``."""

    def __init__(self, config: Gemma3Config, *, dtype: DType, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"bias": False, "dtype": dtype, "rngs": rngs}
        size, self.config = config.head_size, config
        self.q = Linear(config.features, config.heads * size, **kw)
        self.k = Linear(config.features, config.key_heads * size, **kw)
        self.v = Linear(config.features, config.key_heads * size, **kw)
        self.o = Linear(config.heads * size, config.features, **kw)
        self.norm_q = Norm(size, eps=config.eps, dtype=dtype)
        self.norm_k = Norm(size, eps=config.eps, dtype=dtype)

    def __call__(self, x: jax.Array, angle: Any, mask: jax.Array) -> jax.Array:
        """`mask` ``[b, S, S]``: which keys each query sees."""
        config, (b, S, _) = self.config, x.shape
        q, k, v = (
            layer(x).reshape(b, S, -1, config.head_size) for layer in (self.q, self.k, self.v)
        )
        q, k = _rotated(self.norm_q(q), angle), _rotated(self.norm_k(k), angle)
        q = q.reshape(b, S, config.key_heads, -1, config.head_size)
        scores = jnp.einsum("bqgnd,bkgd->bgnqk", q, k, preferred_element_type=jnp.float32)
        scores = scores / config.query_scale**0.5
        scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        y = jnp.einsum("bgnqk,bkgd->bqgnd", weights, v)
        return self.o(y.reshape(b, S, -1))


class Block(nnx.Module):
    """Attention and a gated feed-forward, each between two norms."""

    def __init__(self, config: Gemma3Config, *, dtype: DType, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        of: dict[str, Any] = {"eps": config.eps, "dtype": dtype}
        self.norm1, self.norm2 = Norm(config.features, **of), Norm(config.features, **of)
        self.norm3, self.norm4 = Norm(config.features, **of), Norm(config.features, **of)
        self.attention = Attention(config, **kw)
        self.gate = Linear(config.features, config.inner, bias=False, **kw)
        self.up = Linear(config.features, config.inner, bias=False, **kw)
        self.down = Linear(config.inner, config.features, bias=False, **kw)

    def __call__(self, x: jax.Array, angle: Any, mask: jax.Array) -> jax.Array:
        x = x + self.norm2(self.attention(self.norm1(x), angle, mask))
        y = self.norm3(x)
        y = self.down(jax.nn.gelu(self.gate(y), approximate=True) * self.up(y))
        return x + self.norm4(y)


class Gemma3Encoder(nnx.Module):
    """Token ids to the hidden states of all layers.

    Args:
        config: sizes.
        dtype: of weights and computation (norm statistics and attention weights in float32).
    """

    def __init__(self, config: Gemma3Config, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, jnp.dtype(dtype)
        kw: dict[str, Any] = {"dtype": self.dtype, "rngs": rngs}
        init = nnx.initializers.normal(0.02)
        if isinstance(rngs, AbstractRngs):
            init = nnx.initializers.zeros_init()
        self.embedding = nnx.Embed(
            config.vocabulary, config.features, embedding_init=init, param_dtype=self.dtype, **kw
        )
        self.blocks = nnx.List([Block(config, **kw) for _ in range(config.layers)])
        self.final_norm = Norm(config.features, eps=config.eps, dtype=self.dtype)

    def __call__(self, ids: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Hidden states ``[L, b, S, D]``: the embedding, and behind each block (normed behind the
        last). Where `mask` is 0 they have no meaning.

        Args:
            ids: ``[b, S]`` int32; positions are 0 to ``S - 1``, padding included.
            mask: ``[b, S]``, 0 where a token is padding that no other sees; None for no padding.
        """
        config, S = self.config, ids.shape[1]
        distance = np.arange(S)[:, None] - np.arange(S)[None]
        keys = jnp.ones(ids.shape, bool) if mask is None else mask.astype(bool)
        masks = [
            keys[:, None] & jnp.asarray((distance >= 0) & (distance < most))[None]
            for most in (config.window, S)
        ]
        angles = [
            rotation(S, config.head_size, theta, factor)
            for theta, factor in ((config.sliding_theta, 1.0), (config.theta, config.factor))
        ]
        x = self.embedding(ids) * jnp.asarray(config.features**0.5, self.dtype)
        states = [x]
        for block, full in zip(self.blocks, config.full, strict=True):
            x = block(x, angles[full], masks[full])
            states.append(x)
        states[-1] = self.final_norm(x)
        return jnp.stack(states)
