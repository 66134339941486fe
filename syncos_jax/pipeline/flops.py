"""Floating-point operations of a function, counted from its equations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax


def flops(function: Any, *arguments: Any) -> float:
    """Operations of all matrix products and convolutions: two for a multiplication with its
    addition.

    Loops count as often as they turn (`lax.while_loop` once), of several branches the one with
    most, of those for several platforms the one for all others, which is the plain one. Norms and
    activations are left out.

    Args:
        function: traceable.
        arguments: arrays, or `jax.ShapeDtypeStruct` in their place.
    """
    return flops_of(jax.make_jaxpr(function)(*arguments).jaxpr)


def flops_of(jaxpr: Any) -> float:
    """`flops` of what was traced already."""
    return sum(_one(equation) for equation in jaxpr.eqns)


def _one(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        out = parameters["dimension_numbers"].rhs_spec[0]
        return 2.0 * equation.outvars[0].aval.size * kernel.size / kernel.shape[out]
    inner = [flops_of(jaxpr) for jaxpr in _inner(parameters)]
    if name == "cond":
        platforms = parameters.get("branches_platforms") or ()
        if None in platforms:  # the one for all others, which pads and masks nothing
            return inner[platforms.index(None)]
        return max(inner, default=0.0)
    if name == "pallas_call" and parameters.get("cost_estimate") is not None:
        return float(parameters["cost_estimate"].flops)  # without what it masks
    if name == "pallas_call":
        return sum(inner) * math.prod(parameters["grid_mapping"].grid)
    return sum(inner) * (parameters["length"] if name == "scan" else 1)


def _inner(parameters: dict[str, Any]) -> Iterator[Any]:
    for value in parameters.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(item, "jaxpr", item)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr
