"""Answers: JSON that holds whatever text came in, errors, files with ranges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, JSONResponse, Response

from syncos_jax.studio.api_errors import ApiError, Finding


class JsonResponse(JSONResponse):
    """JSON in ASCII, so that no text there is cannot be encoded."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def error_response(error: ApiError) -> Response:
    """The answer that says what is wrong."""
    return JsonResponse(error.to_dict(), error.status, error.headers)


def file_response(root: Path, path: Path, kind: str, cache: str = "no-store") -> Response:
    """A file below `root`, or the parts of it that are asked for; ApiError where there is none.

    Symbolic links are not followed, wherever on the way they stand.
    """
    try:
        real = path.resolve(strict=True)
        inside = real == root.resolve() / path.relative_to(root)
    except (OSError, ValueError):
        inside = False
    if not inside or not path.is_file():
        raise ApiError(404, Finding("there is no such file", "It may not be made yet"))
    return FileResponse(path, media_type=kind, headers={"Cache-Control": cache})
