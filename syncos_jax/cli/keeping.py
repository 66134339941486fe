"""Runs of the command line that go on after they were killed: their folder, SIGTERM, the words."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from syncos_jax.errors import Terminated

if TYPE_CHECKING:
    from syncos_jax.pipeline.checkpoint import Checkpoint, Every

Resume = Annotated[
    bool,
    typer.Option(
        "--resume/--no-resume",
        help="Go on with what a killed run of the same scenario and settings has left in "
        ".NAME.run beside the video; otherwise delete that.",
    ),
]
CheckpointEvery = Annotated[
    str,
    typer.Option(
        "--checkpoint-every",
        metavar="TIME",
        help="How often the state of the run is saved: seconds such as 30 (less often where "
        "saving would take more than 2 % of the time), or rows such as 100rows.",
    ),
]

_asked = threading.Event()
_patient = False
_handled = False


@contextmanager
def preemptible() -> Iterator[None]:
    """Within it, SIGTERM raises `Terminated`: at once, or within `patiently` when the run's state
    is saved. A second one does not wait."""
    global _handled
    if threading.current_thread() is not threading.main_thread():
        yield  # Python takes signals in the main thread alone
        return
    _asked.clear()
    before = signal.signal(signal.SIGTERM, _take)
    _handled = True
    try:
        yield
    finally:
        _handled = False
        signal.signal(signal.SIGTERM, before)


def _take(*_: Any) -> None:
    if not _patient or _asked.is_set():
        raise Terminated
    _asked.set()


@contextmanager
def patiently(progress: Callable[[int, int], None]) -> Iterator[Callable[[int, int], None]]:
    """Yields `progress`. Once that is called, SIGTERM is a question that `asked` answers, and takes
    effect at the end; before, while the program is being compiled, there is nothing to save."""
    global _patient

    def watched(done: int, total: int) -> None:
        global _patient
        _patient = True
        progress(done, total)

    if _handled:  # jax.distributed takes SIGTERM for itself, and then does nothing about it
        signal.signal(signal.SIGTERM, _take)
    try:
        yield watched
    finally:
        _patient = False
    if _asked.is_set():
        raise Terminated


def asked() -> bool:
    """Whether SIGTERM has come."""
    return _asked.is_set()


@contextmanager
def kept_run(
    folder: Path,
    run: Mapping[str, Any],
    say: Callable[[str], None],
    *,
    resume: bool,
    every: Every,
) -> Iterator[Checkpoint]:
    """The opened folder of a run; says from where it goes on, and after a stop, how to go on.

    Where the run fails or is interrupted, what the folder holds is kept; with nothing in it to go
    on from, it is removed.

    Args:
      folder, run, resume, every: as for `Checkpoint`.
      say: is told one line at a time.

    Raises InputError as `Checkpoint` does.
    """
    from syncos_jax.pipeline.checkpoint import LATENTS, Checkpoint

    kept = Checkpoint(
        folder,
        run,
        resume=resume,
        every=every,
        stop=asked,
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
