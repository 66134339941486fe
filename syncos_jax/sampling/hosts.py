"""Several processes of one run (``jax.distributed``): joining them, telling each other."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from syncos_jax.errors import InputError

JOIN_SECONDS = 300.0
"""How long a process waits for the others by default."""
_POLL = 0.2

joining = False
"""Whether a thread of this process waits for the others inside JAX, where it cannot be stopped."""


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = JOIN_SECONDS,
    say: Callable[[str], Any] = lambda line: None,
) -> None:
    """Joins this process to those of the other hosts; before anything else of JAX is used.

    Signals take effect while it waits.

    Args:
      coordinator: ``HOST:PORT`` of process 0; with the other two None, JAX reads the environment
        of SLURM, Open MPI, Kubernetes or Cloud TPU.
      processes: how many there are.
      process_id: which one this is, from 0.
      timeout: how long to wait for the others, seconds.
      say: called with one line that says for whom this process waits.

    Raises:
      InputError: if arguments are missing or wrong, there is no such environment, or the others
        do not come in time.
    """
    _check(coordinator, processes, process_id, timeout)
    end = time.monotonic() + timeout
    if coordinator is not None and process_id:
        say(_waits(process_id, processes, coordinator, timeout))
        _reach(coordinator, process_id, processes, timeout, end)
        say = _silent
    elif coordinator is not None:
        say(_waits(0, processes, coordinator, timeout))
        say = _silent
    failures: list[BaseException] = []

    def join() -> None:
        # Its handler takes SIGTERM for itself and does nothing with it.
        preemption = getattr(jax.config, "jax_enable_preemption_service", None)
        try:
            if preemption:
                jax.config.update("jax_enable_preemption_service", False)
            # JAX ends the whole process when its own limit is over, so ours comes first.
            jax.distributed.initialize(
                coordinator, processes, process_id, initialization_timeout=int(timeout) + 3600
            )
        except BaseException as error:
            failures.append(error)
        finally:
            if preemption:
                jax.config.update("jax_enable_preemption_service", preemption)

    _wait_for(join, end, timeout, say)
    if failures:
        error = failures[0]
        if not isinstance(error, ValueError | RuntimeError):
            raise error
        remedy = (
            "is process 0 running, and its port open?"
            if coordinator
            else "no cluster was found in the environment; give coordinator, processes and "
            "process_id"
        )
        raise InputError(f"distributed: {remedy} ({error})") from None
    _check_counts(end)


def _check_counts(end: float) -> None:
    """Raises InputError if processes were given different numbers of processes: JAX would wait for
    ever for those that do not exist, or leave some out."""
    try:
        from jax._src.distributed import global_state as found

        client, own, count = found.client, found.process_id, found.num_processes
        if client is None or count is None or count < 2:
            return
        client.key_value_set(f"syncos_jax/processes/{own}", str(count))
        others = range(count) if own == 0 else (0,)
        seconds = max(5.0, end - time.monotonic())
        told = [
            int(client.blocking_key_value_get(f"syncos_jax/processes/{n}", int(1000 * seconds)))
            for n in others
        ]
    except (ImportError, AttributeError, RuntimeError, ValueError):  # private, or a host is gone
        return
    for other, number in zip(others, told, strict=True):
        if number != count:
            raise InputError(
                f"process {other} was given {number} processes, this one {count}",
                argument="processes",
                remedy="give all of them the same number",
            )


def _check(
    coordinator: str | None, processes: int | None, process_id: int | None, timeout: float
) -> None:
    if not timeout > 0:
        raise InputError(argument="join_timeout", expected="more than 0 seconds", value=timeout)
    if all(value is None for value in (coordinator, processes, process_id)):
        return
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


def _silent(line: str) -> None:
    pass


def _waits(process_id: int, processes: int | None, coordinator: str, timeout: float) -> str:
    if process_id:
        whom = f"for process 0 at {coordinator}"
    else:
        others = (processes or 1) - 1
        whom = f"at {coordinator} for {others} other{'s' if others != 1 else ''}"
    return f"process {process_id} of {processes} waits {whom}, at most {timeout:g} s"


def _reach(
    coordinator: str, process_id: int, processes: int | None, timeout: float, end: float
) -> None:
    """Waits until something listens where process 0 should; raises InputError at the end."""
    host, _, port = coordinator.rpartition(":")
    reason = ""
    while time.monotonic() < end:
        try:
            left = max(_POLL, min(5.0, end - time.monotonic()))
            socket.create_connection((host.strip("[]"), int(port)), timeout=left).close()
            return
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(max(0.0, min(1.0, end - time.monotonic())))
    raise InputError(
        f"distributed: process {process_id} of {processes} could not reach process 0 at "
        f"{coordinator} within {timeout:g} s ({reason}); is process 0 running, and its port open?"
    )


def _wait_for(
    join: Callable[[], None], end: float, timeout: float, say: Callable[[str], Any]
) -> None:
    """Runs `join` in a thread until `end`; raises InputError then. `joining` stays True where the
    thread could not be waited for."""
    global joining
    thread = threading.Thread(target=join, name="syncos hosts", daemon=True)
    joining = True
    thread.start()
    while thread.is_alive():
        thread.join(_POLL)
        found = _of_cluster()
        if found is not None and say is not _silent:
            say(_waits(*found, timeout))
            say = _silent
        if thread.is_alive() and time.monotonic() >= end:
            who = "the others"
            if found is not None:
                more = found[1] - 1
                others = "the other process" if more == 1 else f"the {more} other processes"
                who = f"process 0 at {found[2]}" if found[0] else others
            raise InputError(
                f"distributed: {who} did not come within {timeout:g} s; are all processes running, "
                "with the same number of them, and is the port of process 0 open?"
            )
    joining = False


def _of_cluster() -> tuple[int, int, str] | None:
    """(process, processes, address of process 0) as JAX found them; None before that."""
    try:
        from jax._src.distributed import global_state as found

        if found.coordinator_address is None:
            return None
        return found.process_id, found.num_processes, found.coordinator_address
    except (ImportError, AttributeError):
        return None


def is_main_process() -> bool:
    """Whether this process writes the files: the first of several, or the only one."""
    return jax.process_index() == 0


def broadcast(value: int) -> int:
    """The first process's number, in all processes."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
