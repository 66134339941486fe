"""LoRA files, added to a network's weights while it is converted or loaded.

A LoRA holds for each of some layers two narrow matrices whose product is added to the layer's
weight: ``W + strength * alpha / rank * up @ down`` (Hu et al., arXiv 2106.09685). LoHa (arXiv
2108.06098) and LoKr (arXiv 2309.14859) factor the change otherwise. Trainers spell the names in
many ways: a prefix, the layer under any checkpoint's name with dots or with underscores, and the
part. `_PARTS` lists the parts, `_REWRITES` the spellings of layers.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.weights_convert.table import AnyTable, refuse
from syncos_jax.weights_convert.weight_files import read_file

_PARTS: tuple[tuple[str, str], ...] = (
    (r"\.lora_A(?:\.\w+)?(?:\.weight)?", "down"),
    (r"\.lora_B(?:\.\w+)?\.bias", "up_b"),
    (r"\.lora_B(?:\.\w+)?(?:\.weight)?", "up"),
    (r"\.lora(?:_linear_layer)?[_.]down(?:\.weight)?", "down"),
    (r"\.lora(?:_linear_layer)?[_.]up(?:\.weight)?", "up"),
    (r"\.lora[_.]up\.bias", "up_b"),
    (r"\.lora_mid(?:\.weight)?", "mid"),
    (r"\.alpha", "alpha"),
    (r"\.diff|\.w_norm", "diff"),
    (r"\.diff_b|\.b_norm", "diff_b"),
    (r"\.diff_m", "diff_m"),
    *((rf"\.lokr_{part}", f"lokr_{part}") for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b")),
    (r"\.lokr_t2", "lokr_t2"),
    *((rf"\.hada_{part}", f"hada_{part}") for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
)
"""Ends of names, and which part of a change the tensor is."""
_REWRITES: tuple[tuple[str, Any], ...] = (
    (r"\.processor\.(to_[qkv]|to_out)_lora\.", r".\1.lora_"),  # diffusers' attention processors
    (r"\.(to_[qkv]|to_out)_lora\.", r".\1.lora_"),
    (r"\.to_out\.(?=lora)", ".to_out.0."),
    (r"\.temporal_transformer\.", "."),  # AnimateDiff's own names
    (r"\.attention_blocks\.([01])\.", lambda m: f".attn{int(m[1]) + 1}."),
)
_PREFIXES = (
    r"base_model\.model\.",
    r"model\.diffusion_model\.",
    r"diffusion_model\.",
    r"pipe\.dit\.",
    r"module\.",
    r"lora_unet__?",
    r"lora_transformer_",
    r"lycoris_",
    r"unet\.",
)
_TEXT_ENCODER = r"(?:text_encoder|lora_te1?|te1?)[._]+"
_OF_NETWORK = {
    "text_encoder": _TEXT_ENCODER,
    "transformer_2": r"transformer_2\.",
    "transformer": r"transformer\.",
    "unet": r"unet\.|lora_unet_",
}
"""What stands before names that belong to one network and no other."""
_IMAGE_LAYERS = re.compile(
    r"k_img|v_img|img_emb|add_[kv]_proj|norm_added_k|image_embedder|ref_conv|\.o_img"
)
"""Layers that only image-to-video networks have."""
_REFUSED = {
    r"\.lora_magnitude_vector|\.dora_scale|\.magnitude": "DoRA",
    r"oft_blocks|oft_diag|\.oft_[a-zA-Z]": "OFT",
    r"\.boft_": "BOFT",
    r"lora_te2_|text_encoder_2\.": "a LoRA for Stable Diffusion XL",
    r"\.glora|\.a1\.weight|\.b2\.weight": "GLoRA",
}

Transform = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Change:
    """What is added to one parameter of the network.

    Attributes:
        parts: the tensors, by what `_PARTS` calls them.
        factor: of the factored change; strength times alpha over rank.
        strength: of what is added as it is (``diff``, ``diff_b``, ``diff_m``).
        transform: from the checkpoint's layout to ours.
    """

    parts: Mapping[str, Any]
    factor: float
    strength: float
    transform: Transform

    def array(self) -> np.ndarray:
        """The change in our layout, float32."""
        parts = {name: np.asarray(part, np.float32) for name, part in self.parts.items()}
        total: Any = np.float32(0.0)
        for name in ("diff", "diff_b", "diff_m"):
            if name in parts:
                total = total + np.float32(self.strength) * parts[name]
        if "up_b" in parts:
            total = total + np.float32(self.factor) * parts["up_b"]
        product = _product(parts)
        if product is not None:
            total = total + np.float32(self.factor) * product
        return self.transform(total)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of `array`; ValueError where the parts do not fit one another or the layer's kind."""
        parts = {name: _Shape(part.shape) for name, part in self.parts.items()}
        shapes = {tuple(parts[n].shape) for n in ("diff", "diff_b", "diff_m", "up_b") if n in parts}
        product = _product_shape(parts)
        shapes |= {product} if product is not None else set()
        if len(shapes) != 1:
            raise ValueError(f"its parts have shapes {sorted(shapes)}")
        return self.transform(np.broadcast_to(np.zeros((), np.uint8), shapes.pop())).shape


@dataclasses.dataclass(frozen=True)
class _Shape:
    shape: tuple[int, ...]


def _product(parts: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The factored change, in the checkpoint's layout; None where there is none."""
    if "up" in parts:
        up, down = parts["up"], parts["down"]
        if "mid" in parts:
            return np.einsum(
                "oa,ab...,bi->oi...",
                up.reshape(up.shape[:2]),
                parts["mid"],
                down.reshape(down.shape[:2]),
            )
        product = up.reshape(len(up), -1) @ down.reshape(len(down), -1)
        return product.reshape(len(up), *down.shape[1:])
    if "hada_w1_a" in parts:
        first, second = (_hadamard(parts, n) for n in "12")
        return first * second
    if any(name.startswith("lokr_") for name in parts):
        first, second = _kronecker(parts, "1"), _kronecker(parts, "2")
        first = first.reshape(*first.shape, *(1,) * (second.ndim - first.ndim))
        return np.kron(first, second)
    return None


def _hadamard(parts: Mapping[str, np.ndarray], n: str) -> np.ndarray:
    a, b = parts[f"hada_w{n}_a"], parts[f"hada_w{n}_b"]
    if f"hada_t{n}" in parts:
        return np.einsum("ij...,jr,ip->pr...", parts[f"hada_t{n}"], b, a)
    return a @ b


def _kronecker(parts: Mapping[str, np.ndarray], n: str) -> np.ndarray:
    if f"lokr_w{n}" in parts:
        return parts[f"lokr_w{n}"]
    a, b = parts[f"lokr_w{n}_a"], parts[f"lokr_w{n}_b"]
    if n == "2" and "lokr_t2" in parts:
        return np.einsum("ij...,ip,jr->pr...", parts["lokr_t2"], a, b)
    return a @ b.reshape(len(b), -1)


def _product_shape(parts: Mapping[str, _Shape]) -> tuple[int, ...] | None:
    """Shape of `_product`, without reading anything; ValueError where parts do not fit."""
    empty = {
        name: np.broadcast_to(np.zeros((), np.float32), part.shape) for name, part in parts.items()
    }
    if "up" in parts:
        up, down = parts["up"].shape, parts["down"].shape
        if len(up) < 2 or len(down) < 2 or math.prod(up[1:]) != down[0] and "mid" not in parts:
            raise ValueError(f"lora_up {up} and lora_down {down} do not fit one another")
        if "mid" in parts:
            mid = parts["mid"].shape
            if len(mid) < 2 or (mid[0], mid[1]) != (up[1], down[0]):
                raise ValueError(f"lora_mid {mid} does not fit {up} and {down}")
            return (up[0], down[1], *mid[2:])
        return (up[0], *down[1:])
    if "hada_w1_a" in parts:
        shapes = [_hadamard_shape(empty, n) for n in "12"]
        if shapes[0] != shapes[1]:
            raise ValueError(f"hada_w1 and hada_w2 make {shapes[0]} and {shapes[1]}")
        return shapes[0]
    if any(name.startswith("lokr_") for name in parts):
        first, second = (_kronecker_shape(empty, n) for n in "12")
        if len(first) != 2 or len(second) < 2:
            raise ValueError(f"lokr_w1 and lokr_w2 have shapes {first} and {second}")
        return (first[0] * second[0], first[1] * second[1], *second[2:])
    return None


def _hadamard_shape(parts: Mapping[str, np.ndarray], n: str) -> tuple[int, ...]:
    a, b = parts[f"hada_w{n}_a"].shape, parts[f"hada_w{n}_b"].shape
    middle = parts.get(f"hada_t{n}")
    fits = len(a) == len(b) == 2
    if middle is not None:
        fits = fits and middle.ndim >= 2 and middle.shape[:2] == (a[0], b[0])
        if fits:
            return (a[1], b[1], *middle.shape[2:])
    if not fits or a[1] != b[0]:
        raise ValueError(f"hada_w{n}_a {a} and hada_w{n}_b {b} do not fit one another")
    return (a[0], b[1])


def _kronecker_shape(parts: Mapping[str, np.ndarray], n: str) -> tuple[int, ...]:
    if f"lokr_w{n}" in parts:
        return parts[f"lokr_w{n}"].shape
    a, b = parts[f"lokr_w{n}_a"].shape, parts[f"lokr_w{n}_b"].shape
    if n == "2" and "lokr_t2" in parts:
        middle = parts["lokr_t2"].shape
        if len(a) == len(b) == 2 and middle[:2] == (a[0], b[0]):
            return (a[1], b[1], *middle[2:])
    elif len(a) == 2 and len(b) >= 2 and a[1] == b[0]:
        return (a[0], math.prod(b[1:]))
    raise ValueError(f"lokr_w{n}_a {a} and lokr_w{n}_b {b} do not fit one another")


def _rank(parts: Mapping[str, Any]) -> int | None:
    """Rank of the factored change; None where it has none (a LoKr of two whole matrices)."""
    if "down" in parts:
        return int(parts["down"].shape[0])
    if "hada_w1_b" in parts:
        return int(parts["hada_w1_b"].shape[0])
    for name in ("lokr_w1_b", "lokr_w2_b"):
        if name in parts:
            return int(parts[name].shape[0])
    return None


@dataclasses.dataclass(frozen=True)
class Lora:
    """An opened LoRA, as far as it belongs to one network.

    Attributes:
        where: names it in errors and metadata files.
        changes: by the path of the parameter that they change.
        skipped: names of its layers that only image-to-video networks have.
    """

    where: str
    changes: Mapping[str, Change]
    skipped: tuple[str, ...] = ()

    def merged(self, path: str, array: np.ndarray) -> np.ndarray:
        """The parameter at `path` (our layout) with its change, float32; itself where there is
        none."""
        change = self.changes.get(path)
        return array if change is None else array.astype(np.float32) + change.array()


def parse(given: str) -> tuple[Path, float]:
    """``FILE`` or ``FILE:SCALE``, as on the command line.

    Raises:
        InputError: no such file, or a scale that is not finite.
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
    if not math.isfinite(scale):
        raise InputError(f"LoRA {given}: the scale must be a finite number")
    return path, scale


def networks_of(path: Path) -> frozenset[str]:
    """The networks that a LoRA says it is for: ``text_encoder`` where it has layers of one,
    ``transformer_2`` where it names it, and ``""`` for layers of a denoiser that it does not name.

    Raises:
        InputError: the file cannot be read.
    """
    return frozenset(_network(name) for name in read_file(path).tensors)


def _network(name: str) -> str:
    if re.match(_TEXT_ENCODER, name):
        return "text_encoder"
    return "transformer_2" if name.startswith("transformer_2.") else ""


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
    _refuse_kinds(path, file.tensors)
    layers, problems = _layers(file.tensors, network)
    names = _names(expected, list(tables))
    settings = _settings(path, file.metadata, network)
    changes: dict[str, Change] = {}
    skipped: list[str] = []
    for name, parts in layers.items():
        found, wrong = _changes(name, parts, names, settings, scale)
        if _IMAGE_LAYERS.search(name) and wrong:
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
    return Lora(f"{path}:{scale:g}", changes, tuple(skipped))


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
    incomplete = _incomplete(parts)
    if incomplete:
        return {}, [f"incomplete {name}: {incomplete}"]
    rank = _rank(parts)
    alpha = settings.alpha(name, rank)
    if "alpha" in parts:
        alpha = float(np.asarray(parts["alpha"], np.float32).reshape(-1)[0])
    divisor = None if rank is None else math.sqrt(rank) if settings.rslora else rank
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


def _incomplete(parts: Mapping[str, Any]) -> str:
    """What a layer lacks; "" where it is complete."""
    has = set(parts)
    needs = [
        ({"down", "up", "mid", "up_b"}, [{"down", "up"}]),
        (
            {n for n in has if n.startswith("hada_")},
            [{"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}],
        ),
        (
            {n for n in has if n.startswith("lokr_")},
            [
                first | second
                for first in ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"})
                for second in ({"lokr_w2"}, {"lokr_w2_a", "lokr_w2_b"})
            ],
        ),
    ]
    kinds = 0
    for some, complete in needs:
        if has & some:
            kinds += 1
            if not any(names <= has for names in complete):
                return f"has {' and '.join(sorted(has & some))}"
    if kinds > 1:
        return f"has parts of several kinds: {', '.join(sorted(has))}"
    return "has an alpha alone" if has == {"alpha"} else ""


def _refuse_kinds(path: Path, names: Iterable[str]) -> None:
    for name in names:
        for pattern, kind in _REFUSED.items():
            if re.search(pattern, name):
                raise InputError(
                    f"LoRA {path}: is {kind} ({name}), which cannot be merged here; merge it with "
                    "the program that trained it"
                )


def _layers(
    tensors: Mapping[str, Any], network: str
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Tensors by layer and part, of one network; and the names that are no part of a LoRA."""
    layers: dict[str, dict[str, Any]] = {}
    problems = []
    marked = any(_network(key) == network for key in tensors)
    for key, tensor in tensors.items():
        owner = _network(key)
        if owner != network and (owner or marked):
            continue
        name = key
        for pattern, replacement in _REWRITES:
            name = re.sub(pattern, replacement, name)
        for pattern, part in _PARTS:
            match = re.fullmatch(rf"(.+?)(?:{pattern})", name)
            if match:
                held = layers.setdefault(_bare(match[1], network), {})
                if part in held:
                    problems.append(f"double {key}")
                held[part] = tensor
                break
        else:
            problems.append(f"unknown {key}")
    return layers, problems


def _bare(name: str, network: str) -> str:
    """A layer's name without what tells its network."""
    prefixes = (*_PREFIXES, _OF_NETWORK.get(network, rf"{network}\."))
    before = None
    while before != name:
        before = name
        for prefix in prefixes:
            name = re.sub(rf"^(?:{prefix})", "", name)
    return name


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
            re.sub(r"^\^", "", _bare(key, network)): float(value)
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
