"""What the team's decisions say about a template, and approved takes as a dataset."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from syncos_jax.errors import InputError
from syncos_jax.files.documents import read_mapping
from syncos_jax.runs.metadata import metadata_path, read_metadata
from syncos_jax.studio.api_errors import ApiError, Finding, finding
from syncos_jax.studio.documents import take_file
from syncos_jax.studio.learn import (
    Decision,
    Lessons,
    caption,
    factors_of,
    learn,
    learned_template,
)
from syncos_jax.studio.records import DONE

if TYPE_CHECKING:
    from syncos_jax.studio.studio import Studio

_CHUNK = 1 << 20


def decisions(studio: Studio, template: str | None = None) -> list[Decision]:
    """Approved and rejected takes, oldest first.

    A variable that was left out counts with the default that the template has now.

    Args:
        studio: whose takes.
        template: only of videos made from this template; None for all.
    """
    defaults: dict[str, Any] = {}
    if template is not None and studio.templates.path(template) is not None:
        variables = studio.templates.get(template).variables
        defaults = {name: variable.default for name, variable in variables.items()}
    clause, values = ("WHERE template = ?", (template,)) if template is not None else ("", ())
    found = []
    for video in studio.jobs.select(f"{clause} ORDER BY number", values):
        for take in video.takes:
            path = take_file(studio.documents.folder(video.id), take.take)
            if take.status != DONE or not path.is_file():
                continue
            verdict = studio.documents.review(path)[0]
            if verdict == "undecided":
                continue
            try:
                metadata = read_metadata(metadata_path(path))
            except (InputError, OSError):  # damaged from outside
                continue
            factors = {**defaults, **factors_of(metadata)}
            found.append(Decision(path, verdict == "approved", factors, metadata))
    return found


def lessons(studio: Studio, template: str | None) -> dict[str, Any]:
    """The answer of ``GET /v1/lessons``."""
    counts: dict[str, list[int]] = {}
    for video in studio.jobs.select("WHERE template IS NOT NULL", ()):
        entry = counts.setdefault(video.template or "", [0, 0])
        for take in video.takes:
            path = take_file(studio.documents.folder(video.id), take.take)
            if take.status == DONE and path.is_file():
                verdict = studio.documents.review(path)[0]
                entry[0] += verdict != "undecided"
                entry[1] += verdict == "approved"
    counts = {name: entry for name, entry in counts.items() if entry[0]}
    if template is None and counts:
        template = max(counts, key=lambda name: counts[name][0])
    found = learn(decisions(studio, template)) if template in counts else Lessons(0, 0, (), ())
    return {
        "templates": [
            {"name": name, "decided": decided, "approved": approved}
            for name, (decided, approved) in sorted(counts.items())
        ],
        "template": template,
        "decided": found.decided,
        "approved": found.approved,
        "evidence": [
            {
                "factor": each.factor,
                "value": each.value,
                "approved": each.approved,
                "decided": each.decided,
                "rate": each.rate,
                "low": each.interval[0],
                "high": each.interval[1],
                "best": each.best,
                "proposed": each.proposed,
            }
            for each in found.evidence
        ],
        "proposals": found.proposals,
        "trials": [dict(trial) for trial in found.trials],
    }


def save_learned(studio: Studio, template: str, name: str) -> str:
    """Save a template with the proposed values under a new name; return the name.

    Raises:
        ApiError: there is no such template, nothing is proposed, or the name cannot be used.
    """
    path = studio.templates.path(template)
    if path is None:
        raise ApiError(404, Finding("there is no such template", "Choose another", "template"))
    try:
        data = learned_template(read_mapping(path), learn(decisions(studio, template)))
    except InputError as error:
        raise ApiError(409, finding(error)) from error
    return studio.templates.save_data(name, data)


def dataset(studio: Studio, template: str | None) -> Iterator[bytes]:
    """A ZIP file with the approved takes and ``captions.jsonl``, piece by piece."""
    lines = []
    out = _Pieces()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for decision in decisions(studio, template):
            if not decision.approved:
                continue
            name = f"{decision.video.parent.name}-{decision.video.name}"
            try:
                source = decision.video.open("rb")
            except OSError:  # deleted meanwhile
                continue
            with source, archive.open(_entry(name), "w", force_zip64=True) as target:
                while piece := source.read(_CHUNK):
                    target.write(piece)
                    yield out.taken()
            lines.append(json.dumps(caption(decision, name), ensure_ascii=False))
        archive.writestr(_entry("captions.jsonl"), "".join(f"{line}\n" for line in lines))
    yield out.taken()


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))


class _Pieces(io.RawIOBase):
    """What a ZIP file is written to; it is taken away as it comes."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._waiting += data
        return len(data)

    def taken(self) -> bytes:
        """What has been written since the last call."""
        data = bytes(self._waiting)
        self._waiting.clear()
        return data
