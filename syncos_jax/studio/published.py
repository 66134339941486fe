"""Approved takes with the approval signed into them, in a folder next to the takes.

A decision is about the bytes of a take, so the take itself stays as it is; the copy that leaves the
studio carries the approval in its Content Credentials.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from syncos_jax.media import credentials
from syncos_jax.media.marking import Marking, run_id
from syncos_jax.runs.metadata import metadata_path, read_metadata, signed_facts
from syncos_jax.studio.review.approvals import Entry

FOLDER = "published"


def published_file(take: Path) -> Path:
    """Path of the signed copy of a take."""
    return take.parent / FOLDER / take.name


def publish(take: Path, decision: Entry, marking: Marking) -> Path:
    """Write a copy of an approved take whose credentials hold the approval.

    Credentials of the take are kept as those of the copy's parent.

    Args:
        take: the approved file, with its metadata file.
        decision: the approval.
        marking: who signs, and the register.

    Raises:
        InputError: the metadata file is damaged, or the certificate cannot sign any more.
        OSError: the copy cannot be written.
    """
    metadata = read_metadata(metadata_path(take))
    facts = credentials.read(take).run or {
        "run_id": run_id(metadata["latents"]["sha256"]),
        **signed_facts(metadata, prompts=marking.prompts),
    }
    marks = metadata.get("marks") or {}
    own = dataclasses.replace(marking, watermark=bool(marks.get("watermark")))
    copy = published_file(take)
    copy.parent.mkdir(exist_ok=True)
    shutil.copy2(take, copy)
    approval = decision.model_dump(include={"action", "by", "at", "comment", "sha256"})
    try:
        own.apply(copy, facts, title=metadata["title"], approvals=[approval])
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
    return copy


def withdraw(take: Path) -> None:
    """Delete the signed copy of a take that is no longer approved."""
    published_file(take).unlink(missing_ok=True)
