"""Tables of the original VideoCrafter (LVDM) checkpoints: UNet, LDM autoencoder, OpenCLIP text.

These number their blocks through all levels, so the tables are computed from the configuration's
structure: every name stands in them in full, with where it goes and how.
"""

from collections.abc import Callable, Iterable

import numpy as np

from syncos_jax.models.clip_text import CLIPTextConfig
from syncos_jax.models.unet_clip.unet3d import UNet3DConfig
from syncos_jax.models.unet_clip.vae import VAEConfig
from syncos_jax.weights_convert.table import Kind, NamedTable, Target, layer_targets

PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.model.",
}
"""What stands before a network's names in a whole checkpoint."""

SCHEDULE_BUFFERS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "scale_arr",
)
"""What a whole checkpoint holds beside its networks: all of it follows from the configuration."""

Layer = tuple[str, str, Kind]
"""(their name, our path, kind)"""

_RESIDUAL: tuple[Layer, ...] = (  # {i}: our index within the level
    ("in_layers.0", "resnets.{i}.norm1", Kind.NORM),
    ("in_layers.2", "resnets.{i}.conv1", Kind.CONV),
    ("emb_layers.1", "resnets.{i}.time_emb_proj", Kind.LINEAR),
    ("out_layers.0", "resnets.{i}.norm2", Kind.NORM),
    ("out_layers.3", "resnets.{i}.conv2", Kind.CONV),
    ("skip_connection", "resnets.{i}.conv_shortcut", Kind.CONV),
    # Dropout stands at index 2 of stages 2 to 4. The misspelling is theirs.
    ("temopral_conv.conv1.0", "temp_convs.{i}.conv1.norm", Kind.NORM),
    ("temopral_conv.conv1.2", "temp_convs.{i}.conv1.conv", Kind.TEMPORAL),
    ("temopral_conv.conv2.0", "temp_convs.{i}.conv2.norm", Kind.NORM),
    ("temopral_conv.conv2.3", "temp_convs.{i}.conv2.conv", Kind.TEMPORAL),
    ("temopral_conv.conv3.0", "temp_convs.{i}.conv3.norm", Kind.NORM),
    ("temopral_conv.conv3.3", "temp_convs.{i}.conv3.conv", Kind.TEMPORAL),
    ("temopral_conv.conv4.0", "temp_convs.{i}.conv4.norm", Kind.NORM),
    ("temopral_conv.conv4.3", "temp_convs.{i}.conv4.conv", Kind.TEMPORAL),
)
_ATTENTION = tuple(
    (f"{block}.{attn}.{name}", f"{block}.{attn}.{name}", Kind.LINEAR)
    for block in ("transformer_blocks.0",)
    for attn in ("attn1", "attn2")
    for name in ("to_q", "to_k", "to_v", "to_out.0")
)
_TRANSFORMER: tuple[Layer, ...] = (
    ("norm", "norm", Kind.NORM),
    ("proj_in", "proj_in", Kind.LINEAR),  # a convolution of size 1 where use_linear is off
    *_ATTENTION,
    ("transformer_blocks.0.norm1", "transformer_blocks.0.norm1", Kind.NORM),
    ("transformer_blocks.0.norm2", "transformer_blocks.0.norm2", Kind.NORM),
    ("transformer_blocks.0.norm3", "transformer_blocks.0.norm3", Kind.NORM),
    ("transformer_blocks.0.ff.net.0.proj", "transformer_blocks.0.ff.gate.proj", Kind.LINEAR),
    ("transformer_blocks.0.ff.net.2", "transformer_blocks.0.ff.out", Kind.LINEAR),
    ("proj_out", "proj_out", Kind.LINEAR),
)


def _table(layers: Iterable[Layer]) -> NamedTable:
    entries: dict[str, tuple[Target, ...]] = {}
    for theirs, ours, kind in layers:
        entries |= layer_targets(theirs, ours, kind)
    return NamedTable(entries)


def _at(theirs: str, ours: str, layers: Iterable[Layer], index: int = 0) -> list[Layer]:
    """`layers` of the block `theirs`, at our path `ours`."""
    return [(f"{theirs}.{a}", f"{ours}.{b.format(i=index)}", kind) for a, b, kind in layers]


def _unet_block(theirs: str, ours: str, index: int, attention: bool) -> list[Layer]:
    """One of their blocks: residual and, where the level has them, two transformers."""
    layers = _at(f"{theirs}.0", ours, _RESIDUAL, index)
    if attention:
        layers += _at(f"{theirs}.1", f"{ours}.attentions.{index}", _TRANSFORMER)
        layers += _at(f"{theirs}.2", f"{ours}.temp_attentions.{index}", _TRANSFORMER)
    return layers


def unet_table(config: UNet3DConfig) -> NamedTable:
    """The UNet's table, without prefix."""
    levels = len(config.block_out_channels)
    layers: list[Layer] = [
        ("time_embed.0", "time_embedding.linear_1", Kind.LINEAR),
        ("time_embed.2", "time_embedding.linear_2", Kind.LINEAR),
        ("fps_embedding.0", "fps_embedding.linear_1", Kind.LINEAR),
        ("fps_embedding.2", "fps_embedding.linear_2", Kind.LINEAR),
        ("input_blocks.0.0", "conv_in", Kind.CONV),
        ("out.0", "conv_norm_out", Kind.NORM),
        ("out.2", "conv_out", Kind.CONV),
    ]
    layers += _at("init_attn.0", "transformer_in", _TRANSFORMER)
    block = 1
    for level in range(levels):
        ours = f"down_blocks.{level}"
        for index in range(config.layers_per_block):
            layers += _unet_block(f"input_blocks.{block}", ours, index, config.attention[level])
            block += 1
        if level < levels - 1:
            layers.append((f"input_blocks.{block}.0.op", f"{ours}.downsamplers.0.conv", Kind.CONV))
            block += 1
    layers += _unet_block("middle_block", "mid_block", 0, attention=True)
    layers += _at("middle_block.3", "mid_block", _RESIDUAL, 1)
    block = 0
    for up, level in enumerate(reversed(range(levels))):
        ours, attention = f"up_blocks.{up}", config.attention[level]
        for index in range(config.layers_per_block + 1):
            layers += _unet_block(f"output_blocks.{block}", ours, index, attention)
            block += 1
        if level > 0:  # behind the transformers of the level's last block
            theirs = f"output_blocks.{block - 1}.{3 if attention else 1}.conv"
            layers.append((theirs, f"{ours}.upsamplers.0.conv", Kind.CONV))
    return _table(layers)


_VAE_RESIDUAL: tuple[Layer, ...] = (
    ("norm1", "norm1", Kind.NORM),
    ("conv1", "conv1", Kind.CONV),
    ("norm2", "norm2", Kind.NORM),
    ("conv2", "conv2", Kind.CONV),
    ("nin_shortcut", "conv_shortcut", Kind.CONV),
)
_VAE_ENDS: tuple[Layer, ...] = (
    ("conv_in", "conv_in", Kind.CONV),
    ("norm_out", "conv_norm_out", Kind.NORM),
    ("conv_out", "conv_out", Kind.CONV),
    *_at("mid.block_1", "mid_block.resnets.0", _VAE_RESIDUAL),
    *_at("mid.block_2", "mid_block.resnets.1", _VAE_RESIDUAL),
    ("mid.attn_1.norm", "mid_block.attentions.0.group_norm", Kind.NORM),
    ("mid.attn_1.q", "mid_block.attentions.0.attention.to_q", Kind.LINEAR),
    ("mid.attn_1.k", "mid_block.attentions.0.attention.to_k", Kind.LINEAR),
    ("mid.attn_1.v", "mid_block.attentions.0.attention.to_v", Kind.LINEAR),
    ("mid.attn_1.proj_out", "mid_block.attentions.0.attention.to_out.0", Kind.LINEAR),
)


def vae_table(config: VAEConfig) -> NamedTable:
    """The autoencoder's table, without prefix."""
    levels, count = len(config.block_out_channels), config.layers_per_block
    layers: list[Layer] = [
        ("quant_conv", "quant_conv", Kind.CONV),
        ("post_quant_conv", "post_quant_conv", Kind.CONV),
        *_at("encoder", "encoder", _VAE_ENDS),
        *_at("decoder", "decoder", _VAE_ENDS),
    ]
    for level in range(levels):
        down = f"encoder.down.{level}", f"encoder.down_blocks.{level}"
        # LazyTensor in the order of the levels, finest first, but run from the last to the first.
        up = f"decoder.up.{level}", f"decoder.up_blocks.{levels - 1 - level}"
        for (theirs, ours), blocks in ((down, count), (up, count + 1)):
            for i in range(blocks):
                layers += _at(f"{theirs}.block.{i}", f"{ours}.resnets.{i}", _VAE_RESIDUAL)
        if level < levels - 1:
            layers.append(
                (f"{down[0]}.downsample.conv", f"{down[1]}.downsamplers.0.conv", Kind.CONV)
            )
        if level > 0:
            layers.append((f"{up[0]}.upsample.conv", f"{up[1]}.upsamplers.0.conv", Kind.CONV))
    return _table(layers)


_TEXT_LAYER: tuple[Layer, ...] = (
    ("ln_1", "layer_norm1", Kind.NORM),
    ("ln_2", "layer_norm2", Kind.NORM),
    ("attn.out_proj", "self_attn.out_proj", Kind.LINEAR),
    ("mlp.c_fc", "mlp.fc1", Kind.LINEAR),
    ("mlp.c_proj", "mlp.fc2", Kind.LINEAR),
)


def _third(index: int, then: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """Query, key or value of a tensor that holds them one after the other."""
    return lambda array: then(np.split(array, 3)[index])


def _joint_projection(theirs: str, ours: str) -> dict[str, tuple[Target, ...]]:
    names = ("q_proj", "k_proj", "v_proj")
    return {
        f"{theirs}.in_proj_weight": tuple(
            Target(f"{ours}.{name}.kernel", _third(i, Kind.LINEAR.to_jax))
            for i, name in enumerate(names)
        ),
        f"{theirs}.in_proj_bias": tuple(
            Target(f"{ours}.{name}.bias", _third(i, np.asarray)) for i, name in enumerate(names)
        ),
    }


def text_table(config: CLIPTextConfig, skipped_layers: int) -> NamedTable:
    """The text encoder's table, without prefix.

    Args:
        config: with the layers that are run.
        skipped_layers: how many more the checkpoint has (1 where the penultimate is read).
    """
    entries = {
        "positional_embedding": (Target("embeddings.position_embedding.embedding", np.asarray),),
        "token_embedding.weight": (Target("embeddings.token_embedding.embedding", np.asarray),),
        **layer_targets("ln_final", "final_layer_norm", Kind.NORM),
    }
    for i in range(config.layers):
        theirs, ours = f"transformer.resblocks.{i}", f"layers.{i}"
        entries |= _table(_at(theirs, ours, _TEXT_LAYER)).entries
        entries |= _joint_projection(f"{theirs}.attn", f"{ours}.self_attn")
    ignored = {
        "text_projection": "makes the pooled vector of image-text matching",
        "logit_scale": "temperature of image-text matching",
        "attn_mask": "the causal mask, a constant",
    }
    for i in range(config.layers, config.layers + skipped_layers):
        block = f"transformer.resblocks.{i}"
        names = [
            *_table(_at(block, "", _TEXT_LAYER)).entries,
            *_joint_projection(f"{block}.attn", ""),
        ]
        ignored |= dict.fromkeys(names, "a block behind the one that is read")
    return NamedTable(entries, ignored)
