"""EfficientNet-lite0: EfficientNet-B0 (Tan and Le, arXiv 1905.11946) without squeeze-and-excitation
and with ReLU6; a small classifier of ImageNet's 1000 classes."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.models.layers import AbstractRngs, DType, Linear


@dataclasses.dataclass(frozen=True)
class EfficientNetConfig:
    """Sizes.

    Attributes:
        stages: (repeats, kernel, stride, expansion, channels) of each stage's blocks; only the
            first block of a stage has the stride.
        stem: channels of the first convolution, which has stride 2.
        features: channels of the last one, which are pooled.
        classes: number of classes.
        eps: of the batch norms.
    """

    stages: tuple[tuple[int, int, int, int, int], ...] = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
    stem: int = 32
    features: int = 1280
    classes: int = 1000
    eps: float = 1e-3

    def blocks(self) -> list[tuple[int, int, int, int, int]]:
        """(channels in, channels out, kernel, stride, expansion) of every block."""
        out, channels = [], self.stem
        for repeats, kernel, stride, expansion, wide in self.stages:
            for index in range(repeats):
                out.append((channels, wide, kernel, stride if index == 0 else 1, expansion))
                channels = wide
        return out


class BatchNorm(nnx.Module):
    """Batch normalisation by the statistics of training: ``[..., C]``."""

    def __init__(self, channels: int, *, eps: float, dtype: DType):
        self.scale, self.variance = (nnx.Param(jnp.ones((channels,), dtype)) for _ in range(2))
        self.bias, self.mean = (nnx.Param(jnp.zeros((channels,), dtype)) for _ in range(2))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.scale[...] * jax.lax.rsqrt(self.variance[...] + self.eps)
        shape = (1,) * (x.ndim - 1) + (-1,)
        shift = self.bias[...] - self.mean[...] * scale
        return x * scale.reshape(shape) + shift.reshape(shape)


class ConvNorm(nnx.Module):
    """A convolution without bias (padded as TensorFlow's SAME), a batch norm, maybe a ReLU6."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: int = 1,
        *,
        stride: int = 1,
        depthwise: bool = False,
        relu: bool = True,
        eps: float,
        dtype: DType,
        rngs: nnx.Rngs,
    ):
        zeros = isinstance(rngs, AbstractRngs)
        init = nnx.initializers.zeros_init() if zeros else nnx.initializers.lecun_normal()
        self.conv = nnx.Conv(
            channels_in,
            channels_out,
            (size, size),
            strides=(stride, stride),
            padding="SAME",
            feature_group_count=channels_in if depthwise else 1,
            use_bias=False,
            kernel_init=init,
            dtype=dtype,
            param_dtype=dtype,
            rngs=rngs,
        )
        self.norm = BatchNorm(channels_out, eps=eps, dtype=dtype)
        self.relu = relu

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.norm(self.conv(x))
        return jax.nn.relu6(x) if self.relu else x


class Block(nnx.Module):
    """Inverted bottleneck (MobileNetV2): widen, filter each channel, narrow."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int, **kw
    ):
        wide = channels_in * expansion
        self.expand = ConvNorm(channels_in, wide, **kw) if expansion > 1 else None
        self.depthwise = ConvNorm(wide, wide, kernel, stride=stride, depthwise=True, **kw)
        self.project = ConvNorm(wide, channels_out, relu=False, **kw)
        self.skip = stride == 1 and channels_in == channels_out

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.skip else y


class EfficientNet(nnx.Module):
    """Images to pooled features and to logits.

    Args:
        config: sizes.
        dtype: of weights and computation.
    """

    def __init__(self, config: EfficientNetConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        kw: dict[str, Any] = {"eps": config.eps, "dtype": jnp.dtype(dtype), "rngs": rngs}
        self.stem = ConvNorm(3, config.stem, 3, stride=2, **kw)
        self.blocks = nnx.List([Block(*block, **kw) for block in config.blocks()])
        self.head = ConvNorm(config.stages[-1][-1], config.features, **kw)
        self.classifier = Linear(config.features, config.classes, dtype=kw["dtype"], rngs=rngs)

    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """``[B, H, W, 3]`` of (RGB - 127) / 128 to features ``[B, 1280]``, logits ``[B, 1000]``."""
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        features = self.head(x).mean(axis=(1, 2))
        return features, self.classifier(features)
