"""Networks out of folders in transformers' layout and out of torch checkpoints.

Nothing that a checkpoint holds is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.metrics.networks import tables
from syncos_jax.metrics.networks.clip import CLIP, CLIPConfig
from syncos_jax.metrics.networks.efficientnet import EfficientNet, EfficientNetConfig
from syncos_jax.metrics.networks.sentence import BERTConfig, SentenceEncoder
from syncos_jax.models.clip_text import CLIPTextConfig
from syncos_jax.models.layers import AbstractRngs
from syncos_jax.models.vit import VisionTransformer, ViTConfig
from syncos_jax.weights_convert.diffusers_config import read_json
from syncos_jax.weights_convert.stored import Tensors
from syncos_jax.weights_convert.table import AnyTable, Network, fill
from syncos_jax.weights_convert.weight_files import open_file, open_folder

Settings = Mapping[str, Any]


def read_vit(folder: Path) -> VisionTransformer:
    """DINO's ViT (``ViTModel``) or DINOv2 (``Dinov2Model``) from its folder.

    Position embeddings are resized as DINO's and DINOv2's own code resizes them.

    Raises:
        InputError: no such folder, another architecture, or weights that do not fit.
    """
    config = _config(folder, "a DINO or DINOv2", ("vit", "dinov2"))
    tensors = open_folder(folder)
    kind = vit_config(config, "pooler.dense.weight" in tensors, str(folder))
    build = lambda: VisionTransformer(kind, rngs=AbstractRngs())  # type: ignore[arg-type]  # noqa: E731
    return _filled(build, tables.vit(kind), tensors, folder)


def vit_config(config: Settings, pooler: bool, where: str) -> ViTConfig:
    """Our sizes from the ``config.json`` of a ``ViTModel`` or a ``Dinov2Model``."""
    dinov2 = config["model_type"] == "dinov2"
    features = config.get("hidden_size", 768)
    wide = int(features * config.get("mlp_ratio", 4))
    gated = bool(config.get("use_swiglu_ffn", False)) and dinov2
    if gated:  # two thirds, rounded up to a multiple of 8
        wide = (int(wide * 2 / 3) + 7) // 8 * 8
    _allowed(config, where, num_channels=(3,), hidden_act=("gelu",), pooler_act=("tanh",))
    return ViTConfig(
        image=_side(config, "image_size", 224, where),
        patch=_side(config, "patch_size", 14 if dinov2 else 16, where),
        features=features,
        inner=wide if dinov2 else config.get("intermediate_size", 3072),
        layers=config.get("num_hidden_layers", 12),
        heads=config.get("num_attention_heads", 12),
        eps=config.get("layer_norm_eps", 1e-6 if dinov2 else 1e-12),
        qkv_bias=bool(config.get("qkv_bias", True)),
        layer_scale=dinov2,
        gated=gated,
        pooler=(config.get("pooler_output_size") or features) if pooler else 0,
        position_offset=0.1,
    )


def read_clip(folder: Path) -> CLIP:
    """CLIP with both towers (``CLIPModel``) from its folder; errors as `read_vit`."""
    config = clip_config(_config(folder, "a CLIP", ("clip",)), str(folder))
    build = lambda: CLIP(config, rngs=AbstractRngs())  # type: ignore[arg-type]  # noqa: E731
    return _filled(build, tables.clip(config), open_folder(folder), folder)


def clip_config(config: Settings, where: str) -> CLIPConfig:
    """Our sizes from the ``config.json`` of a ``CLIPModel``."""

    def tower(name: str) -> dict[str, Any]:  # old files have both keys; the longer one rules
        return {**(config.get(f"{name}_config") or {}), **(config.get(f"{name}_config_dict") or {})}

    seen, read = tower("vision"), tower("text")
    _allowed(seen, where, num_channels=(3,), hidden_act=("quick_gelu", "gelu"))
    _allowed(read, where, hidden_act=("quick_gelu", "gelu"))
    vision = ViTConfig(
        image=_side(seen, "image_size", 224, where),
        patch=_side(seen, "patch_size", 32, where),
        features=seen.get("hidden_size", 768),
        inner=seen.get("intermediate_size", 3072),
        layers=seen.get("num_hidden_layers", 12),
        heads=seen.get("num_attention_heads", 12),
        activation=seen.get("hidden_act", "quick_gelu"),
        eps=seen.get("layer_norm_eps", 1e-5),
        patch_bias=False,
        pre_norm=True,
    )
    text = CLIPTextConfig(
        vocabulary=read.get("vocab_size", 49408),
        tokens=read.get("max_position_embeddings", 77),
        features=read.get("hidden_size", 512),
        inner=read.get("intermediate_size", 2048),
        layers=read.get("num_hidden_layers", 12),
        heads=read.get("num_attention_heads", 8),
        activation=read.get("hidden_act", "quick_gelu"),
        eps=read.get("layer_norm_eps", 1e-5),
    )
    end = read.get("eos_token_id", 49407)
    # Old files say 2 and mean the highest id, which is the last of the vocabulary.
    end = text.vocabulary - 1 if end in (None, 2) else end
    return CLIPConfig(vision, text, config.get("projection_dim", 512), end)


def read_sentence_encoder(folder: Path) -> SentenceEncoder:
    """MiniLM (``BertModel``) from its folder; errors as `read_vit`."""
    config = _config(folder, "a MiniLM", ("bert",))
    tensors = open_folder(folder)
    _allowed(config, str(folder), hidden_act=("gelu",), position_embedding_type=("absolute",))
    kind = BERTConfig(
        vocabulary=config.get("vocab_size", 30522),
        tokens=config.get("max_position_embeddings", 512),
        types=config.get("type_vocab_size", 2),
        features=config.get("hidden_size", 768),
        inner=config.get("intermediate_size", 3072),
        layers=config.get("num_hidden_layers", 12),
        heads=config.get("num_attention_heads", 12),
        eps=config.get("layer_norm_eps", 1e-12),
        pooler="pooler.dense.weight" in tensors,
    )
    build = lambda: SentenceEncoder(kind, rngs=AbstractRngs())  # type: ignore[arg-type]  # noqa: E731
    return _filled(build, tables.bert(kind), tensors, folder)


def read_lite0(path: Path) -> EfficientNet:
    """EfficientNet-lite0 from its torch checkpoint, see `packages.lite0_file`."""
    config = EfficientNetConfig()
    build = lambda: EfficientNet(config, rngs=AbstractRngs())  # type: ignore[arg-type]  # noqa: E731
    return _filled(build, tables.efficientnet(config), open_file(path), path)


def read_linear_head(path: Path, features: int) -> tuple[Any, Any]:
    """A linear layer to one number from a file with ``weight [1, D]`` and ``bias [1]``.

    LAION's aesthetic predictors are such files (``sa_0_4_vit_l_14_linear.pth``).

    Returns:
        float32 ``[D]`` and a float32 scalar.

    Raises:
        InputError: no such file, other tensors, or another ``D`` than ``features``.
    """
    tensors = open_file(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != {"weight": (1, features), "bias": (1,)}:
        raise InputError(
            f"{path}: has tensors {shapes}; expected weight (1, {features}) and bias (1,), the "
            f"linear head of a CLIP with {features} features"
        )
    weight, bias = (jnp.asarray(tensors[n].read(), jnp.float32) for n in ("weight", "bias"))
    return weight[0], bias[0]


def _config(folder: Path, what: str, kinds: tuple[str, ...]) -> dict[str, Any]:
    """A folder's ``config.json``, if it is of one of these kinds."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; give {what} model's, with config.json and "
            "model.safetensors (transformers' layout)"
        )
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder}: has no config.json; give {what} model's folder in transformers' layout"
        )
    config = read_json(folder / "config.json")
    if config.get("model_type") not in kinds:
        raise InputError(
            f"{folder}: is a model of type {config.get('model_type')!r}, but {what} model "
            f"({' or '.join(map(repr, kinds))}) is needed"
        )
    return config


def _allowed(config: Settings, where: str, **allowed: tuple[Any, ...]) -> None:
    """Refuses settings that our networks do not have, rather than compute something else."""
    for key, values in allowed.items():
        if config.get(key, values[0]) not in values:
            known = " or ".join(map(repr, values))
            raise InputError(f"{where}: {key} is {config[key]!r}; only {known} is supported")


def _side(config: Settings, key: str, default: int, where: str) -> int:
    value = config.get(key, default)
    sides = set(value) if isinstance(value, list) else {value}
    if len(sides) != 1 or not all(isinstance(side, int) for side in sides):
        raise InputError(f"{where}: {key} is {value!r}; only squares are supported")
    return next(iter(sides))


def _filled(
    build: Callable[[], Network], table: AnyTable, tensors: Tensors, where: Path
) -> Network:
    abstract: Network = nnx.eval_shape(build)
    return fill(abstract, table, tensors, tensors.__getitem__, what=str(where))
