"""Which folder or file of weights is meant.

People give the folder above or below the one that is meant, the hub's cache, a file out of a
folder, an archive. What is clear is followed, what is not is answered with what to give.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from syncos_jax.errors import Argument, InputError
from syncos_jax.weights_convert import file_tree

NETWORK_CLASSES = {
    "UNet3DConditionModel": "unet",
    "UNetVideoCrafter": "unet",
    "AutoencoderKL": "vae",
    "CLIPTextModel": "text_encoder",
}
_CHECKPOINTS = (".ckpt", ".safetensors", ".sft", ".pt", ".pth", ".bin", ".gguf")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
_MODELSCOPE = (
    "text2video_pytorch_model.pth",
    "VQGAN_autoencoder.pth",
    "open_clip_pytorch_model.bin",
)
_PIPELINE = ("model_index.json", "config.json", "unet/config.json")
_SHOWN = 8


def meant(path: Path, format: str | None, only: str | None) -> Path:
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
            return meant(inner, format, only)
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


def _meant_file(path: Path, format: str | None, only: str | None) -> Path:
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
