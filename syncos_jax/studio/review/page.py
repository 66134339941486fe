"""The review page: one HTML file that needs no network.

The page's Content-Security-Policy forbids every connection (with a server behind it: every one but
to that server) and every script and style but its own, by hash. Texts come from files that others
wrote, so Jinja escapes them all.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from syncos_jax.errors import Argument, InputError
from syncos_jax.files import check_writable, replacing
from syncos_jax.runs.metadata import metadata_path
from syncos_jax.studio.review.approvals import Reviews, read_reviews
from syncos_jax.studio.review.figures import data_uri, ramp_png
from syncos_jax.studio.review.measure import measure
from syncos_jax.studio.review.settings import differences, overall_prompt, shared
from syncos_jax.studio.review.takes import (
    MAX_STILLS,
    PLAYABLE,
    Progress,
    Take,
    find_takes,
    read_take,
)
from syncos_jax.studio.review.views import Shown, card, chart, history, measures, sheet, values
from syncos_jax.version import __version__

MAX_EMBEDDED = 300 * 2**20  # browsers give up on longer data URIs
_TEMPLATES = Path(__file__).parent / "templates"


class Gallery:
    """The takes of a folder; one that has not changed is read and measured once.

    A file that no video can be read from is left out, and a note says so.

    Attributes:
        readable: file name -> path of what was last shown.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._known: dict[Path, tuple[tuple[Any, ...], Shown]] = {}
        self.readable: dict[str, Path] = {}

    def shown(
        self, progress: Callable[[Path, int, int], Progress | None] | None = None
    ) -> tuple[list[Shown], list[str]]:
        """All takes, by file name, and notes on the folder; raises InputError where there are
        none.

        ``progress(path, index, count)`` is called before a take is read and returns what is then
        called with frames done and in all.
        """
        paths, others = find_takes(self.folder)
        notes, unreadable = [], list[str]()
        first: Exception | None = None
        if others:
            names = ", ".join(path.name for path in others)
            notes.append(f"Not shown, because browsers do not play them: {names}.")
        result = []
        for index, path in enumerate(paths):
            stamp = (_stamp(path), _stamp(metadata_path(path)))
            if path not in self._known or self._known[path][0] != stamp:
                report = progress(path, index, len(paths)) if progress else None
                try:
                    take = read_take(path, report)
                    self._known[path] = (stamp, Shown(take, measure(take)))
                except Exception as error:  # whatever a file makes of the decoder
                    self._known.pop(path, None)
                    unreadable.append(path.name)
                    first = first or error
                    continue
            result.append(self._known[path][1])
        if not result and first is not None:
            raise first
        if unreadable:
            names = ", ".join(unreadable)
            notes.append(f"Not shown, because no video can be read from it: {names}.")
        self.readable = {item.take.path.name: item.take.path for item in result}
        return result, notes


def build_page(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    link: bool = False,
    progress: Callable[[Path, int, int], Progress | None] | None = None,
) -> Path:
    """Writes the review page of a folder of takes and returns its path.

    Args:
        folder: holds videos that browsers play (.mp4, .m4v, .mov, .webm), each with the sidecar
            JSON that ``syncos generate`` writes, and ``review.json`` once something is decided.
        out: the page; ``review.html`` in the folder by default.
        link: refer to the videos by relative paths in place of holding them.
        progress: see `Gallery.shown`.

    Raises InputError where there is nothing to show, ``out`` cannot be written, or the videos are
    too large to be held (above 300 MiB together).
    """
    root = Path(folder)
    find_takes(root)
    target = check_writable(root / "review.html" if out is None else out)
    if target.suffix.lower() not in (".html", ".htm"):
        raise InputError("the name of the page must end in .html", place=target)
    reviews = read_reviews(root)
    if not link:
        size = sum(path.stat().st_size for path in find_takes(root)[0])
        if size > MAX_EMBEDDED:
            raise InputError(
                f"the videos take {size / 2**20:.0f} MiB, more than a page can hold "
                f"({MAX_EMBEDDED // 2**20} MiB)",
                place=root,
                remedy=("pass ", Argument("link", True), " to link to the files instead"),
            )
    shown, notes = Gallery(root).shown(progress)

    def source(take: Take) -> str:
        if link:
            return quote(os.path.relpath(take.path.absolute(), target.absolute().parent))
        return data_uri(take.path.read_bytes(), PLAYABLE[take.path.suffix.lower()])

    html = render(root, shown, notes, reviews, source, media="'self' file:" if link else "data:")
    with replacing(target) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return target


def render(
    folder: Path,
    shown: Sequence[Shown],
    notes: Sequence[str],
    reviews: Reviews,
    source: Callable[[Take], str],
    *,
    media: str,
    served: bool = False,
    by: str = "",
) -> str:
    """The page as text.

    Args:
        folder: named in the title and in the commands.
        shown: the takes.
        notes: on the folder.
        reviews: the decisions so far.
        source: take -> what its video element refers to.
        media: where videos may come from, in the words of the Content-Security-Policy.
        served: whether a server of `syncos_jax.studio.review.server` is behind the page.
        by: the reviewer's name to begin with.
    """
    takes = [item.take for item in shown]
    css, js = _asset("style.css"), _asset("page.js")
    low = min(0.9, *(float(item.measured.similarity.min()) for item in shown))
    longest = max(range(len(takes)), key=lambda index: takes[index].seconds)
    views = [card(i, item, reviews, source(item.take), low) for i, item in enumerate(shown)]
    spine = takes[longest]
    charts = [chart(kind, shown, spine) for kind in ("drift", "change")]
    prompts = {overall_prompt(take) for take in takes}
    data = {
        "served": served,
        "lead": longest,
        "takes": [values(i, item, views[i], low) for i, item in enumerate(shown)],
        "charts": [plot["data"] for plot in charts],
    }
    environment, Markup = _environment()
    return environment.get_template("page.html.j2").render(
        csp=policy(media, served),
        css=Markup(css),
        js=Markup(js),
        title=folder.absolute().name or str(folder),
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        served=served,
        by=by,
        notes=notes,
        takes=views,
        spine={**views[longest], "events": spine.events},
        longest=len(spine),
        global_prompt=prompts.pop() if len(prompts) == 1 else "",
        sheet=sheet(shown, views),
        hidden_events=max(0, max(len(take.events) for take in takes) - MAX_STILLS),
        measures=measures(shown),
        charts=charts,
        low=f"{low:.2f}",
        ramp=ramp_png(),
        differences=differences(takes),
        shared=shared(takes),
        history=history(reviews),
        history_note=_history_note(served),
        serve_command=shlex.join(["syncos", "review", "--serve", str(folder)]),
        data=data,
    )


def policy(media: str, served: bool) -> str:
    """The Content-Security-Policy of the page."""

    def digest(name: str) -> str:
        raw = hashlib.sha256(_asset(name).encode()).digest()
        return f"'sha256-{base64.b64encode(raw).decode()}'"

    connect = "'self'" if served else "'none'"
    return (
        f"default-src 'none'; script-src {digest('page.js')}; style-src {digest('style.css')}; "
        f"img-src data:; media-src {media}; connect-src {connect}; base-uri 'none'; "
        "form-action 'none'"
    )


def _history_note(served: bool) -> str:
    kept = "Kept in review.json beside the videos; a decision holds for the very file it was about."
    return kept if served else kept + " This page shows it as it was when the page was made."


@lru_cache
def _asset(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


@lru_cache
def _environment() -> tuple[Any, Any]:
    """The templates' environment, and jinja2's class of trusted markup."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise InputError(
            "the review page needs jinja2", remedy="pip install 'syncos-jax[studio]'"
        ) from None
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["moment"] = lambda at: f"{at[:16].replace('T', ' ')} UTC"
    return environment, Markup


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
