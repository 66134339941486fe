"""Progress of running takes, and server-sent events about changed videos."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

Render = Callable[[str], Awaitable[bytes | None]]

PHASES = {
    "load": "loading",
    "compile": "compiling",
    "sample": "sampling",
    "decode": "decoding",
    "write": "writing",
}
"""Phase of a run and its name in the API."""

HEARTBEAT_SECONDS = 15.0
PUBLISH_SECONDS = 0.5
"""Minimum interval between events about the progress of a video."""
MAX_LISTENERS = 200


@dataclass(frozen=True)
class Progress:
    """Progress of a take.

    Attributes:
        take: its number.
        phase: a value of `PHASES`.
        step: denoising steps done.
        steps: denoising steps in total.
        left: seconds until this take is done; None if unknown.
        each: seconds that a whole take needs; None if unknown.
        at: `time.monotonic` of this report.
        preview: number of the newest preview; 0 for none.
        began: `time.monotonic` when the phase began; set by `EventBus.set`.
    """

    take: int
    phase: str = "loading"
    step: int = 0
    steps: int = 0
    left: float | None = None
    each: float | None = None
    at: float = 0.0
    preview: int = 0
    began: float = 0.0


class EventBus:
    """Progress by video id, and the listeners to changes.

    Worker threads set the progress; listeners belong to the server's event loop.
    """

    def __init__(self) -> None:
        self._progress: dict[str, dict[int, Progress]] = {}
        self._published: dict[str, float] = {}
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.revision = 0
        """Increases with every published change."""

    # -- progress --------------------------------------------------------------------------------

    def of(self, id: str) -> list[Progress]:
        """Progress of a video's running takes, by take."""
        with self._lock:
            takes = self._progress.get(id, {})
            return [takes[number] for number in sorted(takes)]

    def set(self, id: str, progress: Progress, *, soon: bool = False) -> None:
        """Set the progress of a take; publish it at once with `soon`, else at intervals."""
        with self._lock:
            before = self._progress.setdefault(id, {}).get(progress.take)
            same_phase = before is not None and before.phase == progress.phase
            began = before.began if before is not None and same_phase else time.monotonic()
            self._progress[id][progress.take] = replace(progress, began=began)
            time_passed = time.monotonic() - self._published.get(id, 0.0) >= PUBLISH_SECONDS
            changed = not same_phase
        if soon or changed or time_passed:
            self.publish(id)

    def clear(self, id: str, take: int) -> None:
        """Remove the progress of a take that has ended."""
        with self._lock:
            takes = self._progress.get(id, {})
            takes.pop(take, None)
            if not takes:
                self._progress.pop(id, None)
                self._published.pop(id, None)

    # -- listeners -------------------------------------------------------------------------------

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the event loop of the listeners."""
        self._loop = loop

    def publish(self, id: str) -> None:
        """Announce that a video has changed; thread-safe."""
        with self._lock:
            self.revision += 1
            if id in self._progress:
                self._published[id] = time.monotonic()
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._mark, id)

    def _mark(self, id: str) -> None:
        for listener in self._listeners:
            listener.mark(id)

    @property
    def count(self) -> int:
        """Number of listeners."""
        return len(self._listeners)

    @property
    def full(self) -> bool:
        """Whether the limit of listeners is reached."""
        return len(self._listeners) >= MAX_LISTENERS

    async def stream(self, id: str | None, render: Render) -> AsyncIterator[bytes]:
        """Server-sent events about one video, or about all of them.

        Args:
            id: the video, sent at once as it is; None for all.
            render: returns the data of an event, or None for a deleted video.
        """
        listener = Listener(id)
        self._listeners.add(listener)
        try:
            async for chunk in listener.stream(render):
                yield chunk
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """End all streams; to be called in the event loop."""
        for listener in list(self._listeners):
            listener.end()


class Listener:
    """One event stream. However slow its client, it holds each changed id once."""

    def __init__(self, id: str | None) -> None:
        self._id = id
        self._changed: dict[str, None] = {}
        self._event = asyncio.Event()
        self._ended = False

    def mark(self, id: str) -> None:
        """Note that a video has changed."""
        if self._id in (None, id):
            self._changed[id] = None
            self._event.set()

    def end(self) -> None:
        """End the stream."""
        self._ended = True
        self._event.set()

    async def stream(self, render: Render) -> AsyncIterator[bytes]:
        """As `EventBus.stream`."""
        yield b": listening\n\n"
        if self._id is not None:
            self.mark(self._id)
        while not self._ended:
            try:
                await asyncio.wait_for(self._event.wait(), HEARTBEAT_SECONDS)
            except TimeoutError:
                yield b": still here\n\n"
                continue
            self._event.clear()
            changed, self._changed = self._changed, {}
            for id in changed:
                data = await render(id)
                if data is not None:
                    yield b"event: video\ndata: " + data + b"\n\n"
            await asyncio.sleep(0.1)  # changes meanwhile become one event
