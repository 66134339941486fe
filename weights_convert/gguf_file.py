"""GGUF files: tensors that are dequantised as they are read, and the tokenizer inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.weights_convert.stored import BlockTensor, LazyTensor, ScaledTensor, Tensors

MAGIC = b"GGUF"
_PLAIN = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F64": np.dtype(np.float64),
}
_SHAPE = "comfy.gguf.orig_shape."
"""Where ComfyUI's converter notes shapes of more axes than the format allows."""


def read_gguf(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """The tensors of a GGUF file by name, and its metadata.

    Raises:
        InputError: damaged or truncated, or with tensors that cannot be dequantised.
    """
    import gguf

    try:
        reader = gguf.GGUFReader(str(path), "r")
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        found = [
            (
                str(tensor.name),
                tensor.tensor_type.name,
                int(tensor.data_offset),
                tuple(int(n) for n in tensor.shape[::-1]),
                tuple(int(n) for n in tensor.data.shape),
            )
            for tensor in reader.tensors
        ]
    except Exception as error:  # the package raises whatever its parsing runs into
        reason = str(error) or type(error).__name__
        raise InputError(f"damaged or truncated GGUF file: {reason}", place=path) from error
    tensors: Tensors = {}
    for name, kind, offset, own, rows in found:
        noted = metadata.get(f"{_SHAPE}{name}")
        shape = tuple(int(n) for n in noted) if noted else own
        if np.prod(shape, dtype=np.int64) != np.prod(own, dtype=np.int64):
            raise InputError(f"{name} has shape {own}, its metadata says {shape}", place=path)
        if kind in _PLAIN:
            tensors[name] = LazyTensor(path, offset, _PLAIN[kind], shape)
        elif hasattr(gguf.quants, kind):
            tensors[name] = BlockTensor(path, offset, kind, rows, shape)
        else:
            raise InputError(f"{name} is of type {kind}, which cannot be dequantised", place=path)
    size = path.stat().st_size
    ends = (t.offset + t.nbytes for t in tensors.values() if not isinstance(t, ScaledTensor))
    if max(ends, default=0) > size:
        raise InputError("ends within a tensor; it is truncated", place=path)
    return tensors, metadata
