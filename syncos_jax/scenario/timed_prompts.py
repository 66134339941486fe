"""Prompts with times, as other tools write them, read into events with lengths.

A prompt lasts until the next one starts. Times are seconds (``3s``, ``1.5s``), clock times
(``00:10``, ``1:02:03.5``) or frames (plain integers).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from syncos_jax.errors import InputError
from syncos_jax.files.text import short

_CLOCK = r"(?:\d{1,3}:)?\d{1,2}:\d{2}(?:[.,]\d{1,3})?"
_NUMBER = r"\d{1,9}(?:[.,]\d{1,6})?(?:\s*(?:s|sec|seconds|f|frames)\b)?"
_TIME = rf"{_CLOCK}|{_NUMBER}"
_RANGE = rf"({_TIME})(?:\s*(?:-->|-|–|to)\s*({_TIME}))?"
_IN_BRACKETS = re.compile(rf"\[\s*{_RANGE}\s*(\]|:)")
_LINE = re.compile(
    rf"\s*(?:({_CLOCK})(?:\s*(?:-->|-|–|to)\s*({_CLOCK}))?\s*(?::\s*|\s)|\"?{_RANGE}\"?\s*:\s*)(.*)"
)
_CUE = re.compile(rf"\s*({_CLOCK})\s*-->\s*({_CLOCK})")
_PARTS = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")

FRAMES, SECONDS = "frames", "seconds"
Timed = tuple[tuple[dict[str, Any], ...], tuple[str, ...]]
"""Events (``prompt``, ``seconds`` or ``frames``, ``negative``), and notes."""
Place = str | os.PathLike[str]


@dataclass(frozen=True)
class _Entry:
    start: float
    end: float | None
    unit: str
    prompt: str
    negative: str | None = None


def read_lines(path: Place, text: str) -> Timed | None:
    """``0: …`` and ``00:10 …`` on each line, ``[00:00-00:10] …`` and ``[3s: …]`` anywhere.

    Returns:
        None for a text without times.

    Raises:
        InputError: some prompts have a time and others have none, or times that contradict.
    """
    found = list(_IN_BRACKETS.finditer(text))
    if found and not text[: found[0].start()].strip():
        return _events(path, _in_brackets(path, text, found))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    matches = [_LINE.fullmatch(line.strip()) for line in lines]
    if not any(matches) or (len(lines) == 1 and not _looks_timed(lines[0])):
        return None
    entries = []
    for line, match in zip(lines, matches, strict=True):
        if match is None:
            raise InputError(
                "some lines have a time and others have none", place=path, value=line.strip()
            )
        start, end = match[1] or match[3], match[2] or match[4]
        prompt = match[5].strip().removesuffix(",").strip()
        if len(prompt) > 1 and prompt[0] == prompt[-1] == '"':
            prompt = prompt[1:-1]
        entries.append(_entry(path, start, end, prompt))
    return _events(path, entries)


def _looks_timed(line: str) -> bool:
    """One line alone, such as ``2: the end``, is a prompt unless its time has a unit."""
    return re.match(rf"\s*(?:{_CLOCK}|\d+(?:[.,]\d+)?\s*s\b|\"?0\"?\s*:)", line) is not None


def _in_brackets(path: Place, text: str, found: Sequence[re.Match[str]]) -> list[_Entry]:
    entries = []
    ends = [match.start() for match in found[1:]] + [len(text)]
    for match, stop in zip(found, ends, strict=True):
        prompt = " ".join(text[match.end() : stop].split())
        if match[3] == ":":
            if not prompt.endswith("]"):
                raise InputError("a bracket is not closed", place=path, value=match[0] + prompt)
            prompt = prompt[:-1].strip()
        entries.append(_entry(path, match[1], match[2], prompt))
    return entries


def read_subtitles(path: Place, text: str) -> Timed:
    """The cues of an .srt or .vtt file; raises InputError."""
    entries = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        lines = block.strip().split("\n")
        at = next((n for n, line in enumerate(lines) if _CUE.match(line)), None)
        if at is None:
            continue
        cue = _CUE.match(lines[at])
        assert cue is not None
        entries.append(_entry(path, cue[1], cue[2], " ".join(" ".join(lines[at + 1 :]).split())))
    return _events(path, entries)


def is_keyframes(data: Any) -> TypeGuard[dict[str, Any]]:
    """Whether `data`, read from JSON, maps frame numbers to prompts (deforum)."""
    if not isinstance(data, dict) or not data:
        return False
    prompts = data.get("prompts", data)
    return isinstance(prompts, dict) and any(str(key).strip()[:1].isdigit() for key in prompts)


def read_keyframes(path: Place, data: Mapping[str, Any]) -> Timed:
    """Deforum's ``{"0": "…", "48": "… --neg …"}``, alone or under ``prompts``."""
    prompts = data["prompts"] if isinstance(data.get("prompts"), dict) else data
    entries = []
    for key, prompt in prompts.items():
        if not re.fullmatch(r"\s*\d{1,9}\s*", key):
            raise InputError(f"keyframe {short(key)}", place=path, expected="a frame number")
        if not isinstance(prompt, str):
            raise InputError(place=(path, key), expected="a prompt", value=prompt)
        wanted, _, negative = prompt.partition("--neg")
        entries.append(_Entry(float(key), None, FRAMES, wanted.strip(), negative.strip() or None))
    events, notes = _events(path, entries)
    if prompts is not data and len(data) > 1:
        notes = (f"{os.fspath(path)}: only the key prompts was read", *notes)
    return events, notes


def read_rows(path: Place, rows: Sequence[Mapping[str, Any]]) -> Timed:
    """Rows of a table or JSON list with ``start`` and ``end``, or ``start_frame``/``end_frame``."""
    entries = []
    for number, row in enumerate(rows, 1):
        unit = FRAMES if "start_frame" in row else SECONDS
        names = ("start_frame", "end_frame") if unit == FRAMES else ("start", "end")
        where = (path, f"prompt {number}")
        if names[0] not in row:
            raise InputError("has no start, but others have one", place=where)
        if {FRAMES, SECONDS} & set(row):
            raise InputError("has both a start and a length", place=where)
        start, end = (_row_time(where, row.get(name), unit) for name in names)
        assert start is not None
        entries.append(_Entry(start, end, unit, row["prompt"], row.get("negative")))
    return _events(path, entries)


def _row_time(where: tuple[Place, str], value: Any, unit: str) -> float | None:
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number and not (isinstance(value, str) and re.fullmatch(_TIME, value.strip())):
        raise InputError(place=where, expected="times in seconds, or clock times", value=value)
    if number:
        return float(value)
    found, own = _time(where, value.strip())
    return found if own == FRAMES else _checked(where, found, own, unit)


def _checked(where: tuple[Place, str], found: float, own: str, unit: str) -> float:
    if own != unit:
        raise InputError(f"times in {own} in a column of {unit}", place=where)
    return found


def _entry(path: Place, start: str, end: str | None, prompt: str) -> _Entry:
    begin, unit = _time(path, start)
    if end is None:
        return _Entry(begin, None, unit, prompt)
    stop, other = _time(path, end)
    if unit == FRAMES != other and begin == 0:  # [0-10s]
        unit = other
    if unit != other:
        raise InputError(f"{start} and {end} have different units", place=path)
    return _Entry(begin, stop, unit, prompt)


def _time(path: Any, text: str) -> tuple[float, str]:
    """A time and its unit."""
    text = text.strip().replace(",", ".")
    if ":" in text:
        seconds = 0.0
        for part in text.split(":"):
            seconds = 60 * seconds + float(part)
        return seconds, SECONDS
    found = _PARTS.fullmatch(text)
    assert found is not None
    unit = SECONDS if found[2].startswith("s") else FRAMES
    if unit == FRAMES and "." in found[1]:
        raise InputError(f"time {text} has no unit", place=path, remedy=f"write {text}s")
    return float(found[1]), unit


def _events(path: Place, entries: Sequence[_Entry]) -> Timed:
    """Events in order of their start; a gap extends the prompt before it."""
    if not entries:
        raise InputError("contains no prompt with a time", place=path)
    units = {entry.unit for entry in entries}
    if len(units) > 1 and entries[0].start == 0 and entries[0].unit == FRAMES:
        units.discard(FRAMES)  # 0: …, 3s: …
        units |= {entry.unit for entry in entries[1:]}
    if len(units) > 1:
        raise InputError("times in both seconds and frames", place=path)
    (unit,) = units
    ordered = sorted(entries, key=lambda entry: entry.start)
    name, notes = os.fspath(path), []
    if ordered[0].start > 0:
        notes.append(f"{name}: the first prompt starts at {ordered[0].start:g} {unit}; used from 0")
    starts = [0.0, *(entry.start for entry in ordered[1:])]
    events = []
    for index, entry in enumerate(ordered):
        if not entry.prompt.strip():
            raise InputError(f"no prompt at {entry.start:g} {unit}", place=path)
        event: dict[str, Any] = {"prompt": entry.prompt.strip()}
        if entry.negative is not None:
            event["negative"] = entry.negative
        after = starts[index + 1] if index + 1 < len(ordered) else None
        stop = entry.end if after is None else after
        if after is not None and entry.end is not None and abs(entry.end - after) > 1e-6:
            if entry.end > after:
                raise InputError(
                    f"the prompts at {entry.start:g} and {after:g} {unit} overlap", place=path
                )
            notes.append(
                f"{name}: no prompt from {entry.end:g} to {after:g} {unit}; the one before lasts"
            )
        if stop is None:
            notes.append(f"{name}: the last prompt has no end; it gets the default length")
        elif stop <= starts[index]:
            raise InputError(f"the prompt at {entry.start:g} {unit} has no length", place=path)
        else:
            length = stop - starts[index]
            event[unit] = int(length) if unit == FRAMES else round(length, 6)
        events.append(event)
    return tuple(events), tuple(notes)


_WEIGHT = re.compile(r"\([^()]{1,80}:\s*\d+(?:\.\d+)?\s*\)")
_TAG = re.compile(r"<(?:lora|lyco|hypernet|embedding)s?:[^<>]{1,120}>", re.IGNORECASE)


def foreign_syntax(prompts: Sequence[str]) -> list[str]:
    """A note for prompt weights and LoRA tags of other tools, which a text encoder reads as text.

    Args:
        prompts: the texts to look at.
    """
    notes: dict[str, None] = {}
    for prompt in prompts:
        for found in _WEIGHT.findall(prompt):
            notes[f"{found!r} is read as plain text: prompts have no weights"] = None
        for found in _TAG.findall(prompt):
            notes[f"{found!r} is read as plain text: merge a LoRA when converting the model"] = None
    return list(notes)
