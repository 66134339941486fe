"""Who may ask what: host, origin, token, and how large and how slow a request may be.

`Guard` stands before every request of a server, `TimedProtocol` before every connection. Neither
knows what is served behind them.
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
from syncos_jax.studio.hosts import is_allowed

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

HEAD_BYTES = 32 * 1024
"""Of a request's address and headers, at most."""
BODY_SECONDS = 15.0
"""Within which a request's body has to be there."""
HEAD_SECONDS = 10.0
"""Within which a request's head has to be there."""
STALL_SECONDS = 30.0
"""For which a client may take nothing of an answer."""
SAFE = ("GET", "HEAD")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
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
"""Of every answer that has no such header of its own."""


def same(given: str, expected: str) -> bool:
    """Compares secrets in a time that says nothing about them."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


class Guard:
    """Lets through what comes from where it may, and bounds what comes.

    Args:
        app: what is behind it.
        hosts: names under which the server is reached; None for every name.
        body_bytes: of a body, at most.
        token: what a client has to show, as ``Authorization: Bearer``, as a cookie, or once as
            ``/?token=``; None where the app looks for one itself.
        cookie: name of the cookie.
        headers: of every answer.
    """

    def __init__(
        self,
        app: App,
        *,
        hosts: Iterable[str] | None,
        body_bytes: int,
        token: str | None,
        cookie: str = "syncos",
        headers: dict[str, str] = HEADERS,
    ) -> None:
        self._app = app
        self._hosts = None if hosts is None else frozenset(name.casefold() for name in hosts)
        self._body_bytes = body_bytes
        self._token = token
        self._cookie = cookie
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
            self._check_token(headers)
            self._check_origin(scope, headers)
            receive = await self._bounded(headers, receive)
        except ApiError as error:
            await _answer(error, sending)
            return
        await self._app(scope, receive, sending)

    # -- where from ------------------------------------------------------------------------------

    def _check_host(self, headers: dict[str, str]) -> None:
        if "host" not in headers:
            raise _refused(400, "the header Host is missing", "Send it")
        if not is_allowed(headers["host"], self._hosts):
            raise _refused(421, "this server has another name", "Use the address that it printed")

    def _check_origin(self, scope: Scope, headers: dict[str, str]) -> None:
        """A page of another origin may not ask for anything; programs send none."""
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")
        own = origin is None or origin.casefold() in {
            f"{scheme}://{headers.get('host', '').casefold()}" for scheme in ("http", "https")
        }
        if not own or (site not in ("none", "same-origin") and scope["path"] != "/"):
            raise _refused(
                403, "this is asked from another page", "Use the page of this server, or a program"
            )
        if scope["method"] not in SAFE and "cookie" in headers and "authorization" not in headers:
            if origin is None and self._token is not None:
                raise _refused(403, "a page says where it comes from", "Send the header Origin")

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
        """``/?token=...``: the token goes into a cookie and out of the address."""
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
        headers.append((b"location", f"{scope.get('root_path', '')}/{rest}".encode("latin-1")))
        cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        cookie += "; Secure" if scope.get("scheme") == "https" else ""
        headers.append((b"set-cookie", cookie.encode()))
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return True

    # -- how much --------------------------------------------------------------------------------

    async def _bounded(self, headers: dict[str, str], receive: Receive) -> Receive:
        """The body, read as a whole: neither longer nor slower than it may be."""
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._body_bytes:
            raise self._too_long()
        if length == "0" and "transfer-encoding" not in headers:
            return receive
        body = b""
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return _once(message, receive)
                    body += message.get("body", b"")
                    if len(body) > self._body_bytes:
                        raise self._too_long()
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise _refused(408, "the request came too slowly", "Send it again") from None
        return _once({"type": "http.request", "body": body, "more_body": False}, receive)

    def _too_long(self) -> ApiError:
        return _refused(
            413, "the request is too long", f"Send at most {self._body_bytes // 1024} KiB"
        )

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message.get("headers", [])}
                more = [pair for pair in self._headers if pair[0] not in there]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        return sending


def _headers(scope: Scope) -> dict[str, str]:
    """Headers by name in lower case; one that stands twice and must not is refused."""
    found: dict[str, str] = {}
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    if size + sum(len(name) + len(value) for name, value in scope["headers"]) > HEAD_BYTES:
        raise _refused(431, "the head of the request is too long", "Send fewer headers")
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in ("host", "origin", "authorization", "content-length"):
            raise _refused(400, f"the header {key} stands twice", "Send it once")
        found[key] = value.decode("latin-1").strip()
    return found


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _refused(status: int, message: str, remedy: str) -> ApiError:
    # What is left of a refused request is not read.
    return ApiError(status, Finding(message, remedy), {"Connection": "close"})


async def _answer(error: ApiError, send: Send) -> None:
    body = json.dumps(error.to_dict()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(k.lower().encode(), v.encode()) for k, v in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _once(first: Message, receive: Receive) -> Receive:
    """Gives `first`, then what `receive` gives."""
    given = False

    async def receiving() -> Message:
        nonlocal given
        if not given:
            given = True
            return first
        return await receive()

    return receiving


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which waits neither for a head nor for a client that takes no answer, and
    holds no more of a head, or of what stands between the parts of a body, than may be there."""

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
            self.send_400_response("The request holds too much beside its body.")
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
