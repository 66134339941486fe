"""How a checkpoint's tensors become weights: an explicit table for each kind of checkpoint.

A table names layers, says where they live in the NNX module and what kind of layer they are; the
kind gives the names and the layouts of its tensors. Whatever no table names is an error.
"""

import dataclasses
import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.models.weights import Network, assign, leaves

_LISTED = 100
"""Problems that are named one by one; more than that is another network altogether."""


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
class Target:
    """Where one tensor, or a part of it, goes."""

    path: str
    transform: Callable[[np.ndarray], np.ndarray]


class AnyTable(Protocol):
    """What `match` needs of a table."""

    def targets(self, key: str) -> tuple[Target, ...]:
        """Where tensor ``key`` goes; empty if the table does not name it."""

    def is_ignored(self, key: str) -> bool:
        """Whether ``key`` is known and not needed."""

    def key(self, path: str) -> str:
        """The checkpoint's name of what belongs at ``path``, for messages."""


def layer_targets(theirs: str, ours: str, kind: Kind) -> dict[str, tuple[Target, ...]]:
    """The two tensors of a layer, by name."""
    return {
        f"{theirs}.weight": (Target(f"{ours}.{kind.leaf}", kind.to_jax),),
        f"{theirs}.bias": (Target(f"{ours}.bias", np.asarray),),
    }


@dataclasses.dataclass(frozen=True)
class Row:
    """Layers whose full name matches ``pattern`` live at ``path`` (a ``re`` template)."""

    pattern: str
    path: str
    kind: Kind


@dataclasses.dataclass(frozen=True)
class Table:
    """Patterns of layers, for checkpoints whose names are like ours.

    Attributes:
        rows: the patterns.
        ignored: keys that are known to be useless (regular expressions, full match).
        renames: from our paths to the checkpoint's names: substitutions, applied in order.
    """

    rows: tuple[Row, ...]
    ignored: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()

    def targets(self, key: str) -> tuple[Target, ...]:
        layer, _, tensor = key.rpartition(".")
        if tensor in ("weight", "bias"):
            for row in self.rows:
                match = re.fullmatch(row.pattern, layer)
                if match:
                    return layer_targets(layer, match.expand(row.path), row.kind)[key]
        return ()

    def is_ignored(self, key: str) -> bool:
        return any(re.fullmatch(pattern, key) for pattern in self.ignored)

    def key(self, path: str) -> str:
        for pattern, replacement in self.renames:
            path = re.sub(pattern, replacement, path)
        return path


@dataclasses.dataclass(frozen=True)
class NamedTable:
    """Every tensor by its name, for checkpoints whose names follow another structure than ours.

    Attributes:
        entries: name -> where it goes, in one or several pieces.
        ignored: names that are known to be useless -> why.
    """

    entries: Mapping[str, tuple[Target, ...]]
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def targets(self, key: str) -> tuple[Target, ...]:
        return self.entries.get(key, ())

    def is_ignored(self, key: str) -> bool:
        return key in self.ignored

    def key(self, path: str) -> str:
        for key, targets in self.entries.items():
            if any(target.path == path for target in targets):
                return key
        return path


def match(
    expected: Mapping[str, Any], table: AnyTable, tensors: Mapping[str, Any]
) -> tuple[dict[str, tuple[Target, ...]], list[str]]:
    """Finds each tensor's place, from names, shapes and types alone.

    Args:
        expected: the network's parameters (anything with a shape) by dotted path.
        table: of this kind of checkpoint.
        tensors: the checkpoint's (anything with shape and dtype) by name.

    Returns:
        Name -> targets, and the problems: every unknown, missing, double and misshaped tensor.
    """
    plan: dict[str, tuple[Target, ...]] = {}
    problems: list[str] = []
    source: dict[str, str] = {}
    for key, tensor in tensors.items():
        if table.is_ignored(key):
            continue
        targets = table.targets(key)
        if not targets or any(target.path not in expected for target in targets):
            problems.append(f"unknown {key}")
            continue
        doubles = [source[target.path] for target in targets if target.path in source]
        source |= {target.path: key for target in targets}
        if doubles:
            problems.append(f"double {key} (also {doubles[0]})")
            continue
        shape = tuple(tensor.shape)
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            problems.append(f"misshaped {key}: of type {tensor.dtype}, not floating point")
            continue
        probe = np.broadcast_to(np.zeros((), np.uint8), shape)  # an array that holds nothing
        for target in targets:
            wanted = tuple(expected[target.path].shape)
            try:
                found = target.transform(probe).shape
            except ValueError as error:
                problems.append(f"misshaped {key}: {shape}, {error}")
                break
            if found != wanted:
                problems.append(
                    f"misshaped {key}: {shape}, that is {found} in our layout, the network has "
                    f"{wanted}"
                )
                break
        else:
            plan[key] = targets
    missing = dict.fromkeys(table.key(path) for path in expected if path not in source)
    problems += [f"missing {key}" for key in missing]
    return plan, problems


def refuse(what: str, problems: list[str], hint: str = "") -> InputError:
    """The error that lists `problems` of the checkpoint `what`, with a `hint` at its end."""
    named = "; ".join(problems[:_LISTED])
    more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    count = f"{len(problems)} tensor{'s do' if len(problems) > 1 else ' does'} not fit the network"
    return InputError(f"{count}: {named}{more}", place=what, remedy=hint or None)


def arrays(
    plan: Mapping[str, tuple[Target, ...]], read: Callable[[str], Any]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Reads the tensors of a plan, one at a time: (name, path, array in our layout)."""
    for key, targets in plan.items():
        tensor = np.asarray(read(key))
        for target in targets:
            yield key, target.path, target.transform(tensor)


def fill(
    module: Network,
    table: AnyTable,
    keys: Iterable[str],
    read: Callable[[str], Any],
    *,
    what: str,
    put: Callable[[np.ndarray, Any], jax.Array] | None = None,
) -> Network:
    """Give an abstract network its weights, one tensor at a time.

    Args:
        module: from ``nnx.eval_shape``; shapes and dtypes are taken from it.
        table: of this kind of checkpoint.
        keys: all names in the checkpoint.
        read: the tensor of a name: an array, or one that is still in its file (`LazyTensor`).
        what: names the checkpoint in errors.
        put: places an array on devices; default: the default device, in the module's dtype.

    Returns:
        The network with its weights.

    Raises:
        InputError: lists every unknown, missing, double and misshaped tensor at once.
    """
    expected = leaves(module)
    put = put or (lambda array, like: jnp.asarray(array, like.dtype))
    plan, problems = match(expected, table, {key: read(key) for key in keys})
    if problems:
        raise refuse(what, problems)
    return assign(
        module, {path: put(array, expected[path]) for _, path, array in arrays(plan, read)}
    )
