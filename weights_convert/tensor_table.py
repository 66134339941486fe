"""Tables that name whole tensors: for networks with parameters that belong to no common layer."""

import dataclasses
import re
from collections.abc import Callable

import numpy as np

from syncos_jax.weights_convert.table import Target

Transform = Callable[[np.ndarray], np.ndarray]


def same(array: np.ndarray) -> np.ndarray:
    """A bias, or anything else whose layout is ours."""
    return np.asarray(array)


def linear(weight: np.ndarray) -> np.ndarray:
    """Dense layer, perhaps written as a convolution of size 1: ``[O, I, 1...] -> [I, O]``."""
    if weight.ndim < 2 or any(n != 1 for n in weight.shape[2:]):
        raise ValueError("expected [out, in] with trailing axes of 1 only")
    return weight.reshape(weight.shape[:2]).T


def conv2d(weight: np.ndarray) -> np.ndarray:
    """2-D convolution: ``[O, I, kh, kw] -> [kh, kw, I, O]``."""
    if weight.ndim != 4:
        raise ValueError("expected [out, in, kh, kw]")
    return weight.transpose(2, 3, 1, 0)


def stacked_conv3d(weight: np.ndarray) -> np.ndarray:
    """3-D convolution, as a 2-D one over its taps in time: ``[O, I, kt, kh, kw] ->
    [kh, kw, kt I, O]``."""
    if weight.ndim != 5 or weight.shape[2] > 3:  # time and inputs share an axis in ours
        raise ValueError("expected [out, in, kt, kh, kw] with kt of 1 to 3")
    O, I, kt, kh, kw = weight.shape
    return weight.transpose(3, 4, 2, 1, 0).reshape(kh, kw, kt * I, O)


def patches(weight: np.ndarray) -> np.ndarray:
    """Convolution whose stride is its size, as a dense layer over a patch's values (channels last):
    ``[O, I, pt, ph, pw] -> [pt ph pw I, O]``, or without ``pt``."""
    if weight.ndim not in (4, 5):
        raise ValueError("expected [out, in, ph, pw] or [out, in, pt, ph, pw]")
    return np.moveaxis(weight, (0, 1), (-1, -2)).reshape(-1, weight.shape[0])


def per_channel(weight: np.ndarray) -> np.ndarray:
    """One value a channel: ``[C, 1...] -> [C]``."""
    if any(n != 1 for n in weight.shape[1:]):
        raise ValueError("expected [C] with trailing axes of 1 only")
    return weight.reshape(-1)


def without_batch(weight: np.ndarray) -> np.ndarray:
    """A bare parameter: ``[1, ...] -> [...]``."""
    if weight.ndim < 2 or weight.shape[0] != 1:
        raise ValueError("expected a first axis of 1")
    return weight[0]


@dataclasses.dataclass(frozen=True)
class TensorRow:
    """Tensors whose whole name matches ``pattern`` live at ``path`` (a ``re`` template)."""

    pattern: str
    path: str
    transform: Transform


@dataclasses.dataclass(frozen=True)
class TensorTable:
    """Patterns of tensors; an `AnyTable`.

    Attributes:
        rows: the patterns; the first that matches counts.
        ignored: names that are known to be useless (regular expressions, full match).
        renames: from our paths to the checkpoint's names: substitutions, applied in order.
    """

    rows: tuple[TensorRow, ...]
    ignored: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()

    def targets(self, key: str) -> tuple[Target, ...]:
        for row in self.rows:
            match = re.fullmatch(row.pattern, key)
            if match:
                return (Target(match.expand(row.path), row.transform),)
        return ()

    def is_ignored(self, key: str) -> bool:
        return any(re.fullmatch(pattern, key) for pattern in self.ignored)

    def key(self, path: str) -> str:
        for pattern, replacement in self.renames:
            path = re.sub(pattern, replacement, path)
        return path


def layer(theirs: str, ours: str, transform: Transform, leaf: str = "kernel") -> list[TensorRow]:
    """The rows of a layer's ``weight`` and ``bias``; both names are patterns."""
    return [
        TensorRow(rf"{theirs}\.weight", rf"{ours}.{leaf}", transform),
        TensorRow(rf"{theirs}\.bias", rf"{ours}.bias", same),
    ]
