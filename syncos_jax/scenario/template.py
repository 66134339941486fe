"""Scenario files with variables: one file, many videos.

``{name}`` in a scenario file is a variable, ``{{`` and ``}}`` are literal braces::

    variables:
      product: {description: what is shown}          # no default: a value is required
      place: {default: meadow, allowed: [meadow, beach]}
      pace: 1.5                                      # short for {default: 1.5}
    global: "{product} on a {place}"
    events:
      - {prompt: "the {product} turns", seconds: "{pace}"}

A variable that is the whole value of a key keeps its type, unless the key takes text: ``seconds``
above is the number 1.5. Substitution is not recursive.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.files.documents import read_mapping
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
    """One video of a template's expansion.

    Attributes:
        scenario: the filled-in scenario.
        values: the value of every variable.
        varies: what differs between takes: variables with more than one value, and ``seed``.
        name: a unique name made from `varies`; empty for a single take.
        index, count: its position among the takes, and their number.
    """

    scenario: Scenario
    values: Mapping[str, Scalar] = field(default_factory=dict)
    varies: Mapping[str, Scalar] = field(default_factory=dict)
    name: str = ""
    index: int = 0
    count: int = 1


@dataclass(frozen=True)
class Template:
    """A scenario file whose variables are not filled in yet.

    Attributes:
        data: the file's content, without ``variables``.
        variables: the declared variables by name.
        source: the file, for errors; None for none.
    """

    data: Mapping[Any, Any]
    variables: Mapping[str, Variable] = field(default_factory=dict)
    source: str | None = None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Template:
        """Reads the YAML or JSON file `path`; raises InputError with the file and the key."""
        return cls.from_dict(read_mapping(path), source=str(path))

    @classmethod
    def from_dict(cls, data: Mapping[Any, Any], source: str | None = None) -> Template:
        """Reads the mapping of a file; raises InputError for invalid variables."""
        rest = {key: value for key, value in data.items() if key != "variables"}
        with located(source):
            return cls(rest, read_variables(data.get("variables")), source)

    @property
    def used(self) -> list[str]:
        """The variables used in the file's texts, in order of appearance."""
        return used_names(self.data)

    def fill(self, values: Mapping[str, Scalar] | None = None) -> Scenario:
        """The scenario with these values, and defaults for the rest.

        Raises:
            InputError: a variable without a value, an unknown one, a value that is not allowed, or
                an invalid scenario as the result.
        """
        return self._fill(dict(values or {}))[0]

    def fill_data(self, values: Mapping[str, Scalar] | None = None) -> dict[Any, Any]:
        """The file's content with these values filled in; raises InputError as `fill`, but does
        not check the resulting scenario."""
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
            raise InputError(
                f"these values give {count} videos", expected=f"at most {MAX_TAKES} at a time"
            )
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
            scenario = Scenario.from_dict(data)
        return scenario.relative_to(Path(self.source).parent if self.source else ""), values


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
    """`text` for a file name: lower case, words joined by ``-``, at most 40 characters."""
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")[:40].strip("-") or "value"


def parse_values(pairs: Sequence[str]) -> dict[str, list[Scalar]]:
    r"""Reads ``["place=beach,street", "n=3"]``: a name, and one or more values.

    Values are separated by commas; ``\,`` is a comma and ``\\`` a backslash in a value. Repeating
    a name adds values.

    Raises:
        InputError: no ``=``, no name, or no value.
    """
    values: dict[str, list[Scalar]] = {}
    for pair in pairs:
        name, equals, rest = pair.partition("=")
        name = name.strip()
        if not equals or not NAME.fullmatch(name):
            raise InputError(argument="values", expected="NAME=VALUE", value=pair)
        items = [item.strip() for item in _split(rest)]
        if not all(items):
            raise InputError(
                "empty value",
                argument="values",
                value=pair,
                expected="NAME=VALUE,VALUE (write \\, for a comma)",
            )
        values.setdefault(name, []).extend(items)
    return values


def _split(text: str) -> list[str]:
    parts = re.findall(r"(?:\\.|[^,\\]|\\$)+|(?<=,)(?=,|$)|^(?=,|$)", text, re.DOTALL)
    return [re.sub(r"\\([\\,])", r"\1", part) for part in parts]
