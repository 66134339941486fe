"""Responses: JSON, errors, files with ranges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, JSONResponse, Response

from syncos_jax.studio.api_errors import ApiError, Finding


class JsonResponse(JSONResponse):
    """JSON in ASCII, which can hold any text, lone surrogates included."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def error_response(error: ApiError) -> Response:
    """The response for an error."""
    return JsonResponse(error.to_dict(), error.status, error.headers)


def file_response(
    root: Path, path: Path, kind: str, cache: str = "no-store", name: str | None = None
) -> Response:
    """A file below `root`, or a range of it. Symbolic links are not followed.

    Args:
        root: folder that the file must be in.
        path: the file.
        kind: media type.
        cache: value of Cache-Control.
        name: file name under which browsers save it.

    Raises:
        ApiError: there is no such file.
    """
    try:
        real = path.resolve(strict=True)
        inside = real == root.resolve() / path.relative_to(root)
    except (OSError, ValueError):
        inside = False
    if not inside or not path.is_file():
        raise ApiError(404, Finding("there is no such file", "It may not be finished yet"))
    return FileResponse(
        path,
        media_type=kind,
        headers={"Cache-Control": cache},
        filename=name,
        content_disposition_type="inline",
    )
