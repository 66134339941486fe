"""Weights of 8 bits stored next to their scales: recognised by name and joined, or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.weights_convert.stored import AnyTensor, LazyTensor, ScaledTensor, Tensors

SCALES = ("scale_weight", "weight_scale")
"""Last part of the name of a scale; the first is ComfyUI's and kijai's, the second ComfyUI's newer
one and LightX2V's."""
_MARKS = re.compile(r"(?:^|.*\.)(?:scaled_fp8|scale_input|input_scale|comfy_quant)")
"""Tensors that say how a network is computed in 8 bits, and nothing about its weights."""
_FORMATS = ("float8_e4m3fn", "float8_e5m2", "int8")
"""What ``comfy_quant`` may say."""
_OTHERS = re.compile(
    r"(?:^|\.)(?:(?:nested_)?absmax|(?:nested_)?quant_map|quant_state\..*|SCB|weight_format|"
    r"qweight|qzeros|scales|g_idx|weight_scale_2|weight_scale_inv|svd_(?:up|down)|_packed_params.*|"
    r"convrot\w*|proj_(?:up|down)\.weight_scale)$"
)
"""Parts of formats that are not read (bitsandbytes, GPTQ, AWQ, NVFP4, SVDQuant, torch's own)."""


def dequantised(tensors: Tensors, where: str | Path) -> Tensors:
    """The tensors, where weights of 8 bits are joined with their scales.

    Raises:
        InputError: a scale without weights or of another size, or another kind of quantisation.
    """
    other = next((name for name in tensors if _OTHERS.search(name)), None)
    if other is not None:
        raise InputError(
            f"quantised in a format that is not supported (tensor {other})",
            place=where,
            remedy="use the file in float32, float16, bfloat16, fp8 or GGUF",
        )
    _check_formats(tensors, where)
    joined: Tensors = {}
    scales = dict(_scales(tensors))
    for name, tensor in tensors.items():
        if name in scales or _MARKS.fullmatch(name):
            continue
        joined[name] = tensor
    for scale, name in scales.items():
        joined[name] = _joined(tensors, name, scale, where)
    left = [n for n, t in joined.items() if n.endswith(".weight") and t.dtype.itemsize == 1]
    if (scales or any(name.endswith("scaled_fp8") for name in tensors)) and left:
        raise InputError(
            f"{left[0]} has {joined[left[0]].dtype.name} values without a scale, "
            "and others have one",
            place=where,
        )
    return joined


def _scales(tensors: Tensors) -> Iterator[tuple[str, str]]:
    """(name of a scale, name of its weights)."""
    for name in tensors:
        layer, _, last = name.rpartition(".")
        if last in SCALES:
            yield name, f"{layer}.weight"


def _joined(tensors: Tensors, name: str, scale: str, where: str | Path) -> AnyTensor:
    values, scales = tensors.get(name), tensors[scale]
    if not isinstance(values, LazyTensor) or not isinstance(scales, LazyTensor):
        raise InputError(f"{scale} is the scale of {name}, which is missing", place=where)
    count = int(np.prod(scales.shape, dtype=np.int64))
    per_channel = bool(values.shape) and scales.shape in {
        (values.shape[0], *(1,) * extra) for extra in range(len(values.shape))
    }
    if scales.dtype.kind not in "fV" or scales.dtype.itemsize == 1:
        raise InputError(
            f"{scale} has {scales.dtype.name} values", place=where, expected="a scale in float"
        )
    if count != 1 and not per_channel:
        raise InputError(
            f"{scale} has shape {scales.shape} for weights of shape {values.shape}",
            place=where,
            expected="one scale, or one per output channel",
        )
    if values.dtype.itemsize != 1:  # kept in more bits: programs differ on whether these are scaled
        if np.any(np.asarray(scales).astype(np.float32) != 1):
            raise InputError(
                f"{name} has {values.dtype.name} values and a scale other than 1, which some "
                "programs apply and some do not",
                place=where,
                remedy="use the file in float32, float16, bfloat16, fp8 or GGUF",
            )
        return values
    if values.dtype.kind == "b" or (values.dtype.kind in "iu" and "scaled_fp8" in tensors):
        raise InputError(f"{name} has {values.dtype.name} values and a scale", place=where)
    return ScaledTensor(values, scales)


def _check_formats(tensors: Tensors, where: str | Path) -> None:
    for name, tensor in tensors.items():
        if not name.endswith("comfy_quant"):
            continue
        try:
            said = json.loads(np.asarray(tensor).tobytes())["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{name} cannot be read: {error}", place=where) from error
        if said not in _FORMATS and not str(said).startswith("int8"):
            raise InputError(
                f"quantised as {said}, which is not supported",
                place=where,
                expected=f"one of {', '.join(_FORMATS)}",
            )
