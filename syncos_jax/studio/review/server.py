"""The page with working buttons: a server on the loopback device, for the people at this machine.

Its address holds a random token. It answers only requests that name it as host (a page elsewhere
cannot reach it through a name of its own), takes decisions only from its own page (Origin), and
hands out nothing but that page, its state and the videos on it: names are looked up, never joined
to a path.
"""

from __future__ import annotations

import getpass
import hmac
import json
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from syncos_jax.errors import InputError
from syncos_jax.studio.review.approvals import StaleError, add_entry, file_sha256, read_reviews
from syncos_jax.studio.review.page import Gallery, policy, render
from syncos_jax.studio.review.takes import PLAYABLE, Take, find_takes
from syncos_jax.studio.review.views import history

HOST = "127.0.0.1"
MAX_BODY = 64 * 1024
_CHUNK = 256 * 1024


class ReviewServer(ThreadingHTTPServer):
    """Serves the review page of one folder.

    Args:
        folder: of the takes; read again at each load of the page, so that new takes appear.
        port: on the loopback device; 0 takes a free one.

    Raises InputError where there is nothing to show, or the port cannot be had.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folder: str | Path, port: int = 0, gallery: Gallery | None = None) -> None:
        self.folder = Path(folder)
        self.gallery = gallery or Gallery(folder)
        self.reading = threading.Lock()
        self.token = secrets.token_urlsafe(24)
        self.hashes: dict[Path, tuple[tuple[int, int], str]] = {}
        self.takes()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise InputError(
                f"port {port}: {error.strerror}; give another one, or 0 to take a free one"
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    @property
    def names(self) -> set[str]:
        """Hosts that a request may name."""
        return {f"{HOST}:{self.server_port}", f"localhost:{self.server_port}"}

    def takes(self) -> dict[str, Path]:
        """File name -> path of the videos that may be handed out now."""
        return {path.name: path for path in find_takes(self.folder)[0]}

    def page(self) -> str:
        """The page as it stands now."""
        with self.reading:  # two loads at once would measure everything twice
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
        if self.hashes.get(path, (None, ""))[0] != stamp:
            self.hashes[path] = (stamp, file_sha256(path))
        return self.hashes[path][1]


def _source(take: Take) -> str:
    # The hash makes a new address of a new video: no stale copy in the browser's memory.
    return f"video/{quote(take.name, safe='')}?{take.sha256[:16]}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    server_version = "syncos"
    sys_version = ""
    timeout = 60  # seconds, for a client that says nothing

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, work: Any) -> None:
        try:
            work(self._route())
        except _Refused as error:
            self._json(error.status, {"error": str(error)})
        except StaleError as error:
            self._json(HTTPStatus.CONFLICT, {"error": str(error), "state": self.server.state()})
        except InputError as error:
            self._json(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": str(error)})
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True  # the browser has gone on
        except OSError as error:
            text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            self._json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": text})

    def _route(self) -> str:
        """The path below the token; everything else is refused alike."""
        if self.headers.get("Host", "").lower() not in self.server.names:
            self.close_connection = True
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST, "this server has another name")
        parts = urlsplit(self.path).path.split("/", 2)
        token = parts[1] if len(parts) > 2 else ""
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self.close_connection = True
            raise _Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
        return parts[2]

    def _get(self, route: str) -> None:
        if route == "":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page().encode())
        elif route == "state":
            self._json(HTTPStatus.OK, {"state": self.server.state()})
        elif route.startswith("video/"):
            path = self.server.takes().get(unquote(route.removeprefix("video/")))
            if path is None:
                raise _Refused(HTTPStatus.NOT_FOUND, "there is no such video")
            self._video(path)
        else:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _post(self, route: str) -> None:
        self.close_connection = True  # until the body has been read, the next request is not
        origin = self.headers.get("Origin", "")
        if origin not in {f"http://{name}" for name in self.server.names}:
            raise _Refused(HTTPStatus.FORBIDDEN, "decisions are taken from the page itself only")
        if route != "decide":
            raise _Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
        if self.headers.get_content_type() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a decision is JSON")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and int(length) <= MAX_BODY):
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the decision is too long")
        try:
            data = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise _Refused(HTTPStatus.BAD_REQUEST, "the decision is not readable as JSON") from None
        self.close_connection = False
        self._decide(data)

    def _decide(self, data: Any) -> None:
        keys = {"video": str, "action": str, "by": str, "comment": str, "seen": int, "sha256": str}
        if not isinstance(data, dict) or set(data) != set(keys):
            raise _Refused(HTTPStatus.BAD_REQUEST, f"a decision has {', '.join(keys)}")
        for key, kind in keys.items():
            if type(data[key]) is not kind:
                raise _Refused(HTTPStatus.BAD_REQUEST, f"{key} must be {kind.__name__}")
        path = self.server.takes().get(data.pop("video"))
        if path is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such video")
        add_entry(path, **data)
        self._json(HTTPStatus.OK, {"state": self.server.state()})

    # -- sending ---------------------------------------------------------------------------------

    def _json(self, status: HTTPStatus, data: Any) -> None:
        self._send(status, "application/json", json.dumps(data).encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self._head(status, kind, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: HTTPStatus, kind: str, length: int, **more: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        policies = policy("'self'", served=True) + "; frame-ancestors 'none'"
        self.send_header("Content-Security-Policy", policies)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _video(self, path: Path) -> None:
        """The file, or the part that is asked for: a player seeks by asking for parts."""
        kind = PLAYABLE[path.suffix.lower()]
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            span = _span(self.headers.get("Range"), size)
            if span is None:
                start, stop, status, more = 0, size, HTTPStatus.OK, {}
            elif span[0] >= span[1]:
                self._head(
                    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                    kind,
                    0,
                    Content_Range=f"bytes */{size}",
                )
                return
            else:
                start, stop = span
                status = HTTPStatus.PARTIAL_CONTENT
                more = {"Content_Range": f"bytes {start}-{stop - 1}/{size}"}
            self._head(status, kind, stop - start, Accept_Ranges="bytes", **more)
            if self.command == "HEAD":
                return
            file.seek(start)
            left = stop - start
            while left > 0 and (chunk := file.read(min(_CHUNK, left))):
                self.wfile.write(chunk)
                left -= len(chunk)
            if left:  # the file was cut short meanwhile: the answer cannot be completed
                self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Says nothing: the address that it would log holds the token."""


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """Start and stop (exclusive) of a single byte range; None for the whole file.

    An empty span stands for a range outside of the file. Other units and several ranges at once
    may be answered by the whole file (RFC 9110, 14.2).
    """
    unit, _, text = (header or "").partition("=")
    first, dash, last = text.strip().partition("-")
    numbers = [part for part in (first, last) if part]
    if unit.strip() != "bytes" or not dash or not numbers:
        return None
    if not all(part.isascii() and part.isdigit() and len(part) < 20 for part in numbers):
        return None
    if not first:  # the last so many bytes
        return max(0, size - int(last)), size if int(last) else 0
    stop = min(int(last) + 1, size) if last else size
    if last and int(last) < int(first):
        return None
    return int(first), stop
