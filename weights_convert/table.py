"""How a checkpoint's tensors become weights: an explicit table for each kind of checkpoint.

A row names layers by a pattern, says where they live in the NNX module and what kind of layer they
are; the kind gives the names and the layouts of its tensors. Whatever no row names is an error.
"""

import dataclasses
import enum
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.errors import InputError

Network = TypeVar("Network", bound=nnx.Module)


class Kind(enum.Enum):
    """Layer kinds: PyTorch tensor name -> (NNX leaf, axes to move to get our layout)."""

    LINEAR = "dense layer: weight [out, in] (or [out, in, 1…]) -> kernel [in, out]"
    CONV = "2-D convolution: weight [out, in, kh, kw] -> kernel [kh, kw, in, out]"
    TEMPORAL = "temporal convolution: weight [out, in, 3, 1, 1] -> kernel [3, in, out]"
    NORM = "norm: weight -> scale"
    EMBEDDING = "embedding: weight -> embedding"

    @property
    def leaf(self) -> str:
        """Name of the NNX parameter that ``weight`` becomes."""
        return {Kind.NORM: "scale", Kind.EMBEDDING: "embedding"}.get(self, "kernel")

    def to_jax(self, weight: np.ndarray) -> np.ndarray:
        """Our layout of a PyTorch ``weight``; ``ValueError`` if its rank does not fit the kind."""
        if self is Kind.LINEAR:
            trailing = weight.shape[2:]
            if weight.ndim < 2 or any(n != 1 for n in trailing):
                raise ValueError("expected [out, in] with trailing axes of 1 only")
            return weight.reshape(weight.shape[:2]).T
        if self is Kind.CONV:
            return weight.transpose(2, 3, 1, 0)
        if self is Kind.TEMPORAL:
            if weight.ndim != 5 or weight.shape[3:] != (1, 1):
                raise ValueError("expected [out, in, 3, 1, 1]")
            return weight[..., 0, 0].transpose(2, 1, 0)
        return weight

    def to_torch(self, leaf: np.ndarray) -> np.ndarray:
        """The inverse of ``to_jax`` (without trailing axes for ``LINEAR``)."""
        if self is Kind.LINEAR:
            return leaf.T
        if self is Kind.CONV:
            return leaf.transpose(3, 2, 0, 1)
        if self is Kind.TEMPORAL:
            return leaf.transpose(2, 1, 0)[..., None, None]
        return leaf


@dataclasses.dataclass(frozen=True)
class Row:
    """Layers whose full name matches ``pattern`` live at ``path`` (a ``re`` template)."""

    pattern: str
    path: str
    kind: Kind


@dataclasses.dataclass(frozen=True)
class Target:
    """Where one tensor goes."""

    path: str
    transform: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows, and the keys that are known to be useless (regular expressions, full match)."""

    rows: tuple[Row, ...]
    ignored: tuple[str, ...] = ()

    def target(self, key: str) -> Target | None:
        """Where tensor ``key`` goes; ``None`` if no row names it."""
        layer, _, tensor = key.rpartition(".")
        if tensor not in ("weight", "bias"):
            return None
        for row in self.rows:
            match = re.fullmatch(row.pattern, layer)
            if match:
                leaf = row.kind.leaf if tensor == "weight" else "bias"
                transform = row.kind.to_jax if tensor == "weight" else np.asarray
                return Target(f"{match.expand(row.path)}.{leaf}", transform)
        return None

    def is_ignored(self, key: str) -> bool:
        """Whether ``key`` is known and not needed."""
        return any(re.fullmatch(pattern, key) for pattern in self.ignored)


def leaves(module: nnx.Module) -> dict[str, Any]:
    """The parameters of a (possibly abstract) network by dotted path."""
    state = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {".".join(map(str, path)): leaf.get_value() for path, leaf in state}


def fill(
    module: Network,
    table: Table,
    keys: Iterable[str],
    read: Callable[[str], np.ndarray],
    *,
    what: str,
    put: Callable[[np.ndarray, Any], jax.Array] | None = None,
) -> Network:
    """Give an abstract network its weights, one tensor at a time.

    Args:
        module: from ``nnx.eval_shape``; shapes and dtypes are taken from it.
        table: of this kind of checkpoint.
        keys: all names in the checkpoint.
        read: the tensor of a name; called once a name, nothing is kept.
        what: names the checkpoint in errors.
        put: places an array on devices; default: the default device, in the module's dtype.

    Returns:
        The network with its weights.

    Raises:
        InputError: lists every unknown, missing, double and misshaped tensor at once.
    """
    expected = leaves(module)
    put = put or (lambda array, like: jnp.asarray(array, like.dtype))
    filled: dict[str, jax.Array] = {}
    source: dict[str, str] = {}
    problems: list[str] = []
    for key in keys:
        if table.is_ignored(key):
            continue
        target = table.target(key)
        if target is None or target.path not in expected:
            problems.append(f"unknown {key}")
            continue
        if target.path in source:
            problems.append(f"double {key} (also {source[target.path]})")
            continue
        source[target.path] = key
        like = expected[target.path]
        tensor = read(key)
        try:
            array = target.transform(tensor)
        except ValueError as error:
            problems.append(f"misshaped {key}: {tuple(tensor.shape)}, {error}")
            continue
        if array.shape != like.shape:
            problems.append(
                f"misshaped {key}: {tuple(array.shape)} in our layout, the network has {like.shape}"
            )
            continue
        filled[target.path] = put(array, like)
    problems += [f"missing (for {path})" for path in expected if path not in source]
    if problems:
        raise InputError(
            f"{what}: {len(problems)} tensors do not fit the network: " + "; ".join(problems)
        )
    return assign(module, filled)


def assign(module: Network, values: Mapping[str, jax.Array]) -> Network:
    """A copy of a network with its parameters replaced, by dotted path."""
    graph, state = nnx.split(module)
    flat = nnx.to_flat_state(state)
    for path, leaf in flat:
        name = ".".join(map(str, path))
        if name in values:
            leaf.set_value(values[name])
    return nnx.merge(graph, nnx.from_flat_state(flat))
