"""Work that requests take turns at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from syncos_jax.studio.api_errors import ApiError, Finding
from syncos_jax.studio.responses import JsonResponse

MAX_WAITING = 16


class BoundedPool:
    """One piece of work at a time, so that the rest of the machine is left to the videos."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def take(self, work: Callable[[], Any]) -> Response:
        """The answer that `work`, called in a thread, gives; ApiError where many are waiting."""
        if self._waiting >= MAX_WAITING:
            raise ApiError(
                429,
                Finding("too many such requests at once", "Try again in a moment"),
                {"Retry-After": "1"},
            )
        self._waiting += 1
        try:
            async with self._turn:
                return JsonResponse(await run_in_threadpool(work))
        finally:
            self._waiting -= 1
