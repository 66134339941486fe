"""Sizes of Wan's networks: from diffusers' JSON, from Wan's own, or from the tensors' shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Protocol

from syncos_jax.errors import InputError
from syncos_jax.models.t5 import T5Config
from syncos_jax.models.wan.config import (
    LATENTS_MEAN,
    LATENTS_STD,
    WanTransformerConfig,
    WanVAEConfig,
)

_ON_VIDEOS = "is conditioned on videos (Wan VACE), which cannot be converted"
_HEAD_SIZE = 128
"""Of every published Wan; a file of tensors does not say."""


STATISTICS = {
    16: (LATENTS_MEAN, LATENTS_STD),
    48: (
        (
            *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557),
            *(-0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825),
            *(-0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
            *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230),
            *(-0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748),
            *(0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
        ),
        (
            *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013),
            *(0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978),
            *(0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
            *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093),
            *(0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887),
            *(0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
        ),
    ),
}
"""Mean and standard deviation of latents by their channels: Wan 2.1's and Wan 2.2's autoencoders
(``wan/modules/vae2_1.py`` and ``vae2_2.py`` of Wan's repository), which their files do not hold."""


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def _require(config: Mapping[str, Any], where: str, **allowed: Any) -> None:
    """Refuse settings that our networks do not have, rather than compute something else."""
    for key, expected in allowed.items():
        values = expected if isinstance(expected, tuple) else (expected,)
        if config.get(key, values[0]) not in values:
            raise InputError(
                f"{where}: {key} is {config[key]!r}; only {' or '.join(map(repr, values))} can be "
                "converted"
            )


def transformer_config(
    config: Mapping[str, Any], where: str = "transformer/config.json"
) -> WanTransformerConfig:
    """Our sizes from the configuration of diffusers' ``WanTransformer3DModel``.

    Raises:
        InputError: a transformer of another kind (VACE, Animate), or image settings that do not fit
            one another.
    """
    # Whatever qk_norm says, diffusers norms queries and keys across the heads.
    _require(config, where, _class_name="WanTransformer3DModel")
    heads, head_size = (
        config.get("num_attention_heads", 40),
        config.get("attention_head_dim", 128),
    )
    image, added = config.get("image_dim"), config.get("added_kv_proj_dim")
    if added not in (None, heads * head_size) or (image is None) != (added is None):
        raise InputError(
            f"image_dim is {image} and added_kv_proj_dim {added}",
            place=where,
            expected=f"both null, or the second {heads * head_size} as the width",
        )
    channels = config.get("in_channels", 16)
    return WanTransformerConfig(
        in_channels=channels,
        out_channels=config.get("out_channels", 16) or channels,
        patch=tuple(config.get("patch_size", (1, 2, 2))),
        layers=config.get("num_layers", 40),
        heads=heads,
        head_size=head_size,
        inner=config.get("ffn_dim", 13824),
        text_features=config.get("text_dim", 4096),
        time_features=config.get("freq_dim", 256),
        cross_attn_norm=config.get("cross_attn_norm", True),
        eps=config.get("eps", 1e-6),
        positions=config.get("rope_max_seq_len", 1024),
        image_features=image,
        image_positions=None if image is None else config.get("pos_embed_seq_len"),
    )


def original_transformer_config(
    config: Mapping[str, Any], tensors: Mapping[str, _Shaped], where: str
) -> WanTransformerConfig:
    """Sizes of Wan's own ``WanModel``: its ``config.json`` where there is one, and what that
    leaves open from the tensors.

    Raises:
        InputError: no such model, or one that is conditioned on videos (VACE).
    """
    _require(config, where, _class_name="WanModel", qk_norm=True, window_size=([-1, -1], (-1, -1)))
    prefix = "model.diffusion_model." if any(key.startswith("model.") for key in tensors) else ""

    def shape(name: str, rank: int) -> tuple[int, ...]:
        found = tensors.get(prefix + name)
        if found is None or len(found.shape) != rank:
            raise InputError(
                f"{where}: {prefix}{name} is {'missing' if found is None else 'misshaped'}; "
                "this is not a Wan transformer"
            )
        return tuple(found.shape)

    width, channels, *patch = shape("patch_embedding.weight", 5)
    if f"{prefix}vace_blocks.0.norm3.weight" in tensors:
        raise InputError(f"{where}: {_ON_VIDEOS}")
    image = positions = None
    if f"{prefix}img_emb.proj.0.weight" in tensors:
        image = shape("img_emb.proj.0.weight", 1)[0]
        if f"{prefix}img_emb.emb_pos" in tensors:
            positions = shape("img_emb.emb_pos", 3)[1]
    heads = config.get("num_heads", max(1, width // _HEAD_SIZE))
    blocks = [re.match(rf"{re.escape(prefix)}blocks\.(\d+)\.", key) for key in tensors]
    return WanTransformerConfig(
        in_channels=channels,
        out_channels=shape("head.head.weight", 2)[0] // math.prod(patch),
        patch=(patch[0], patch[1], patch[2]),
        layers=config.get("num_layers", 1 + max((int(m[1]) for m in blocks if m), default=0)),
        heads=heads,
        head_size=width // heads,
        inner=shape("blocks.0.ffn.0.weight", 2)[0],
        text_features=shape("text_embedding.0.weight", 2)[1],
        time_features=shape("time_embedding.0.weight", 2)[1],
        cross_attn_norm=f"{prefix}blocks.0.norm3.weight" in tensors,
        eps=config.get("eps", 1e-6),
        image_features=image,
        image_positions=positions,
    )


_DIFFUSERS_NAMES = {
    "head.head": "proj_out",
    "blocks.0.ffn.0": "blocks.0.ffn.net.0.proj",
    "blocks.0.norm3": "blocks.0.norm2",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
}


def transformer_config_of(tensors: Mapping[str, _Shaped], where: str) -> WanTransformerConfig:
    """Sizes of a transformer in diffusers' layout that comes without a ``config.json``; errors as
    `original_transformer_config`."""
    own = dict(tensors)
    for theirs, name in _DIFFUSERS_NAMES.items():
        if f"{name}.weight" in tensors:
            own[f"{theirs}.weight"] = tensors[f"{name}.weight"]
    positions = "condition_embedder.image_embedder.pos_embed"
    if positions in tensors:
        own["img_emb.emb_pos"] = tensors[positions]
    return original_transformer_config({}, own, where)


def vae_config(
    config: Mapping[str, Any], where: str = "vae/config.json", alone: bool = False
) -> WanVAEConfig:
    """Our sizes from the configuration of diffusers' ``AutoencoderKLWan``.

    Args:
        config: the file's entries.
        where: names it in errors.
        alone: whether it is converted without a transformer, whose latents would be normed. Mean
            and standard deviation of another number of channels are then 0 and 1.

    Raises:
        InputError: settings that the autoencoder here has not.
    """
    _require(config, where, _class_name="AutoencoderKLWan", attn_scales=([], ()))
    patch = config.get("patch_size") or 1
    channels = config.get("in_channels", 3)
    if config.get("out_channels", 3) != channels or channels % patch**2:
        raise InputError(
            f"{where}: in_channels {channels} and out_channels {config.get('out_channels', 3)} "
            f"are not those of images in patches of {patch}"
        )
    default = WanVAEConfig()
    names = {"latents_mean": "latents_mean", "latents_std": "latents_std"}
    statistics = {k: tuple(config.get(v, getattr(default, k))) for k, v in names.items()}
    latents = config.get("z_dim", default.latent_channels)
    if alone and {len(values) for values in statistics.values()} != {latents}:
        statistics = {"latents_mean": (0.0,) * latents, "latents_std": (1.0,) * latents}
    return WanVAEConfig(
        base=config.get("base_dim", default.base),
        decoder_base=config.get("decoder_base_dim"),
        latent_channels=latents,
        multipliers=tuple(config.get("dim_mult", default.multipliers)),
        blocks=config.get("num_res_blocks", default.blocks),
        time_halved=tuple(config.get("temperal_downsample", default.time_halved)),
        residual=config.get("is_residual", False),
        patch=patch,
        image_channels=channels // patch**2,
        **statistics,
    )


def original_vae_config(tensors: Mapping[str, _Shaped], where: str) -> WanVAEConfig:
    """Sizes of Wan's own autoencoders, which come without a configuration, from the tensors.

    Raises:
        InputError: it is no such autoencoder.
    """

    def shape(name: str) -> tuple[int, ...]:
        found = tensors.get(name)
        if found is None or len(found.shape) < 2:
            what = "is missing" if found is None else f"has shape {tuple(found.shape)}"
            raise InputError(f"{name} {what}; this is not a Wan autoencoder", place=where)
        return tuple(found.shape)

    residual = any(name.startswith("encoder.downsamples.0.downsamples.") for name in tensors)
    base, channels = shape("encoder.conv1.weight")[:2]
    latent = shape("conv2.weight")[0]
    if residual:
        levels = 1 + max(_numbers(tensors, r"encoder\.downsamples\.(\d+)\..*"), default=0)
        inside = [f"encoder.downsamples.{level}.downsamples" for level in range(levels)]
        blocks = len(_numbers(tensors, rf"{re.escape(inside[0])}\.(\d+)\.residual\.6\.weight"))
        changes = [f"{place}.{blocks}" for place in inside[:-1]]
        ends = [f"{place}.{blocks - 1}" for place in inside]
    else:
        numbers = sorted(_numbers(tensors, r"encoder\.downsamples\.(\d+)\.resample\.1\.weight"))
        outputs = sorted(_numbers(tensors, r"encoder\.downsamples\.(\d+)\.residual\.6\.weight"))
        if not numbers or not outputs:
            raise InputError("has no encoder.downsamples; not Wan's autoencoder", place=where)
        blocks = numbers[0]
        changes = [f"encoder.downsamples.{number}" for number in numbers]
        ends = [f"encoder.downsamples.{n}" for n in (*(c - 1 for c in numbers), outputs[-1])]
    widths = [shape(f"{end}.residual.6.weight")[0] for end in ends]
    if latent not in STATISTICS:
        raise InputError(
            f"has {latent} latent channels; mean and standard deviation are known for "
            f"{' and '.join(map(str, STATISTICS))}",
            place=where,
            remedy="convert the folder in diffusers' layout",
        )
    decoded, decoder_base = shape("decoder.head.2.weight")[:2]
    if decoded != channels:
        raise InputError(
            f"its decoder gives {decoded} channels, its encoder takes {channels}: a decoder that "
            "enlarges images, which is not supported",
            place=where,
            remedy="use Wan's own autoencoder",
        )
    patch = 2 if residual and channels % 4 == 0 else 1
    mean, std = STATISTICS[latent]
    return WanVAEConfig(
        base=base,
        decoder_base=None if decoder_base == widths[0] else decoder_base // (widths[0] // base),
        latent_channels=latent,
        multipliers=tuple(width // base for width in widths),
        blocks=blocks,
        time_halved=tuple(f"{change}.time_conv.weight" in tensors for change in changes),
        residual=residual,
        patch=patch,
        image_channels=channels // patch**2,
        latents_mean=mean,
        latents_std=std,
    )


def original_text_config(tensors: Mapping[str, _Shaped], where: str) -> T5Config:
    """Sizes of Wan's own UMT5 encoder, which comes without a configuration, from its tensors.

    Raises:
        InputError: it is no such encoder.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise InputError(f"{where}: {name} is missing; this is not a Wan UMT5 encoder")
        return tuple(tensors[name].shape)

    vocabulary, features = shape("token_embedding.weight")
    buckets, heads = shape("blocks.0.pos_embedding.embedding.weight")
    return T5Config(
        vocabulary=vocabulary,
        features=features,
        inner=shape("blocks.0.ffn.fc1.weight")[0],
        layers=1 + max(_numbers(tensors, r"blocks\.(\d+)\.norm1\.weight"), default=0),
        heads=heads,
        head_size=shape("blocks.0.attn.q.weight")[0] // heads,
        buckets=buckets,
        bias_per_layer=True,
    )


def _numbers(tensors: Mapping[str, Any], pattern: str) -> list[int]:
    return [int(match[1]) for key in tensors if (match := re.fullmatch(pattern, key))]
