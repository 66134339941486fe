"""Variables of scenario files: their values, and substitution into a file's texts.

The syntax is described in `syncos_jax.scenario.template`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from syncos_jax.errors import Argument, InputError
from syncos_jax.files.documents import WrittenFloat, WrittenInt, scalar
from syncos_jax.files.text import all_errors, did_you_mean, short

MAX_PROMPT = 2000
"""Maximum number of characters of a prompt."""
MAX_VARIABLES = 100
_MAX_VALUES = 200_000  # YAML aliases to aliases could expand to any number
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TEXT_KEYS = ("global", "negative", "prompt")

Scalar = str | int | float | bool

EXPECTED = {
    "default": f"text (at most {MAX_PROMPT} characters), a number, true or false",
    "allowed": "a list of one or more values: text, numbers, true or false",
    "description": f"text (at most {MAX_PROMPT} characters)",
}


def _is_value(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) < 10**18
    return isinstance(value, str) and len(value) <= MAX_PROMPT


class Variable(BaseModel):
    """A variable of a template.

    Attributes:
        default: its value if none is given; None if one is required.
        allowed: the values it may have; None for any.
        description: shown in errors and forms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    default: Any = None
    allowed: Any = None
    description: str = Field(default="", max_length=MAX_PROMPT)

    @field_validator("default")
    @classmethod
    def _one_value(cls, value: Any) -> Any:
        if value is not None and not _is_value(value):
            raise InputError(value=value, expected=EXPECTED["default"])
        return value

    @field_validator("allowed")
    @classmethod
    def _some_values(cls, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not value or not all(map(_is_value, value)):
            raise InputError(value=value, expected=EXPECTED["allowed"])
        return tuple(value)

    def accept(self, value: Scalar) -> Scalar:
        """`value`, or the allowed value with the same text; raises InputError."""
        if self.allowed is None:
            return value
        for item in self.allowed:
            if as_text(item) == as_text(value):
                return item
        raise InputError(value=value, expected=f"one of {_listed(self.allowed)}")


def read_variables(data: Any) -> dict[str, Variable]:
    """The variables of a file, from what stands under ``variables``; raises InputError."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(place="variables", expected="a mapping such as {place: beach}", value=data)
    if len(data) > MAX_VARIABLES:
        raise InputError(
            f"has {len(data)} entries", place="variables", expected=f"at most {MAX_VARIABLES}"
        )
    variables = {}
    for name, entry in data.items():
        if not isinstance(name, str) or not NAME.fullmatch(name) or name == "seed":
            raise InputError(
                f"invalid name {short(name)}",
                place="variables",
                expected="letters, digits and _, not starting with a digit, and not 'seed'",
            )
        if isinstance(entry, list):
            entry = {"allowed": entry, "default": entry[0] if entry else None}
        elif not isinstance(entry, dict):
            entry = {"default": entry}
        keys = {"": list(Variable.model_fields)}
        try:
            variable = Variable.model_validate(entry)
            if variable.default is not None:
                variable.accept(variable.default)
        except ValidationError as error:
            found = all_errors(error, EXPECTED, keys)
            raise InputError.together(e.in_key(f"variables.{name}") for e in found) from error
        except InputError as error:
            raise error.in_key(f"variables.{name}.default") from None
        variables[name] = variable
    return variables


def filled(
    data: Mapping[Any, Any], variables: Mapping[str, Variable], given: Mapping[str, Scalar]
) -> tuple[dict[Any, Any], dict[str, Scalar]]:
    """Substitutes variables in a file's values; also returns the value of every variable.

    Args:
        data: the file's content, without ``variables``.
        variables: the declared variables by name.
        given: values that override the defaults; may include undeclared names used in the texts.

    Raises:
        InputError: a variable without a value, an unknown one, or a value that is not allowed.
    """
    values = _values(data, variables, given)

    def value(name: str, location: str) -> Scalar:
        if name not in values:
            hint = did_you_mean(name, values) if values else "declare it under variables"
            raise InputError(
                f"unknown variable {{{name}}}",
                place=location,
                remedy=f"{hint.removeprefix('; ')} (write {{{{{name}}}}} for literal braces)",
            )
        return values[name]

    return _Substitution(value).of(dict(data)), values


def used_names(data: Mapping[Any, Any]) -> list[str]:
    """The variables used in a file's texts, in order of appearance."""
    names: dict[str, None] = {}
    _Substitution(lambda name, _: names.setdefault(name) or "").of(dict(data))
    return list(names)


def _values(
    data: Mapping[Any, Any], variables: Mapping[str, Variable], given: Mapping[str, Scalar]
) -> dict[str, Scalar]:
    used = used_names(data) if set(given) - set(variables) else []
    for name in given:
        if name not in variables and name not in used:
            known = list(dict.fromkeys([*variables, *used]))
            hint = did_you_mean(name, known) if known else "the file has no variables"
            raise InputError(f"unknown variable {short(name)}", remedy=hint.removeprefix("; "))
    values: dict[str, Scalar] = {}
    for name, variable in variables.items():
        value = given.get(name, variable.default)
        if value is None:
            about = f" ({variable.description})" if variable.description else ""
            raise InputError(
                f"has no value{about}",
                place=f"variables.{name}",
                remedy=("pass ", Argument("values", {name: "..."}), ", or add a default"),
            )
        try:
            values[name] = variable.accept(value)
        except InputError as error:
            raise error.in_key(f"variables.{name}") from None
    return {**values, **{name: given[name] for name in given if name not in values}}


class _Substitution:
    """Substitutes variables throughout a file's values."""

    def __init__(self, value: Callable[[str, str], Scalar]) -> None:
        self._value = value
        self._left = _MAX_VALUES

    def of(self, item: Any, location: str = "", key: str = "", depth: int = 0) -> Any:
        if isinstance(item, str):
            return self._text(item, location, key)
        if depth > 3:  # scenarios are not nested deeper
            return item
        if isinstance(item, dict):
            self._count(len(item), location)
            return {
                k: self.of(v, f"{location}.{n}" if location else n, n, depth + 1)
                for k, v in item.items()
                for n in [k if isinstance(k, str) and k else short(k)]
            }
        if isinstance(item, list):
            self._count(len(item), location)
            return [self.of(v, f"{location}[{i}]", key, depth + 1) for i, v in enumerate(item)]
        return item

    def _count(self, values: int, location: str) -> None:
        self._left -= values
        if self._left < 0:
            raise InputError(
                "too many values", place=location or None, expected="at most 10000 events"
            )

    def _text(self, text: str, location: str, key: str) -> Any:
        whole = _REFERENCE.fullmatch(text)
        if whole and whole[1] and key not in _TEXT_KEYS:
            value = self._value(whole[1], location)
            return scalar(value) if isinstance(value, str) else value

        def put(match: re.Match[str]) -> str:
            if match[1] is None:
                return match[0][0]
            return as_text(self._value(match[1], location))

        return _REFERENCE.sub(put, text)


@contextmanager
def located(source: str | None) -> Iterator[None]:
    """Adds the file's name to the place of an InputError."""
    try:
        yield
    except InputError as error:
        raise (error.within(source) if source else error) from None


def as_text(value: Scalar) -> str:
    """A value as text for a prompt: ``true`` and ``false``, numbers as written in the file, other
    numbers in their shortest form."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, WrittenInt | WrittenFloat):
        return value.written
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(values: Sequence[Scalar]) -> str:
    shown = [as_text(value) for value in values[:20]]
    return ", ".join(shown) + (", ..." if len(values) > 20 else "")
