"""Decodes and writes one video while the next is being sampled."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from syncos_jax.runs import progress

_POLL = 0.2  # seconds; the main thread handles signals in between
_GRACE = 10.0


class PostprocessThread:
    """A thread that runs tasks in order.

    At most one task waits while another runs, so that latents do not pile up. An exception of a
    task is raised by the next `submit` or `drain`.
    """

    def __init__(self) -> None:
        self._work: queue.Queue[Callable[[], None]] = queue.Queue(maxsize=1)
        self._pending = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="syncos postprocess", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a task runs or waits."""
        return self._pending > 0

    def submit(self, work: Callable[[], None]) -> None:
        """Queues a task; blocks while another one waits."""
        self._raise()
        with self._changed:
            self._pending += 1
        while True:
            try:
                self._work.put(work, timeout=_POLL)
                return
            except queue.Full:
                continue
            except BaseException:
                with self._changed:
                    self._pending -= 1
                raise

    def drain(self) -> None:
        """Waits until all tasks are done."""
        with self._changed:
            while self._pending:
                self._changed.wait(_POLL)
        self._raise()

    def give_up(self, at_once: bool) -> None:
        """Before the process ends: waits up to 10 seconds for the tasks, or not at all.

        Unfinished tasks are abandoned; their latents are saved, and the next start resumes there.
        """
        end = time.monotonic() + (0.0 if at_once else _GRACE)
        with self._changed:
            while self._pending and time.monotonic() < end:
                self._changed.wait(_POLL)
            if self._pending:  # the interpreter must not wait for the thread, nor tear it down
                progress.abandoned = True

    def _run(self) -> None:
        while True:
            work = self._work.get()
            try:
                if self._error is None:
                    work()
            except BaseException as error:
                self._error = error
            finally:
                del work  # the latents
                with self._changed:
                    self._pending -= 1
                    self._changed.notify_all()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
