"""JAX's settings during a run, whatever those of the process around it are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import jax
import numpy as np
from jax.sharding import Mesh

_NO_MESH = Mesh(np.empty((), object), ())


@contextmanager
def own_settings(*, set_up: bool = True) -> Iterator[None]:
    """Within it the caller's ``jax.set_mesh`` is not seen, and noise is that of partitionable
    threefry, as JAX has it by default. Not for use within ``jit``.

    Args:
      set_up: whether the caller's transfer guard lets constants and tables of the host through. The
        loop itself and decoding transfer nothing implicitly.
    """
    with ExitStack() as stack:
        stack.enter_context(jax.threefry_partitionable(True))
        if not jax.sharding.get_abstract_mesh().empty:
            stack.enter_context(jax.set_mesh(_NO_MESH))
        if set_up:
            stack.enter_context(jax.transfer_guard_host_to_device("allow"))
        yield
