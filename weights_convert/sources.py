"""What a source of weights is: a checkpoint, a folder of diffusers', or something near one.

People give the folder above or below the one that is meant, the hub's cache, a file out of a
folder, an archive. What is clear is followed, what is not is answered with what to give.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from syncos_jax.errors import Argument, InputError
from syncos_jax.weights_convert import file_tree, layouts
from syncos_jax.weights_convert.checkpoint import Checkpoint
from syncos_jax.weights_convert.recognise import find_network, unknown
from syncos_jax.weights_convert.state_dict import Choice
from syncos_jax.weights_convert.weight_files import read_file

Format = Literal["videocrafter", "diffusers", "wan"]

NETWORK_CLASSES = {
    "UNet3DConditionModel": "unet",
    "UNetVideoCrafter": "unet",
    "AutoencoderKL": "vae",
    "CLIPTextModel": "text_encoder",
}
_CHECKPOINTS = (".ckpt", ".safetensors", ".pt", ".pth", ".bin", ".gguf")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
_MODELSCOPE = (
    "text2video_pytorch_model.pth",
    "VQGAN_autoencoder.pth",
    "open_clip_pytorch_model.bin",
)
_PIPELINE = ("model_index.json", "config.json", "unet/config.json")
_SHOWN = 8


def open_source(
    source: str,
    format: Format | None,
    config: list[Path],
    choice: Choice,
    *,
    name: str,
    motion: str | None = None,
) -> Checkpoint:
    """Opens what `source` names, after recognising its format.

    Args:
        source: a path, or an id on the hub.
        format: None to recognise it.
        config: the original code's configuration, for VideoCrafter checkpoints.
        choice: which part of it to read.
        name: for the model.
        motion: a motion adapter, for a folder of Stable Diffusion 1.5.

    Raises:
        InputError: there is no such thing, or nothing that can be converted; says what to give.
    """
    from syncos_jax.weights_convert import cogvideox, hub, ltx, lvdm, open_sora_plan, wan
    from syncos_jax.weights_convert.diffusers_folder import open_pipeline

    if format is not None and format not in get_args(Format):
        raise InputError(
            argument="format", expected=f"one of {', '.join(get_args(Format))}", value=format
        )
    path = Path(source)
    if not os.path.exists(source):  # a name that is too long is no error here
        if not hub.is_id(source):
            raise InputError(f"{source}: no such file or folder")
        path = hub.fetch(source)
    if motion is not None:
        return _with_motion(path, motion, choice, name)
    try:
        family = _family(path, format)
        if not (family or (format != "videocrafter" and cogvideox.recognises(path))):
            path = _meant(path, format, choice.network)
            family = _family(path, format)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if path.is_dir():
        if config:
            raise InputError(
                "only for VideoCrafter checkpoints",
                argument="config",
                remedy="omit it: the folder has its own",
            )
        if family == "wan":
            opened = wan.open_model(path, choice.network, choice)
        elif family:
            reader = ltx if family == "ltx" else open_sora_plan
            opened = reader.open_model(path, choice.network)
        elif files := file_tree.network_files(path):
            opened = open_files(files, choice, name=name, source=source)
        else:
            if path.is_dir() and Path(source).suffix.lower() in _CHECKPOINTS:
                choice = dataclasses.replace(choice, file=path / Path(source).name)
            opened = open_pipeline(path, choice.network, choice, source)
        given = path.is_dir() and (path / "syncos.json").is_file()  # which may say both
        said = {} if given else {"name": name, "source": source}
        opened = dataclasses.replace(opened, config=dataclasses.replace(opened.config, **said))
    elif format == "diffusers":
        raise InputError(f"{source}: is a file; give the folder that it lies in, with config.json")
    elif format == "videocrafter" or config:
        opened = lvdm.open_checkpoint(path, config, choice, name)
    else:
        opened = _open_single(path, format, choice, name)
    if path == Path(source):
        return opened
    return dataclasses.replace(opened, warnings=(f"took {path}", *opened.warnings))


def _open_single(path: Path, format: Format | None, choice: Choice, name: str) -> Checkpoint:
    """Opens a file by what it is recognised to be."""
    from syncos_jax.weights_convert import ltx, lvdm

    tensors = read_file(path, choice).tensors
    found = layouts.matches(tensors)
    held = [match.layout for match in found]
    refused = next((layout for layout in held if layout.refused), None)
    only = choice.network
    if refused is not None and not lvdm.has_prefixes(tensors):
        raise InputError(f"{refused.name}: {refused.refused}", place=path)
    if any(layout.key == "sd15" for layout in held):
        raise InputError(
            "is a Stable Diffusion 1.5 checkpoint, which makes images",
            place=path,
            remedy=("add an AnimateDiff motion module: ", Argument("motion", "FILE")),
        )
    if any(layout.network == "motion" for layout in held):
        raise InputError(
            "is an AnimateDiff motion module",
            place=path,
            remedy=("convert Stable Diffusion 1.5 with ", Argument("motion", "FILE")),
        )
    if any(layout.family == "ltx" for layout in held):
        return ltx.open_model(path, only)
    if any(layout.family in ("wan", "t5", "cogvideox") for layout in held) or format == "wan":
        if only is None:
            network = held[0].network if held else "network"
            raise InputError(
                f"holds a {network} alone ({held[0].name if held else 'unknown'})",
                place=path,
                remedy=("add ", Argument("only", network), ", or pass a file for each network"),
            )
        return open_files({only: path}, choice, name=name, source=str(path))
    if not held and not lvdm.has_prefixes(tensors) or only in ("transformer", "transformer_2"):
        if held:
            names = ", ".join(layout.name for layout in held)
            raise InputError(f"holds no {only}, but: {names}", place=path)
        raise unknown(path, tensors)
    return lvdm.open_checkpoint(path, [], choice, name)


def open_files(places: Mapping[str, Path], choice: Choice, *, name: str, source: str) -> Checkpoint:
    """Opens a model of which each network lies in a file or folder of its own.

    Args:
        places: by the network's name.
        choice: of several sets of weights in a file, which one.
        name: for the model.
        source: where it is from.

    Raises:
        InputError: a file that is missing, unreadable or another network, or networks that do not
            fit one another.
    """
    from syncos_jax.weights_convert import cogvideox, wan

    for network, place in places.items():
        if not place.exists():
            raise InputError("no such file or folder", argument=network, value=str(place))
    denoiser = next((n for n in ("transformer", "transformer_2") if n in places), None)
    first = denoiser or next(iter(places))
    family = find_network(places[first], choice, first).layout.family
    reader = cogvideox.open_files if family in ("cogvideox", "t5") else wan.open_files
    opened = reader(places, choice)
    config = dataclasses.replace(opened.config, name=name, source=source)
    return dataclasses.replace(opened, config=config)


def _with_motion(path: Path, motion: str, choice: Choice, name: str) -> Checkpoint:
    """Stable Diffusion 1.5 with a motion adapter; each a path, the adapter an id, too."""
    from syncos_jax.weights_convert import animatediff, hub

    adapter = Path(motion)
    if not adapter.exists():
        if not hub.is_id(motion):
            raise InputError("no such file or folder", argument="motion", value=str(motion))
        adapter = hub.fetch(motion)
    if path.is_file():
        _check_base(path)
        opened = animatediff.open_checkpoint(path, adapter, choice.network)
        source = f"{path} with {motion}"
        config = dataclasses.replace(opened.config, name=name, source=source)
        return dataclasses.replace(opened, config=config)
    folder = path if (path / "unet").is_dir() else snapshot(path) or path
    opened = animatediff.open_model(folder, adapter, choice.network)
    source = f"{path} with {motion}"
    said = {} if (folder / "syncos.json").is_file() else {"name": name, "source": source}
    return dataclasses.replace(opened, config=dataclasses.replace(opened.config, **said))


def _check_base(path: Path) -> None:
    """InputError where a file given together with a motion module is not Stable Diffusion 1.5."""
    tensors = read_file(path).tensors
    found = [match.layout for match in layouts.matches(tensors)]
    if any(layout.key == "sd15" for layout in found):
        return
    if not found:
        raise unknown(path, tensors)
    raise InputError(
        f"{found[0].name}" + (f": {found[0].refused}" if found[0].refused else ""),
        place=path,
        expected=("a Stable Diffusion 1.5 checkpoint, to go with ", Argument("motion")),
    )


def _family(path: Path, format: Format | None) -> str:
    """The family whose reader takes the folder `path`, where it has several layouts; "" for
    others."""
    from syncos_jax.weights_convert import ltx, open_sora_plan, wan

    if not path.is_dir() or format == "videocrafter":
        return ""
    if format == "wan" or wan.recognises(path):
        return "wan"
    if ltx.recognises(path):
        return "ltx"
    return "open_sora_plan" if open_sora_plan.recognises(path) else ""


def _meant(path: Path, format: Format | None, only: str | None) -> Path:
    """The folder of diffusers' or the checkpoint file that `path` stands for."""
    if path.is_file():
        return _meant_file(path, format, only)
    _refuse_modelscope(path)
    if format == "diffusers":
        inner = snapshot(path)
        return path if inner is None else inner
    if format is None and is_pipeline(path):
        _refuse_single_network(path, only)
        return path
    _refuse_of_trainers(path)
    if file_tree.network_files(path):
        return path
    found = sorted(p for p in path.iterdir() if p.suffix in (".ckpt", ".safetensors"))
    if len(found) == 1:
        return found[0]
    if not found:
        inner = snapshot(path)
        if inner is not None:
            return _meant(inner, format, only)
        _refuse_several(path)
    names = ", ".join(p.name for p in found[:_SHOWN]) or "none"
    raise InputError(
        f"{path}: neither a folder of diffusers' (model_index.json, unet/config.json) nor one "
        f"with a single checkpoint (found {names}{', ...' if len(found) > _SHOWN else ''}); give "
        "such a folder, or the checkpoint itself"
    )


def is_pipeline(folder: Path) -> bool:
    """Whether `folder` looks like one of diffusers'."""
    return any((folder / name).is_file() for name in _PIPELINE)


def snapshot(folder: Path) -> Path | None:
    """The folder one level down, or at most three, that is meant by one of the hub's cache or of
    an unpacked archive: the snapshot that ``refs/main`` names, or the only folder with a model."""
    held = folder / "snapshots"
    if held.is_dir():
        main = folder / "refs" / "main"
        if main.is_file():
            named = held / main.read_text(encoding="utf-8", errors="replace").strip()[:100]
            if named.is_dir() and named.parent == held:
                return named
        return _single(held)
    inner = _single(folder)
    return None if inner is None else inner


def _models_in(folder: Path) -> list[Path]:
    """The folders within `folder` that hold a model, of diffusers', of ours, or a checkpoint."""
    return [
        inner
        for inner in sorted(folder.iterdir())
        if inner.is_dir()
        and not inner.name.startswith(".")
        and (
            is_pipeline(inner)
            or (inner / "snapshots").is_dir()
            or any(p.suffix == ".ckpt" for p in inner.iterdir())
        )
    ]


def _single(folder: Path) -> Path | None:
    found = _models_in(folder)
    return found[0] if len(found) == 1 else None


def _refuse_several(folder: Path) -> None:
    found = _models_in(folder)
    if len(found) > 1:
        names = ", ".join(inner.name for inner in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise InputError(
            f"{folder}: holds several models: {names}{more}; give one of these folders"
        )


def _meant_file(path: Path, format: Format | None, only: str | None) -> Path:
    if path.name in _MODELSCOPE:
        _refuse_modelscope(path.parent, path)
    if path.name == "model_index.json":
        return path.parent
    lower = path.name.lower()
    if lower.endswith(_ARCHIVES) and not (lower.endswith(".tar") and _is_torch_file(path)):
        raise InputError(f"{path}: is an archive; unpack it, and give the folder or the checkpoint")
    if lower.endswith((".json", ".yaml", ".yml", ".txt", ".md")):
        raise InputError(
            f"{path}: not a checkpoint; pass the checkpoint itself, or a diffusers folder"
        )
    if lower.endswith((".onnx", ".msgpack", ".h5", ".pkl", ".npz")):
        raise InputError(
            f"{path}: {path.suffix} files cannot be read; give a .ckpt, .pt, .pth, .bin, "
            ".safetensors or .gguf, or a folder of diffusers'"
        )
    beside = path.parent / "config.json"
    if format is None and beside.is_file() and path.suffix in _CHECKPOINTS:
        network = network_of(beside)
        if network is not None and only == network:
            return path.parent
        if network is not None:
            above = path.parent.parent
            whole = f"pass {above} for the whole model, or " if is_pipeline(above) else "pass "
            raise InputError(
                f"is the {network} of a diffusers folder",
                place=path,
                remedy=(f"{whole}{path.parent} with ", Argument("only", network)),
            )
    return path


def _is_torch_file(path: Path) -> bool:
    """Whether a file is torch's, whatever its name: many trainers write ``.pth.tar``."""
    from syncos_jax.weights_convert import torch_file

    with path.open("rb") as file:
        return torch_file.recognises(file.read(4))


_OF_TRAINERS = {
    ".metadata": "is a distributed checkpoint of PyTorch's; python -m "
    "torch.distributed.checkpoint.format_utils dcp_to_torch makes one file of it, which can be "
    "converted",
    "zero_to_fp32.py": "is a checkpoint of DeepSpeed's; the zero_to_fp32.py in it makes one file "
    "of it, which can be converted",
}
"""Files by which folders that trainers write are known."""


def _refuse_of_trainers(folder: Path) -> None:
    for name, what in _OF_TRAINERS.items():
        if (folder / name).is_file():
            raise InputError(f"{folder}: {what}")


def network_of(config: Path) -> str | None:
    """Which network a ``config.json`` of diffusers' or transformers' describes; None for others."""
    from syncos_jax.weights_convert.diffusers_config import read_json

    values: dict[str, Any] = read_json(config)
    names = values.get("architectures")
    named = names[0] if isinstance(names, list) and names else None
    found = values.get("_class_name", named)
    if values.get("model_type") == "clip_text_model":
        return "text_encoder"
    return NETWORK_CLASSES.get(found) if isinstance(found, str) else None


def _refuse_single_network(folder: Path, only: str | None) -> None:
    """InputError for the folder of one network where a whole model is wanted."""
    if only is not None or (folder / "model_index.json").is_file():
        return
    if (folder / "unet").is_dir() or not (folder / "config.json").is_file():
        return
    network = network_of(folder / "config.json")
    if network is None:
        return
    above = folder.absolute().parent
    whole = f"pass {above} for the whole model, or " if is_pipeline(above) else "pass "
    raise InputError(
        f"holds only a {network}", place=folder, remedy=(whole, Argument("only", network))
    )


def _refuse_modelscope(folder: Path, file: Path | None = None) -> None:
    """InputError for the files that ModelScope publishes, which have other names and layouts."""
    found = [name for name in _MODELSCOPE if (folder / name).is_file()]
    if not found or (file is None and is_pipeline(folder)):
        return
    raise InputError(
        f"{file or folder}: ModelScope's original files ({', '.join(found)}) are not converted; "
        "the same weights are published as a folder of diffusers', which is: give "
        "damo-vilab/text-to-video-ms-1.7b (or, for ZeroScope, cerspense/zeroscope_v2_576w), "
        "downloaded or as an id"
    )


def is_checkpoint_name(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name is a checkpoint's."""
    return Path(path).suffix.lower() in _CHECKPOINTS


def how_to_convert(source: str | os.PathLike[str]) -> str | None:
    """For what is given as a model and is a source of weights: what to type; None for others."""
    from syncos_jax.weights_convert import hub

    text = str(source)
    path = Path(text)
    if path.is_file() and (is_checkpoint_name(path) or path.name in _MODELSCOPE):
        what = "is a checkpoint"
    elif not path.exists() and hub.is_id(text):
        what = "no such folder; if it is an id on the Hugging Face hub"
    else:
        return None
    return f"{text}: {what}, convert it first (syncos convert), and give the new folder"
