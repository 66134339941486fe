"""The image encoder of Wan 2.1's image-to-video: CLIP's vision tower, in transformers' layout and
in Wan's own. Its last layer is not read, as Wan takes the output of the one before."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.models.vit import ViTConfig
from syncos_jax.weights_convert.table import Target
from syncos_jax.weights_convert.tensor_table import (
    TensorRow,
    TensorTable,
    conv2d,
    layer,
    linear,
    same,
)

_HEAD_SIZE = 80
"""Of ViT-H/14; a file of tensors does not say."""
_ACTIVATIONS = ("gelu", "quick_gelu")


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def config_of_transformers(values: Mapping[str, Any], where: str) -> ViTConfig:
    """Sizes from transformers' ``config.json`` of a ``CLIPVisionModel``.

    Args:
        values: the file's entries; of a whole CLIP, those below ``vision_config``.
        where: names it in errors.

    Raises:
        InputError: settings that the encoder here has not.
    """
    values = values.get("vision_config", values)
    activation = values.get("hidden_act", "quick_gelu")
    if activation not in _ACTIVATIONS or values.get("num_channels", 3) != 3:
        raise InputError(
            f"hidden_act is {activation!r} and num_channels {values.get('num_channels', 3)}",
            place=where,
            expected=f"{' or '.join(_ACTIVATIONS)}, and 3",
        )
    return _sizes(
        image=values.get("image_size", 224),
        patch=values.get("patch_size", 32),
        features=values.get("hidden_size", 768),
        inner=values.get("intermediate_size", 3072),
        layers=values.get("num_hidden_layers", 12),
        heads=values.get("num_attention_heads", 12),
        activation=activation,
        eps=values.get("layer_norm_eps", 1e-5),
    )


def config_of_wan(tensors: Mapping[str, _Shaped], where: str) -> ViTConfig:
    """Sizes of Wan's own file, which comes without a configuration, from its tensors.

    Raises:
        InputError: it is no such encoder.
    """

    def shape(name: str, rank: int) -> tuple[int, ...]:
        found = tensors.get(f"visual.{name}")
        if found is None or len(found.shape) != rank:
            raise InputError(f"visual.{name} is missing; not Wan's image encoder", place=where)
        return tuple(found.shape)

    features, _, patch, _ = shape("patch_embedding.weight", 4)
    positions = shape("pos_embedding", 3)[1]
    pattern = r"visual\.transformer\.(\d+)\.norm1\.weight"
    numbers = [int(m[1]) for m in (re.fullmatch(pattern, key) for key in tensors) if m]
    return _sizes(
        image=patch * round((positions - 1) ** 0.5),
        patch=patch,
        features=features,
        inner=shape("transformer.0.mlp.0.weight", 2)[0],
        layers=1 + max(numbers, default=0),
        heads=max(1, features // _HEAD_SIZE),
        activation="gelu",
        eps=1e-5,
    )


def _sizes(layers: int, **values: Any) -> ViTConfig:
    if layers < 2:
        raise InputError("an image encoder of one layer has none before its last")
    return ViTConfig(**values, layers=layers - 1, patch_bias=False, pre_norm=True, final_norm=False)


def _squeezed(array: np.ndarray) -> np.ndarray:
    """Without leading axes of 1."""
    return array.reshape([side for side in array.shape if side != 1] or [1])


_SHORT = {"q": "query", "k": "key", "v": "value", "out": "out"}
_TRANSFORMERS = r"(?:vision_model\.)?"


def transformers_table(config: ViTConfig) -> TensorTable:
    """transformers' ``CLIPVisionModel``."""
    at = rf"{_TRANSFORMERS}encoder\.layers\.(?!{config.layers}\.)(\d+)"
    rows = [
        TensorRow(rf"{_TRANSFORMERS}embeddings\.class_embedding", "class_token", _squeezed),
        TensorRow(rf"{_TRANSFORMERS}embeddings\.position_embedding\.weight", "positions", same),
        *layer(rf"{_TRANSFORMERS}embeddings\.patch_embedding", "patches", conv2d),
        *layer(rf"{_TRANSFORMERS}pre_layrnorm", "pre_norm", same, leaf="scale"),
        *layer(rf"{at}\.layer_(norm[12])", r"layers.\1.\2", same, leaf="scale"),
        *layer(rf"{at}\.mlp\.(fc[12])", r"layers.\1.mlp.\2", linear),
    ]
    for theirs, ours in _SHORT.items():
        rows += layer(rf"{at}\.self_attn\.{theirs}_proj", rf"layers.\1.attention.{ours}", linear)
    ignored = (
        rf"{_TRANSFORMERS}encoder\.layers\.{config.layers}\..*",
        rf"{_TRANSFORMERS}post_layernorm\..*",
        rf"{_TRANSFORMERS}embeddings\.position_ids",
        r"visual_projection\.weight",
    )
    return TensorTable(tuple(rows), ignored)


@dataclasses.dataclass(frozen=True)
class _Own(TensorTable):
    """As `TensorTable`; queries, keys and values are one tensor."""

    def targets(self, key: str) -> tuple[Target, ...]:
        found = re.fullmatch(r"visual\.transformer\.(\d+)\.attn\.to_qkv\.(weight|bias)", key)
        if found is None or self.is_ignored(key):
            return super().targets(key)
        leaf = "kernel" if found[2] == "weight" else "bias"
        return tuple(
            Target(f"layers.{found[1]}.attention.{name}.{leaf}", _third(number, leaf))
            for number, name in enumerate(("query", "key", "value"))
        )


def _third(number: int, leaf: str) -> Callable[[np.ndarray], np.ndarray]:
    def of(array: np.ndarray) -> np.ndarray:
        if array.shape[0] % 3:
            raise ValueError("expected queries, keys and values")
        part = np.split(array, 3)[number]
        return linear(part) if leaf == "kernel" else part

    return of


def wan_table(config: ViTConfig) -> TensorTable:
    """Wan's own file, which holds CLIP's text tower, too."""
    at = rf"visual\.transformer\.(?!{config.layers}\.)(\d+)"
    rows = [
        TensorRow(r"visual\.cls_embedding", "class_token", _squeezed),
        TensorRow(r"visual\.pos_embedding", "positions", _squeezed),
        *layer(r"visual\.patch_embedding", "patches", conv2d),
        *layer(r"visual\.pre_norm", "pre_norm", same, leaf="scale"),
        *layer(rf"{at}\.(norm[12])", r"layers.\1.\2", same, leaf="scale"),
        *layer(rf"{at}\.attn\.proj", r"layers.\1.attention.out", linear),
        *layer(rf"{at}\.mlp\.0", r"layers.\1.mlp.fc1", linear),
        *layer(rf"{at}\.mlp\.2", r"layers.\1.mlp.fc2", linear),
    ]
    ignored = (
        rf"visual\.transformer\.{config.layers}\..*",
        r"visual\.(?:post_norm\..*|head.*)",
        r"textual\..*",
        r"log_scale",
    )
    return _Own(tuple(rows), ignored)
