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
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.files.documents import read_mapping
from syncos_jax.files.text import short
from syncos_jax.scenario.scenario import Scenario
from syncos_jax.scenario.variables import (
    NAME,
    Scalar,
    Variable,
    as_text,
    filled,
    located,
    read_variables,
    used_names,
)

MAX_TAKES = 1_000


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
        with located(source):
            return cls(rest, read_variables(data.get("variables")), source)

    @property
    def used(self) -> list[str]:
        """The names that stand in the file's texts, in their order."""
        return used_names(self.data)

    def fill(self, values: Mapping[str, Scalar] | None = None) -> Scenario:
        """The scenario with these values, and defaults for the rest.

        Raises:
            InputError: a variable without a value, an unknown one, a value that is not allowed, or
                a scenario that is wrong then.
        """
        return self._fill(dict(values or {}))[0]

    def fill_data(self, values: Mapping[str, Scalar] | None = None) -> dict[Any, Any]:
        """What the file would hold with these values, without variables; raises InputError as
        `fill`, but does not look at the scenario that comes out."""
        with located(self.source):
            return filled(self.data, self.variables, dict(values or {}))[0]

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
                many_seeds = seeds is not None and len(seeds) > 1
                of_take = {**varies, "seed": seed} if many_seeds else varies
                takes.append(Take(own, complete, of_take, "", len(takes), count))
        return _named(takes)

    # -- filling in ------------------------------------------------------------------------------

    def _all(self, name: str, given: Sequence[Scalar]) -> list[Scalar]:
        allowed = self.variables[name].allowed if name in self.variables else None
        if list(given) == ["*"] and allowed:
            return list(allowed)
        return list(dict.fromkeys(given))

    def _fill(self, given: dict[str, Scalar]) -> tuple[Scenario, dict[str, Scalar]]:
        with located(self.source):
            data, values = filled(self.data, self.variables, given)
            return Scenario.from_dict(data), values


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
        if not equals or not NAME.fullmatch(name):
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
