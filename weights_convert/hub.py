"""Sources on the Hugging Face hub: which of a repository's files are needed, and getting them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.weights_convert.weight_files import find_weights, shards_of

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILE_SUFFIXES = {".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".npz", ".json", ".yaml"}
_TIMEOUT = 20.0
"""Seconds to wait for the hub to say what a repository has."""
_NETWORKS = ("unet", "transformer", "transformer_2", "vae", "text_encoder", ".")
_SMALL = (
    "model_index.json",
    "syncos.json",
    "config.json",
    "unet/config.json",
    "transformer/config.json",
    "transformer_2/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
)


def is_id(source: str) -> bool:
    """Whether `source` could be a hub id (``owner/name``) and does not look like a file's path."""
    return bool(_ID.fullmatch(source)) and PurePosixPath(source).suffix not in _FILE_SUFFIXES


def fetch(source: str) -> Path:
    """Downloads (or finds in the cache) a model: a folder of diffusers', or a checkpoint file.

    Raises:
        InputError: no network, no such repository, or nothing in it that could be converted.
    """
    names = _names(source)
    weights = [w for f in _NETWORKS for w in _weights(source, f, names)]
    if weights:
        small = [name for name in _SMALL if name in names]
        small += [name for name in names if name.startswith("tokenizer/")]
        return _get(source, [*small, *weights])
    checkpoints = [name for name in names if name.endswith(".ckpt")]
    if len(checkpoints) == 1:
        return _get(source, checkpoints) / checkpoints[0]
    found = "several .ckpt files" if checkpoints else "neither a diffusers pipeline nor a .ckpt"
    raise InputError(f"{source}: has {found}; download what you want and give its path")


def tokenizer(source: str, names: Iterable[str]) -> Path:
    """Downloads a repository's tokenizer files; their folder.

    Raises:
        InputError: as `fetch`, or no tokenizer in it.
    """
    held = _names(source)
    for folder in ("", "tokenizer/"):
        wanted = [folder + name for name in names if folder + name in held]
        if any(name.endswith(("vocab.json", "tokenizer.json")) for name in wanted):
            return _get(source, wanted) / folder
    raise InputError(f"{source}: has no tokenizer")


def _weights(source: str, folder: str, names: list[str]) -> list[str]:
    """The weights of one network's folder, which may be sharded."""
    prefix = "" if folder == "." else f"{folder}/"
    inside = [str(PurePosixPath(n).name) for n in names if str(PurePosixPath(n).parent) == folder]
    name = find_weights(inside)
    if name is None:
        return []
    if not name.endswith(".json"):
        return [prefix + name]
    placed = shards_of(_get(source, [prefix + name]) / prefix / name)
    return [prefix + name, *sorted({prefix + shard for shard in placed.values()})]


def _api(source: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(
            f"{source}: no such file or folder; to take it from the hub, install huggingface_hub"
        ) from None
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # not each try of a failed call
    return huggingface_hub


def _names(source: str) -> list[str]:
    """All files of a repository."""
    hub = _api(source)
    try:
        found = hub.HfApi().model_info(source, timeout=_TIMEOUT).siblings or []
        return [entry.rfilename for entry in found]
    except Exception as error:  # its errors are those of several HTTP libraries
        raise _unreachable(source, error) from error


def _get(source: str, names: list[str]) -> Path:
    """Downloads files; the folder that they lie in, under their names."""
    hub = _api(source)
    try:
        paths = [Path(hub.hf_hub_download(source, name)) for name in names]
    except Exception as error:
        raise _unreachable(source, error) from error
    return paths[-1].parents[len(PurePosixPath(names[-1]).parts) - 1]


def _unreachable(source: str, error: Exception) -> InputError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return InputError(
        f"{source}: no such file or folder here, and the hub could not give it: {reason[:200]}"
    )
