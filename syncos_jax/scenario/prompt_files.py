"""Files of prompts: text with one a line, a table with a header, JSON.

Nothing of such a file is lost in silence: what is not read is refused or said.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.files.documents import read_text, unique
from syncos_jax.files.text import short

_TABLES = {".csv": ",", ".tsv": "\t"}
_LENGTHS = ("seconds", "frames")
_NAMES = {
    **dict.fromkeys(("prompt", "prompts", "text", "text prompt", "caption", "captions"), "prompt"),
    **dict.fromkeys(("description", "text_prompt"), "prompt"),
    **dict.fromkeys(("seconds", "duration", "duration_seconds", "length_seconds"), "seconds"),
    **dict.fromkeys(("frames", "num_frames"), "frames"),
    **dict.fromkeys(("negative", "negative_prompt", "negative prompt"), "negative"),
}
"""What a column or a key may be called -> what it is."""
_COMMENT = re.compile(r"#(?:[\s#!]|$)")
_DOCUMENTS = {
    ".yaml": "is a scenario file; give it by its name alone",
    ".yml": "is a scenario file; give it by its name alone",
    ".xlsx": "is a spreadsheet; save it as .csv",
    ".xls": "is a spreadsheet; save it as .csv",
    ".ods": "is a spreadsheet; save it as .csv",
    ".docx": "is a document; save it as plain text, one prompt a line",
    ".odt": "is a document; save it as plain text, one prompt a line",
    ".rtf": "is a document; save it as plain text, one prompt a line",
    ".pdf": "is a document; save it as plain text, one prompt a line",
}


@dataclasses.dataclass(frozen=True)
class PromptFile:
    """What a file of prompts holds.

    Attributes:
        events: ``prompt`` and where the file says it ``seconds`` or ``frames``, ``negative``.
        notes: what in the file was not read, in words.
    """

    events: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()


def read_prompt_file(path: str | os.PathLike[str]) -> PromptFile:
    """Reads ``.csv``, ``.tsv``, ``.json``, ``.jsonl``, and any other name as lines of text.

    Raises:
        InputError: no such file, no prompt in it, or a kind of file that holds prompts otherwise.
    """
    suffix = Path(path).suffix.lower()
    if suffix in _DOCUMENTS:
        raise InputError(f"{path}: {_DOCUMENTS[suffix]}")
    text = read_text(path)
    control = re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text)
    if control:
        line = text[: control.start()].count("\n") + 1
        raise InputError(f"{path}:{line}: is not plain text; save it as UTF-8 text")
    if suffix in _TABLES:
        found = _table(path, text, _TABLES[suffix])
    elif suffix in (".json", ".jsonl"):
        found = PromptFile(tuple(_objects(path, text, suffix)))
    else:
        found = _lines(path, text)
    if not found.events:
        raise InputError(f"{path}: has no prompt in it; write one a line")
    return found


def _lines(path: str | os.PathLike[str], text: str) -> PromptFile:
    # Line ends alone: other separators that Unicode has stand within prompts.
    lines = [" ".join(line.split()) for line in re.split(r"\r\n|\r|\n", text)]
    prompts = [line for line in lines if line and not _COMMENT.match(line)]
    left = sum(bool(_COMMENT.match(line)) for line in lines)
    if prompts and prompts[0][:1] in "[{" and prompts[-1][-1:] in "]}":
        raise InputError(f"{path}: looks like JSON; name it .json or .jsonl")
    raw = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    if len(raw) > 1 and all("\t" in line.strip() for line in raw):
        raise InputError(f"{path}: looks like a table; name it .tsv")
    notes = [f"{path}: {left} lines that begin with '# ' are comments and left out"] if left else []
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
        raise InputError(f"{path}: cannot be read as a table: {error}") from error
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
            f"{path}: its first line names no column 'prompt'; write a header, as prompt,seconds"
        )
    doubled = next((name for name in columns if name and columns.count(name) > 1), None)
    if doubled is not None:
        raise InputError(f"{path}: has two columns for {doubled}; leave one of them out")
    events, lost = [], set()
    for number, row in numbered[1:]:
        if len(row) > len(header):
            raise InputError(
                f"{path}: row {number} has {len(row)} cells, the header {len(header)}; put a "
                f"prompt that has {delimiter!r} in it in quotes"
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
    notes = [f"{path}: columns that are not read: {', '.join(sorted(lost))}"] if lost else []
    return PromptFile(tuple(events), tuple(notes))


def _delimiter(text: str, expected: str) -> str:
    """What stands between the cells: `expected`, unless the first line has more of another sign.

    Where the comma is the decimal sign, spreadsheets write semicolons.
    """
    first = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    return max((expected, ";", "\t", "|"), key=first.count)


def _objects(path: str | os.PathLike[str], text: str, suffix: str) -> list[dict[str, Any]]:
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
        raise InputError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON: {error}") from error
    if isinstance(items, dict) and "events" in items:
        raise InputError(f"{path}: is a scenario file; give it by its name alone")
    if not isinstance(items, list):
        raise InputError(f"{path}: a list of prompts was expected")
    events = []
    for number, item in enumerate(items, 1):
        values = {"prompt": item} if isinstance(item, str) else item
        if not isinstance(values, dict):
            raise InputError(f"{path}: entry {number} is {short(item)}, but expected a prompt")
        unknown = [key for key in values if key not in _NAMES]
        if unknown:
            raise InputError(
                f"{path}: entry {number} has {short(unknown[0])}; known are prompt, seconds, "
                "frames, negative"
            )
        if len({_NAMES[key] for key in values}) < len(values):
            raise InputError(f"{path}: entry {number} says the same under two names")
        values = {_NAMES[key]: value for key, value in values.items()}
        events.append(_event(path, f"entry {number}", values))
    return events


def _event(path: str | os.PathLike[str], where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    prompt = values.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(f"{path}: {where} has no prompt")
    event: dict[str, Any] = {"prompt": prompt}
    for key, value in values.items():
        if key == "prompt" or value is None:
            continue
        if key in _LENGTHS and isinstance(value, str):
            plain = value.replace(",", ".")
            if not re.fullmatch(r"\d+(?:\.\d+)?", plain) or (key == "frames" and "." in plain):
                raise InputError(f"{path}: {where}: {key} is {short(value)}, but expected a number")
            value = int(plain) if key == "frames" else float(plain)
        event[key] = float(value) if key == "seconds" and type(value) is int else value
    return event
