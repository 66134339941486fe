"""Networks with random weights, without compiling an initialiser for every shape."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.weights_convert.table import Network, assign, leaves


def random_network(build: Callable[[], Network], seed: int = 0) -> Network:
    """``build()`` with every weight drawn anew: about one for scales, small for all else."""
    abstract = nnx.eval_shape(build)
    rng = np.random.default_rng(seed)
    values = {}
    for path, leaf in leaves(abstract).items():
        size = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 100
        value = rng.normal(size=leaf.shape) / np.sqrt(size)
        values[path] = jnp.asarray(value + path.endswith(".scale"), leaf.dtype)
    return assign(abstract, values)


def quickly(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` jitted for one small call: most of a test is compilation, and without LLVM's
    optimisations that takes less than half the time."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function, compiler_options=options)
