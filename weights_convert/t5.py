"""T5 and UMT5 encoders in transformers' layout: configuration and table."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.models.t5 import Activation, T5Config
from syncos_jax.weights_convert.diffusers_config import require
from syncos_jax.weights_convert.table import Kind, Row, Table

_PLAIN: dict[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}
_ACTIVATIONS: dict[str, Activation] = {
    **_PLAIN,
    **{f"gated-{name}": activation for name, activation in _PLAIN.items()},
    "gated-gelu": "gelu_tanh",  # transformers takes gelu_new for it
}
_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")
_LAYER = r"encoder\.block\.(\d+)\.layer"


def t5_config(config: Mapping[str, Any]) -> T5Config:
    """Our sizes from transformers' ``text_encoder/config.json`` of a T5 or UMT5 encoder.

    Raises:
        InputError: an unsupported architecture or activation.
    """
    require(
        config,
        "text_encoder/config.json",
        model_type=("t5", "umt5", "mt5"),
        feed_forward_proj=("relu", *_ACTIVATIONS),
        is_decoder=False,
    )
    kind = config.get("model_type", "t5")
    umt5, multilingual = kind == "umt5", kind != "t5"
    projection = config.get("feed_forward_proj", "gated-gelu" if multilingual else "relu")
    return T5Config(
        vocabulary=config.get("vocab_size", 250112 if multilingual else 32128),
        features=config.get("d_model", 512),
        inner=config.get("d_ff", 1024 if multilingual else 2048),
        layers=config.get("num_layers", 8 if multilingual else 6),
        heads=config.get("num_heads", 6 if multilingual else 8),
        head_size=config.get("d_kv", 64),
        buckets=config.get("relative_attention_num_buckets", 32),
        max_distance=config.get("relative_attention_max_distance", 128),
        bias_per_layer=umt5,
        gated=projection.startswith("gated-"),
        activation=_ACTIVATIONS[projection],
        eps=config.get("layer_norm_epsilon", 1e-6),
    )


T5 = Table(
    (
        Row(r"shared|encoder\.embed_tokens", "embedding", Kind.EMBEDDING),
        Row(rf"{_LAYER}\.0\.layer_norm", r"blocks.\1.norm1", Kind.NORM),
        Row(rf"{_LAYER}\.0\.SelfAttention\.([qkvo])", r"blocks.\1.attention.\2", Kind.LINEAR),
        Row(
            rf"{_LAYER}\.0\.SelfAttention\.relative_attention_bias",
            r"blocks.\1.attention.relative_bias",
            Kind.EMBEDDING,
        ),
        Row(rf"{_LAYER}\.1\.layer_norm", r"blocks.\1.norm2", Kind.NORM),
        Row(
            rf"{_LAYER}\.1\.DenseReluDense\.wi(?:_0)?",
            r"blocks.\1.feed_forward.wi",
            Kind.LINEAR,
        ),
        Row(rf"{_LAYER}\.1\.DenseReluDense\.wi_1", r"blocks.\1.feed_forward.gated", Kind.LINEAR),
        Row(rf"{_LAYER}\.1\.DenseReluDense\.wo", r"blocks.\1.feed_forward.wo", Kind.LINEAR),
        Row(r"encoder\.final_layer_norm", "final_norm", Kind.NORM),
    ),
    # The other half of a whole T5, where somebody has put it beside its encoder.
    ignored=(r"decoder\..+", r"lm_head\.weight", "spiece_model"),
    renames=(
        (r"^embedding\.", "shared."),
        (r"^final_norm\.", "encoder.final_layer_norm."),
        (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
        (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
        (
            r"^blocks\.(\d+)\.attention\.relative_bias\.",
            r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.",
        ),
        (r"^blocks\.(\d+)\.attention\.", r"encoder.block.\1.layer.0.SelfAttention."),
        (r"^blocks\.(\d+)\.feed_forward\.wi\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
        (
            r"^blocks\.(\d+)\.feed_forward\.gated\.",
            r"encoder.block.\1.layer.1.DenseReluDense.wi_1.",
        ),
        (r"^blocks\.(\d+)\.feed_forward\.wo\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
        (r"\.(?:kernel|scale|embedding)$", ".weight"),
    ),
)
"""Of gated encoders; see `t5_table`."""


def t5_table(config: T5Config, keys: Iterable[str]) -> Table:
    """The table for a file with these tensors.

    The token embedding has two names, of which transformers writes one and older files have both:
    the second is then a copy.
    """
    table = T5
    if set(_EMBEDDINGS) <= set(keys):
        table = dataclasses.replace(
            table, ignored=(*table.ignored, r"encoder\.embed_tokens\.weight")
        )
    if not config.gated:
        renames = tuple((ours, theirs.replace(".wi_0.", ".wi.")) for ours, theirs in table.renames)
        table = dataclasses.replace(table, renames=renames)
    return table


def t5_config_of(tensors: Mapping[str, Any], where: str) -> T5Config:
    """Sizes of an encoder in transformers' layout that comes without a ``config.json``, from the
    shapes of its tensors.

    Raises:
        InputError: a tensor that is missing or misshaped.
    """
    first, second = "encoder.block.0.layer.0.SelfAttention", "encoder.block.0.layer.1"
    gated = f"{second}.DenseReluDense.wi_1.weight" in tensors

    def shape(name: str) -> tuple[int, int]:
        found = tensors.get(name)
        if found is None or len(found.shape) != 2:
            what = "is missing" if found is None else f"has shape {tuple(found.shape)}"
            raise InputError(f"{name} {what}; this is not a T5 encoder", place=where)
        return int(found.shape[0]), int(found.shape[1])

    embedding = next((name for name in _EMBEDDINGS if name in tensors), _EMBEDDINGS[0])
    vocabulary, features = shape(embedding)
    buckets, heads = shape(f"{first}.relative_attention_bias.weight")
    blocks = (re.match(r"encoder\.block\.(\d+)\.", name) for name in tensors)
    return T5Config(
        vocabulary=vocabulary,
        features=features,
        inner=shape(f"{second}.DenseReluDense.{'wi_1' if gated else 'wi'}.weight")[0],
        layers=1 + max(int(match[1]) for match in blocks if match),
        heads=heads,
        head_size=shape(f"{first}.q.weight")[0] // max(heads, 1),
        buckets=buckets,
        bias_per_layer=f"{first.replace('block.0', 'block.1')}.relative_attention_bias.weight"
        in tensors,
        gated=gated,
        activation="gelu_tanh" if gated else "relu",
    )


_LLAMA = (
    (r"^token_embd\.", "shared."),
    (r"^enc\.output_norm\.", "encoder.final_layer_norm."),
    (r"^enc\.blk\.(\d+)\.attn_([qkvo])\.", r"encoder.block.\1.layer.0.SelfAttention.\2."),
    (
        r"^enc\.blk\.(\d+)\.attn_rel_b\.",
        r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.",
    ),
    (r"^enc\.blk\.(\d+)\.attn_norm\.", r"encoder.block.\1.layer.0.layer_norm."),
    (r"^enc\.blk\.(\d+)\.ffn_norm\.", r"encoder.block.\1.layer.1.layer_norm."),
    (r"^enc\.blk\.(\d+)\.ffn_gate\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (r"^enc\.blk\.(\d+)\.ffn_up\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (r"^enc\.blk\.(\d+)\.ffn_down\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
)


def from_llama(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of an encoder in llama.cpp's layout (GGUF) under transformers' names."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _LLAMA:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed
