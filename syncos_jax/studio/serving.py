"""Runs an app on a socket until it is asked to stop."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from syncos_jax.errors import InputError
from syncos_jax.studio.security import TimedProtocol

MAX_CONNECTIONS = 512
CLOSE_SECONDS = 3
"""For answers that are on their way when the server stops."""


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; InputError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host.strip("[]"), port))
        found.listen(128)
    except OSError as error:
        found.close()
        raise InputError(
            f"port {port}: {error.strerror or error}; give another one, or 0 to take a free one"
        ) from error
    return found


class Server(uvicorn.Server):
    """uvicorn's server: stops on SIGINT and SIGTERM without dying of them, and first calls what
    ends the streams that would never end themselves."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], Any]) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def server(app: Any, stopping: Callable[[], Any] = lambda: None) -> Server:
    """The server of an app; ``run(sockets=[...])`` returns when it was stopped."""
    config = uvicorn.Config(
        app,
        http=TimedProtocol,
        ws="none",
        loop="auto",  # uvloop where it is installed
        log_level="error",
        access_log=False,  # the address may hold a token
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )
    return Server(config, stopping)
