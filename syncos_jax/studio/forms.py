"""Requests in the shape of OpenAI's video API: forms (multipart) become JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from syncos_jax.studio.api_errors import ApiError, Finding
from syncos_jax.studio.responses import error_response
from syncos_jax.studio.security import App, Receive, Scope, Send, replay

_MAX_FIELDS = 20
_PATH = "/v1/videos"
_REFERENCE = "input_reference"


class FormsAsJson:
    """ASGI middleware that turns a form sent to ``POST /v1/videos`` into the same JSON object.

    Args:
        app: the app behind it.
        add_picture: stores the file ``input_reference``, given its bytes and the field's name, and
            returns it with its ``id``.
    """

    def __init__(self, app: App, add_picture: Callable[[bytes, str], dict[str, Any]]) -> None:
        self._app = app
        self._add_picture = add_picture

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_form(scope):
            await self._app(scope, receive, send)
            return
        try:
            body = json.dumps(await self._fields(Request(scope, receive))).encode()
        except ApiError as error:
            response: App = error_response(error)
            await response(scope, receive, send)
            return
        headers = [pair for pair in scope["headers"] if not pair[0].startswith(b"content-")]
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        whole = {"type": "http.request", "body": body, "more_body": False}
        await self._app({**scope, "headers": headers}, replay(whole, receive), send)

    async def _fields(self, request: Request) -> dict[str, Any]:
        try:
            async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
                values = {}
                for name, value in form.multi_items():
                    if not isinstance(value, UploadFile):
                        values[name] = str(value)
                        continue
                    if name != _REFERENCE:
                        said = Finding("unexpected file", f"Send one file, {_REFERENCE}", name)
                        raise ApiError(422, said)
                    data = await value.read()
                    added = await run_in_threadpool(self._add_picture, data, name)
                    values["image"] = added["id"]
                return values
        except MultiPartException as error:
            found = Finding(f"the form cannot be read: {error.message}", "Send multipart/form-data")
            raise ApiError(400, found) from error


def _is_form(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != _PATH:
        return False
    kind = dict(scope["headers"]).get(b"content-type", b"").lower()
    return kind.startswith((b"multipart/form-data", b"application/x-www-form-urlencoded"))
