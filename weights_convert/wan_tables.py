"""Tables of Wan's transformer and autoencoder, in diffusers' layout and in the original one."""

from syncos_jax.models.wan.config import WanVAEConfig
from syncos_jax.weights_convert.tensor_table import (
    TensorRow,
    TensorTable,
    conv2d,
    layer,
    linear,
    patches,
    per_channel,
    same,
    stacked_conv3d,
    without_batch,
)

_BLOCK = r"(blocks\.\d+)"
_IMAGE = r"condition_embedder\.image_embedder"

TRANSFORMER = TensorTable(
    (
        *layer(r"(patch_embedding)", r"\1", patches),
        *layer(
            r"(condition_embedder\.(?:(?:time|text)_embedder\.linear_[12]|time_proj))",
            r"\1",
            linear,
        ),
        *layer(rf"({_BLOCK}\.attn[12]\.(?:to_[qkv]|to_out\.0|add_[kv]_proj))", r"\1", linear),
        TensorRow(rf"({_BLOCK}\.attn[12]\.norm_(?:[qk]|added_k))\.weight", r"\1.scale", same),
        *layer(rf"({_IMAGE}\.norm[12])", r"\1", same, leaf="scale"),
        *layer(rf"({_IMAGE})\.ff\.net\.0\.proj", r"\1.proj", linear),
        *layer(rf"({_IMAGE})\.ff\.net\.2", r"\1.out", linear),
        TensorRow(rf"({_IMAGE})\.pos_embed", r"\1.positions", without_batch),
        *layer(rf"({_BLOCK}\.norm2)", r"\1", same, leaf="scale"),
        *layer(rf"{_BLOCK}\.ffn\.net\.0\.proj", r"\1.ffn.proj", linear),
        *layer(rf"{_BLOCK}\.ffn\.net\.2", r"\1.ffn.out", linear),
        TensorRow(rf"({_BLOCK}\.scale_shift_table)", r"\1", without_batch),
        *layer(r"(proj_out)", r"\1", linear),
        TensorRow(r"(scale_shift_table)", r"\1", without_batch),
    ),
    ignored=(rf"{_BLOCK}\.attn[12]\.norm_added_q\.weight",),  # in some files; nothing reads it
    renames=(
        (rf"^({_IMAGE})\.proj\.", r"\1.ff.net.0.proj."),
        (rf"^({_IMAGE})\.out\.", r"\1.ff.net.2."),
        (rf"^({_IMAGE})\.positions$", r"\1.pos_embed"),
        (r"\.ffn\.proj\.", ".ffn.net.0.proj."),
        (r"\.ffn\.out\.", ".ffn.net.2."),
        (r"\.(?:kernel|scale)$", ".weight"),
    ),
)
"""diffusers' ``WanTransformer3DModel``."""

_OUR_IMAGE = "condition_embedder.image_embedder"
_PREFIX = r"(?:model\.diffusion_model\.)?"  # of files for ComfyUI
_ATTENTION = (("self_attn", "attn1"), ("cross_attn", "attn2"))
_PROJECTIONS = (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
_EMBEDDERS = (
    ("time_embedding.0", "time_embedder.linear_1"),
    ("time_embedding.2", "time_embedder.linear_2"),
    ("time_projection.1", "time_proj"),
    ("text_embedding.0", "text_embedder.linear_1"),
    ("text_embedding.2", "text_embedder.linear_2"),
    ("img_emb.proj.1", "image_embedder.proj"),
    ("img_emb.proj.3", "image_embedder.out"),
)
_BLOCK_LAYERS = (
    *(
        (f"{theirs}.{name}", f"{ours}.{to}")
        for theirs, ours in _ATTENTION
        for name, to in _PROJECTIONS
    ),
    ("cross_attn.k_img", "attn2.add_k_proj"),
    ("cross_attn.v_img", "attn2.add_v_proj"),
    ("ffn.0", "ffn.proj"),
    ("ffn.2", "ffn.out"),
)


def _escaped(name: str) -> str:
    return name.replace(".", r"\.")


ORIGINAL_TRANSFORMER = TensorTable(
    (
        *layer(rf"{_PREFIX}(patch_embedding)", r"\1", patches),
        *(
            row
            for theirs, ours in _EMBEDDERS
            for row in layer(_PREFIX + _escaped(theirs), f"condition_embedder.{ours}", linear)
        ),
        *(
            row
            for theirs, ours in _BLOCK_LAYERS
            for row in layer(rf"{_PREFIX}{_BLOCK}\.{_escaped(theirs)}", rf"\1.{ours}", linear)
        ),
        *(
            TensorRow(
                rf"{_PREFIX}{_BLOCK}\.{theirs}\.(norm_[qk])\.weight", rf"\1.{ours}.\2.scale", same
            )
            for theirs, ours in _ATTENTION
        ),
        TensorRow(
            rf"{_PREFIX}{_BLOCK}\.cross_attn\.norm_k_img\.weight",
            r"\1.attn2.norm_added_k.scale",
            same,
        ),
        *layer(rf"{_PREFIX}img_emb\.proj\.0", rf"{_OUR_IMAGE}.norm1", same, leaf="scale"),
        *layer(rf"{_PREFIX}img_emb\.proj\.4", rf"{_OUR_IMAGE}.norm2", same, leaf="scale"),
        TensorRow(rf"{_PREFIX}img_emb\.emb_pos", rf"{_OUR_IMAGE}.positions", without_batch),
        # The norm before the attention to the text is their third.
        *layer(rf"{_PREFIX}{_BLOCK}\.norm3", r"\1.norm2", same, leaf="scale"),
        TensorRow(rf"{_PREFIX}{_BLOCK}\.modulation", r"\1.scale_shift_table", without_batch),
        TensorRow(rf"{_PREFIX}head\.modulation", "scale_shift_table", without_batch),
        *layer(rf"{_PREFIX}head\.head", "proj_out", linear),
    ),
    ignored=(rf"{_PREFIX}freqs",),  # the rotary angles, in some files
    renames=(
        *(
            (rf"^condition_embedder\.{_escaped(ours)}\.", f"{theirs}.")
            for theirs, ours in _EMBEDDERS
        ),
        *((rf"^{_BLOCK}\.{_escaped(ours)}\.", rf"\1.{theirs}.") for theirs, ours in _BLOCK_LAYERS),
        *((rf"\.{ours}\.(norm_[qk])\.", rf".{theirs}.\1.") for theirs, ours in _ATTENTION),
        (r"\.attn2\.norm_added_k\.", ".cross_attn.norm_k_img."),
        (rf"^{_IMAGE}\.norm1\.", "img_emb.proj.0."),
        (rf"^{_IMAGE}\.norm2\.", "img_emb.proj.4."),
        (rf"^{_IMAGE}\.positions$", "img_emb.emb_pos"),
        (r"\.norm2\.", ".norm3."),
        (r"^scale_shift_table$", "head.modulation"),
        (r"\.scale_shift_table$", ".modulation"),
        (r"^proj_out\.", "head.head."),
        (r"\.(?:kernel|scale)$", ".weight"),
    ),
)
"""Wan's own ``WanModel``."""

_PART = r"(?:encoder|decoder)"
_RESNET = rf"{_PART}\.(?:mid_block\.resnets\.\d+|(?:down|up)_blocks\.\d+(?:\.resnets\.\d+)?)"
_RESAMPLE = (
    r"(?:encoder\.down_blocks\.\d+(?:\.downsampler)?"
    r"|decoder\.up_blocks\.\d+\.(?:upsamplers\.0|upsampler))"
)
_VAE_ATTENTION = rf"{_PART}\.mid_block\.attentions\.0"


def vae_table() -> TensorTable:
    """diffusers' ``AutoencoderKLWan``."""
    return TensorTable(
        (
            *layer(rf"({_PART}\.conv_(?:in|out)|(?:post_)?quant_conv)", r"\1", stacked_conv3d),
            *layer(rf"({_RESNET}\.(?:conv[12]|conv_shortcut))", r"\1", stacked_conv3d),
            *layer(rf"({_RESAMPLE}\.time_conv)", r"\1", stacked_conv3d),
            *layer(rf"({_RESAMPLE})\.resample\.1", r"\1.conv", conv2d),
            *layer(rf"({_VAE_ATTENTION}\.(?:to_qkv|proj))", r"\1", linear),
            TensorRow(
                rf"({_RESNET}\.norm[12]|{_VAE_ATTENTION}\.norm|{_PART}\.norm_out)\.gamma",
                r"\1.scale",
                per_channel,
            ),
        ),
        renames=(
            (rf"^({_RESAMPLE})\.conv\.", r"\1.resample.1."),
            (r"\.kernel$", ".weight"),
            (r"\.scale$", ".gamma"),
        ),
    )


_RESIDUAL = (
    ("residual.0", "norm1"),
    ("residual.2", "conv1"),
    ("residual.3", "norm2"),
    ("residual.6", "conv2"),
    ("shortcut", "conv_shortcut"),
)


def _original_blocks(config: WanVAEConfig) -> list[tuple[str, str]]:
    """Residual blocks of the original autoencoder, and of ours."""
    pairs = [
        (f"{part}.middle.{2 * i}", f"{part}.mid_block.resnets.{i}")
        for part in ("encoder", "decoder")
        for i in (0, 1)
    ]
    levels, per_level = len(config.multipliers), config.blocks + 1
    for level in range(levels):
        for i in range(config.blocks):
            through = level * per_level + i
            pairs.append(
                (
                    f"encoder.downsamples.{level}.downsamples.{i}",
                    f"encoder.down_blocks.{level}.resnets.{i}",
                )
                if config.residual
                else (f"encoder.downsamples.{through}", f"encoder.down_blocks.{through}")
            )
        for i in range(per_level):
            pairs.append(
                (
                    f"decoder.upsamples.{level}.upsamples.{i}"
                    if config.residual
                    else f"decoder.upsamples.{level * (per_level + 1) + i}",
                    f"decoder.up_blocks.{level}.resnets.{i}",
                )
            )
    return pairs


def _original_resamples(config: WanVAEConfig) -> list[tuple[str, str]]:
    """Changes of size of the original autoencoder, and of ours."""
    levels, per_level = len(config.multipliers), config.blocks + 1
    pairs = []
    for level in range(levels - 1):
        if config.residual:
            pairs += [
                (
                    f"encoder.downsamples.{level}.downsamples.{config.blocks}",
                    f"encoder.down_blocks.{level}.downsampler",
                ),
                (
                    f"decoder.upsamples.{level}.upsamples.{per_level}",
                    f"decoder.up_blocks.{level}.upsampler",
                ),
            ]
            continue
        down = level * per_level + config.blocks
        pairs.append((f"encoder.downsamples.{down}", f"encoder.down_blocks.{down}"))
        up = level * (per_level + 1) + per_level
        pairs.append((f"decoder.upsamples.{up}", f"decoder.up_blocks.{level}.upsamplers.0"))
    return pairs


def original_vae_table(config: WanVAEConfig) -> TensorTable:
    """Wan's own autoencoders: ``Wan2.1_VAE.pth`` numbers its blocks through, ``Wan2.2_VAE.pth``
    within each level."""
    causal = [("conv1", "quant_conv"), ("conv2", "post_quant_conv")]
    norms = []
    attention = []
    for part in ("encoder", "decoder"):
        causal += [(f"{part}.conv1", f"{part}.conv_in"), (f"{part}.head.2", f"{part}.conv_out")]
        norms += [
            (f"{part}.head.0", f"{part}.norm_out"),
            (f"{part}.middle.1.norm", f"{part}.mid_block.attentions.0.norm"),
        ]
        attention += [
            (f"{part}.middle.1.{name}", f"{part}.mid_block.attentions.0.{name}")
            for name in ("to_qkv", "proj")
        ]
    for theirs, ours in _original_blocks(config):
        for of_theirs, of_ours in _RESIDUAL:
            pairs = norms if of_ours.startswith("norm") else causal
            pairs.append((f"{theirs}.{of_theirs}", f"{ours}.{of_ours}"))
    spatial = []
    for theirs, ours in _original_resamples(config):
        spatial.append((f"{theirs}.resample.1", f"{ours}.conv"))
        causal.append((f"{theirs}.time_conv", f"{ours}.time_conv"))
    rows = [
        row
        for pairs, transform in ((causal, stacked_conv3d), (spatial, conv2d), (attention, linear))
        for theirs, ours in pairs
        for row in layer(_escaped(theirs), ours, transform)
    ]
    rows += [
        TensorRow(rf"{_escaped(theirs)}\.gamma", f"{ours}.scale", per_channel)
        for theirs, ours in norms
    ]
    back = [
        (rf"^{_escaped(ours)}\.", f"{theirs}.")
        for theirs, ours in (*causal, *spatial, *attention, *norms)
    ]
    return TensorTable(
        tuple(rows), renames=(*back, (r"\.kernel$", ".weight"), (r"\.scale$", ".gamma"))
    )


ORIGINAL_TEXT = TensorTable(
    (
        TensorRow(r"token_embedding\.weight", "embedding.embedding", same),
        TensorRow(rf"{_BLOCK}\.(norm[12])\.weight", r"\1.\2.scale", same),
        TensorRow(rf"{_BLOCK}\.attn\.([qkvo])\.weight", r"\1.attention.\2.kernel", linear),
        TensorRow(
            rf"{_BLOCK}\.pos_embedding\.embedding\.weight",
            r"\1.attention.relative_bias.embedding",
            same,
        ),
        TensorRow(rf"{_BLOCK}\.ffn\.gate\.0\.weight", r"\1.feed_forward.wi.kernel", linear),
        TensorRow(rf"{_BLOCK}\.ffn\.fc1\.weight", r"\1.feed_forward.gated.kernel", linear),
        TensorRow(rf"{_BLOCK}\.ffn\.fc2\.weight", r"\1.feed_forward.wo.kernel", linear),
        TensorRow(r"norm\.weight", "final_norm.scale", same),
    ),
    ignored=("spiece_model",),
    renames=(
        (r"^embedding\.embedding$", "token_embedding.weight"),
        (r"^final_norm\.", "norm."),
        (r"\.attention\.relative_bias\.", ".pos_embedding.embedding."),
        (r"\.attention\.", ".attn."),
        (r"\.feed_forward\.wi\.", ".ffn.gate.0."),
        (r"\.feed_forward\.gated\.", ".ffn.fc1."),
        (r"\.feed_forward\.wo\.", ".ffn.fc2."),
        (r"\.(?:kernel|scale|embedding)$", ".weight"),
    ),
)
"""Wan's own UMT5 encoder (``models_t5_umt5-xxl-enc-bf16.pth``)."""
