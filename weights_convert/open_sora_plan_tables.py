"""Tables of Open-Sora Plan v1.3's networks, as the original code names them."""

import numpy as np

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

_BLOCK = r"transformer_blocks\.(\d+)"

TRANSFORMER = TensorTable(
    (
        *layer(r"pos_embed\.proj", "pos_embed", patches),
        *layer(r"(caption_projection\.linear_[12]|proj_out)", r"\1", linear),
        *layer(
            r"adaln_single\.emb\.timestep_embedder\.(linear_[12])",
            r"adaln_single.embedder.\1",
            linear,
        ),
        *layer(r"(adaln_single\.linear)", r"\1", linear),
        *layer(rf"{_BLOCK}\.(attn[12]\.(?:to_[qkv]|to_out\.0))", r"blocks.\1.\2", linear),
        *layer(rf"{_BLOCK}\.ff\.net\.0\.proj", r"blocks.\1.ff.proj", linear),
        *layer(rf"{_BLOCK}\.ff\.net\.2", r"blocks.\1.ff.out", linear),
        TensorRow(rf"{_BLOCK}\.scale_shift_table", r"blocks.\1.scale_shift_table", same),
        TensorRow(r"(scale_shift_table)", r"\1", same),
    ),
    renames=(
        (r"^pos_embed\.", "pos_embed.proj."),
        (r"^blocks\.", "transformer_blocks."),
        (r"\.embedder\.", ".emb.timestep_embedder."),
        (r"\.ff\.proj\.", ".ff.net.0.proj."),
        (r"\.ff\.out\.", ".ff.net.2."),
        (r"\.kernel$", ".weight"),
    ),
)
"""``OpenSoraT2V_v1_3``."""


def _convolution(weight: np.ndarray) -> np.ndarray:
    """Of frames, of one pixel, or of an image."""
    if weight.ndim != 5:
        return conv2d(weight)
    return linear(weight) if weight.shape[2:] == (1, 1, 1) else stacked_conv3d(weight)


VAE = TensorTable(
    (
        # Two-dimensional layers that hold their convolution, and three-dimensional ones that do.
        *layer(r"(encoder\.down1\.\d+\.conv|decoder\.up1\.\d+\.conv)", r"\1", conv2d),
        *layer(r"(.+\.norm(?:\d|_out)?)\.norm", r"\1", same, "scale"),
        *layer(r"(.+)\.conv", r"\1", _convolution),
        *layer(r"(.+)", r"\1", _convolution),
    ),
    ignored=(r"(?:en|de)coder\.(?:inverse_)?wavelet_transform_.+",),  # constants
    renames=(
        (r"\.(norm\d?|norm_out)\.(scale|bias)$", r".\1.norm.\2"),
        (r"\.(?:kernel|scale)$", ".weight"),
    ),
)
"""``WFVAEModel`` with layer norms."""
