"""SIGTERM: the run saves its state between two parts and ends; the checkpoint it resumes from."""

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

_requested = threading.Event()
_between_parts = False
_handled = False


@contextmanager
def preemptible() -> Iterator[None]:
    """Within it, SIGTERM raises `Terminated`: at once, or within `defer_sigterm` when the
    run's state is saved. A second one does not wait."""
    global _handled
    if threading.current_thread() is not threading.main_thread():
        yield  # Python takes signals in the main thread alone
        return
    _requested.clear()
    before = signal.signal(signal.SIGTERM, _on_sigterm)
    _handled = True
    try:
        yield
    finally:
        _handled = False
        signal.signal(signal.SIGTERM, before)


def _on_sigterm(*_: Any) -> None:
    if not _between_parts or _requested.is_set():
        raise Terminated
    _requested.set()


@contextmanager
def defer_sigterm(
    progress: Callable[[int, int], None],
) -> Iterator[Callable[[int, int], None]]:
    """Within it a run is played, which saves its state and ends where `stop_requested` says so.

    Yields `progress`. Once that has been called (before, the program is being compiled, and there
    is nothing to save), SIGTERM no longer raises `Terminated` at once; `stop_requested` returns
    True, and `Terminated` is raised at the end of the block at the latest."""
    global _between_parts

    def watched(done: int, total: int) -> None:
        global _between_parts
        _between_parts = True
        progress(done, total)

    if _handled:  # jax.distributed takes SIGTERM for itself, and then does nothing about it
        signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        yield watched
    finally:
        _between_parts = False
    if _requested.is_set():
        raise Terminated


def stop_requested() -> bool:
    """Whether SIGTERM has come."""
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
    """The opened checkpoint of a run; prints from where it resumes, and after a stop, how to.

    Where the run fails or is interrupted, what the folder holds is kept; with nothing in it to go
    on from, it is removed.

    Args:
      folder, run, resume, every: as for `Checkpoint`.
      say: prints one line.

    Raises InputError as `Checkpoint` does.
    """
    from syncos_jax.pipeline.checkpoint import LATENTS, Checkpoint

    kept = Checkpoint(
        folder,
        run,
        resume=resume,
        every=every,
        stop=stop_requested,
        warn=lambda text: say(f"warning: {text}"),
    )

    def where() -> str:
        if (folder / LATENTS).exists():
            return "with decoding: all rows are done"
        row = kept.newest_row()
        return f"from row {row}" if row else ""

    if where():
        say(f"goes on {where()}  ({folder})")
    try:
        yield kept
    except KeyboardInterrupt as stop:
        # The thread that samples may still be at the folder, so nothing is waited for.
        if kept.empty:
            kept.remove_empty()
            raise
        raise type(stop)(f"the same command goes on {where()}") from None
    except BaseException:
        kept.close()
        if kept.empty:
            kept.remove_empty()
        else:
            say(f"the run can go on {where()}  ({folder})")
        raise
    kept.close()
