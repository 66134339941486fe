"""Progress of long runs: phases with their seconds, and work that Ctrl-C interrupts at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

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

T = TypeVar("T")

abandoned = False
"""Whether a thread of `interruptible` is still inside a compiled program and cannot be stopped."""


def interruptible(work: Callable[[], T]) -> T:
    """Runs `work` in a thread, so that Ctrl-C takes effect at once; returns its result.

    The main thread handles no signal while it waits for a compiled program, which may take hours.
    """
    global abandoned
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
        abandoned = True
        raise
    if failures:
        raise failures[0]
    return results[0]


class Phases:
    """Reports the phases of a run on stderr: a progress bar, then a line with the seconds.

    Outside a terminal (a log file) there is a line for every tenth instead of the bar.

    Attributes:
      seconds: duration of each finished phase, by name.
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

        Args:
          name: of the phase.
          unit: what is counted.
          first: name of a phase of its own for the time until the first report: a program reports
            nothing while it is being compiled.
          note: ``note(done)`` describes the step after `done`.
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
                suffix = f" · {note(done)}" if note is not None and done < total else ""
                bar.update(task, completed=done, total=total, description=escape(name + suffix))
                if not self.console.is_terminal and done < total and 10 * done // total > tenth:
                    tenth = 10 * done // total
                    left = (now - begin) * (total - done) / done
                    self.say(f"  {name}: {done} of {total} {unit}{suffix}, {left:.0f} s left")

            yield progress
        self.record(name, time.perf_counter() - begin)

    def record(self, name: str, seconds: float) -> None:
        """Prints and stores the seconds of a phase."""
        self.seconds[name] = seconds
        self.say(f"{name:<8} {seconds:7.1f} s")

    def say(self, line: str) -> None:
        """Prints one line, without markup."""
        self.console.print(escape(line))

    def _bar(self, unit: str) -> Progress:
        columns = [SpinnerColumn(), TextColumn("{task.description:<8}"), TimeElapsedColumn()]
        if unit:
            columns += [BarColumn(), MofNCompleteColumn(), TextColumn(unit), TextColumn("·")]
            columns += [TimeRemainingColumn(), TextColumn("left")]
        hidden = not self.console.is_terminal
        return Progress(*columns, console=self.console, transient=True, disable=hidden)
