"""The studio: a page and an HTTP API with which a team makes, watches and approves videos.

`syncos_jax.studio.review` is the page to judge takes by. What serves either of them needs the extra
``studio`` (FastAPI, uvicorn); nothing here is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syncos_jax.studio.api import create_app
    from syncos_jax.studio.settings import StudioSettings

__all__ = ["StudioSettings", "create_app"]


def __getattr__(name: str) -> Any:
    if name == "create_app":
        from syncos_jax.studio.api import create_app

        return create_app
    if name == "StudioSettings":
        from syncos_jax.studio.settings import StudioSettings

        return StudioSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
