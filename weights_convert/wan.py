"""Wan's models: a folder of diffusers', Wan's own folder, or files of single networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncos_jax.errors import Argument, InputError
from syncos_jax.models.image_processing import ImageProcessing, of_transformers
from syncos_jax.models.t5 import T5Config
from syncos_jax.models.wan.config import WanTransformerConfig, WanVAEConfig
from syncos_jax.models.wan.settings import WanConfig
from syncos_jax.weights_convert import scheduler_config, wan_config, wan_image, wan_tables
from syncos_jax.weights_convert.checkpoint import Checkpoint, Part
from syncos_jax.weights_convert.diffusers_config import read_json
from syncos_jax.weights_convert.recognise import Found, find_network
from syncos_jax.weights_convert.state_dict import Choice
from syncos_jax.weights_convert.t5 import from_llama, t5_config, t5_config_of, t5_table

CLASSES = ("WanTransformer3DModel", "AutoencoderKLWan", "WanModel")
"""Of ``config.json``."""
SCHEDULE = {"rule": "unipc", "shift": 3.0}
SOLVER = {"name": "unipc", "variant": "bh2"}
"""What Wan is sampled with where a folder does not say (as at 480p)."""

_FIELDS = {"text_encoder": "text", "transformer_2": "transformer", "image_encoder": "image"}
_EXPERTS = {"transformer": "high_noise_model", "transformer_2": "low_noise_model"}
_OWN_VAE = (
    "Wan2.1_VAE.pth",
    "Wan2.1_VAE.safetensors",
    "wan_2.1_vae.safetensors",
    "Wan2.2_VAE.pth",
    "Wan2.2_VAE.safetensors",
    "wan2.2_vae.safetensors",
)
_OWN_TEXT = tuple(
    f"{name}.{suffix}"
    for name in ("models_t5_umt5-xxl-enc-bf16", "umt5-xxl-enc-bf16", "umt5-xxl-enc-fp8_e4m3fn")
    for suffix in ("pth", "safetensors")
)
_OWN_IMAGE = tuple(
    f"models_clip_open-clip-xlm-roberta-large-vit-huge-14{name}"
    for name in (".pth", ".safetensors", "-onlyvisual.pth")
)
_OWN_TOKENIZER = "google/umt5-xxl"


def recognises(folder: Path) -> bool:
    """Whether a folder is one of Wan's models, or of one of its networks, with a configuration or
    with files of Wan's own names."""
    if any((folder / name).is_file() for name in (*_OWN_VAE, *_OWN_TEXT, *_OWN_IMAGE)):
        return True
    if _json_if(folder / "config.json").get("model_type") == "clip_vision_model":
        return True
    if (folder / "model_index.json").is_file():
        return str(read_json(folder / "model_index.json").get("_class_name", "")).startswith("Wan")
    parts = [folder / name for name in ("", "transformer", "vae", *_EXPERTS.values())]
    configs = [part / "config.json" for part in parts if (part / "config.json").is_file()]
    text = [folder / name / "config.json" for name in ("", "text_encoder")]
    return any(read_json(config).get("_class_name") in CLASSES for config in configs) or any(
        read_json(config).get("model_type") == "umt5" for config in text if config.is_file()
    )


def open_model(folder: Path, only: str | None = None, choice: Choice | None = None) -> Checkpoint:
    """Opens a folder, or with `only` one network of it.

    Args:
        folder: in diffusers' layout or Wan's own, or the folder of one network.
        only: the one network that is wanted.
        choice: of several sets of weights in a file, which one.

    Raises:
        InputError: a missing or broken file; says which and why.
    """
    choice = choice or Choice()
    if only is not None and only not in WanConfig.networks:
        raise InputError(
            argument="only", expected=f"one of {', '.join(WanConfig.networks)} for Wan", value=only
        )
    own = any((folder / name).is_file() for name in (*_OWN_VAE, *_OWN_TEXT, *_OWN_IMAGE)) or any(
        _class_of(folder / name) == "WanModel" for name in ("", *_EXPERTS.values())
    )
    return _open_own(folder, only, choice) if own else _open_diffusers(folder, only, choice)


def open_files(places: Mapping[str, Path], choice: Choice | None = None) -> Checkpoint:
    """Opens a model of which each network lies in a file, or in a folder, of its own.

    Args:
        places: by the network's name.
        choice: of several sets of weights in a file, which one.

    Raises:
        InputError: as `open_model`, or parts that do not fit one another.
    """
    choice = choice or Choice()
    found: dict[str, Any] = {}
    parts, warnings = _read_parts(places, found, choice, alone=len(places) == 1)
    two = {"transformer", "transformer_2"} <= set(parts)
    config = _config(next(iter(places.values())), found, two, {})
    return _checked(Checkpoint(config, parts, None, tuple(warnings)))


def _read_parts(
    places: Mapping[str, Path], sizes: dict[str, Any], choice: Choice, alone: bool
) -> tuple[dict[str, Part], list[str]]:
    """The networks at `places`; their sizes go into `sizes` by the names of `WanConfig`."""
    parts: dict[str, Part] = {}
    warnings: list[str] = []
    for name, place in places.items():
        found = find_network(place, choice, name)
        config = place / "config.json" if place.is_dir() else place.with_name("config.json")
        parts[name], size = _part(name, place, found, _json_if(config), alone)
        field = _FIELDS.get(name, name)
        if sizes.get(field, size) != size:
            raise InputError(f"{place}: has other sizes than {places['transformer']}")
        sizes[field] = size
        warnings += found.warnings
    return parts, warnings


def _part(
    name: str, place: Path, found: Found, settings: Mapping[str, Any], alone: bool
) -> tuple[Part, Any]:
    """A network's tensors with their table, and its sizes."""
    where, tensors, layout = str(place), found.tensors, found.layout.key
    own_settings = settings if settings.get("_class_name") in CLASSES else {}
    config_path = str(place / "config.json")
    if layout == "wan_own":
        settings = settings if settings.get("_class_name") == "WanModel" else {}
        sizes: Any = wan_config.original_transformer_config(settings, tensors, where)
        table, others = wan_tables.ORIGINAL_TRANSFORMER, (wan_tables.TRANSFORMER,)
        return Part(where, tensors, table, others), sizes
    if layout == "wan_diffusers":
        if own_settings:
            sizes = wan_config.transformer_config(own_settings, config_path)
        else:
            sizes = wan_config.transformer_config_of(tensors, where)
        others = (wan_tables.ORIGINAL_TRANSFORMER,)
        return Part(where, tensors, wan_tables.TRANSFORMER, others), sizes
    if layout in ("wan_vae", "wan_vae22"):
        sizes = wan_config.original_vae_config(tensors, where)
        return Part(where, tensors, wan_tables.original_vae_table(sizes)), sizes
    if layout == "wan_vae_diffusers":
        if not own_settings:
            raise InputError(
                "a Wan autoencoder in diffusers' layout without its config.json",
                place=where,
                remedy="give its folder, or Wan's own file",
            )
        sizes = wan_config.vae_config(own_settings, config_path, alone)
        return Part(where, tensors, wan_tables.vae_table()), sizes
    if layout == "clip_vision":
        sizes = wan_image.config_of_transformers(
            settings or read_json(place / "config.json"), where
        )
        return Part(where, tensors, wan_image.transformers_table(sizes)), sizes
    if layout == "clip_vision_own":
        sizes = wan_image.config_of_wan(tensors, where)
        return Part(where, tensors, wan_image.wan_table(sizes)), sizes
    if layout == "umt5_own":
        sizes = wan_config.original_text_config(tensors, where)
        return Part(where, tensors, wan_tables.ORIGINAL_TEXT), sizes
    if layout in ("umt5_gguf", "t5_gguf"):
        tensors = from_llama(tensors)
        settings = {}
    if settings.get("model_type") in ("t5", "umt5"):
        sizes = t5_config(settings)
    else:
        sizes = t5_config_of(tensors, where)
    return Part(where, tensors, t5_table(sizes, tensors), metadata=found.metadata), sizes


def _open_diffusers(folder: Path, only: str | None, choice: Choice) -> Checkpoint:
    index = _json_if(folder / "model_index.json")
    boundary = index.get("boundary_ratio")
    absent = {"transformer_2"} if boundary is None else set()
    if not (folder / "image_encoder" / "config.json").is_file():
        absent.add("image_encoder")
    places = {}
    for name in [n for n in WanConfig.networks if n not in absent] if only is None else (only,):
        place = folder / name
        if only is not None and not place.is_dir():
            place = folder  # the network's own folder
        places[name] = place
        if only is None or place != folder:
            read_json(place / "config.json")  # says that it is missing
    sizes: dict[str, Any] = {}
    parts, warnings = _read_parts(places, sizes, choice, alone=only is not None)
    scheduler = _json_if(folder / "scheduler" / "scheduler_config.json")
    if only is None and not scheduler:
        read_json(folder / "scheduler" / "scheduler_config.json")
    if scheduler:
        sizes["schedule"] = scheduler_config.flow_settings(scheduler)
        sizes["solver"] = scheduler_config.solver_values(scheduler)
    if boundary is not None and only is None:
        sizes["boundary"] = boundary
    if index.get("expand_timesteps"):
        sizes["clean_frames"] = True
    processor = folder / "image_processor" / "preprocessor_config.json"
    if "image" in sizes and processor.is_file():
        sizes["image_processing"] = of_transformers(read_json(processor), str(processor))
    two = {"transformer", "transformer_2"} <= set(parts)
    config = _config(folder, sizes, two, _json_if(folder / "syncos.json"))
    tokenizer = _folder_if(folder / "tokenizer")
    return _checked(Checkpoint(config, parts, tokenizer, tuple(warnings)))


def _open_own(folder: Path, only: str | None, choice: Choice) -> Checkpoint:
    two = any((folder / name).is_dir() for name in _EXPERTS.values())
    absent = set() if two else {"transformer_2"}
    if not any((folder / name).is_file() for name in _OWN_IMAGE):
        absent.add("image_encoder")
    places = {}
    for name in [n for n in WanConfig.networks if n not in absent] if only is None else (only,):
        if name == "image_encoder":
            places[name] = _file_of(folder, _OWN_IMAGE)
        elif name == "vae":
            places[name] = _file_of(folder, _OWN_VAE)
        elif name == "text_encoder":
            places[name] = _file_of(folder, _OWN_TEXT)
        elif two:
            places[name] = folder / _EXPERTS[name]
        else:
            places[name] = folder
    sizes: dict[str, Any] = {}
    parts, warnings = _read_parts(places, sizes, choice, alone=only is not None)
    both = {"transformer", "transformer_2"} <= set(parts)
    if "image" in sizes:
        sizes["image_processing"] = ImageProcessing.wan()
    config = _config(folder, sizes, both, _json_if(folder / "syncos.json"))
    tokenizer = _folder_if(folder / _OWN_TOKENIZER)
    return _checked(Checkpoint(config, parts, tokenizer, tuple(warnings)))


def published(transformer: WanTransformerConfig, vae: WanVAEConfig, two: bool) -> dict[str, Any]:
    """Sampling defaults of the published model of these sizes.

    Wan 2.1 (``generate.py`` and ``wan/image2video.py``): guidance 5, shift 3 at 480p (5 at 720p),
    50 steps, from an image 40; from a first and a last image shift 16 and 50 steps. Wan 2.2:
    ``wan/configs/wan_ti2v_5B.py``, ``wan_t2v_A14B.py`` and ``wan_i2v_A14B.py``.

    Args:
        transformer, vae: sizes.
        two: whether there are two transformers (A14B).
    """
    on_images = transformer.in_channels > transformer.out_channels
    if two:
        shift, guidance = (5.0, (3.5, 3.5)) if on_images else (12.0, (4.0, 3.0))
        return {
            "schedule": {"rule": "unipc", "shift": shift},
            "steps": 40,
            "guidance": guidance[0],
            "guidance_2": guidance[1],
            "boundary": 0.9 if on_images else 0.875,
        }
    if transformer.image_positions is not None:
        return {"schedule": {"rule": "unipc", "shift": 16.0}, "steps": 50}
    if on_images:
        return {"steps": 40}
    if vae.latent_channels == 48:
        return {
            "schedule": {"rule": "unipc", "shift": 5.0},
            "window": 31,
            "stride": 8,
            "fps": 24,
            "height": 704,
            "width": 1280,
            "clean_frames": True,
        }
    return {}


def _config(
    place: Path, values: Mapping[str, Any], two: bool, extra: Mapping[str, Any]
) -> WanConfig:
    networks: dict[str, Any] = {
        "transformer": WanTransformerConfig(),
        "vae": WanVAEConfig(),
        "text": T5Config.umt5_xxl(),
    }
    networks |= {name: values[name] for name in networks if name in values}
    default: dict[str, Any] = {
        "name": place.stem,
        "source": str(place),
        "schedule": SCHEDULE,
        "solver": SOLVER,
        **networks,
        **published(networks["transformer"], networks["vae"], two),
    }
    return WanConfig(**{**default, **values, **extra})


def _checked(opened: Checkpoint) -> Checkpoint:
    """InputError where the networks do not fit one another."""
    config: WanConfig = opened.config
    if "transformer" in opened.parts and "vae" in opened.parts:
        channels, out, latent = (
            config.transformer.in_channels,
            config.transformer.out_channels,
            config.vae.latent_channels,
        )
        beside = latent + config.vae.time_factor  # a mask and the latents of what is known
        if out != latent or channels not in (out, out + beside):
            raise InputError(
                f"the networks do not fit: the transformer takes {channels} latent channels and "
                f"predicts {out}, the autoencoder has {latent}",
                expected=f"{latent}, or {latent + beside} of a network for pictures, to {latent}",
            )
    if {"transformer", "vae"} <= set(opened.parts):
        features, image = config.transformer.image_features, config.image
        if features != (None if image is None else image.features):
            raise InputError(
                f"the networks do not fit: the transformer takes {features or 'no'} image "
                f"features, the image encoder has {'none' if image is None else image.features}",
                remedy=None if image else "add the folder image_encoder",
            )
    if {"transformer", "text_encoder"} <= set(opened.parts):
        features, other = config.transformer.text_features, config.text.features
        if features != other:
            raise InputError(
                f"the networks do not fit: the transformer takes {features} text features, the "
                f"text encoder has {other}"
            )
    return opened


def _class_of(folder: Path) -> str:
    return str(_json_if(folder / "config.json").get("_class_name", ""))


def _json_if(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _folder_if(path: Path) -> Path | None:
    return path if path.is_dir() else None


def _file_of(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"missing {names[0]}",
        place=folder,
        remedy=(
            "for one network alone pass ",
            Argument("only"),
            "; pass files of other names by network, such as ",
            Argument("vae", "FILE"),
        ),
    )
