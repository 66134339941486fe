"""Scenario files with variables: one file, many videos.

``{name}`` in a scenario file stands for a variable, ``{{`` and ``}}`` for the braces themselves::

    variables:
      product: {description: what is shown}          # no default: it has to be given
      place: {default: meadow, allowed: [meadow, beach]}
      pace: 1.5                                      # short for {default: 1.5}
    global: "{product} on a {place}"
    events:
      - {prompt: "the {product} turns", seconds: "{pace}"}

Where a variable is all that stands in a place that is not text, it keeps its type: ``seconds``
above is the number 1.5. Text that a value brings is not looked through for variables again.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from syncos_jax.errors import InputError
from syncos_jax.files.documents import WrittenFloat, WrittenInt, read_mapping, scalar
from syncos_jax.files.text import did_you_mean, explain, short
from syncos_jax.scenario.scenario import MAX_PROMPT, Scenario

MAX_TAKES = 1_000
MAX_VARIABLES = 100
_MAX_VALUES = 200_000  # a file of aliases to aliases could hold any number of them
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLACE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")
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
        default: its value where none is given; None where one has to be.
        allowed: the only values it may have; None for any.
        description: for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    default: Any = None
    allowed: Any = None
    description: str = Field(default="", max_length=MAX_PROMPT)

    @field_validator("default")
    @classmethod
    def _one_value(cls, value: Any) -> Any:
        if value is not None and not _is_value(value):
            raise ValueError(f"is {short(value)}, but expected {EXPECTED['default']}")
        return value

    @field_validator("allowed")
    @classmethod
    def _some_values(cls, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not value or not all(map(_is_value, value)):
            raise ValueError(f"is {short(value)}, but expected {EXPECTED['allowed']}")
        return tuple(value)

    def accept(self, value: Scalar) -> Scalar:
        """`value`, or the allowed value that reads the same; raises ValueError."""
        if self.allowed is None:
            return value
        for item in self.allowed:
            if as_text(item) == as_text(value):
                return item
        raise ValueError(f"is {short(value)}, but allowed are {_listed(self.allowed)}")


@dataclass(frozen=True)
class Take:
    """One video to make of a template.

    Attributes:
        scenario: what it shows, without variables.
        values: the value of every variable.
        varies: what tells it from its siblings: variables with more than one value, and ``seed``.
        name: a name that no sibling has, made from these; empty for an only child.
        index, count: its place among its siblings, and their number.
    """

    scenario: Scenario
    values: Mapping[str, Scalar] = field(default_factory=dict)
    varies: Mapping[str, Scalar] = field(default_factory=dict)
    name: str = ""
    index: int = 0
    count: int = 1


@dataclass(frozen=True)
class Template:
    """A scenario file, its variables not yet filled in.

    Attributes:
        data: what the file holds, without ``variables``.
        variables: by name.
        source: the file, for messages; None for none.
    """

    data: Mapping[Any, Any]
    variables: Mapping[str, Variable] = field(default_factory=dict)
    source: str | None = None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Template:
        """Reads a YAML or JSON file; raises InputError with the file and the key in question."""
        return cls.from_dict(read_mapping(path), source=str(path))

    @classmethod
    def from_dict(cls, data: Mapping[Any, Any], source: str | None = None) -> Template:
        """Takes the mapping that a file holds; raises InputError for variables that are wrong."""
        rest = {key: value for key, value in data.items() if key != "variables"}
        try:
            return cls(rest, _read_variables(data.get("variables")), source)
        except InputError as error:
            raise _placed(source, error) from error

    @property
    def used(self) -> list[str]:
        """The names that stand in the file's texts, in their order."""
        names: dict[str, None] = {}
        _Filling(lambda name, _: names.setdefault(name) or "").fill(dict(self.data))
        return list(names)

    def fill(self, values: Mapping[str, Scalar] | None = None) -> Scenario:
        """The scenario with these values, and defaults for the rest.

        Raises:
            InputError: a variable without a value, an unknown one, a value that is not allowed, or
                a scenario that is wrong then.
        """
        return self._fill(dict(values or {}))[0]

    def expand(
        self,
        values: Mapping[str, Sequence[Scalar]] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Take]:
        """Every combination of the given values, and of these with the seeds.

        The first variable of the file changes slowest, the seed fastest.

        Args:
            values: for each variable a list of one or more; ``["*"]`` stands for all allowed ones.
            seeds: None for the scenario's own.

        Raises:
            InputError: as `fill`, or for more than 1000 combinations.
        """
        lists = {name: self._all(name, given) for name, given in (values or {}).items()}
        order = [name for name in self.variables if name in lists]
        order += [name for name in lists if name not in self.variables]
        count = max(1, len(seeds or ()))
        for name in order:
            count *= len(lists[name])
        if count > MAX_TAKES:
            raise InputError(f"these values make {count} videos; at most {MAX_TAKES} at a time")
        many = [name for name in order if len(lists[name]) > 1]
        takes: list[Take] = []
        for chosen in itertools.product(*(lists[name] for name in order)):
            scenario, complete = self._fill(dict(zip(order, chosen, strict=True)))
            varies = {name: complete[name] for name in many}
            for seed in [scenario.seed] if seeds is None else seeds:
                own = scenario.model_copy(update={"seed": seed})
                told = {**varies, "seed": seed} if seeds is not None and len(seeds) > 1 else varies
                takes.append(Take(own, complete, told, "", len(takes), count))
        return _named(takes)

    # -- filling in ------------------------------------------------------------------------------

    def _all(self, name: str, given: Sequence[Scalar]) -> list[Scalar]:
        allowed = self.variables[name].allowed if name in self.variables else None
        if list(given) == ["*"] and allowed:
            return list(allowed)
        return list(dict.fromkeys(given))

    def _fill(self, given: dict[str, Scalar]) -> tuple[Scenario, dict[str, Scalar]]:
        try:
            values = self._values(given)

            def value(name: str, place: str) -> Scalar:
                if name not in values:
                    hint = did_you_mean(name, values) if values else "; declare it under variables"
                    raise InputError(
                        f"{place}: has {{{name}}}, which is no variable{hint} "
                        f"(write {{{{{name}}}}} for the braces themselves)"
                    )
                return values[name]

            return Scenario.from_dict(_Filling(value).fill(dict(self.data))), values
        except InputError as error:
            raise _placed(self.source, error) from error

    def _values(self, given: dict[str, Scalar]) -> dict[str, Scalar]:
        used = self.used if set(given) - set(self.variables) else []
        for name in given:
            if name not in self.variables and name not in used:
                known = [*self.variables, *used]
                hint = did_you_mean(name, known) if known else "; the file has no variables"
                raise InputError(f"{short(name)}: is no variable of this scenario{hint}")
        values: dict[str, Scalar] = {}
        for name, variable in self.variables.items():
            value = given.get(name, variable.default)
            if value is None:
                said = f" ({variable.description})" if variable.description else ""
                raise InputError(
                    f"variables.{name}: has no value{said}; give one, for example "
                    f"--set {name}=..., or a default in the file"
                )
            try:
                values[name] = variable.accept(value)
            except ValueError as error:
                raise InputError(f"variables.{name}: {error}") from error
        return {**values, **{name: given[name] for name in given if name not in values}}


class _Filling:
    """Goes through a file's values and puts variables in."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self._left = _MAX_VALUES

    def fill(self, item: Any, place: str = "", key: str = "", depth: int = 0) -> Any:
        if isinstance(item, str):
            return self._text(item, place, key)
        if depth > 3:  # deeper there is nothing in a scenario
            return item
        if isinstance(item, dict):
            self._count(len(item), place)
            return {
                k: self.fill(v, f"{place}.{n}" if place else n, n, depth + 1)
                for k, v in item.items()
                for n in [k if isinstance(k, str) else short(k)]
            }
        if isinstance(item, list):
            self._count(len(item), place)
            return [self.fill(v, f"{place}[{i}]", key, depth + 1) for i, v in enumerate(item)]
        return item

    def _count(self, values: int, place: str) -> None:
        self._left -= values
        if self._left < 0:
            raise InputError(f"{place}: holds too many values; a scenario has at most 10000 events")

    def _text(self, text: str, place: str, key: str) -> Any:
        whole = _PLACE.fullmatch(text)
        if whole and whole[1] and key not in _TEXT_KEYS:
            value = self._value(whole[1], place)
            return scalar(value) if isinstance(value, str) else value

        def put(match: re.Match[str]) -> str:
            if match[1] is None:
                return match[0][0]
            return as_text(self._value(match[1], place))

        return _PLACE.sub(put, text)


def _read_variables(data: Any) -> dict[str, Variable]:
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(
            f"variables: is {short(data)}, but expected a mapping such as {{place: beach}}"
        )
    if len(data) > MAX_VARIABLES:
        raise InputError(f"variables: are {len(data)}; at most {MAX_VARIABLES} can be had")
    variables = {}
    for name, entry in data.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name == "seed":
            wanted = "letters, digits and _, not beginning with a digit, and not 'seed'"
            raise InputError(f"variables: {short(name)} is no name for a variable; use {wanted}")
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
            said = explain(error, EXPECTED, keys).split(" (and ")[0]
            raise InputError(f"variables.{name}.{said}") from error
        except ValueError as error:
            raise InputError(f"variables.{name}.default: {error}") from error
        variables[name] = variable
    return variables


def _placed(source: str | None, error: InputError) -> InputError:
    return InputError(f"{source}: {error}") if source else error


def as_text(value: Scalar) -> str:
    """A value as it stands in a prompt: ``true`` and ``false``, numbers as they were
    written, else in their shortest form."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, WrittenInt | WrittenFloat):
        return value.written
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(values: Sequence[Scalar]) -> str:
    shown = [as_text(value) for value in values[:20]]
    return ", ".join(shown) + (", ..." if len(values) > 20 else "")


def _named(takes: list[Take]) -> list[Take]:
    """Gives each take its name: ``beach-seed1``; a name that is taken gets a number behind."""
    seen: set[str] = set()
    result = []
    for take in takes:
        parts = [
            f"seed{value}" if key == "seed" else slug(as_text(value))
            for key, value in take.varies.items()
        ]
        name = base = "-".join(parts)
        number = 2
        while name in seen:
            name, number = f"{base}-{number}", number + 1
        seen.add(name)
        result.append(Take(take.scenario, take.values, take.varies, name, take.index, take.count))
    return result


def slug(text: str) -> str:
    """`text` as part of a file's name: lower case, words joined by ``-``, at most 40 characters."""
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")[:40].strip("-") or "value"


def parse_values(pairs: Sequence[str]) -> dict[str, list[Scalar]]:
    r"""Reads ``["place=beach,street", "n=3"]``: a name, and one or more values.

    A comma parts two values; ``\,`` is a comma and ``\\`` a backslash in a value. A name given
    again gets more values.

    Raises:
        InputError: no ``=``, no name, or no value.
    """
    values: dict[str, list[Scalar]] = {}
    for pair in pairs:
        name, equals, rest = pair.partition("=")
        name = name.strip()
        if not equals or not _NAME.fullmatch(name):
            raise InputError(f"{short(pair)} is no setting of a variable; write NAME=VALUE")
        items = [item.strip() for item in _split(rest)]
        if not all(items):
            raise InputError(
                f"{short(pair)} has an empty value; write NAME=VALUE,VALUE, and \\, for a comma"
            )
        values.setdefault(name, []).extend(items)
    return values


def _split(text: str) -> list[str]:
    parts = re.findall(r"(?:\\.|[^,\\]|\\$)+|(?<=,)(?=,|$)|^(?=,|$)", text, re.DOTALL)
    return [re.sub(r"\\([\\,])", r"\1", part) for part in parts]
