"""Requests in the shape of OpenAI's video API: forms (multipart) become JSON."""

from __future__ import annotations

import json
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from syncos_jax.studio.api_errors import ApiError, Finding
from syncos_jax.studio.responses import error_response
from syncos_jax.studio.security import App, Receive, Scope, Send, replay

_MAX_FIELDS = 20
_PATH = "/v1/videos"


class FormsAsJson:
    """ASGI middleware that turns a form sent to ``POST /v1/videos`` into the same JSON object."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_form(scope):
            await self._app(scope, receive, send)
            return
        try:
            body = json.dumps(await _fields(Request(scope, receive))).encode()
        except ApiError as error:
            response: App = error_response(error)
            await response(scope, receive, send)
            return
        headers = [pair for pair in scope["headers"] if not pair[0].startswith(b"content-")]
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        whole = {"type": "http.request", "body": body, "more_body": False}
        await self._app({**scope, "headers": headers}, replay(whole, receive), send)


def _is_form(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != _PATH:
        return False
    kind = dict(scope["headers"]).get(b"content-type", b"").lower()
    return kind.startswith((b"multipart/form-data", b"application/x-www-form-urlencoded"))


async def _fields(request: Request) -> dict[str, Any]:
    try:
        async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
            items = form.multi_items()
            files = [name for name, value in items if isinstance(value, UploadFile)]
            if files:
                raise ApiError(
                    422,
                    Finding("reference images are not supported", "Send a prompt alone", files[0]),
                )
            return {name: str(value) for name, value in items}
    except MultiPartException as error:
        found = Finding(f"the form cannot be read: {error.message}", "Send multipart/form-data")
        raise ApiError(400, found) from error
