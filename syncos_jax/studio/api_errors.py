"""What is wrong with a request, in words: a message, its remedy, and the field it is about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from syncos_jax.errors import MISSING, Argument, InputError, short, worded

SETTINGS = ("steps", "guidance", "strength", "size", "label", "watermark")
_FIELDS = (
    "global", "negative", "variables", "settings", "takes", "seed", "title", "template", "story",
    "by", "comment", "name", "verdict", "take", "video", "image", "end_image", "extend", "redo",
    "audio",
)  # fmt: skip
_EVENT = re.compile(r"events\[(\d+)\](?:\.(\w+))?")
_EVENT_IMAGE = re.compile(r"event (\d+) image")


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


def finding(error: InputError, field: str | None = None) -> Finding:
    """The first error of `error`, in the words of the page.

    Args:
        error: what the library raised.
        field: the field it is about; None for the one that the error names.
    """
    error = error.first_error
    if field is None:
        named = (*error.place, *([error.argument] if error.argument else []))
        field = next((found for part in reversed(named) if (found := field_of(part))), None)
    subjects = [_field_words(part) for part in error.place]
    if error.argument is not None:
        subjects.append(error.argument)
    subject = ": ".join(subjects)
    what = worded(error.what, _argument_words)
    expected = worded(error.expected or "", _argument_words)
    if not what:
        got = "" if error.value is MISSING else f", got {short(error.value)}"
        message = f"{subject} must be {expected}{got}"
    else:
        message = (f"{subject}: " if subject else "") + what
        message += f", expected {expected}" if expected else ""
    remedy = worded(error.remedy or "change it", _argument_words)
    return Finding(" ".join(message.split()), _sentence(remedy), field)


def findings(error: InputError) -> list[Finding]:
    """`finding` of each error that `error` stands for."""
    return [finding(one) for one in error.all_errors]


def _argument_words(argument: Argument) -> str:
    """An argument without the punctuation of code: ``model demo``."""
    return argument.name if argument.value is MISSING else f"{argument.name} {argument.value}"


def _field_words(path: str) -> str:
    """``events[1].prompt`` -> ``event 2: prompt``."""
    match = _EVENT.fullmatch(path)
    return f"event {int(match[1]) + 1}{f': {match[2]}' if match[2] else ''}" if match else path


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def field_of(path: str) -> str | None:
    """``events[2].prompt`` -> ``events.2.prompt``; None for what is no field of the form."""
    if match := _EVENT_IMAGE.fullmatch(path):
        return f"events.{int(match[1]) - 1}.image"
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
