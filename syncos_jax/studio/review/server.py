"""The page with working buttons: a server on the loopback device, for the people at this machine.

Its address holds a random token. It answers only requests that name this machine as host (a page
elsewhere cannot reach it through a name of its own), takes decisions only from its own page
(Origin), and hands out nothing but that page, its state and the videos on it: names are looked up,
never joined to a path, and what no video can be read from is not handed out.
"""

from __future__ import annotations

import getpass
import json
import secrets
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from syncos_jax.errors import InputError
from syncos_jax.studio.responses import JsonResponse
from syncos_jax.studio.review.approvals import (
    StaleError,
    add_entry,
    file_sha256,
    read_reviews,
)
from syncos_jax.studio.review.page import Gallery, policy, render
from syncos_jax.studio.review.takes import PLAYABLE, Take, find_takes
from syncos_jax.studio.review.views import history
from syncos_jax.studio.security import HEADERS, Guard, same
from syncos_jax.studio.serving import listening, server

HOST = "127.0.0.1"
MAX_BODY = 64 * 1024
_DECISION = {
    "video": str,
    "action": str,
    "by": str,
    "comment": str,
    "seen": int,
    "sha256": str,
}


class ReviewServer:
    """Serves the review page of one folder; a context manager, which closes the address.

    Args:
        folder: of the takes; read again at each load of the page, so that new takes appear.
        port: on the loopback device; 0 takes a free one.

    Raises InputError where there is nothing to show, or the port cannot be had.
    """

    def __init__(self, folder: str | Path, port: int = 0, gallery: Gallery | None = None) -> None:
        self.folder = Path(folder)
        self.gallery = gallery or Gallery(folder)
        self.token = secrets.token_urlsafe(24)
        self._reading = threading.Lock()
        self._hashes: dict[Path, tuple[tuple[int, int], str]] = {}
        self._ended = threading.Event()
        find_takes(self.folder)
        self._socket = listening(HOST, port)
        self.server_port: int = self._socket.getsockname()[1]
        self._server = server(self._app())

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def serve_forever(self) -> None:
        """Answers until `shutdown`, or in the main thread until SIGINT or SIGTERM."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._ended.set()

    def shutdown(self) -> None:
        """Ends `serve_forever`, and waits for it."""
        self._server.should_exit = True
        self._ended.wait()

    def __enter__(self) -> ReviewServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    # -- what is shown ---------------------------------------------------------------------------

    def takes(self) -> dict[str, Path]:
        """File name -> path of the videos that may be handed out now."""
        with self._reading:  # two at once would measure everything twice
            if not self.gallery.readable:
                self.gallery.shown()
            readable = self.gallery.readable
        return {path.name: path for path in find_takes(self.folder)[0] if path.name in readable}

    def page(self) -> str:
        """The page as it stands now."""
        with self._reading:
            shown, notes = self.gallery.shown()
        return render(
            self.folder,
            shown,
            notes,
            read_reviews(self.folder),
            _source,
            media="'self'",
            served=True,
            by=_user(),
        )

    def state(self) -> dict[str, Any]:
        """What is decided, for the page: status and entries of each video, history of all."""
        reviews = read_reviews(self.folder)
        videos = {}
        for name, path in self.takes().items():
            sha256 = self._sha256(path)
            videos[name] = {
                "status": reviews.status(name, sha256),
                "seen": reviews.seen(name),
                "sha256": sha256,
                "history": [entry.model_dump(exclude={"sha256"}) for entry in reviews.of(name)],
            }
        return {"revision": reviews.revision, "videos": videos, "history": history(reviews)}

    def _sha256(self, path: Path) -> str:
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size)
        if self._hashes.get(path, (None, ""))[0] != stamp:
            self._hashes[path] = (stamp, file_sha256(path))
        return self._hashes[path][1]

    # -- answers ---------------------------------------------------------------------------------

    def _app(self) -> Guard:
        routes = [
            Route("/{token}/", self._page),
            Route("/{token}/state", self._state),
            Route("/{token}/video/{name:path}", self._video),
            Route("/{token}/decide", self._decide, methods=["POST"]),
        ]
        app = Starlette(
            routes=routes,
            exception_handlers={
                _Refused: _refused,
                StaleError: self._stale,
                InputError: _input_error,
                OSError: _os_error,
            },
        )
        app.router.redirect_slashes = False
        policies = policy("'self'", served=True) + "; frame-ancestors 'none'"
        headers = {**HEADERS, "Content-Security-Policy": policies}
        return Guard(app, hosts=(), body_bytes=MAX_BODY, token=None, headers=headers)

    def _check(self, request: Request) -> None:
        if not same(request.path_params["token"], self.token):
            raise _Refused(404, "there is nothing here")

    async def _page(self, request: Request) -> Response:
        self._check(request)
        return HTMLResponse(await run_in_threadpool(self.page))

    async def _state(self, request: Request) -> Response:
        self._check(request)
        return JsonResponse({"state": await run_in_threadpool(self.state)})

    async def _video(self, request: Request) -> Response:
        self._check(request)
        path = await run_in_threadpool(self._find, request.path_params["name"])
        return FileResponse(path, media_type=PLAYABLE[path.suffix.lower()])

    def _find(self, name: str) -> Path:
        path = self.takes().get(name)
        if path is None:
            raise _Refused(404, "there is no such video")
        return path

    async def _decide(self, request: Request) -> Response:
        self._check(request)
        if request.headers.get("origin") is None:
            raise _Refused(403, "decisions are taken from the page itself only")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise _Refused(415, "a decision is JSON")
        try:
            data = json.loads(await request.body())
        except (ValueError, RecursionError):
            raise _Refused(400, "the decision is not readable as JSON") from None
        if not isinstance(data, dict) or set(data) != set(_DECISION):
            raise _Refused(400, f"a decision has {', '.join(_DECISION)}")
        for key, wanted in _DECISION.items():
            if type(data[key]) is not wanted:
                raise _Refused(400, f"{key} must be {wanted.__name__}")
        return JsonResponse({"state": await run_in_threadpool(self._kept, data)})

    def _kept(self, data: dict[str, Any]) -> dict[str, Any]:
        add_entry(self._find(data.pop("video")), **data)
        return self.state()

    async def _stale(self, request: Request, error: Exception) -> Response:
        state = await run_in_threadpool(self.state)
        return JsonResponse({"error": str(error), "state": state}, 409)


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, _Refused)
    return JsonResponse({"error": str(error)}, error.status)


async def _input_error(_: Request, error: Exception) -> Response:
    return JsonResponse({"error": str(error)}, 422)


async def _os_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return JsonResponse({"error": text}, 500)


def _source(take: Take) -> str:
    # The hash makes a new address of a new video: no stale copy in the browser's memory.
    return f"video/{quote(take.name, safe='')}?{take.sha256[:16]}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
