"""Tables of diffusers' CogVideoXTransformer3DModel and AutoencoderKLCogVideoX."""

import numpy as np

from syncos_jax.models.cogvideox.config import CogVideoXTransformerConfig
from syncos_jax.weights_convert.tensor_table import (
    TensorRow,
    TensorTable,
    conv2d,
    layer,
    linear,
    patches,
    same,
    stacked_conv3d,
)

_BLOCK = r"(transformer_blocks\.\d+)"
_TRANSFORMER_RENAMES = (
    (r"\.norm\.norm\.", ".norm."),
    (r"^norm_final\.norm\.", "norm_final."),
    (r"^patch_embed\.positions$", "patch_embed.pos_embedding"),
    (r"(transformer_blocks\.\d+\.ff)\.proj\.", r"\1.net.0.proj."),
    (r"(transformer_blocks\.\d+\.ff)\.out\.", r"\1.net.2."),
    (r"\.(?:kernel|scale)$", ".weight"),
)


def transformer_table(config: CogVideoXTransformerConfig) -> TensorTable:
    """The transformer's table. 1.5's patch embedding is a dense layer over a patch's channels,
    frames, rows and columns, in this order; ours has the channels last."""

    def patch(weight: np.ndarray) -> np.ndarray:
        if config.patch_frames is None:
            return patches(weight)
        if weight.ndim != 2 or weight.shape[1] != config.patch_values(config.in_channels):
            raise ValueError("expected [out, in pt ph pw]")
        return patches(weight.reshape(weight.shape[0], config.in_channels, *config.patches))

    rows = [
        *layer(r"patch_embed\.proj", "patch_embed.proj", patch),
        *layer(r"patch_embed\.text_proj", "patch_embed.text_proj", linear),
        *layer(r"((?:time|ofs)_embedding\.linear_[12])", r"\1", linear),
        *layer(rf"{_BLOCK}\.(norm[12])\.linear", r"\1.\2.linear", linear),
        *layer(rf"{_BLOCK}\.(norm[12])\.norm", r"\1.\2.norm.norm", same, "scale"),
        *layer(rf"{_BLOCK}\.attn1\.(to_[qkv]|to_out\.0)", r"\1.attn1.\2", linear),
        *layer(rf"{_BLOCK}\.attn1\.(norm_[qk])", r"\1.attn1.\2", same, "scale"),
        *layer(rf"{_BLOCK}\.ff\.net\.0\.proj", r"\1.ff.proj", linear),
        *layer(rf"{_BLOCK}\.ff\.net\.2", r"\1.ff.out", linear),
        *layer(r"norm_final", "norm_final.norm", same, "scale"),
        *layer(r"norm_out\.linear", "norm_out.linear", linear),
        *layer(r"norm_out\.norm", "norm_out.norm.norm", same, "scale"),
        *layer(r"proj_out", "proj_out", linear),
    ]
    ignored: tuple[str, ...] = ()
    if config.positions == "rotary+learned":
        rows.append(TensorRow(r"patch_embed\.pos_embedding", "patch_embed.positions", same))
    else:
        ignored = (r"patch_embed\.pos_embedding",)  # computed; some files hold it nevertheless
    return TensorTable(tuple(rows), ignored, _TRANSFORMER_RENAMES)


_CODER = r"((?:encoder|decoder)"
_RESNET = rf"{_CODER}\.(?:(?:down|up)_blocks\.\d+|mid_block)\.resnets\.\d+)"

VAE = TensorTable(
    (
        *layer(rf"{_CODER}\.conv_(?:in|out))\.conv", r"\1", stacked_conv3d),
        *layer(rf"{_RESNET}\.(conv[12])\.conv", r"\1.\2", stacked_conv3d),
        *layer(rf"{_RESNET}\.conv_shortcut", r"\1.conv_shortcut", linear),
        *layer(rf"{_CODER}\.(?:down|up)_blocks\.\d+\.(?:down|up)samplers\.0\.conv)", r"\1", conv2d),
        # Norms: plain in the encoder, conditioned on the latents in the decoder.
        *layer(rf"{_RESNET}\.(norm[12])(?:\.norm_layer)?", r"\1.\2.norm", same, "scale"),
        *layer(r"(encoder|decoder)\.norm_out(?:\.norm_layer)?", r"\1.norm_out.norm", same, "scale"),
        *layer(rf"{_RESNET}\.(norm[12])\.(conv_[yb])\.conv", r"\1.\2.\3", linear),
        *layer(r"decoder\.norm_out\.(conv_[yb])\.conv", r"decoder.norm_out.\1", linear),
    ),
    renames=(
        (r"^(encoder\..*norm(?:[12]|_out))\.norm\.", r"\1."),
        (r"^(decoder\..*norm(?:[12]|_out))\.norm\.", r"\1.norm_layer."),
        (r"\.(conv_in|conv_out|conv1|conv2|conv_y|conv_b)\.", r".\1.conv."),
        (r"\.(?:kernel|scale)$", ".weight"),
    ),
)
