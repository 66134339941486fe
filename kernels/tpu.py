"""What the Pallas kernels for TPUs share."""

import re
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from syncos_jax.kernels.choice import mesh_unsupported_reason

FAST_MEMORY = 48 * 2**20
"""Bytes of a core's fast memory (VMEM) that a kernel may use; from v5e on there are 64 MiB or
more, on v4 and before 16."""
GENERATION = 5
"""The first with so much."""
WEIGHTS = 16 * 2**20
"""Bytes of weights that a kernel may hold there."""


def whole() -> pl.BlockSpec:
    """An array that lies in the fast memory while the kernel runs."""
    return pl.BlockSpec(memory_space=pltpu.VMEM)


def parameters(axes: int) -> pltpu.CompilerParams:
    """For a grid of so many axes, whose blocks do not depend on one another."""
    return pltpu.CompilerParams(
        dimension_semantics=(pltpu.PARALLEL,) * axes, vmem_limit_bytes=FAST_MEMORY
    )


def bytes_of(*arrays: Any) -> int:
    """Of all of them."""
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(arrays))


def unsupported_reason(weights: Any) -> str | None:
    """Why no kernel can hold these weights in a program of this mesh; None where one can."""
    reason = too_old() or mesh_unsupported_reason()
    if reason:
        return reason
    held = bytes_of(weights)
    if held > WEIGHTS:
        return f"its weights ({held >> 20} MiB) are more than it can hold in the fast memory"
    return None


def too_old() -> str | None:
    """Why no kernel can run on this process's TPU; None where one can.

    Without one the program is compiled for another machine, of those that
    a plan can be made for.
    """
    if jax.default_backend() != "tpu":
        return None
    kind = jax.local_devices()[0].device_kind
    found = re.search(r"v(\d+)", kind)
    if found is None or int(found[1]) >= GENERATION:
        return None
    return f"a {kind} has too little fast memory"
