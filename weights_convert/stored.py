"""Tensors in files: where they lie, read one at a time.

A `Stored` tensor knows its shape and dtype from the file's header; its data is read when it is
turned into an array, and kept by nobody. Nothing here maps a file into memory, so the memory of a
process is what it holds, not what it has looked at.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from syncos_jax.errors import InputError

if TYPE_CHECKING:
    from syncos_jax.weights_convert.state_dict import Choice

Tensors = dict[str, "Stored"]

_MAX_HEADER = 100_000_000
"""Bytes; what the safetensors library allows."""

_SAFETENSORS_DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes:
        path: the file.
        offset: of its first element, bytes.
        dtype: of its elements.
        shape: its shape.
        strides: in elements; None for a contiguous tensor.
    """

    path: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None

    @property
    def span(self) -> int:
        """Elements from the first to the last one in the file."""
        if math.prod(self.shape) == 0:
            return 0
        if self.strides is None:
            return math.prod(self.shape)
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """Its data.

        Raises:
            InputError: the file ends before it.
        """
        count = self.span * self.dtype.itemsize
        data = np.fromfile(self.path, np.uint8, count=count, offset=self.offset)
        if data.size != count:
            raise InputError(f"{self.path}: ends within a tensor; it is truncated")
        flat = data.view(self.dtype)
        if self.strides is None:
            return flat.reshape(self.shape)
        steps = [s * self.dtype.itemsize for s in self.strides]
        return np.lib.stride_tricks.as_strided(flat, self.shape, steps, writeable=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.read()
        return array if dtype is None else array.astype(dtype, copy=False)


def open_file(path: Path, choice: Choice | None = None) -> Tensors:
    """The tensors of a file, by name, whatever its suffix: safetensors, or torch's own format.

    Of a trainer's checkpoint, those of its one set of weights, or of the one that `choice` names.

    Raises:
        InputError: neither of the two, damaged, truncated, or refused; says why.
    """
    from syncos_jax.weights_convert import state_dict, strange_files, torch_file

    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(strange_files.HEAD)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    # First: a safetensors header of some lengths begins like a pickle (0x80).
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_HEADER:
        tensors = read_safetensors(path, size)
    elif torch_file.recognises(head):
        content = torch_file.read(path)
        tensors = state_dict.choose(path, content, choice or state_dict.Choice())
    else:
        raise InputError(f"{path}: is {strange_files.what_it_is(head, size)}")
    strange_files.refuse_quantised(tensors, path)
    return state_dict.without_wrappers(tensors)


def read_safetensors(path: Path, size: int) -> Tensors:
    """The tensors of a safetensors file of `size` bytes."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        raw = file.read(length)
    if len(raw) != length:
        raise InputError(f"{path}: ends within its header; it is truncated")
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        tensors = {key: _entry(path, 8 + length, value) for key, value in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: its safetensors header cannot be read: {error}") from error
    end = max((tensor.offset + tensor.nbytes for tensor in tensors.values()), default=8 + length)
    if end != size:
        state = "truncated" if end > size else "damaged, or has something appended"
        raise InputError(f"{path}: has {size} bytes but its header says {end}; it is {state}")
    return tensors


def _entry(path: Path, base: int, value: dict[str, Any]) -> Stored:
    begin, end = value["data_offsets"]
    shape = tuple(value["shape"])
    if value["dtype"] not in _SAFETENSORS_DTYPES:
        raise InputError(f"{path}: has tensors of type {value['dtype']}, which is not supported")
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
        raise ValueError("negative or fractional sizes")
    stored = Stored(path, base + begin, _SAFETENSORS_DTYPES[value["dtype"]], shape)
    if end - begin != stored.nbytes:
        raise ValueError(f"{end - begin} bytes for a tensor of shape {shape}")
    return stored


_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)(?:\.(?P<early>[a-z0-9_]+))?"
    r"\.(?P<kind>safetensors|bin)(?P<index>\.index(?:\.(?P<late>[a-z0-9_]+))?\.json)?"
)


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
        placed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
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
    from syncos_jax.weights_convert import strange_files

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
        weights = [name for name in names if name.endswith(_ENDINGS)]
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


_SHARD = re.compile(r"\w+(?:\.\w+)?-(?P<number>\d{5})-of-(?P<count>\d{5})\.(?:safetensors|bin)")
_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_LORA_FILE = re.compile(r"lora|adapter|openvino|training_args|optimizer|scheduler|random_states")


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
