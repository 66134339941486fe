"""Judging takes: a page that shows them side by side, and who approved which.

Each name is imported when it is first used: deciding by command need not wait for the measures.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syncos_jax.studio.review.approvals import (
        Entry,
        Reviews,
        StaleError,
        add_entry,
        read_reviews,
    )
    from syncos_jax.studio.review.page import Gallery, build_page
    from syncos_jax.studio.review.server import ReviewServer

_HOME = {
    "Entry": "approvals",
    "Gallery": "page",
    "ReviewServer": "server",
    "Reviews": "approvals",
    "StaleError": "approvals",
    "add_entry": "approvals",
    "build_page": "page",
    "read_reviews": "approvals",
}

__all__ = [
    "Entry",
    "Gallery",
    "ReviewServer",
    "Reviews",
    "StaleError",
    "add_entry",
    "build_page",
    "read_reviews",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
