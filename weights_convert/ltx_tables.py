"""Tables of LTX-2's networks in diffusers' layout, and of Gemma 3 in transformers'."""

import numpy as np

from syncos_jax.models.ltx.config import LTXConnectorConfig
from syncos_jax.weights_convert.tensor_table import (
    TensorRow,
    TensorTable,
    layer,
    linear,
    same,
    stacked_conv3d,
)

AUDIO = (r".*audio.*", r".*av_c(?:a|ross_attn).*", r".*(?:a2v|v2a).*", r"vocoder\..*")
"""Tensors of the audio stream, which is not converted."""
_UNUSED = r"keyframes_abs_pos_embedding"
_BLOCK = r"transformer_blocks\.(\d+)"


def _attention(prefix: str, ours: str) -> list[TensorRow]:
    return [
        *layer(
            rf"{prefix}\.(attn[12])\.(to_[qkv]|to_out\.0|to_gate_logits)", rf"{ours}.\2.\3", linear
        ),
        TensorRow(rf"{prefix}\.(attn[12])\.(norm_[qk])\.weight", rf"{ours}.\2.\3.scale", same),
    ]


def _feed_forward(prefix: str, ours: str) -> list[TensorRow]:
    return [
        *layer(rf"{prefix}\.ff\.net\.0\.proj", rf"{ours}.ff.proj", linear),
        *layer(rf"{prefix}\.ff\.net\.2", rf"{ours}.ff.out", linear),
    ]


_RENAMES = (
    (r"\.ff\.proj\.", ".ff.net.0.proj."),
    (r"\.ff\.out\.", ".ff.net.2."),
    (r"\.embedder\.", ".emb.timestep_embedder."),
    (r"\.(?:kernel|scale)$", ".weight"),
)

TRANSFORMER = TensorTable(
    (
        *_attention(_BLOCK, r"blocks.\1"),
        *_feed_forward(_BLOCK, r"blocks.\1"),
        TensorRow(rf"{_BLOCK}\.((?:prompt_)?scale_shift_table)", r"blocks.\1.\2", same),
        TensorRow(r"(scale_shift_table)", r"\1", same),
        *layer(r"(proj_(?:in|out)|caption_projection\.linear_[12])", r"\1", linear),
        *layer(r"(time_embed|prompt_adaln)\.linear", r"\1.linear", linear),
        *layer(
            r"(time_embed|prompt_adaln)\.emb\.timestep_embedder\.(linear_[12])",
            r"\1.embedder.\2",
            linear,
        ),
    ),
    ignored=(*AUDIO, r"keyframes_abs_pos_embedding"),
    renames=((r"^blocks\.", "transformer_blocks."), *_RENAMES),
)
"""diffusers' ``LTX2VideoTransformer3DModel``."""


def connector_table(config: LTXConnectorConfig) -> TensorTable:
    """The connectors of the video stream, of diffusers' ``LTX2TextConnectors``."""

    def by_layer(weight: np.ndarray) -> np.ndarray:
        """``[O, D L] -> [L, D, O]``; layers are the fastest axis of the input."""
        if weight.ndim != 2 or weight.shape[1] != config.features * config.states:
            raise ValueError(f"expected [out, {config.features} x {config.states}]")
        return weight.reshape(-1, config.features, config.states).transpose(2, 1, 0)

    block = r"video_connector\.transformer_blocks\.(\d+)"
    projection = "video_text_proj_in" if config.per_token else "text_proj_in"
    return TensorTable(
        (
            *_attention(block, r"blocks.\1"),
            *_feed_forward(block, r"blocks.\1"),
            TensorRow(r"video_connector\.learnable_registers", "registers", same),
            TensorRow(rf"{projection}\.weight", "kernel", by_layer),
            TensorRow(rf"{projection}\.bias", "bias", same),
        ),
        ignored=AUDIO,
        renames=(
            (r"^kernel$", f"{projection}.weight"),
            (r"^bias$", f"{projection}.bias"),
            (r"^registers$", "video_connector.learnable_registers"),
            (r"^blocks\.", "video_connector.transformer_blocks."),
            *_RENAMES,
        ),
    )


_LEVEL = r"(?:encoder|decoder)\.(?:(?:down|up)_blocks\.\d+|mid_block)"
_RESNET = rf"{_LEVEL}\.(?:resnets\.\d+|conv_in)"

VAE = TensorTable(
    (
        *layer(r"((?:encoder|decoder)\.conv_(?:in|out)\.conv)", r"\1", stacked_conv3d),
        *layer(rf"({_RESNET}\.conv[12]\.conv)", r"\1", stacked_conv3d),
        *layer(rf"({_RESNET}\.conv_shortcut)", r"\1", linear),
        *layer(rf"({_RESNET}\.norm3)", r"\1", same, "scale"),
        *layer(
            rf"({_LEVEL})\.(down|up)samplers\.0(\.conv\.conv)", r"\1.\2sampler\3", stacked_conv3d
        ),
        TensorRow(r"(decoder(?:\..+)?\.scale_shift_table)", r"\1", same),
        TensorRow(r"(decoder\.timestep_scale_multiplier)", r"\1", same),
        *layer(
            r"(decoder(?:\..+)?\.time_embedder)\.timestep_embedder\.(linear_[12])",
            r"\1.embedder.\2",
            linear,
        ),
    ),
    ignored=(r"latents_(?:mean|std)",),  # part of the configuration
    renames=(
        (r"\.(down|up)sampler\.", r".\1samplers.0."),
        (r"\.time_embedder\.embedder\.", ".time_embedder.timestep_embedder."),
        (r"\.(?:kernel|scale)$", ".weight"),
    ),
)
"""diffusers' ``AutoencoderKLLTX2Video``."""

_LM = r"(?:(?:model\.)?language_model\.)?(?:model\.)?"
_GEMMA_LAYERS = {
    "self_attn.q_proj": "attention.q",
    "self_attn.k_proj": "attention.k",
    "self_attn.v_proj": "attention.v",
    "self_attn.o_proj": "attention.o",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}
_GEMMA_NORMS = {
    "self_attn.q_norm": "attention.norm_q",
    "self_attn.k_norm": "attention.norm_k",
    "input_layernorm": "norm1",
    "post_attention_layernorm": "norm2",
    "pre_feedforward_layernorm": "norm3",
    "post_feedforward_layernorm": "norm4",
}


def _escaped(name: str) -> str:
    return name.replace(".", r"\.")


GEMMA3 = TensorTable(
    (
        TensorRow(rf"{_LM}embed_tokens\.weight", "embedding.embedding", same),
        TensorRow(rf"{_LM}norm\.weight", "final_norm.scale", same),
        *(
            TensorRow(
                rf"{_LM}layers\.(\d+)\.{_escaped(theirs)}\.weight",
                rf"blocks.\1.{ours}.{leaf}",
                move,
            )
            for names, leaf, move in (
                (_GEMMA_LAYERS, "kernel", linear),
                (_GEMMA_NORMS, "scale", same),
            )
            for theirs, ours in names.items()
        ),
    ),
    ignored=(
        r"(?:model\.)?(?:vision_tower|vision_model|multi_modal_projector)\..+",
        r"(?:language_model\.)?lm_head\.weight",
    ),
    renames=(
        (r"^embedding\.embedding$", "embed_tokens.weight"),
        (r"^final_norm\.", "norm."),
        *(
            (rf"^blocks\.(\d+)\.{_escaped(ours)}\.", rf"layers.\1.{theirs}.")
            for theirs, ours in (*_GEMMA_LAYERS.items(), *_GEMMA_NORMS.items())
        ),
        (r"\.(?:kernel|scale|embedding)$", ".weight"),
    ),
)
"""transformers' ``Gemma3ForConditionalGeneration`` and its text model alone."""
