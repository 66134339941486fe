"""The parameters of a network by dotted path."""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
from flax import nnx

Network = TypeVar("Network", bound=nnx.Module)


def leaves(module: nnx.Module) -> dict[str, Any]:
    """The parameters of a (possibly abstract) network by dotted path."""
    state = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {".".join(map(str, path)): leaf.get_value() for path, leaf in state}


def dtypes(module: nnx.Module) -> dict[str, Any]:
    """The dtypes of a network's parameters by dotted path."""
    return {path: leaf.dtype for path, leaf in leaves(module).items()}


def assign(module: Network, values: Mapping[str, jax.Array]) -> Network:
    """A copy of a network with its parameters replaced, by dotted path."""
    graph, state = nnx.split(module)
    flat = nnx.to_flat_state(state)
    for path, leaf in flat:
        name = ".".join(map(str, path))
        if name in values:
            leaf.set_value(values[name])
    return nnx.merge(graph, nnx.from_flat_state(flat))
