"""What a LoRA adds to one parameter: the product of its factors, in the parameter's layout."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Change:
    """What is added to one parameter of the network.

    Attributes:
        parts: the tensors, by what `lora_layers.PARTS` calls them.
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


def rank_of(parts: Mapping[str, Any]) -> int | None:
    """Rank of the factored change; None where it has none (a LoKr of two whole matrices)."""
    if "down" in parts:
        return int(parts["down"].shape[0])
    if "hada_w1_b" in parts:
        return int(parts["hada_w1_b"].shape[0])
    for name in ("lokr_w1_b", "lokr_w2_b"):
        if name in parts:
            return int(parts[name].shape[0])
    return None


def incomplete(parts: Mapping[str, Any]) -> str:
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
