"""What is on its way: phase and step of every take that is being made, and who listens."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

Render = Callable[[str], Awaitable[bytes | None]]

PHASES = {
    "load": "loading",
    "compile": "compiling",
    "sample": "sampling",
    "decode": "decoding",
    "write": "writing",
}
"""Phase of a run -> what the API calls it."""

HEARTBEAT_SECONDS = 15.0
PUBLISH_SECONDS = 0.5
"""Between two events about the progress of a video."""
MAX_LISTENERS = 200


@dataclass(frozen=True)
class Progress:
    """Where a take stands.

    Attributes:
        take: its number.
        phase: a value of `PHASES`.
        step, steps: denoising steps done and in all.
        left: seconds until this take is done; None where not known.
        each: seconds that a whole take lasts; None where not known.
        at: of `time.monotonic`, when this was so.
        preview: number of the newest preview; 0 for none.
    """

    take: int
    phase: str = "loading"
    step: int = 0
    steps: int = 0
    left: float | None = None
    each: float | None = None
    at: float = 0.0
    preview: int = 0


class EventBus:
    """Progress by video id, and the listeners of events. Progress is set by workers' threads;
    listeners live in the loop of the server."""

    def __init__(self) -> None:
        self._progress: dict[str, dict[int, Progress]] = {}
        self._published: dict[str, float] = {}
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.revision = 0
        """Grows whenever listeners are told of something."""

    # -- progress --------------------------------------------------------------------------------

    def of(self, id: str) -> list[Progress]:
        """Progress of a video's takes that are being made, the first take first."""
        with self._lock:
            takes = self._progress.get(id, {})
            return [takes[number] for number in sorted(takes)]

    def set(self, id: str, progress: Progress, *, soon: bool = False) -> None:
        """A take goes on; listeners hear of it at once with `soon`, else now and then."""
        with self._lock:
            before = self._progress.setdefault(id, {}).get(progress.take)
            self._progress[id][progress.take] = progress
            time_passed = time.monotonic() - self._published.get(id, 0.0) >= PUBLISH_SECONDS
            changed = before is None or before.phase != progress.phase
        if soon or changed or time_passed:
            self.publish(id)

    def clear(self, id: str, take: int) -> None:
        """A take is not being made any more."""
        with self._lock:
            takes = self._progress.get(id, {})
            takes.pop(take, None)
            if not takes:
                self._progress.pop(id, None)
                self._published.pop(id, None)

    # -- listeners -------------------------------------------------------------------------------

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop that listeners live in."""
        self._loop = loop

    def publish(self, id: str) -> None:
        """Tells everybody that a video has changed; may be called by any thread."""
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
    def full(self) -> bool:
        """Whether there are as many listeners as there may be."""
        return len(self._listeners) >= MAX_LISTENERS

    async def stream(self, id: str | None, render: Render) -> AsyncIterator[bytes]:
        """Server-sent events about one video, or about all of them.

        Args:
            id: of the video, which is told of at once as it is; None for all.
            render: gives the data of an event, None where the video is gone.
        """
        listener = Listener(id)
        self._listeners.add(listener)
        try:
            async for chunk in listener.stream(render):
                yield chunk
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """Ends all streams; called in the loop."""
        for listener in list(self._listeners):
            listener.end()


class Listener:
    """Somebody who hears of changes. However slow it is, what waits for it are ids, each once."""

    def __init__(self, id: str | None) -> None:
        self._id = id
        self._changed: dict[str, None] = {}
        self._event = asyncio.Event()
        self._ended = False

    def mark(self, id: str) -> None:
        """A video has changed."""
        if self._id in (None, id):
            self._changed[id] = None
            self._event.set()

    def end(self) -> None:
        """No more events."""
        self._ended = True
        self._event.set()

    async def stream(self, render: Render) -> AsyncIterator[bytes]:
        """See `EventBus.stream`."""
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
            await asyncio.sleep(0.1)  # what changes meanwhile is one event
