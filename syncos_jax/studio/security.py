"""Access control and limits: host, origin, token; size and speed of requests.

`Guard` checks every request, `TimedProtocol` every connection. Neither depends on the app behind.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from syncos_jax.studio.api_errors import ApiError, Finding
from syncos_jax.studio.host_names import host_name, is_allowed

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

HEAD_BYTES = 32 * 1024
"""Maximum size of a request's address and headers."""
BODY_SECONDS = 15.0
"""Time allowed for a request's body."""
FORM_SECONDS = 60.0
"""Time allowed for a form with files."""
HEAD_SECONDS = 10.0
"""Time allowed for a request's headers."""
STALL_SECONDS = 30.0
"""Time after which a client that reads nothing is disconnected."""
SAFE = ("GET", "HEAD")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Added to every response that does not set them itself."""


def same(given: str, expected: str) -> bool:
    """Compare secrets in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


class Guard:
    """ASGI middleware that checks host, origin and token and limits the body.

    Args:
        app: the app behind it.
        hosts: names under which the server is reached, besides addresses and ``localhost``; None
            allows every name.
        body_bytes: maximum size of a body.
        form_bytes: maximum size of a form with files (multipart); None for `body_bytes`.
        token: what clients must present, as ``Authorization: Bearer``, as a cookie, or once as
            ``/?token=``; None if the app checks access itself.
        cookie: name of the cookie.
        headers: added to every response.
        open_paths: paths that need no token; one that ends in ``/`` stands for all below it.
        locked: page shown at ``/`` to a browser without the token.
    """

    def __init__(
        self,
        app: App,
        *,
        hosts: Iterable[str] | None,
        body_bytes: int,
        form_bytes: int | None = None,
        token: str | None,
        cookie: str = "syncos",
        headers: dict[str, str] = HEADERS,
        open_paths: tuple[str, ...] = (),
        locked: bytes = b"",
    ) -> None:
        self._app = app
        self._hosts = None if hosts is None else frozenset(name.casefold() for name in hosts)
        self._body_bytes = body_bytes
        self._form_bytes = form_bytes or body_bytes
        self._token = token
        self._cookie = cookie
        self._open_paths = open_paths
        self._locked = locked
        self._headers = [(k.lower().encode(), v.encode()) for k, v in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
                return
            await send({"type": "websocket.close", "code": 1008})
            return
        sending = self._with_headers(send)
        try:
            headers = _headers(scope)
            self._check_host(headers)
            if await self._entered(scope, sending):
                return
            if not self._is_open(scope):
                self._check_token(headers)
            self._check_origin(scope, headers)
            receive = await self._bounded(headers, receive)
        except ApiError as error:
            if error.status == 401 and self._wants_page(scope):
                await _respond(401, b"text/html; charset=utf-8", self._locked, {}, sending)
            else:
                body = json.dumps(error.to_dict()).encode()
                await _respond(error.status, b"application/json", body, error.headers, sending)
            return
        if scope["method"] == "HEAD":  # answered as GET; the server drops the body
            scope = {**scope, "method": "GET", "is_head": True}
        await self._app(scope, receive, sending)

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"]
        return scope["method"] in SAFE and any(
            path == allowed or (allowed.endswith("/") and path.startswith(allowed))
            for allowed in self._open_paths
        )

    def _wants_page(self, scope: Scope) -> bool:
        accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
        return bool(self._locked) and scope["path"] == "/" and b"text/html" in accepted

    # -- where from ------------------------------------------------------------------------------

    def _check_host(self, headers: dict[str, str]) -> None:
        if "host" not in headers:
            raise _refused(400, "the Host header is missing", "Send it")
        if not is_allowed(headers["host"], self._hosts):
            raise _refused(
                421,
                f"this server is not called {host_name(headers['host'])[:100] or 'that'}",
                "Use the address it printed, or add this host name when starting the studio",
            )

    def _check_origin(self, scope: Scope, headers: dict[str, str]) -> None:
        """Refuse requests from pages of other origins; programs send no Origin header."""
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")
        own = origin is None or origin.casefold() in {
            f"{scheme}://{headers.get('host', '').casefold()}" for scheme in ("http", "https")
        }
        if not own:
            raise _refused(
                403,
                f"the Origin header {(origin or '')[:100]} does not match the Host header "
                f"{headers.get('host', '')[:100]}",
                "Use this server's own page. Behind a proxy, pass the Host header on (nginx: "
                "proxy_set_header Host $http_host) and add its host name when starting the studio",
            )
        if site not in ("none", "same-origin") and scope["path"] != "/":
            raise _refused(
                403, "the request comes from a page of another site", "Use this server's own page"
            )
        if scope["method"] not in SAFE and "cookie" in headers and "authorization" not in headers:
            if origin is None and self._token is not None:
                raise _refused(
                    403,
                    "the Origin header is missing",
                    "Send it with requests that carry the cookie, or send Authorization: Bearer",
                )

    def _check_token(self, headers: dict[str, str]) -> None:
        if self._token is None:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.casefold() == "bearer" and same(given.strip(), self._token):
            return
        if same(_cookie(headers.get("cookie", ""), self._cookie), self._token):
            return
        raise ApiError(
            401,
            Finding(
                "the token is missing or wrong",
                "Open the address that the server printed, or send Authorization: Bearer TOKEN",
            ),
            {"WWW-Authenticate": "Bearer"},
        )

    async def _entered(self, scope: Scope, send: Send) -> bool:
        """Answer ``/?token=...``: move the token from the address into a cookie.

        Location and the cookie's path are relative to the address that the browser sees, so that
        the studio works below any path of a proxy.
        """
        if self._token is None or scope["path"] != "/" or scope["method"] not in SAFE:
            return False
        query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=50)
        given = query.pop("token", None)
        if given is None:
            return False
        headers = [(b"content-length", b"0")]
        if not same(given[0], self._token):
            return False
        rest = f"?{urlencode(query, doseq=True)}" if query else ""
        headers.append((b"location", f"./{rest}".encode("latin-1")))
        cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict"
        cookie += "; Secure" if _is_https(scope) else ""
        headers.append((b"set-cookie", cookie.encode()))
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return True

    # -- how much --------------------------------------------------------------------------------

    async def _bounded(self, headers: dict[str, str], receive: Receive) -> Receive:
        """Read the whole body, within the limits of size and time."""
        is_form = headers.get("content-type", "").lower().startswith("multipart/form-data")
        most = self._form_bytes if is_form else self._body_bytes
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > most:
            raise _too_long(most)
        if length == "0" and "transfer-encoding" not in headers:
            return receive
        body = bytearray()
        try:
            async with asyncio.timeout(FORM_SECONDS if is_form else BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return replay(message, receive)
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise _too_long(most)
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise _refused(408, "the body arrived too slowly", "Send it again") from None
        return replay({"type": "http.request", "body": bytes(body), "more_body": False}, receive)

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message.get("headers", [])}
                more = [pair for pair in self._headers if pair[0] not in there]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        return sending


def _headers(scope: Scope) -> dict[str, str]:
    """Headers by lower-case name; refuses those that must not occur twice."""
    found: dict[str, str] = {}
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    if size + sum(len(name) + len(value) for name, value in scope["headers"]) > HEAD_BYTES:
        raise _refused(431, "the headers are too long", "Send fewer headers")
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in ("host", "origin", "authorization", "content-length"):
            raise _refused(400, f"the header {key} occurs twice", "Send it once")
        found[key] = value.decode("latin-1").strip()
    return found


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _refused(status: int, message: str, remedy: str) -> ApiError:
    # The rest of a refused request is not read.
    return ApiError(status, Finding(message, remedy), {"Connection": "close"})


def _too_long(most: int) -> ApiError:
    return _refused(413, "the body is too long", f"Send at most {most // 1024} KiB")


async def _respond(status: int, kind: bytes, body: bytes, more: dict[str, str], send: Send) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    headers += [(k.lower().encode(), v.encode()) for k, v in more.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_https(scope: Scope) -> bool:
    """Whether the browser uses TLS; a proxy that ends it says so in X-Forwarded-Proto."""
    forwarded = dict(scope["headers"]).get(b"x-forwarded-proto", b"")
    return scope.get("scheme") == "https" or forwarded.strip().lower() == b"https"


def replay(first: Message, receive: Receive) -> Receive:
    """Return `first`, then what `receive` returns."""
    given = False

    async def receiving() -> Message:
        nonlocal given
        if not given:
            given = True
            return first
        return await receive()

    return receiving


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits: on the time for headers, on clients that read nothing, and on
    the bytes outside the body (headers, chunk extensions, trailers)."""

    _head: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _outside_body = 0  # bytes of this request

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        self._outside_body += len(data)
        super().data_received(data)
        if self._outside_body > 2 * HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Too much data outside the body.")
        self._watch_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._outside_body = 0

    def on_body(self, body: bytes) -> None:
        self._outside_body -= len(body)
        super().on_body(body)

    def _watch_head(self) -> None:
        between = self.cycle is None or self.cycle.response_complete
        if not between:
            _cancel(self._head)
            self._head = None
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _too_slow(self) -> None:
        self._head = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._stall)
        self._stall = None

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._head)
        _cancel(self._stall)
        self._head = self._stall = None
        super().connection_lost(exc)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
