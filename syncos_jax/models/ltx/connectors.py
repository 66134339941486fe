"""From the hidden states of a language model to the text features of LTX-2's video stream."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.layers import AbstractRngs, DType
from syncos_jax.models.ltx.config import LTXConnectorConfig
from syncos_jax.models.ltx.positions import Rotation, text_rotation
from syncos_jax.models.ltx.transformer import Attention, FeedForward, normed

_RANGE_EPS = 1e-6


class Block(nnx.Module):
    """Self-attention and feed-forward, each behind a norm without weights."""

    def __init__(self, config: LTXConnectorConfig, *, dtype: DType, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.eps, split = config.eps, config.rotary.split
        self.attn1 = Attention(config.out, config.heads, gated=config.gated, split=split, **kw)
        self.ff = FeedForward(config.out, **kw)

    def __call__(self, x: jax.Array, angle: Rotation) -> jax.Array:
        x = x + self.attn1(normed(x, self.eps).astype(x.dtype), None, angle)
        return x + self.ff(normed(x, self.eps).astype(x.dtype))


class LTXConnectors(nnx.Module):
    """Normalises and projects hidden states, replaces padding by learned registers, and mixes.

    Args:
        config: sizes.
        dtype: of weights and computation.
    """

    def __init__(self, config: LTXConnectorConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, jnp.dtype(dtype)
        kw: dict[str, Any] = {"dtype": self.dtype, "rngs": rngs}
        init: Any = nnx.initializers.lecun_normal(in_axis=(0, 1))
        if isinstance(rngs, AbstractRngs):
            init = nnx.initializers.zeros_init()
        shape = (config.states, config.features, config.out)
        self.kernel = nnx.Param(init(rngs.params(), shape, self.dtype))
        self.bias = nnx.data(
            nnx.Param(jnp.zeros((config.out,), self.dtype)) if config.bias else None
        )
        self.registers = nnx.Param(jnp.zeros((config.registers, config.out), self.dtype))
        self.blocks = nnx.List([Block(config, **kw) for _ in range(config.layers)])

    def __call__(self, states: jax.Array, mask: jax.Array) -> jax.Array:
        """Text features, none of which is padding.

        Args:
            states: hidden states of all layers ``[L, b, S, D']``, S a multiple of the registers.
            mask: ``[b, S]``, true or 1 for tokens of the prompt.

        Returns:
            ``[b, S, D]``.

        Raises:
            InputError: another number of tokens.
        """
        config, tokens = self.config, states.shape[2]
        if tokens % config.registers:
            raise InputError(
                f"LTX connectors: {tokens} tokens are not a multiple of the {config.registers} "
                "registers"
            )
        valid = mask.astype(bool)
        y = self._normalised(states.astype(self.dtype), valid)
        x = jnp.einsum("lbsd,ldo->bso", y, self.kernel[...])
        if self.bias is not None:
            x = x + self.bias[...].reshape(1, 1, -1)
        order = jnp.argsort(~valid, axis=1, stable=True)  # valid tokens first, in their order
        x = jnp.take_along_axis(x, order[..., None], axis=1)
        registers = jnp.tile(self.registers[...], (tokens // config.registers, 1))[None]
        front = jnp.arange(tokens)[None] < valid.sum(axis=1, keepdims=True)
        x = jnp.where(front[..., None], x, registers)
        angle = text_rotation(
            tokens, config.positions, config.heads, config.head_size, config.rotary
        )
        for block in self.blocks:
            x = block(x, angle)
        return normed(x, config.eps).astype(self.dtype)

    def _normalised(self, states: jax.Array, valid: jax.Array) -> jax.Array:
        """Hidden states, normalised, zero at padding."""
        config, on = self.config, valid[None, :, :, None]
        y = states.astype(jnp.float32)
        if config.per_token:
            y = normed(y, config.eps) * math.sqrt(config.out / config.features)
        else:
            axes = (2, 3)
            count = (valid.sum(axis=1) * config.features).reshape(1, -1, 1, 1)
            kept = jnp.where(on, y, 0.0)
            mean = kept.sum(axis=axes, keepdims=True) / (count.astype(jnp.float32) + _RANGE_EPS)
            low = jnp.where(on, y, jnp.inf).min(axis=axes, keepdims=True)
            high = jnp.where(on, y, -jnp.inf).max(axis=axes, keepdims=True)
            y = 8.0 * (y - mean) / (high - low + _RANGE_EPS)
        return jnp.where(on, y, 0.0).astype(self.dtype)
