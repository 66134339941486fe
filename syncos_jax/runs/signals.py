"""Requests to stop (SIGTERM and the like): the run saves its state between two parts and ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncos_jax.errors import Terminated

if TYPE_CHECKING:
    from syncos_jax.pipeline.checkpoint import Checkpoint, SaveInterval

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)
)
"""SIGTERM: schedulers and preempted machines. SIGUSR1: SLURM's ``--signal``, before a time limit.
SIGHUP: a closed terminal."""

_requested = threading.Event()
_between_parts = False
_handled = False


@contextmanager
def preemptible() -> Iterator[None]:
    """Within it, `SIGNALS` raise `Terminated`: at once, or within `defer_sigterm` once the run's
    state is saved. A second signal does not wait. An ignored SIGHUP (``nohup``) stays ignored."""
    global _handled
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread only
        return
    _requested.clear()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, _on_signal)
    _handled = True
    try:
        yield
    finally:
        _handled = False
        for number in taken:
            signal.signal(number, before[number] or signal.SIG_DFL)


def _on_signal(*_: Any) -> None:
    if not _between_parts or _requested.is_set():
        raise Terminated
    _requested.set()


@contextmanager
def defer_sigterm(progress: Callable[[int, int], None]) -> Iterator[Callable[[int, int], None]]:
    """Defers `SIGNALS` while a run is played that saves its state and ends on `stop_requested`.

    Yields `progress`. Signals are deferred from its first call on (before, the program is being
    compiled and there is nothing to save): `stop_requested` returns True, and `Terminated` is
    raised at the end of the block at the latest.
    """
    global _between_parts

    def watched(done: int, total: int) -> None:
        global _between_parts
        _between_parts = True
        progress(done, total)

    if _handled:  # jax.distributed may have installed a handler that ignores the signal
        signal.signal(signal.SIGTERM, _on_signal)
    try:
        yield watched
    finally:
        _between_parts = False
    if _requested.is_set():
        raise Terminated


def stop_requested() -> bool:
    """Whether one of `SIGNALS` has arrived."""
    return _requested.is_set()


@contextmanager
def open_checkpoint(
    folder: Path,
    run: Mapping[str, Any],
    say: Callable[[str], None],
    *,
    resume: bool,
    every: SaveInterval,
) -> Iterator[Checkpoint]:
    """The opened checkpoint of a run; reports where it resumes, and after a stop, how to resume.

    If the run fails or is interrupted, the folder is kept, unless there is nothing to resume from.

    Args:
      folder, run, resume, every: as for `Checkpoint`.
      say: prints one line.

    Raises:
      InputError: as `Checkpoint`.
    """
    from syncos_jax.pipeline.checkpoint import Checkpoint

    checkpoint = Checkpoint(
        folder,
        run,
        resume=resume,
        every=every,
        stop=stop_requested,
        warn=lambda text: say(f"warning: {text}"),
    )
    if not checkpoint.empty:
        say(f"resuming {checkpoint.position}  ({folder})")
    try:
        yield checkpoint
    except KeyboardInterrupt as stop:
        # The sampling thread may still use the folder, so nothing is waited for.
        if checkpoint.empty:
            checkpoint.remove_empty()
            raise
        raise type(stop)(f"the same command resumes {checkpoint.position}") from None
    except BaseException:
        checkpoint.close()
        if checkpoint.empty:
            checkpoint.remove_empty()
        else:
            say(f"the run can be resumed {checkpoint.position}  ({folder})")
        raise
    checkpoint.close()
