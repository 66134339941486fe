"""Floating-point operations of a function, counted in its jaxpr."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax


def flops(function: Any, *arguments: Any) -> float:
    """FLOPs of all matrix products and convolutions, two per multiply-add.

    Loops count once per iteration (`lax.while_loop` once in all), branches by the largest one,
    `platform_dependent` by its default. Norms and activations are ignored.

    Args:
        function: traceable.
        arguments: arrays, or `jax.ShapeDtypeStruct` in their place.
    """
    return flops_of(jax.make_jaxpr(function)(*arguments).jaxpr)


def flops_of(jaxpr: Any) -> float:
    """`flops` of a traced function."""
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
    inner = [flops_of(jaxpr) for jaxpr in inner_jaxprs(parameters)]
    if name == "cond":
        platforms = parameters.get("branches_platforms") or ()
        if None in platforms:  # the default, which pads and masks nothing
            return inner[platforms.index(None)]
        return max(inner, default=0.0)
    if name == "pallas_call" and parameters.get("cost_estimate") is not None:
        return float(parameters["cost_estimate"].flops)  # excludes what it masks
    if name == "pallas_call":
        return sum(inner) * math.prod(parameters["grid_mapping"].grid)
    return sum(inner) * (parameters["length"] if name == "scan" else 1)


def inner_jaxprs(parameters: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters: bodies of loops, branches, calls."""
    for value in parameters.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(item, "jaxpr", item)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr
