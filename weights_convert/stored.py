"""Tensors that stay in their files until they are read, one at a time.

Each knows shape and dtype from the file's header and reads its data when it is converted to an
array. Files are not memory-mapped: pages that were read would count as the process's memory.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from syncos_jax.errors import InputError

Tensors = dict[str, "AnyTensor"]
"""Tensors that are still in their files, by name."""

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
class LazyTensor:
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


@dataclasses.dataclass(frozen=True)
class ScaledTensor:
    """Weights of 8 bits with a scale; its data is ``values * scale`` in float32.

    Attributes:
        values: float8 or int8, ``[O, ...]``.
        scale: one value, or one for each output channel (``[O]``, ``[O, 1, ...]``).
    """

    values: LazyTensor
    scale: LazyTensor

    @property
    def path(self) -> Path:
        """The file of the values."""
        return self.values.path

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype:
        """float32."""
        return np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.values.nbytes + self.scale.nbytes

    def read(self) -> np.ndarray:
        """Its data, float32."""
        scale = self.scale.read().astype(np.float32).reshape(-1)
        if scale.size > 1:
            scale = scale.reshape(-1, *(1,) * (len(self.shape) - 1))
        return self.values.read().astype(np.float32) * scale

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.read()
        return array if dtype is None else array.astype(dtype, copy=False)


@dataclasses.dataclass(frozen=True)
class BlockTensor:
    """Weights of a GGUF file in one of ggml's quantised block formats, read as float32.

    Attributes:
        path: the file.
        offset: of its first block, bytes.
        kind: ggml's name of the format, such as ``"Q8_0"``.
        rows: shape of its bytes, ``[..., bytes of a row]``.
        shape: its shape.
    """

    path: Path
    offset: int
    kind: str
    rows: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """float32."""
        return np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.rows)

    def read(self) -> np.ndarray:
        """Its data, float32, by the gguf package's own dequantisation."""
        import gguf

        data = np.fromfile(self.path, np.uint8, count=self.nbytes, offset=self.offset)
        if data.size != self.nbytes:
            raise InputError("ends within a tensor; it is truncated", place=self.path)
        kind = gguf.GGMLQuantizationType[self.kind]
        return gguf.quants.dequantize(data.reshape(self.rows), kind).reshape(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.read()
        return array if dtype is None else array.astype(dtype, copy=False)


AnyTensor = LazyTensor | ScaledTensor | BlockTensor


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins with `head` (8 bytes at least) is of the safetensors format."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_HEADER


def read_safetensors(path: Path, size: int) -> Tensors:
    """The tensors of a safetensors file of `size` bytes."""
    return safetensors_content(path, size)[0]


def safetensors_content(path: Path, size: int) -> tuple[Tensors, dict[str, str]]:
    """The tensors of a safetensors file of `size` bytes, and its metadata."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        raw = file.read(length)
    if len(raw) != length:
        raise InputError(f"{path}: ends within its header; it is truncated")
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__", None) or {}
        tensors: Tensors = {key: _entry(path, 8 + length, value) for key, value in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: its safetensors header cannot be read: {error}") from error
    ends = [t.offset + t.nbytes for t in tensors.values() if isinstance(t, LazyTensor)]
    end = max(ends, default=8 + length)
    if end != size:
        state = "truncated" if end > size else "damaged, or has something appended"
        raise InputError(f"{path}: has {size} bytes but its header says {end}; it is {state}")
    return tensors, metadata if isinstance(metadata, dict) else {}


def _entry(path: Path, base: int, value: dict[str, Any]) -> LazyTensor:
    begin, end = value["data_offsets"]
    shape = tuple(value["shape"])
    if value["dtype"] not in _SAFETENSORS_DTYPES:
        raise InputError(f"{path}: has tensors of type {value['dtype']}, which is not supported")
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
        raise ValueError("negative or fractional sizes")
    stored = LazyTensor(path, base + begin, _SAFETENSORS_DTYPES[value["dtype"]], shape)
    if end - begin != stored.nbytes:
        raise ValueError(f"{end - begin} bytes for a tensor of shape {shape}")
    return stored
