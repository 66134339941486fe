"""The answer that clients ask for again and again, given before any routing."""

from __future__ import annotations

import re

from syncos_jax.studio.documents import Documents
from syncos_jax.studio.security import App, Receive, Scope, Send

_VIDEO = re.compile(r"/v1/videos/(v[0-9a-f]{16})")


class DocumentCache:
    """``GET /v1/videos/{id}`` of a video that has not changed since it was last requested.

    Everything else, and a video that has changed, is left to the app behind. A hundred clients
    that ask every second would otherwise take from the runs what routing and validation cost.

    Args:
        app: what is behind it.
        documents: of the videos.
    """

    def __init__(self, app: App, *, documents: Documents) -> None:
        self._app = app
        self._documents = documents

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = self._kept(scope)
        if raw is None:
            await self._app(scope, receive, send)
            return
        headers = [
            (b"content-length", b"%d" % len(raw)),
            (b"content-type", b"application/json"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": raw})

    def _kept(self, scope: Scope) -> bytes | None:
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        found = _VIDEO.fullmatch(scope["path"])
        return self._documents.kept(found[1]) if found else None
