"""Tables of diffusers' UNet3DConditionModel and AutoencoderKL, transformers' CLIPTextModel."""

import dataclasses
import re

import numpy as np
from flax import nnx

from syncos_jax.models.unet_clip.unet3d import UNet3DConfig
from syncos_jax.weights_convert.table import Kind, Row, Table, leaves

_UNET_BLOCK = r"(?:down_blocks\.\d+|mid_block|up_blocks\.\d+)"
_TRANSFORMER = rf"(?:transformer_in|{_UNET_BLOCK}\.(?:temp_)?attentions\.\d+)"
_VAE_PART = r"(?:encoder|decoder)"
_VAE_BLOCK = rf"{_VAE_PART}\.(?:down_blocks\.\d+|mid_block|up_blocks\.\d+)"

# From our paths back to diffusers' names, applied in order.
_RENAMES = (
    (r"(temp_convs\.\d+\.conv\d)\.norm\.", r"\1.0."),
    (r"(temp_convs\.\d+\.conv1)\.conv\.", r"\1.2."),
    (r"(temp_convs\.\d+\.conv[2-4])\.conv\.", r"\1.3."),
    (r"\.ff\.gate\.proj\.", ".ff.net.0.proj."),
    (r"\.ff\.out\.", ".ff.net.2."),
    (r"(mid_block\.attentions\.0)\.attention\.", r"\1."),
    (r"^(embeddings\.|final_layer_norm\.)", r"text_model.\1"),
    (r"^(layers\.)", r"text_model.encoder.\1"),
    (r"\.(?:kernel|scale|embedding)$", ".weight"),
)

UNET = Table(
    (
        Row(r"(conv_in|conv_out)", r"\1", Kind.CONV),
        Row(r"(conv_norm_out)", r"\1", Kind.NORM),
        Row(r"((?:time|fps)_embedding\.linear_[12])", r"\1", Kind.LINEAR),
        Row(rf"({_UNET_BLOCK}\.resnets\.\d+\.norm[12])", r"\1", Kind.NORM),
        Row(rf"({_UNET_BLOCK}\.resnets\.\d+\.(?:conv[12]|conv_shortcut))", r"\1", Kind.CONV),
        Row(rf"({_UNET_BLOCK}\.resnets\.\d+\.time_emb_proj)", r"\1", Kind.LINEAR),
        Row(rf"({_UNET_BLOCK}\.temp_convs\.\d+\.conv[1-4])\.0", r"\1.norm", Kind.NORM),
        # Dropout stands at index 2 of stages 2 to 4.
        Row(rf"({_UNET_BLOCK}\.temp_convs\.\d+\.conv1)\.2", r"\1.conv", Kind.TEMPORAL),
        Row(rf"({_UNET_BLOCK}\.temp_convs\.\d+\.conv[2-4])\.3", r"\1.conv", Kind.TEMPORAL),
        Row(rf"({_UNET_BLOCK}\.(?:down|up)samplers\.0\.conv)", r"\1", Kind.CONV),
        Row(rf"({_TRANSFORMER}\.norm)", r"\1", Kind.NORM),
        Row(rf"({_TRANSFORMER}\.proj_(?:in|out))", r"\1", Kind.LINEAR),
        Row(rf"({_TRANSFORMER}\.transformer_blocks\.\d+\.norm[123])", r"\1", Kind.NORM),
        Row(
            rf"({_TRANSFORMER}\.transformer_blocks\.\d+\.attn[12]\.(?:to_[qkv]|to_out\.0))",
            r"\1",
            Kind.LINEAR,
        ),
        Row(
            rf"({_TRANSFORMER}\.transformer_blocks\.\d+\.ff)\.net\.0\.proj",
            r"\1.gate.proj",
            Kind.LINEAR,
        ),
        Row(rf"({_TRANSFORMER}\.transformer_blocks\.\d+\.ff)\.net\.2", r"\1.out", Kind.LINEAR),
    ),
    renames=_RENAMES,
)

FIRST_TRANSFORMER = r"transformer_in\..*"
"""diffusers' network always has one."""


def unet_table(config: UNet3DConfig) -> Table:
    """Of a network of these sizes; where it has no first transformer, what stands for it in the
    folder (zeros) is not read."""
    if config.first_transformer:
        return UNET
    return dataclasses.replace(UNET, ignored=(FIRST_TRANSFORMER,))


VAE = Table(
    (
        Row(rf"({_VAE_PART}\.conv_(?:in|out)|(?:post_)?quant_conv)", r"\1", Kind.CONV),
        Row(rf"({_VAE_PART}\.conv_norm_out)", r"\1", Kind.NORM),
        Row(rf"({_VAE_BLOCK}\.resnets\.\d+\.norm[12])", r"\1", Kind.NORM),
        Row(rf"({_VAE_BLOCK}\.resnets\.\d+\.(?:conv[12]|conv_shortcut))", r"\1", Kind.CONV),
        Row(rf"({_VAE_BLOCK}\.(?:down|up)samplers\.0\.conv)", r"\1", Kind.CONV),
        Row(rf"({_VAE_PART}\.mid_block\.attentions\.0\.group_norm)", r"\1", Kind.NORM),
        Row(
            rf"({_VAE_PART}\.mid_block\.attentions\.0)\.(to_[qkv]|to_out\.0)",
            r"\1.attention.\2",
            Kind.LINEAR,
        ),
        # The names of the same layers before diffusers 0.18, still in many published folders.
        *(
            Row(
                rf"({_VAE_PART}\.mid_block\.attentions\.0)\.{old}",
                rf"\1.attention.{new}",
                Kind.LINEAR,
            )
            for old, new in (
                ("query", "to_q"),
                ("key", "to_k"),
                ("value", "to_v"),
                ("proj_attn", "to_out.0"),
            )
        ),
    ),
    renames=_RENAMES,
)

_CLIP = r"(?:text_model\.)?"  # files carry this prefix, transformers 5 drops it in memory
CLIP_TEXT = Table(
    (
        Row(rf"{_CLIP}(embeddings\.(?:token|position)_embedding)", r"\1", Kind.EMBEDDING),
        Row(rf"{_CLIP}encoder\.(layers\.\d+\.self_attn\.(?:q|k|v|out)_proj)", r"\1", Kind.LINEAR),
        Row(rf"{_CLIP}encoder\.(layers\.\d+\.layer_norm[12])", r"\1", Kind.NORM),
        Row(rf"{_CLIP}encoder\.(layers\.\d+\.mlp\.fc[12])", r"\1", Kind.LINEAR),
        Row(rf"{_CLIP}(final_layer_norm)", r"\1", Kind.NORM),
    ),
    # A buffer that older transformers wrote; it is arange(77).
    ignored=(rf"{_CLIP}embeddings\.position_ids",),
    renames=_RENAMES,
)


def to_diffusers(module: nnx.Module, table: Table) -> dict[str, np.ndarray]:
    """A network's weights under diffusers' (or transformers') names and layouts.

    Raises:
        AssertionError: ``table`` does not lead a name back to where it came from.
    """
    out = {}
    for path, leaf in leaves(module).items():
        key = table.key(path)
        assert [target.path for target in table.targets(key)] == [path], (path, key)
        array = np.asarray(leaf)
        if key.endswith(".weight"):
            layer = key.rpartition(".")[0]
            row = next(row for row in table.rows if re.fullmatch(row.pattern, layer))
            array = row.kind.to_torch(array)
        out[key] = np.ascontiguousarray(array)
    return out
