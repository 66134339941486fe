"""Several processes of one run (``jax.distributed``): joining them, telling each other."""

from __future__ import annotations

import jax
import numpy as np

from syncos_jax.errors import InputError


def initialize(
    coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins this process to those of the other hosts; before anything else of JAX is used.

    Args:
      coordinator: ``HOST:PORT`` of process 0; with the other two None, JAX reads the environment
        of SLURM, Open MPI, Kubernetes or Cloud TPU.
      processes: how many there are.
      process_id: which one this is, from 0.

    Raises:
      InputError: if arguments are missing or wrong, there is no such environment, or the others
        do not come.
    """
    given = (coordinator, processes, process_id)
    if any(value is not None for value in given):
        if coordinator is None or processes is None or process_id is None:
            raise InputError(
                "distributed: coordinator (HOST:PORT), processes and process_id go together; give "
                "all three, or none where the cluster's environment says them"
            )
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise InputError(f"coordinator: must be HOST:PORT, got {coordinator!r}")
        if not 0 <= process_id < processes:
            raise InputError(
                f"process_id: is {process_id} of {processes} processes; give 0 to {processes - 1}"
            )
    try:
        jax.distributed.initialize(coordinator, processes, process_id)
    except (ValueError, RuntimeError) as error:
        remedy = (
            "is process 0 running, and its port open?"
            if coordinator
            else "no cluster was found in the environment; give coordinator, processes and "
            "process_id"
        )
        raise InputError(f"distributed: {remedy} ({error})") from None


def is_main_process() -> bool:
    """Whether this process writes the files: the first of several, or the only one."""
    return jax.process_index() == 0


def broadcast(value: int) -> int:
    """The first process's number, in all processes."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
