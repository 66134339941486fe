"""Frozen dataclasses of configurations from what a JSON file holds."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from syncos_jax.errors import InputError

Config = TypeVar("Config")


def from_mapping(kind: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """A dataclass from its fields' values; lists become tuples.

    Args:
        kind: the dataclass.
        values: by field.
        where: names it in errors.

    Raises:
        InputError: missing or unknown entries, by name.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    missing = sorted(
        name
        for name, field in fields.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    )
    found = [
        f"{what} {', '.join(names)}"
        for what, names in (("unknown", unknown), ("missing", missing))
        if names
    ]
    if found:
        raise InputError(f"{where} configuration: {'; '.join(found)}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
