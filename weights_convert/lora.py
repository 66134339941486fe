"""LoRA files, merged into a network's weights as it is converted.

A LoRA holds for each of some layers two narrow matrices whose product is added to the layer's
weight: ``W + scale * alpha / rank * up @ down`` (Hu et al., arXiv 2106.09685). Layouts that are
read: peft's and diffusers' (``….lora_A.weight``, ``….lora_B.weight``), kohya's
(``lora_unet_…_q.lora_down.weight``, ``….alpha``), ComfyUI's (``diffusion_model.….lora_up.weight``,
``….diff``, ``….diff_b``). Layers may have the names of any checkpoint of the network.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.weights_convert.table import AnyTable, refuse
from syncos_jax.weights_convert.weight_files import open_file

_PREFIXES = ("base_model.model.", "diffusion_model.", "model.diffusion_model.", "unet.")
_UNDERSCORED = ("lora_unet_", "lora_transformer_")
_PARTS = (
    (r"\.lora_A(?:\.default)?(?:\.weight)?", "down"),
    (r"\.lora[_.]down\.weight", "down"),
    (r"\.lora_B(?:\.default)?(?:\.weight)?", "up"),
    (r"\.lora[_.]up\.weight", "up"),
    (r"\.alpha", "alpha"),
    (r"\.diff", "diff"),
    (r"\.diff_b|\.lora_B(?:\.default)?\.bias", "diff_b"),
)


@dataclasses.dataclass(frozen=True)
class Change:
    """What is added to one parameter of the network.

    Attributes:
        parts: the tensors, by ``down``, ``up``, ``diff`` or ``diff_b``.
        factor: of their product.
        transform: from PyTorch's layout to ours.
    """

    parts: Mapping[str, Any]
    factor: float
    transform: Callable[[np.ndarray], np.ndarray]

    def array(self) -> np.ndarray:
        """In our layout, float32."""
        parts = {name: np.asarray(part, np.float32) for name, part in self.parts.items()}
        total: Any = parts.get("diff", parts.get("diff_b", np.float32(0.0)))
        if "up" in parts:
            up, down = parts["up"], parts["down"]
            product = up.reshape(len(up), -1) @ down.reshape(len(down), -1)
            total = total + product.reshape(len(up), *down.shape[1:])
        return self.transform(np.float32(self.factor) * total)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of `array`; ValueError where the parts do not fit one another or the layer's kind."""
        shape = tuple(next(iter(self.parts.values())).shape)
        if "up" in self.parts:
            up, down = (tuple(self.parts[name].shape) for name in ("up", "down"))
            if len(up) < 2 or up[1] != down[0] or any(n != 1 for n in up[2:]):
                raise ValueError(f"lora_up {up} and lora_down {down} do not fit one another")
            shape = (up[0], *down[1:])
        return self.transform(np.broadcast_to(np.zeros((), np.uint8), shape)).shape


@dataclasses.dataclass(frozen=True)
class Lora:
    """An opened LoRA.

    Attributes:
        where: names it in errors and records.
        changes: by the path of the parameter that they change.
    """

    where: str
    changes: Mapping[str, Change]

    def merged(self, path: str, array: np.ndarray) -> np.ndarray:
        """The parameter at `path` (our layout) with its change; itself where there is none."""
        change = self.changes.get(path)
        if change is None:
            return array
        return (array.astype(np.float32) + change.array()).astype(array.dtype)


def parse(given: str) -> tuple[Path, float]:
    """``FILE`` or ``FILE:SCALE``, as on the command line.

    Raises:
        InputError: no such file.
    """
    path, scale = Path(given), 1.0
    if not path.exists() and ":" in given:
        name, _, number = given.rpartition(":")
        try:
            path, scale = Path(name), float(number)
        except ValueError:
            pass
    if not path.is_file():
        raise InputError(f"LoRA {given}: no such file; give FILE or FILE:SCALE")
    return path, scale


def open_lora(
    path: Path,
    scale: float,
    expected: Mapping[str, Any],
    tables: Iterable[AnyTable],
    network: str = "transformer",
) -> Lora:
    """Finds what each tensor of a LoRA changes, before any is read.

    Args:
        path: safetensors, or torch's own format.
        scale: of the whole.
        expected: the network's parameters (anything with a shape) by dotted path.
        tables: of all checkpoints of the network, whose names the layers may have.
        network: its name, which may stand before the names.

    Raises:
        InputError: the file cannot be read, or has layers that do not exist, are incomplete,
            misshaped or of another kind than LoRA; lists all.
    """
    tensors = open_file(path)
    layers, problems = _layers(tensors, network)
    names = _names(expected, list(tables))
    alphas = _alphas(path, network)
    changes: dict[str, Change] = {}
    for name, parts in layers.items():
        if "down" in parts and "up" not in parts or "up" in parts and "down" not in parts:
            problems.append(f"incomplete {name}: has {' and '.join(sorted(parts))}")
            continue
        rank = parts["down"].shape[0] if "down" in parts else 1
        alpha = alphas.get(name, alphas.get("", float(rank)))
        if "alpha" in parts:
            alpha = float(np.asarray(parts["alpha"], np.float32).reshape(()))
        weights: dict[str, Any] = {
            key: parts[key] for key in ("down", "up", "diff") if key in parts
        }
        bias = {"diff_b": parts["diff_b"]} if "diff_b" in parts else {}
        for tensor, held, factor in (
            ("weight", weights, scale * alpha / rank if "down" in weights else scale),
            ("bias", bias, scale),
        ):
            if not held:
                continue
            if "diff" in held and "down" in held:
                problems.append(f"double {name}: both a difference and lora_down")
            elif (found := names.get((name, tensor))) is None:
                problems.append(f"unknown {name}.{tensor}")
            elif found[0] in changes:
                problems.append(f"double {name}.{tensor}")
            else:
                change = Change(held, factor, found[1])
                changes[found[0]] = change
                problems += _misfit(name, change, tuple(expected[found[0]].shape))
    if problems or not changes:
        raise refuse(f"LoRA {path}", problems or ["missing lora_A or lora_down of any layer"])
    return Lora(f"{path}:{scale:g}", changes)


def _layers(
    tensors: Mapping[str, Any], network: str
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Tensors by layer and part; and the names that are no part of a LoRA."""
    layers: dict[str, dict[str, Any]] = {}
    problems = []
    for key, tensor in tensors.items():
        for pattern, part in _PARTS:
            match = re.fullmatch(rf"(.+?)(?:{pattern})", key)
            if match:
                layers.setdefault(_bare(match[1], network), {})[part] = tensor
                break
        else:
            problems.append(f"unknown {key}")
    return layers, problems


def _bare(name: str, network: str) -> str:
    for prefix in (*_PREFIXES, f"{network}.", *_UNDERSCORED):
        name = name.removeprefix(prefix)
    return name


def _names(
    expected: Mapping[str, Any], tables: list[AnyTable]
) -> dict[tuple[str, str], tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """(layer, "weight" or "bias") -> the path of the parameter, and how its layout is ours. Layers
    by the names of every table, and by these with underscores for dots."""
    names = {}
    for path in expected:
        for table in tables:
            key = table.key(path)
            layer, _, tensor = key.rpartition(".")
            for target in table.targets(key):
                if target.path == path:
                    names[layer, tensor] = names[layer.replace(".", "_"), tensor] = (
                        path,
                        target.transform,
                    )
    return names


def _misfit(name: str, change: Change, wanted: tuple[int, ...]) -> list[str]:
    try:
        found = change.shape
    except ValueError as error:
        return [f"misshaped {name}: {error}"]
    if found == wanted:
        return []
    return [f"misshaped {name}: is {found} in our layout, the network has {wanted}"]


def _alphas(path: Path, network: str) -> dict[str, float]:
    """The file's own ``lora_alpha``, by layer, and under ``""`` of all others: peft keeps it in
    ``adapter_config.json`` beside the file, diffusers in the file's metadata."""
    beside = path.with_name("adapter_config.json")
    found: dict[str, Any] = {}
    try:
        if beside.is_file():
            found = json.loads(beside.read_text(encoding="utf-8"))
        else:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                head = file.read(min(length, 100_000_000))
            if head[:1] == b"{":
                metadata = json.loads(head).get("__metadata__", {})
                packed = json.loads(metadata.get("lora_adapter_metadata", "{}"))
                found = {key.removeprefix(f"{network}."): value for key, value in packed.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"LoRA {path}: its settings cannot be read: {error}") from error
    for name in ("use_rslora", "use_dora"):
        if found.get(name):
            raise InputError(f"LoRA {path}: {name} is set; such a LoRA cannot be merged")
    alphas = {_bare(k, network): float(v) for k, v in (found.get("alpha_pattern") or {}).items()}
    if found.get("lora_alpha") is not None:
        alphas[""] = float(found["lora_alpha"])
    return alphas
