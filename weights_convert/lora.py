"""LoRA files, added to a network's weights while it is converted or loaded.

A LoRA holds for each of some layers two narrow matrices whose product is added to the layer's
weight: ``W + strength * alpha / rank * up @ down`` (Hu et al., arXiv 2106.09685). LoHa (arXiv
2108.06098) and LoKr (arXiv 2309.14859) factor the change otherwise. Trainers spell the names in
many ways: a prefix, the layer under any checkpoint's name with dots or with underscores, and the
part (`lora_layers`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.weights_convert.lora_change import Change, Transform, incomplete, rank_of
from syncos_jax.weights_convert.lora_layers import (
    IMAGE_LAYERS,
    bare_name,
    layers_of,
    network_of,
    refuse_kinds,
)
from syncos_jax.weights_convert.table import AnyTable, refuse
from syncos_jax.weights_convert.weight_files import read_file


@dataclasses.dataclass(frozen=True)
class Lora:
    """An opened LoRA, as far as it belongs to one network.

    Attributes:
        path: its file.
        strength: of the whole.
        changes: by the path of the parameter that they change.
        skipped: names of its layers that only image-to-video networks have.
        warnings: what the user should know.
    """

    path: Path
    strength: float
    changes: Mapping[str, Change]
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Names it in the notes of a converted model."""
        return f"{self.path}:{self.strength:g}"

    def merged(self, path: str, array: np.ndarray) -> np.ndarray:
        """The parameter at `path` (our layout) with its change, float32; itself where there is
        none."""
        change = self.changes.get(path)
        return array if change is None else array.astype(np.float32) + change.array()


def networks_of(path: Path) -> frozenset[str]:
    """The networks that a LoRA says it is for: ``text_encoder`` where it has layers of one,
    ``transformer_2`` where it names it, and ``""`` for layers of a denoiser that it does not name.

    Raises:
        InputError: the file cannot be read.
    """
    return frozenset(network_of(name) for name in read_file(path).tensors)


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
        scale: strength of the whole.
        expected: the network's parameters (anything with a shape) by dotted path.
        tables: of all checkpoints of the network, whose names the layers may have.
        network: its name. Layers that the file names as another network's are left to that one.

    Raises:
        InputError: the file cannot be read, or has layers that do not exist, are incomplete,
            misshaped or of another kind than LoRA; lists all.
    """
    file = read_file(path)
    refuse_kinds(path, file.tensors)
    layers, problems = layers_of(file.tensors, network)
    names = _names(expected, list(tables))
    settings = _settings(path, file.metadata, network)
    changes: dict[str, Change] = {}
    skipped: list[str] = []
    for name, parts in layers.items():
        found, wrong = _changes(name, parts, names, settings, scale)
        if IMAGE_LAYERS.search(name) and wrong:
            skipped.append(name)
            continue
        for target, change in found.items():
            shape = tuple(expected[target].shape)
            misfit = _misfit(name, change, shape)
            if target in changes:
                wrong.append(f"double {name}")
            elif misfit and name.endswith("patch_embedding") and skipped_channels(change, shape):
                skipped.append(name)
            else:
                changes[target] = change
                wrong += misfit
        problems += wrong
    if not changes and skipped and not problems:
        problems = [f"only layers of image-to-video networks, {len(skipped)} of them"]
    if problems or not changes:
        raise refuse(f"LoRA {path}", problems or [f"no layers of the {network}"])
    return Lora(path, scale, changes, tuple(skipped), _without_alpha(path, layers))


def _without_alpha(path: Path, layers: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """A warning where some layers have an alpha and some, with factors, do not."""
    has = ["alpha" in parts for parts in layers.values() if rank_of(parts) is not None]
    if all(has) or not any(has):
        return ()
    without = len(has) - sum(has)
    return (f"LoRA {path}: {without} of {len(has)} layers have no alpha; took their rank for it",)


def _is_floating(dtype: np.dtype) -> bool:
    return dtype.kind == "f" or "float" in dtype.name


def skipped_channels(change: Change, wanted: tuple[int, ...]) -> bool:
    """Whether a change of the first layer is for a network that takes an image's channels too."""
    try:
        found = change.shape
    except ValueError:
        return False
    return found[1:] == wanted[1:] and found[0] > wanted[0]


def _changes(
    name: str,
    parts: dict[str, Any],
    names: Mapping[tuple[str, str], tuple[str, Transform]],
    settings: _Settings,
    scale: float,
) -> tuple[dict[str, Change], list[str]]:
    """The changes of one layer by the path of the parameter, and what is wrong with it."""
    kinds = {part.dtype.name for part in parts.values() if not _is_floating(part.dtype)}
    if kinds:
        return {}, [f"misshaped {name}: of type {', '.join(sorted(kinds))}, not floating point"]
    lacks = incomplete(parts)
    if lacks:
        return {}, [f"incomplete {name}: {lacks}"]
    rank = rank_of(parts)
    alpha = settings.alpha(name, rank)
    if "alpha" in parts:
        alpha = float(np.asarray(parts["alpha"], np.float32).reshape(-1)[0])
    divisor = None if rank is None else math.sqrt(rank) if settings.rslora else rank
    if divisor == 0:
        return {}, [f"misshaped {name}: of rank 0"]
    factor = scale if divisor is None or alpha is None else scale * alpha / divisor
    if not math.isfinite(factor):
        return {}, [f"misshaped {name}: alpha is {alpha}"]
    weights = {k: v for k, v in parts.items() if k not in ("alpha", "diff_b", "diff_m", "up_b")}
    bias: dict[str, Any] = {k: parts[k] for k in ("diff_b", "up_b") if k in parts}
    bare = {"diff_m": parts["diff_m"]} if "diff_m" in parts else {}
    found: dict[str, Change] = {}
    problems: list[str] = []
    for kind, held in (("weight", weights), ("bias", bias), ("modulation", bare)):
        if not held:
            continue
        place = names.get((name, kind))
        if place is None:
            problems.append(f"unknown {name}.{kind}")
        else:
            found[place[0]] = Change(held, factor, scale, place[1])
    return found, problems


def _names(
    expected: Mapping[str, Any], tables: list[AnyTable]
) -> dict[tuple[str, str], tuple[str, Transform]]:
    """(layer, "weight", "bias" or "modulation") -> the path of the parameter, and how its layout
    becomes ours. Layers by the names of every table, and by these with underscores for dots."""
    names = {}
    for path in expected:
        for table in tables:
            key = table.key(path)
            layer, _, tensor = key.rpartition(".")
            if tensor in ("scale_shift_table", "modulation"):
                tensor = "modulation"
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


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What peft's configuration says: alphas by pattern of layer, and for all others."""

    alphas: Mapping[str, float]
    default: float | None
    rslora: bool

    def alpha(self, layer: str, rank: int | None) -> float | None:
        """The alpha of a layer: of the pattern that its name ends with, else of all, else the
        rank."""
        for pattern, value in self.alphas.items():
            if re.search(rf"(?:^|\.)(?:{pattern})$", layer):
                return value
        return self.default if self.default is not None else rank


def _settings(path: Path, metadata: Mapping[str, Any], network: str) -> _Settings:
    """The LoRA's own settings: peft keeps them in ``adapter_config.json`` next to the file,
    diffusers in the file's metadata."""
    nearby = path.with_name("adapter_config.json")
    try:
        if nearby.is_file():
            found = json.loads(nearby.read_text(encoding="utf-8-sig"))
        else:
            packed = json.loads(metadata.get("lora_adapter_metadata", "{}"))
            found = {key.removeprefix(f"{network}."): value for key, value in packed.items()}
        alphas = {
            re.sub(r"^\^", "", bare_name(key, network)): float(value)
            for key, value in (found.get("alpha_pattern") or {}).items()
        }
        for pattern in alphas:
            re.compile(pattern)
        default = found.get("lora_alpha")
        default = None if default is None else float(default)
    except (OSError, ValueError, TypeError, AttributeError, re.error) as error:
        raise InputError(f"LoRA {path}: its settings cannot be read: {error}") from error
    if found.get("use_dora"):
        raise InputError(f"LoRA {path}: use_dora is set; such a LoRA cannot be merged")
    return _Settings(alphas, default, bool(found.get("use_rslora")))
