"""Prompt files: text with one prompt per line, a table with a header, or JSON.

Nothing in such a file is silently ignored: content that is not read is an error or a note.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.files.documents import read_text, unique
from syncos_jax.files.text import short
from syncos_jax.scenario import timed_prompts

_TABLES = {".csv": ",", ".tsv": "\t"}
_LENGTHS = ("seconds", "frames")
_NAMES = {
    **dict.fromkeys(("prompt", "prompts", "text", "text prompt", "caption", "captions"), "prompt"),
    **dict.fromkeys(("description", "text_prompt"), "prompt"),
    **dict.fromkeys(("seconds", "duration", "duration_seconds", "length_seconds"), "seconds"),
    **dict.fromkeys(("frames", "num_frames"), "frames"),
    **dict.fromkeys(("negative", "negative_prompt", "negative prompt"), "negative"),
    **dict.fromkeys(("start", "start_time", "start_seconds"), "start"),
    **dict.fromkeys(("end", "end_time", "end_seconds"), "end"),
    **{name: name for name in ("start_frame", "end_frame")},
}
"""Accepted names of a column or key -> what it holds."""
_TIMES = {"start", "end", "start_frame", "end_frame"}
_COMMENT = re.compile(r"#(?:[\s#!]|$)")
_DOCUMENTS = {
    **dict.fromkeys((".yaml", ".yml"), ("is a scenario file", "pass it as SCENARIO")),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), ("is a spreadsheet", "save it as .csv")),
    **dict.fromkeys(
        (".docx", ".odt", ".rtf", ".pdf"),
        ("is a document", "save it as plain text, one prompt per line"),
    ),
}
"""Extension -> what such a file is, and what to do."""


@dataclasses.dataclass(frozen=True)
class PromptFile:
    """The content of a prompt file.

    Attributes:
        events: mappings with ``prompt`` and, if given, ``seconds`` or ``frames``, ``negative``.
        notes: one line for each thing in the file that was not read.
    """

    events: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()


def read_prompt_file(path: str | os.PathLike[str]) -> PromptFile:
    """Reads ``.csv``, ``.tsv``, ``.json``, ``.jsonl``, ``.srt`` and ``.vtt``, and any other file
    as lines of text. Prompts may have times (`syncos_jax.scenario.timed_prompts`).

    Raises:
        InputError: no such file, no prompt in it, or an unsupported kind of file.
    """
    suffix = Path(path).suffix.lower()
    if suffix in _DOCUMENTS:
        what, remedy = _DOCUMENTS[suffix]
        raise InputError(what, place=path, remedy=remedy)
    text = read_text(path)
    control = re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text)
    if control:
        line = text[: control.start()].count("\n") + 1
        raise InputError("not plain text", place=f"{path}:{line}", remedy="save it as UTF-8 text")
    if suffix in _TABLES:
        found = _table(path, text, _TABLES[suffix])
    elif suffix in (".json", ".jsonl"):
        found = _objects(path, text, suffix)
    elif suffix in (".srt", ".vtt"):
        found = PromptFile(*timed_prompts.read_subtitles(path, text))
    else:
        timed = timed_prompts.read_lines(path, text)
        found = _lines(path, text) if timed is None else PromptFile(*timed)
    if not found.events:
        raise InputError("contains no prompt", place=path, remedy="write one prompt per line")
    return found


def _lines(path: str | os.PathLike[str], text: str) -> PromptFile:
    # Split at line ends only: Unicode's other separators occur within prompts.
    lines = [" ".join(line.split()) for line in re.split(r"\r\n|\r|\n", text)]
    prompts = [line for line in lines if line and not _COMMENT.match(line)]
    left = sum(bool(_COMMENT.match(line)) for line in lines)
    if prompts and prompts[0][:1] in "[{" and prompts[-1][-1:] in "]}":
        raise InputError("looks like JSON", place=path, remedy="rename it to .json or .jsonl")
    raw = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    if len(raw) > 1 and all("\t" in line.strip() for line in raw):
        raise InputError("looks like a table", place=path, remedy="rename it to .tsv")
    notes = [f"{path}: skipped {left} comment lines starting with '# '"] if left else []
    if prompts and all(len(p) > 1 and p[0] in "\"'" and p[0] == p[-1] for p in prompts):
        notes.append(f"{path}: the quotation marks around each line are part of the prompts")
    return PromptFile(tuple({"prompt": prompt} for prompt in prompts), tuple(notes))


def _table(path: str | os.PathLike[str], text: str, delimiter: str) -> PromptFile:
    named = re.match(r"sep=(.)\r?\n", text)  # as a spreadsheet may begin its .csv
    text = text[named.end() :] if named else text
    delimiter = named[1] if named else _delimiter(text, delimiter)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"not readable as a table: {error}", place=path) from error
    numbered = [
        (number, [" ".join(cell.split()) for cell in row]) for number, row in enumerate(rows, 1)
    ]
    numbered = [(number, row) for number, row in numbered if any(row)]
    if not numbered:
        return PromptFile(())
    header = numbered[0][1]
    columns = [_NAMES.get(cell.lower(), "") for cell in header]
    if "prompt" not in columns:
        if max(len(row) for _, row in numbered) == 1:
            return PromptFile(tuple({"prompt": row[0]} for _, row in numbered))
        raise InputError(
            "the first line has no column 'prompt'",
            place=path,
            remedy="add a header such as prompt,seconds",
        )
    doubled = next((name for name in columns if name and columns.count(name) > 1), None)
    if doubled is not None:
        raise InputError(f"has two columns for {doubled}", place=path, remedy="remove one of them")
    events, lost = [], set()
    for number, row in numbered[1:]:
        if len(row) > len(header):
            raise InputError(
                f"row {number} has {len(row)} cells, the header {len(header)}",
                place=path,
                remedy=f"put prompts that contain {delimiter!r} in quotes",
            )
        cells = dict(zip(columns, row, strict=False))
        lost |= {
            header[i] or f"number {i + 1}" for i in range(len(row)) if row[i] and not columns[i]
        }
        events.append(
            _event(
                path, f"row {number}", {name: cell for name, cell in cells.items() if name and cell}
            )
        )
    notes = [f"{path}: ignored columns: {', '.join(sorted(lost))}"] if lost else []
    return _with_times(path, events, notes)


def _with_times(
    path: str | os.PathLike[str], events: list[dict[str, Any]], notes: Sequence[str] = ()
) -> PromptFile:
    """The events, with lengths in place of starts and ends."""
    if not any(_TIMES & set(event) for event in events):
        return PromptFile(tuple(events), tuple(notes))
    timed, more = timed_prompts.read_rows(path, events)
    return PromptFile(timed, (*notes, *more))


def _delimiter(text: str, expected: str) -> str:
    """The delimiter: `expected`, unless another one is more frequent in the first line.

    Spreadsheets write semicolons in locales whose decimal sign is the comma.
    """
    first = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    return max((expected, ";", "\t", "|"), key=first.count)


def _objects(path: str | os.PathLike[str], text: str, suffix: str) -> PromptFile:
    try:
        if suffix == ".jsonl":
            items = [
                json.loads(line, object_pairs_hook=unique)
                for line in re.split(r"\r?\n", text)
                if line.strip()
            ]
        else:
            items = json.loads(text, object_pairs_hook=unique)
    except InputError as error:
        raise error.within(path) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"not readable as JSON: {error}", place=path) from error
    if isinstance(items, dict) and "events" in items:
        raise InputError("is a scenario file", place=path, remedy="pass it as SCENARIO")
    if timed_prompts.is_keyframes(items):
        return PromptFile(*timed_prompts.read_keyframes(path, items))
    if not isinstance(items, list):
        raise InputError(
            "not a list of prompts",
            place=path,
            remedy='write ["prompt", ...] or {"0": "prompt", "48": "prompt"} (frames)',
        )
    events = []
    for number, item in enumerate(items, 1):
        values = {"prompt": item} if isinstance(item, str) else item
        if not isinstance(values, dict):
            raise InputError(place=(path, f"entry {number}"), expected="a prompt", value=item)
        unknown = [key for key in values if key not in _NAMES]
        if unknown:
            raise InputError(
                f"unknown key {short(unknown[0])}",
                place=(path, f"entry {number}"),
                expected="prompt, seconds, frames, negative, start, end, start_frame, end_frame",
            )
        if len({_NAMES[key] for key in values}) < len(values):
            raise InputError("two keys with the same meaning", place=(path, f"entry {number}"))
        values = {_NAMES[key]: value for key, value in values.items()}
        events.append(_event(path, f"entry {number}", values))
    return _with_times(path, events)


def _event(path: str | os.PathLike[str], where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    prompt = values.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError("has no prompt", place=(path, where))
    event: dict[str, Any] = {"prompt": prompt}
    for key, value in values.items():
        if key == "prompt" or value is None:
            continue
        if key in _LENGTHS and isinstance(value, str):
            plain = value.replace(",", ".")
            if not re.fullmatch(r"\d+(?:\.\d+)?", plain) or (key == "frames" and "." in plain):
                raise InputError(place=(path, where, key), expected="a number", value=value)
            value = int(plain) if key == "frames" else float(plain)
        event[key] = float(value) if key == "seconds" and type(value) is int else value
    return event
