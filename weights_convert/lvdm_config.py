"""The original VideoCrafter (LVDM) configuration: its YAML, or JSON of parts of it.

What is taken: ``unet_config``, the autoencoder's ``ddconfig``, the text encoder's ``text_cfg`` (or
``cond_stage_config``) and the diffusion's own parameters, wherever in the file they stand and with
or without a ``params`` level. What a file leaves out is as published for VideoCrafter2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.models.clip_text import CLIPTextConfig
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.models.unet_clip.unet3d import UNet3DConfig
from syncos_jax.models.unet_clip.vae import VAEConfig
from syncos_jax.sampling import SynCoS

Values = Mapping[str, Any]

PUBLISHED: dict[str, Any] = {
    "model": {
        "params": {
            "linear_start": 0.00085,
            "linear_end": 0.012,
            "timesteps": 1000,
            "image_size": [40, 64],
            "scale_factor": 0.18215,
            "use_scale": True,
            "scale_b": 0.7,
            "unet_config": {
                "params": {
                    "in_channels": 4,
                    "out_channels": 4,
                    "model_channels": 320,
                    "attention_resolutions": [4, 2, 1],
                    "num_res_blocks": 2,
                    "channel_mult": [1, 2, 4, 4],
                    "num_head_channels": 64,
                    "transformer_depth": 1,
                    "context_dim": 1024,
                    "use_linear": True,
                    "temporal_conv": True,
                    "temporal_attention": True,
                    "temporal_selfatt_only": True,
                    "use_relative_position": False,
                    "use_causal_attention": False,
                    "temporal_length": 16,
                    "addition_attention": True,
                    "fps_cond": True,
                }
            },
            "first_stage_config": {
                "params": {
                    "embed_dim": 4,
                    "ddconfig": {
                        "double_z": True,
                        "z_channels": 4,
                        "resolution": 512,
                        "in_channels": 3,
                        "out_ch": 3,
                        "ch": 128,
                        "ch_mult": [1, 2, 4, 4],
                        "num_res_blocks": 2,
                        "attn_resolutions": [],
                        "dropout": 0.0,
                    },
                }
            },
            "cond_stage_config": {"params": {"layer": "penultimate"}},
        }
    }
}
"""VideoCrafter2's configs/inference_t2v_512_v2.0.yaml, without what only its training reads."""

# OpenCLIP's ViT-H-14, the text tower that FrozenOpenCLIPEmbedder takes by default.
_VIT_H_14 = {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24}

_DEFAULT = SynCoS.paper()
_FPS, _GUIDANCE, _STEPS = 28, 12.0, 50
_NOTES = {
    "sampling of its own scripts": "plain DDIM with eta 1, frames saved at 10 a second while 28 is "
    "what the network is told: sampler: {name: co_denoising, eta: 1}, fps: 10",
    "sampling of SynCoS": "eta 0, 50 steps, stride 4, t_min 800 to 900, learning rate 0.5 to 1, 20 "
    "to 50 iterations (arXiv 2503.08605)",
    "where a scenario names no sampler": "SynCoS as published: "
    f"t_min {_DEFAULT.t_min:g}, {_DEFAULT.iterations} iterations at learning rate "
    f"{_DEFAULT.learning_rate:g}, eta {_DEFAULT.eta:g}",
}


@dataclasses.dataclass(frozen=True)
class LVDMConfig:
    """A configuration, and the parts of the checkpoint that it does not use.

    Attributes:
        model: ours.
        skipped_text_layers: blocks of the text encoder behind the one that is read.
        published: whether all of it is as published, no file having been given.
    """

    model: ModelConfig
    skipped_text_layers: int
    published: bool


def _mappings(value: Any) -> Iterator[Values]:
    """All mappings within a document, outer ones first."""
    if isinstance(value, Mapping):
        yield value
        for item in value.values():
            yield from _mappings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _mappings(item)


def _find(documents: list[Values], what: str, test: Callable[[Values], bool]) -> Values | None:
    """The one mapping that passes `test`; InputError where two differ."""
    found = [m for document in documents for m in _mappings(document) if test(m)]
    if any(other != found[0] for other in found[1:]):
        raise InputError(f"configuration: holds two different settings of {what}; give one")
    return found[0] if found else None


def _get(values: Values, where: str, key: str, kind: type | tuple[type, ...] = int) -> Any:
    if key not in values:
        raise InputError(f"configuration: {where} lacks {key}")
    return _checked(values[key], f"{where}.{key}", kind)


def _checked(value: Any, where: str, kind: type | tuple[type, ...] = int) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"configuration: {where} is {value!r}, which cannot be converted")
    return value


def _integers(values: Values, where: str, key: str) -> list[int]:
    items = _get(values, where, key, (list, tuple))
    return [_checked(item, f"{where}.{key}") for item in items]


def _refuse_other(values: Values, where: str, **known: Any) -> None:
    """Refuses a setting that our network does not have, rather than compute something else."""
    for key, value in known.items():
        allowed = value if isinstance(value, tuple) else (value,)
        if key in values and values[key] not in allowed:
            raise InputError(
                f"configuration: {where}.{key} is {values[key]!r}; only "
                f"{' or '.join(map(repr, allowed))} can be converted"
            )


def unet_config(values: Values) -> UNet3DConfig:
    """Our sizes from their ``unet_config``."""
    where = "unet_config"
    # A switch that is left out is not judged: whatever it adds or lacks shows in the tensors.
    _refuse_other(
        values,
        where,
        transformer_depth=1,
        temporal_transformer_depth=1,
        temporal_conv=True,
        temporal_attention=True,
        temporal_selfatt_only=True,
        addition_attention=True,
        use_relative_position=False,
        use_causal_attention=False,
        use_scale_shift_norm=False,
        use_image_attention=False,
        resblock_updown=False,
        tempspatial_aware=False,
        conv_resample=True,
        dims=2,
    )
    channels = _get(values, where, "model_channels")
    multiples = _integers(values, where, "channel_mult")
    attended = _integers(values, where, "attention_resolutions")
    head_size = _get(values, where, "num_head_channels")
    if head_size < 1:
        raise InputError(
            f"configuration: {where}.num_head_channels is {head_size}; only heads of a fixed size "
            "can be converted"
        )
    return UNet3DConfig(
        in_channels=_get(values, where, "in_channels"),
        out_channels=_get(values, where, "out_channels"),
        block_out_channels=tuple(channels * multiple for multiple in multiples),
        attention=tuple(2**level in attended for level in range(len(multiples))),
        layers_per_block=_get(values, where, "num_res_blocks"),
        head_size=head_size,
        text_features=_get(values, where, "context_dim"),
        fps_embedding=bool(values.get("fps_cond", False)),
    )


def vae_config(values: Values) -> VAEConfig:
    """Our sizes from the autoencoder's ``ddconfig``."""
    where = "ddconfig"
    multiples = _integers(values, where, "ch_mult")
    attended = list(values.get("attn_resolutions") or [])
    resolution = values.get("resolution", 256)
    if any(resolution // 2**level in attended for level in range(len(multiples))):
        raise InputError(
            f"configuration: {where}.attn_resolutions is {attended}; attention outside the middle "
            "cannot be converted"
        )
    _refuse_other(
        values,
        where,
        double_z=True,
        out_ch=values.get("in_channels", 3),
        resamp_with_conv=True,
        use_linear_attn=False,
        attn_type="vanilla",
        give_pre_end=False,
        tanh_out=False,
    )
    return VAEConfig(
        image_channels=_get(values, where, "in_channels"),
        latent_channels=_get(values, where, "z_channels"),
        block_out_channels=tuple(_get(values, where, "ch") * m for m in multiples),
        layers_per_block=_get(values, where, "num_res_blocks"),
    )


def text_config(values: Values, layer: str, quick_gelu: bool) -> tuple[CLIPTextConfig, int]:
    """Our sizes from OpenCLIP's ``text_cfg``, and how many layers are skipped."""
    where = "text_cfg"
    if layer not in ("last", "penultimate"):
        raise InputError(f"configuration: layer is {layer!r}; expected 'last' or 'penultimate'")
    skipped = 1 if layer == "penultimate" else 0
    values = {**_VIT_H_14, **values}
    width = _get(values, where, "width")
    config = CLIPTextConfig(
        vocabulary=_get(values, where, "vocab_size"),
        tokens=_get(values, where, "context_length"),
        features=width,
        inner=int(width * values.get("mlp_ratio", 4.0)),
        layers=_get(values, where, "layers") - skipped,
        heads=_get(values, where, "heads"),
        activation="quick_gelu" if quick_gelu else "gelu",
    )
    return config, skipped


def _text(documents: list[Values]) -> tuple[CLIPTextConfig, int] | None:
    holder = _find(documents, "text_cfg", lambda m: isinstance(m.get("text_cfg"), Mapping))
    if holder is not None:
        layer = holder.get("layer", "penultimate")
        return text_config(holder["text_cfg"], layer, bool(holder.get("quick_gelu", False)))
    bare = _find(documents, "the text encoder", lambda m: {"vocab_size", "width"} <= set(m))
    if bare is not None:
        return text_config(bare, bare.get("layer", "penultimate"), bool(bare.get("quick_gelu")))
    stage = _find(
        documents, "cond_stage_config", lambda m: isinstance(m.get("cond_stage_config"), Mapping)
    )
    if stage is None:
        return None
    target = stage["cond_stage_config"].get("target", "FrozenOpenCLIPEmbedder")
    values = stage["cond_stage_config"].get("params") or {}
    if str(target).split(".")[-1] != "FrozenOpenCLIPEmbedder":
        raise InputError(f"configuration: cond_stage_config.target {target} cannot be converted")
    _refuse_other(values, "cond_stage_config", arch="ViT-H-14", max_length=77)
    return text_config(_VIT_H_14, values.get("layer", "last"), quick_gelu=False)


def schedule_settings(values: Values) -> dict[str, Any]:
    """``ModelConfig.schedule`` from the parameters of their LatentDiffusion."""
    where = "model.params"
    rules = {"linear": "scaled_linear", "sqrt_linear": "linear", "cosine": "squaredcos"}
    predictions = {"eps": "epsilon", "x0": "x0"}
    _refuse_other(
        values,
        where,
        beta_schedule=tuple(rules),
        parameterization=tuple(predictions),
        given_betas=None,
    )
    scale = None
    if values.get("use_scale", False):
        scale = {
            "start": float(values.get("scale_a", 1)),
            "end": float(values.get("scale_b", 0.3)),
            "steps": int(values.get("mid_step", 400)),
        }
    return {
        "betas": rules[values.get("beta_schedule", "linear")],
        "beta_start": float(values.get("linear_start", 1e-4)),
        "beta_end": float(values.get("linear_end", 2e-2)),
        "train_steps": int(values.get("timesteps", 1000)),
        "prediction": predictions[values.get("parameterization", "eps")],
        "signal_scale": scale,
        "spacing": "every",
        "offset": 1,
        "final_timestep": 0,
    }


def read(documents: list[Values], name: str, source: str) -> LVDMConfig:
    """The configuration that `documents` hold together; VideoCrafter2's where there are none.

    Raises:
        InputError: no usable entries, a missing one, or an unsupported network.
    """
    given = _parts(documents)
    if documents and not any(given.values()):
        raise InputError(
            "configuration: holds none of unet_config, ddconfig, text_cfg and the diffusion's "
            "parameters; give the original code's YAML, or JSON of these"
        )
    published = _parts([PUBLISHED])
    parts = {key: given[key] or published[key] for key in given}
    unet, diffusion = parts["unet"], parts["diffusion"]
    vae = vae_config(parts["vae"])
    text, skipped = parts["text"]
    size = diffusion.get("image_size", [40, 64])
    height, width = size if isinstance(size, list) else (size, size)
    window = int(unet.get("temporal_length") or 16)
    model = ModelConfig(
        name=name,
        unet=unet_config(unet),
        vae=vae,
        text=text,
        schedule=schedule_settings(diffusion),
        latent_scale=float(parts["scale"]),
        window=window,
        stride=max(1, window // 4),
        fps=_FPS,
        height=int(height) * vae.factor,
        width=int(width) * vae.factor,
        steps=_STEPS,
        guidance=_GUIDANCE,
        openclip_tokens=True,
        source=source,
        notes=_NOTES,
    )
    return LVDMConfig(model, skipped, published=not documents)


_DIFFUSION_KEYS = {"linear_start", "linear_end", "use_scale", "parameterization"}


def _parts(documents: list[Values]) -> dict[str, Any]:
    """What the documents say of each part; None where nothing."""
    holders = [m for document in documents for m in _mappings(document)]
    scales = {m["scale_factor"] for m in holders if "scale_factor" in m}
    if len(scales) > 1:
        raise InputError(f"configuration: scale_factor is given as {sorted(scales)}; give one")
    return {
        "unet": _find(documents, "unet_config", lambda m: "model_channels" in m),
        "vae": _find(documents, "ddconfig", lambda m: "ch_mult" in m),
        "text": _text(documents),
        "diffusion": _find(documents, "the diffusion", lambda m: bool(_DIFFUSION_KEYS & {*m})),
        "scale": next(iter(scales), None),
    }
