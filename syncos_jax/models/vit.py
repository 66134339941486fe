"""Vision transformers: DINO's ViT, DINOv2, and the vision tower of CLIP, which differ in details.

Dosovitskiy et al., arXiv 2010.11929; Caron et al., arXiv 2104.14294 (DINO); Oquab et al., arXiv
2304.07193 (DINOv2); Radford et al., arXiv 2103.00020 (CLIP). Axes: ``B`` images, ``H W`` pixels,
``P`` patches, ``D`` features.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.layers import AbstractRngs, DType, LayerNorm, Linear
from syncos_jax.models.resample import sampling_matrix

Activation = Literal["gelu", "quick_gelu"]


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Sizes and kind of a vision transformer.

    Attributes:
        image: side of the square images that it was trained on.
        patch: side of a patch; divides ``image``.
        features: ``D``.
        inner: width of the MLP; of each half of it if ``gated``.
        layers, heads: of the transformer.
        activation: "gelu" (exact) or "quick_gelu" (OpenAI's CLIP).
        eps: of the layer norms.
        patch_bias: whether the patch embedding has a bias (CLIP's has none).
        qkv_bias: whether queries, keys and values have one.
        pre_norm: a norm before the first layer (CLIP).
        layer_scale: a learnt scale behind each branch (DINOv2).
        gated: SwiGLU in place of the MLP (DINOv2's largest).
        pooler: features of a dense layer with tanh over the class token; 0 for none.
        final_norm: whether a norm stands behind the last layer.
        position_offset: added to the number of patches where position embeddings are resized.
            DINO's and DINOv2's own code adds 0.1, against rounding; transformers' adds nothing.
    """

    image: int = 224
    patch: int = 16
    features: int = 768
    inner: int = 3072
    layers: int = 12
    heads: int = 12
    activation: Activation = "gelu"
    eps: float = 1e-6
    patch_bias: bool = True
    qkv_bias: bool = True
    pre_norm: bool = False
    layer_scale: bool = False
    gated: bool = False
    pooler: int = 0
    final_norm: bool = True
    position_offset: float = 0.0

    def __post_init__(self) -> None:
        sizes = (self.image, self.patch, self.features, self.inner, self.layers, self.heads)
        if min(sizes) < 1:
            raise InputError(f"a ViT's sizes are {sizes}; they must be at least 1")
        if self.image % self.patch:
            raise InputError(f"a ViT's image, {self.image}, is not a multiple of {self.patch}")
        if self.features % self.heads:
            raise InputError(f"a ViT's {self.features} features cannot be {self.heads} heads")
        if self.activation not in ("gelu", "quick_gelu"):
            raise InputError(f"a ViT's activation is {self.activation}; gelu or quick_gelu")

    @property
    def side(self) -> int:
        """Patches along a side of the images that it was trained on."""
        return self.image // self.patch

    @classmethod
    def dino_vitb16(cls) -> ViTConfig:
        """DINO ViT-B/16, of VBench's subject consistency."""
        return cls(position_offset=0.1)

    @classmethod
    def dinov2_vitb14(cls) -> ViTConfig:
        """DINOv2 ViT-B/14."""
        return cls(image=518, patch=14, layer_scale=True, position_offset=0.1)

    @classmethod
    def clip_vitb32(cls) -> ViTConfig:
        """OpenAI's CLIP ViT-B/32, of VBench's background consistency."""
        return cls(patch=32, activation="quick_gelu", eps=1e-5, patch_bias=False, pre_norm=True)

    @classmethod
    def clip_vith14(cls) -> ViTConfig:
        """OpenCLIP's ViT-H/14 without its last layer and the norm behind it, of Wan 2.1's
        image-to-video."""
        return dataclasses.replace(
            cls.clip_vitb32(),
            patch=14,
            features=1280,
            inner=5120,
            layers=31,
            heads=16,
            activation="gelu",
            final_norm=False,
        )

    @classmethod
    def clip_vitl14(cls) -> ViTConfig:
        """OpenAI's CLIP ViT-L/14, of VBench's aesthetic quality."""
        return dataclasses.replace(
            cls.clip_vitb32(), patch=14, features=1024, inner=4096, layers=24, heads=16
        )


class Attention(nnx.Module):
    """Self-attention over all tokens: ``[B, 1 + P, D]`` to the same."""

    def __init__(self, config: ViTConfig, *, dtype: DType, rngs: nnx.Rngs):
        size = config.features
        self.heads = config.heads
        self.query = Linear(size, size, bias=config.qkv_bias, dtype=dtype, rngs=rngs)
        self.key = Linear(size, size, bias=config.qkv_bias, dtype=dtype, rngs=rngs)
        self.value = Linear(size, size, bias=config.qkv_bias, dtype=dtype, rngs=rngs)
        self.out = Linear(size, size, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = (
            layer(x).reshape(*x.shape[:2], self.heads, -1)
            for layer in (self.query, self.key, self.value)
        )
        return self.out(jax.nn.dot_product_attention(q, k, v).reshape(x.shape))


class MLP(nnx.Module):
    """Two dense layers, the first gated by a SiLU or followed by a GELU."""

    def __init__(self, config: ViTConfig, *, dtype: DType, rngs: nnx.Rngs):
        wide = config.inner * (2 if config.gated else 1)
        self.fc1 = Linear(config.features, wide, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(config.inner, config.features, dtype=dtype, rngs=rngs)
        self.gated, self.activation = config.gated, config.activation

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.fc1(x)
        if self.gated:
            gate, y = jnp.split(y, 2, axis=-1)
            y = jax.nn.silu(gate) * y
        elif self.activation == "quick_gelu":
            y = y * jax.nn.sigmoid(1.702 * y)
        else:
            y = jax.nn.gelu(y, approximate=False)
        return self.fc2(y)


class Layer(nnx.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: ViTConfig, *, dtype: DType, rngs: nnx.Rngs):
        self.norm1 = LayerNorm(config.features, eps=config.eps, dtype=dtype)
        self.attention = Attention(config, dtype=dtype, rngs=rngs)
        self.norm2 = LayerNorm(config.features, eps=config.eps, dtype=dtype)
        self.mlp = MLP(config, dtype=dtype, rngs=rngs)
        scale = config.layer_scale
        self.scale1 = nnx.Param(jnp.ones((config.features,), dtype)) if scale else None
        self.scale2 = nnx.Param(jnp.ones((config.features,), dtype)) if scale else None

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + _scaled(self.attention(self.norm1(x)), self.scale1)
        return x + _scaled(self.mlp(self.norm2(x)), self.scale2)


def _scaled(x: jax.Array, scale: nnx.Param | None) -> jax.Array:
    return x if scale is None else x * scale[...][None, None]


class VisionTransformer(nnx.Module):
    """Images to tokens, the class token first.

    Args:
        config: sizes.
        dtype: of weights and computation (norm statistics stay in float32).
    """

    def __init__(self, config: ViTConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        size = config.features
        kw: dict[str, Any] = {"dtype": jnp.dtype(dtype), "rngs": rngs}
        zeros = isinstance(rngs, AbstractRngs)
        init = nnx.initializers.zeros_init() if zeros else nnx.initializers.normal(0.02)
        self.patches = nnx.Conv(
            3,
            size,
            (config.patch, config.patch),
            strides=(config.patch, config.patch),
            padding="VALID",
            use_bias=config.patch_bias,
            kernel_init=init,
            param_dtype=kw["dtype"],
            **kw,
        )
        self.class_token = nnx.Param(init(rngs.params(), (size,), kw["dtype"]))
        shape = (1 + config.side**2, size)
        self.positions = nnx.Param(init(rngs.params(), shape, kw["dtype"]))
        norm: dict[str, Any] = {"eps": config.eps, "dtype": kw["dtype"]}
        self.pre_norm = LayerNorm(size, **norm) if config.pre_norm else None
        self.layers = nnx.List([Layer(config, **kw) for _ in range(config.layers)])
        self.norm = LayerNorm(size, **norm) if config.final_norm else None
        self.pooler = Linear(size, config.pooler, **kw) if config.pooler else None

    def __call__(self, images: jax.Array) -> jax.Array:
        """Normalised images ``[B, H, W, 3]`` to ``[B, 1 + P, D]``, after the last norm, if any.

        Any size of at least one patch; pixels beyond the last whole patch are not seen. Position
        embeddings are resized to other sizes than ``config.image``.
        """
        height, width = images.shape[1:3]
        x = self.patches(images)
        positions = self._positions(height, width)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        first = jnp.broadcast_to(self.class_token[...][None, None], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([first, x], axis=1) + positions[None]
        if self.pre_norm is not None:
            x = self.pre_norm(x)
        for layer in self.layers:
            x = layer(x)
        return x if self.norm is None else self.norm(x)

    def pool(self, tokens: jax.Array) -> jax.Array:
        """What the pooler makes of the class token: ``[B, 1 + P, D] -> [B, pooler]``."""
        if self.pooler is None:
            raise InputError("this ViT has no pooler; take the class token, tokens[:, 0]")
        return jnp.tanh(self.pooler(tokens[:, 0]))

    def _positions(self, height: int, width: int) -> jax.Array:
        """Position embeddings ``[1 + P, D]`` of an image, bicubic where it has another size."""
        config, positions = self.config, self.positions[...]
        side, rows, columns = config.side, height // config.patch, width // config.patch
        if min(rows, columns) < 1:
            raise InputError(f"images are {width}×{height}, less than a patch of {config.patch}")
        if height == width and rows == side:
            return positions
        grid = positions[1:].reshape(side, side, -1)
        down, across = (
            jnp.asarray(
                sampling_matrix(side, n, "bicubic", (n + config.position_offset) / side),
                positions.dtype,
            )
            for n in (rows, columns)
        )
        grid = jnp.einsum("ih,hwd,jw->ijd", down, grid, across)
        return jnp.concatenate([positions[:1], grid.reshape(rows * columns, -1)])
