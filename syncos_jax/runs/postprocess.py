"""WorkerConfig beside the sampler: decoding and writing one video while the next is sampled."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from syncos_jax.runs import progress

_POLL = 0.2  # seconds; the main thread takes signals in between
_GRACE = 10.0


class PostprocessThread:
    """A thread that does pieces of work in the order in which they come.

    At most one piece waits while another is done, so that latents do not pile up. What a piece
    raises is raised by the next `submit` or `drain`.
    """

    def __init__(self) -> None:
        self._work: queue.Queue[Callable[[], None]] = queue.Queue(maxsize=1)
        self._pending = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="syncos finisher", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether anything is being done or waits."""
        return self._pending > 0

    def submit(self, work: Callable[[], None]) -> None:
        """Hands over a piece of work; waits where one waits already."""
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
        """Waits until everything is done."""
        with self._changed:
            while self._pending:
                self._changed.wait(_POLL)
        self._raise()

    def give_up(self, at_once: bool) -> None:
        """Before the process ends: waits some seconds for what is in hand, or not at all. What is
        not done then is abandoned; its latents are kept, and it goes on at the next start."""
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
