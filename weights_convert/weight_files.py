"""Opens files and folders of weights: which file to read, in which format, which of its tensors."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.weights_convert import gguf_file, state_dict, strange_files, torch_file
from syncos_jax.weights_convert.quantised import dequantised
from syncos_jax.weights_convert.state_dict import Choice
from syncos_jax.weights_convert.stored import Tensors, is_safetensors, safetensors_content

_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)(?:\.(?P<early>[a-z0-9_]+))?"
    r"\.(?P<kind>safetensors|bin)(?P<index>\.index(?:\.(?P<late>[a-z0-9_]+))?\.json)?"
)
_SHARD = re.compile(r"\w+(?:\.\w+)?-(?P<number>\d{5})-of-(?P<count>\d{5})\.(?:safetensors|bin)")
ENDINGS = (".safetensors", ".sft", ".bin", ".pt", ".pth", ".ckpt", ".gguf")
"""Suffixes of files of weights."""
_LORA_FILE = re.compile(r"lora|adapter|openvino|training_args|optimizer|scheduler|random_states")


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """A file of weights whose header was read.

    Attributes:
        tensors: by name, weights of 8 bits joined with their scales.
        metadata: what the header says besides; of torch files nothing.
        sets: names of all the sets of weights in a torch file.
    """

    tensors: Tensors
    metadata: Mapping[str, Any]
    sets: tuple[str, ...] = ()


def read_file(path: Path, choice: Choice | None = None) -> WeightFile:
    """The header of a file, whatever its suffix: safetensors, GGUF, or torch's own format.

    Of a trainer's checkpoint, its one set of weights, or the one that `choice` names.

    Raises:
        InputError: no such file, damaged, truncated, or refused; says why.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(strange_files.HEAD)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    metadata: Mapping[str, Any] = {}
    sets: tuple[str, ...] = ()
    # First: a safetensors header of some lengths begins like a pickle (0x80).
    if is_safetensors(head):
        tensors, metadata = safetensors_content(path, size)
    elif head.startswith(gguf_file.MAGIC):
        tensors, metadata = gguf_file.read_gguf(path)
    elif torch_file.recognises(head):
        content = torch_file.read(path)
        sets = state_dict.set_names(content)
        tensors = state_dict.choose(path, content, choice or Choice())
    else:
        raise InputError(f"{path}: is {strange_files.what_it_is(head, size)}")
    tensors = dequantised(state_dict.without_wrappers(tensors), path)
    return WeightFile(tensors, metadata, sets)


def open_file(path: Path, choice: Choice | None = None) -> Tensors:
    """The tensors of a file; see `read_file`."""
    return read_file(path, choice).tensors


def find_weights(names: list[str]) -> str | None:
    """Which of a network's files to read: a single file, or the index of a sharded one.

    Files without a variant (such as ``.fp16``) come first, then safetensors before ``.bin``, then
    single files before sharded ones.
    """

    def rank(name: str) -> tuple[bool, bool, bool, str]:
        match = _WEIGHTS.fullmatch(name)
        assert match is not None
        variant = match["early"] or match["late"]
        return bool(variant), match["kind"] == "bin", bool(match["index"]), name

    return min((name for name in names if _WEIGHTS.fullmatch(name)), key=rank, default=None)


def shards_of(index: Path) -> dict[str, str]:
    """``tensor name -> file name`` of an ``….index.json``.

    Raises:
        InputError: not such a file, or one that points outside its folder.
    """
    try:
        placed = json.loads(index.read_text(encoding="utf-8-sig"))["weight_map"]
        plain = all(isinstance(v, str) and Path(v).name == v for v in placed.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index}: cannot be read as an index of shards: {error}") from error
    if not plain:
        raise InputError(f"{index}: names files outside its folder")
    return placed


def open_folder(folder: Path, choice: Choice | None = None) -> Tensors:
    """The tensors of a network's folder, in one file or in shards with an index or without.

    Where no file has a name that diffusers gives, the only file of weights is taken.

    Raises:
        InputError: no weights there, a missing shard, or shards that do not agree with the index.
    """
    if choice is not None and choice.file is not None and choice.file.parent == folder:
        return open_file(choice.file, choice)
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    name = find_weights(names)
    if name is None:
        shards = sorted(name for name in names if _SHARD.fullmatch(name))
        if shards:
            return _without_index(folder, shards, choice)
        weights = [name for name in names if name.lower().endswith(ENDINGS)]
        if len(weights) != 1 or _LORA_FILE.search(weights[0]):
            raise strange_files.no_weights(folder, names)
        name = weights[0]
    if not name.endswith(".json"):
        return open_file(folder / name, choice)
    placed = shards_of(folder / name)
    absent = sorted({shard for shard in placed.values() if not (folder / shard).is_file()})
    if absent:
        raise InputError(f"{folder / name}: missing shards: {', '.join(absent)}")
    tensors: Tensors = {}
    problems: list[str] = []
    for shard in sorted(set(placed.values())):
        held = open_file(folder / shard, choice)
        wanted = {key for key, where in placed.items() if where == shard}
        problems += [f"{shard} has {key}, the index does not" for key in held if key not in wanted]
        problems += [f"{shard} lacks {key}" for key in sorted(wanted) if key not in held]
        tensors |= held
    if problems:
        raise InputError(f"{folder / name}: does not fit its shards: {'; '.join(problems)}")
    return tensors


def _without_index(folder: Path, shards: list[str], choice: Choice | None) -> Tensors:
    """The tensors of shards whose index is missing; their names say how many there are."""
    found = [match for match in map(_SHARD.fullmatch, shards) if match]
    counts = {int(match["count"]) for match in found}
    numbers = sorted(int(match["number"]) for match in found)
    if len(counts) != 1 or numbers != list(range(1, max(counts) + 1)):
        raise InputError(
            f"{folder}: shards without their .index.json, and not all of them: "
            f"{', '.join(shards[:8])}; download the folder again"
        )
    tensors: Tensors = {}
    for shard in shards:
        tensors |= open_file(folder / shard, choice)
    return tensors
