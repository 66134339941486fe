"""What is wrong with a request, in words: a message, its remedy, and the field it is about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from syncos_jax.errors import InputError

SETTINGS = ("steps", "guidance", "strength", "size")
_FIELDS = (
    "global", "negative", "variables", "settings", "takes", "seed", "title", "template", "story",
    "by", "comment", "name", "verdict", "take", "video",
)  # fmt: skip
_PATH = re.compile(r"^([a-z_]\w*(?:\[\d+\]|\.\w+)*): (?=\S)")
_OF_SAMPLER = re.compile(r"^sampler(?: \w+)?: (\w+) ")
_GOT = re.compile(r"; got [^;]*$")
_EVENT = re.compile(r"events\[(\d+)\](?:\.(\w+))?")
_ARGUMENT = re.compile(r"`(\w+)=([^`]*)`")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        message: what, without the remedy.
        remedy: what to do.
        field: of the form, ``events.2.prompt``; None where it is about no field.
    """

    message: str
    remedy: str = ""
    field: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in an answer."""
        return {"message": self.message, "remedy": self.remedy, "field": self.field}


class ApiError(Exception):
    """An answer that says what is wrong.

    Attributes:
        status: of HTTP, 400 to 503.
        findings: one or more; the first is the answer's own.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        findings: Finding | Iterable[Finding],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.findings = (findings,) if isinstance(findings, Finding) else tuple(findings)
        self.headers = dict(headers or {})
        super().__init__(self.findings[0].message)

    def to_dict(self) -> dict[str, Any]:
        """The body of the answer."""
        return error_body(self.findings)


def error_body(findings: Iterable[Finding]) -> dict[str, Any]:
    """``{"error": {message, remedy, field}}``, with ``fields`` where there are several."""
    each = [finding.to_dict() for finding in findings]
    body = dict(each[0])
    if len(each) > 1:
        body["fields"] = each
    return {"error": body}


def finding(error: InputError | str, field: str | None = None) -> Finding:
    """What the library says in one line, taken apart.

    Args:
        error: the line: a place, what stands there, what was expected, after a semicolon the
            remedy.
        field: the field it is about; None for the one that the line names.
    """
    text = str(error)
    place, of_sampler = _PATH.match(text), _OF_SAMPLER.match(text)
    if field is None:
        field = field_of(place[1]) if place else None
        if of_sampler:
            field = f"settings.{of_sampler[1]}" if of_sampler[1] in SETTINGS else None
    if of_sampler and field is not None:
        text = text.partition(": ")[2]
    if place:
        text = f"{_worded(place[1])} {text[place.end() :]}"
    text = _ARGUMENT.sub(lambda match: f"{match[1]} {match[2]}", text).replace("`", "")
    text = _GOT.sub("", text)
    message, parted, remedy = text.rpartition("; ")
    if not parted:
        message, remedy = text, ""
        for word in (", but expected ", "; expected "):
            if word in text:
                message, _, remedy = text.partition(word)
                remedy = f"give {remedy}"
                break
    elif remedy.startswith("expected "):
        remedy = f"give {remedy.removeprefix('expected ')}"
    return Finding(message, _sentence(remedy), field)


def _worded(path: str) -> str:
    """``events[1].prompt`` -> ``event 2: prompt``."""
    match = _EVENT.fullmatch(path)
    return f"event {int(match[1]) + 1}: {match[2] or 'it'}" if match else path.rsplit(".", 1)[-1]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def field_of(path: str) -> str | None:
    """``events[2].prompt`` -> ``events.2.prompt``; None for what is no field of the form."""
    dotted = re.sub(r"\[(\d+)\]", r".\1", path)
    first, *rest = dotted.split(".")
    if first in SETTINGS:
        return f"settings.{first}"
    if first == "sampler":
        return f"settings.{rest[0]}" if rest and rest[0] in SETTINGS else None
    if first == "events":
        if len(rest) >= 2 and rest[1] == "frames":
            return f"events.{rest[0]}.seconds"
        if len(rest) == 1:  # of an event as a whole: its length, mostly
            return f"events.{rest[0]}.seconds"
        return ".".join(["events", *rest[:2]])
    return dotted if first in _FIELDS else None
