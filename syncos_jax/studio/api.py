"""The HTTP API and the page as one ASGI app."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from syncos_jax.errors import InputError
from syncos_jax.studio import routes, routes_lessons, routes_videos
from syncos_jax.studio.api_errors import ApiError, Finding, field_of, findings
from syncos_jax.studio.document_cache import DocumentCache
from syncos_jax.studio.forms import FormsAsJson
from syncos_jax.studio.responses import JsonResponse, error_response
from syncos_jax.studio.security import Guard
from syncos_jax.studio.settings import StudioSettings
from syncos_jax.studio.studio import Studio
from syncos_jax.version import __version__

_log = logging.getLogger(__name__)

__all__ = ["create_app"]


def create_app(settings: StudioSettings) -> FastAPI:
    """The studio as an ASGI app, whose lifespan starts and stops the workers.

    Raises:
        InputError: the folder cannot be used.
    """
    studio = Studio(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        import asyncio

        studio.start(asyncio.get_running_loop())
        try:
            yield
        finally:
            studio.stop()
            if not await asyncio.to_thread(studio.join):
                _log.warning("a worker is still compiling; not waiting for it")

    app = FastAPI(
        title="syncos studio",
        version=__version__,
        description="Generate, store and review long videos of several events.",
        docs_url=None,  # it loads scripts from other sites
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        default_response_class=JsonResponse,
    )
    app.state.studio = studio
    _handle_errors(app)
    app.include_router(routes.router)
    app.include_router(routes_videos.router)
    app.include_router(routes_lessons.router)
    app.add_middleware(DocumentCache, documents=studio.documents)
    app.add_middleware(FormsAsJson, add_picture=studio.add_picture)
    app.add_middleware(  # the last one runs first
        Guard,
        hosts=settings.hosts,
        body_bytes=settings.body_bytes,
        form_bytes=settings.picture_bytes + settings.body_bytes,
        token=settings.token,
        cookie=f"syncos_{settings.port}",
        open_paths=("/healthz", "/metrics", "/static/"),
        locked=(routes.PAGE / "locked.html").read_bytes(),
    )
    return app


def _handle_errors(app: FastAPI) -> None:
    """Answer every error in one form; a client's error is never a server error."""

    @app.exception_handler(ApiError)
    async def _api_error(_: Request, error: ApiError) -> Response:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def _not_valid(_: Request, error: RequestValidationError) -> Response:
        raw = error.errors()
        if any(item["type"] == "json_invalid" for item in raw):
            said = Finding("the body is not valid JSON", "Send a JSON object")
            return error_response(ApiError(400, said))
        return error_response(ApiError(422, list(_findings(raw))))

    @app.exception_handler(InputError)
    async def _input_error(_: Request, error: InputError) -> Response:
        return error_response(ApiError(422, findings(error)))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        remedy = {404: "See /openapi.json", 405: "Use another method"}.get(error.status_code, "")
        said = Finding(str(error.detail).lower(), remedy)
        return error_response(ApiError(error.status_code, said, error.headers))

    @app.exception_handler(OSError)
    async def _os_error(_: Request, error: OSError) -> Response:
        _log.error("%s", error)
        said = Finding(f"the disk: {os.strerror(error.errno or 0)}", "Check the server's disk")
        return error_response(ApiError(503, said, {"Retry-After": "60"}))

    @app.exception_handler(sqlite3.Error)
    async def _no_jobs(_: Request, error: sqlite3.Error) -> Response:
        _log.error("the job database: %s", error)
        said = Finding("the job database cannot be written", "Check the server's disk")
        return error_response(ApiError(503, said, {"Retry-After": "60"}))

    @app.exception_handler(ClientDisconnect)
    async def _gone(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)


def _findings(raw: Iterable[Any]) -> Iterable[Finding]:
    for item in raw:
        place = [part for part in item["loc"] if part not in ("body", "query", "path", "header")]
        path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
        kind, said = item["type"], str(item.get("ctx", {}).get("error", item["msg"]))
        name = path[:100] or "the body"
        if kind == "missing":
            found = Finding(f"{name} is missing", "Add it")
        elif kind == "extra_forbidden":
            found = Finding(f"unknown key {name}", "Remove it")
        else:
            found = Finding(f"{name}: {said[:1].lower()}{said[1:][:200]}", "Change it")
        yield Finding(found.message, found.remedy, field_of(path[:100]))
