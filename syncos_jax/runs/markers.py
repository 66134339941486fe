"""The status of the items of a batch: one small file for each finished one.

The folder ``manifest`` of a batch's place contains

====================== ===========================================================================
batch.json             the names of the items and where each was read from; all tasks write the same
items/NAME.json        the marker of a finished item: status (done, failed), source (file and
                       line), error (one line, of a failed one), video (its file), made (how often
                       it was made), run (its fingerprint, `Request.fingerprint`), frames, seconds
                       (the time it took), shard
sessions/...json       for each start of the command that made something: started (UTC), host,
                       process, shard, devices, videos, frames, seconds, videos_per_hour,
                       frames_per_second, sampler_busy (fraction of the time it sampled)
====================== ===========================================================================

A marker is written atomically, once all files of its item are in place and on disk, by the task
whose shard the item belongs to. There are no locks. An item without a marker is pending.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from syncos_jax.errors import Argument, InputError
from syncos_jax.files.versioned import FileFormat
from syncos_jax.runs.items import Item
from syncos_jax.runs.outputs import Outputs

REMEDY = ("choose another place for ", Argument("out"))
BATCH = FileFormat("syncos_jax.batch", "the list of a batch", REMEDY)
MARKER = FileFormat("syncos_jax.batch.item", "the marker of an item", "remove it")
SESSION = FileFormat("syncos_jax.batch.session", "the session of a batch", "remove it")
FOLDER = "manifest"
PENDING, DONE, FAILED = "pending", "done", "failed"


class Markers:
    """The folder ``manifest`` of a batch.

    Args:
      outputs: the batch's place.
    """

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs

    def describe(self, items: Iterable[Item]) -> None:
        """Writes the list of the batch, unless it is there already.

        Raises:
          InputError: another kind of file is in its place.
        """
        name = f"{FOLDER}/batch.json"
        sources = {item.name: item.source for item in items}
        if self._read(name, BATCH) != {"items": sources}:
            self.outputs.write(name, BATCH.encoded(name, {"items": sources}))

    def sources(self) -> dict[str, str] | None:
        """Where each item was read from, by name; None if there is no batch."""
        data = self._read(f"{FOLDER}/batch.json", BATCH)
        if data is None:
            return None
        if not isinstance(data.get("items"), dict):
            path = self.outputs.address(f"{FOLDER}/batch.json")
            raise InputError("has no items", place=path, remedy=REMEDY)
        return data["items"]

    def read(self, name: str) -> dict[str, Any]:
        """The marker of an item; empty if there is none."""
        return self._read(_marker(name), MARKER) or {}

    def read_all(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The existing markers of these items, by name."""
        there = self.outputs.names(f"{FOLDER}/items")
        found = [name for name in names if f"{name}.json" in there]
        files = [_marker(name) for name in found]
        raw = self.outputs.read_all(files)
        each = zip(found, files, raw, strict=True)
        read = {name: self._checked(file, MARKER, content) for name, file, content in each}
        return {name: marker for name, marker in read.items() if marker is not None}

    def write(self, name: str, fields: Mapping[str, Any]) -> None:
        """Writes the marker of an item."""
        file = _marker(name)
        self.outputs.write(file, MARKER.encoded(file, fields))

    def write_session(self, session: Mapping[str, Any]) -> None:
        """Writes, or replaces, a session."""
        start = str(session["started"]).replace(":", "")
        file = f"{FOLDER}/sessions/{start}-{session['host']}-{session['process']}.json"
        self.outputs.write(file, SESSION.encoded(file, session))

    def sessions(self) -> list[dict[str, Any]]:
        """All sessions, in order of their start."""
        files = sorted(self.outputs.names(f"{FOLDER}/sessions"))
        files = [f"{FOLDER}/sessions/{name}" for name in files if name.endswith(".json")]
        read = zip(files, self.outputs.read_all(files), strict=True)
        each = [self._checked(file, SESSION, content) for file, content in read]
        return [session for session in each if session is not None]

    def _read(self, name: str, form: FileFormat) -> dict[str, Any] | None:
        return self._checked(name, form, self.outputs.read(name))

    def _checked(self, name: str, form: FileFormat, raw: bytes | None) -> dict[str, Any] | None:
        if raw is None:
            return None
        where = self.outputs.address(name)
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise InputError("not readable as JSON", place=where, remedy=form.remedy) from error
        found = form.checked(data, where)
        return {key: value for key, value in found.items() if key not in form.head}


def _marker(name: str) -> str:
    return f"{FOLDER}/items/{name}.json"


@dataclass(frozen=True)
class Status:
    """The status of a batch.

    Attributes:
      items: the status of each, by name.
      failed: the error of each failed one, by name.
      sessions: one for each start of the command that made something.
    """

    items: dict[str, str]
    failed: dict[str, str]
    sessions: list[dict[str, Any]] = field(default_factory=list)

    def total(self, key: str) -> float:
        """Sum of a figure of the sessions, such as ``videos`` or ``seconds``."""
        return sum(session.get(key) or 0 for session in self.sessions)

    @property
    def sampler_busy(self) -> float | None:
        """Fraction of the time spent sampling, over all sessions that report it."""
        said = [s for s in self.sessions if s.get("sampler_busy") is not None]
        seconds = sum(s["seconds"] for s in said)
        return sum(s["sampler_busy"] * s["seconds"] for s in said) / seconds if seconds else None

    def count(self, status: str) -> int:
        """How many items have this status."""
        return sum(found == status for found in self.items.values())

    @property
    def summary(self) -> str:
        """``"38 done, 2 failed, 0 pending"``."""
        return ", ".join(f"{self.count(status)} {status}" for status in (DONE, FAILED, PENDING))


def read_status(outputs: Outputs) -> Status:
    """Adds up what the tasks of a batch have written.

    Raises:
      InputError: no batch was started there.
    """
    markers = Markers(outputs)
    sources = markers.sources()
    if sources is None:
        raise InputError(f"no batch here (no {FOLDER}/batch.json)", place=outputs.place)
    found = markers.read_all(list(sources))
    items = {name: str(found.get(name, {}).get("status", PENDING)) for name in sources}
    failed = {
        name: str(marker.get("error", ""))
        for name, marker in found.items()
        if marker.get("status") == FAILED
    }
    return Status(items, failed, markers.sessions())
