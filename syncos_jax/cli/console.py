"""What the commands share: one-line errors, interruptible work, phases with their seconds."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from syncos_jax.errors import InputError, Terminated

FAILED = 1
BAD_INPUT = 2
TERMINATED = 75
"""After SIGTERM: EX_TEMPFAIL of sysexits.h, "try again later"; the same command goes on."""
INTERRUPTED = 130

T = TypeVar("T")
_abandoned = False


def fail(message: str) -> None:
    """One line on stderr."""
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns what a user can do something about into one line and an exit code, without a trace.

    InputError and OSError (no space, no permission) exit with 2, a device out of memory with 1,
    Ctrl-C with 130, SIGTERM (where it is handled) with 75.
    """
    try:
        yield
    except InputError as error:
        fail(str(error))
        raise typer.Exit(BAD_INPUT) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        fail(f"{place}{error.strerror or error}")
        raise typer.Exit(BAD_INPUT) from None
    except KeyboardInterrupt as stop:
        ended = isinstance(stop, Terminated)
        how_to_go_on = f"; {stop}" if str(stop) else ""
        said = "terminated" if ended else "interrupted"
        fail(f"{said}; no half-written file is left{how_to_go_on}")
        code = TERMINATED if ended else INTERRUPTED
        if _abandoned:  # a thread is still inside the compiled program and cannot be stopped
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        raise typer.Exit(code) from None
    except AssertionError as error:
        _fail_without_platform(error)
        raise
    except RuntimeError as error:  # the class of XLA's own errors
        _fail_without_platform(error)
        if str(error).startswith("out of memory: "):  # a run's own, which says what would fit
            fail(str(error))
        elif "RESOURCE_EXHAUSTED" in str(error):
            fail("out of memory on the device; take --windows-per-call auto, or fewer windows")
        else:
            raise
        raise typer.Exit(FAILED) from None


def _fail_without_platform(error: BaseException) -> None:
    """Ends with one line where JAX has no device of the platform that it was told to use."""
    if "jax" not in sys.modules:
        return
    from syncos_jax.sampling.devices import no_platform

    said = no_platform(error)
    if said is not None:
        fail(said)
        raise typer.Exit(BAD_INPUT) from None


def interruptible(work: Callable[[], T]) -> T:
    """Runs ``work`` so that Ctrl-C takes effect at once.

    The main thread cannot take a signal while it waits for a compiled program, which may be hours.
    """
    global _abandoned
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body, name="syncos work", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(timeout=0.2)
    except KeyboardInterrupt:
        _abandoned = True
        raise
    if failures:
        raise failures[0]
    return results[0]


class Phases:
    """The phases of a run on stderr: a bar while one runs, a line with its seconds at its end.

    In a terminal the bar moves; elsewhere (a log file) there is a line for every tenth.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(
        self,
        name: str,
        unit: str = "",
        first: str | None = None,
        note: Callable[[int], str] | None = None,
    ) -> Iterator[Callable[[int, int], None]]:
        """Times the block; yields ``progress(done, total)`` for the bar.

        ``unit`` is what is counted. With ``first``, the time until the first report is a phase of
        that name: a compiled program reports nothing while it is being compiled. ``note(done)``
        says what is being done at that place.
        """
        begin = time.perf_counter()
        tenth = 0
        waiting = first
        with self._bar(unit) as bar:
            task = bar.add_task(waiting or name, total=None)

            def progress(done: int, total: int) -> None:
                nonlocal begin, tenth, waiting
                now = time.perf_counter()
                if waiting:
                    self.record(waiting, now - begin)
                    begin, waiting = now, None
                    bar.reset(task, description=name)
                said = f" · {note(done)}" if note is not None and done < total else ""
                bar.update(task, completed=done, total=total, description=escape(name + said))
                if not self.console.is_terminal and done < total and 10 * done // total > tenth:
                    tenth = 10 * done // total
                    left = (now - begin) * (total - done) / done
                    self.say(f"  {name}: {done} of {total} {unit}{said}, {left:.0f} s left")

            yield progress
        self.record(name, time.perf_counter() - begin)

    def record(self, name: str, seconds: float) -> None:
        """Says and keeps the seconds of a phase."""
        self.seconds[name] = seconds
        self.say(f"{name:<8} {seconds:7.1f} s")

    def say(self, line: str) -> None:
        """One line, taken literally."""
        self.console.print(escape(line))

    def _bar(self, unit: str) -> Progress:
        columns = [SpinnerColumn(), TextColumn("{task.description:<8}"), TimeElapsedColumn()]
        if unit:
            columns += [BarColumn(), MofNCompleteColumn(), TextColumn(unit), TextColumn("·")]
            columns += [TimeRemainingColumn(), TextColumn("left")]
        hidden = not self.console.is_terminal
        return Progress(*columns, console=self.console, transient=True, disable=hidden)
