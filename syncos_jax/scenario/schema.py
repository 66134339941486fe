"""The JSON Schema of a scenario file, for editors: made from the models that read it.

``python -m syncos_jax.scenario.schema`` writes it anew; a test holds the shipped file to it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from syncos_jax.sampling.sampler_dict import STRENGTH, sampler_fields, sampler_to_dict
from syncos_jax.sampling.samplers import SAMPLERS
from syncos_jax.scenario.parts import EXPECTED, Event, Override, Redo
from syncos_jax.scenario.scenario import Scenario
from syncos_jax.scenario.variables import EXPECTED as OF_VARIABLES

SCHEMA_PATH = Path(__file__).parent / "scenario.schema.json"
_VARIABLE = {"type": "string", "pattern": r"^\{[A-Za-z_][A-Za-z0-9_]*\}$"}
_SCALAR = {"type": ["string", "number", "boolean"]}
_KINDS = {"int": "integer", "float": "number", "bool": "boolean", "str": "string"}


def scenario_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of what ``Template.from_file`` reads."""
    schema = _cleaned(Scenario.model_json_schema(by_alias=True))
    models = {"": schema, "events": schema["$defs"]["Event"]}
    models["overrides"] = schema["$defs"]["Override"]
    models["redo"] = schema["$defs"]["Redo"]
    for level, model in models.items():
        for key, place in model["properties"].items():
            words = EXPECTED.get(f"{level}.{key}", EXPECTED.get(key))
            model["properties"][key] = _described(_or_variable(place), words)
    for model in (models["events"], models["overrides"]):
        model["oneOf"] = [{"required": ["seconds"]}, {"required": ["frames"]}]
    models["events"]["description"] = _first_line(Event)
    models["overrides"]["description"] = _first_line(Override)
    models["redo"]["description"] = _first_line(Redo)
    properties = {"variables": _variables(), **schema["properties"]}
    properties["sampler"] = _sampler()
    properties["events"]["minItems"] = 1
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A scenario of syncos_jax",
        "description": "A long video: what stays the same (global), and what happens (events).",
        "type": "object",
        "additionalProperties": False,
        "required": ["events"],
        "properties": properties,
        "$defs": schema["$defs"],
    }


def _cleaned(value: Any) -> Any:
    """Without pydantic's titles and its docstrings, which are for programmers."""
    if isinstance(value, dict):
        drop = ("title", "description")
        return {k: _cleaned(v) for k, v in value.items() if k not in drop or isinstance(v, dict)}
    return [_cleaned(item) for item in value] if isinstance(value, list) else value


def _described(place: dict[str, Any], words: str | None) -> dict[str, Any]:
    return {"description": words[:1].upper() + words[1:], **place} if words else place


def _or_variable(place: Any) -> Any:
    """Where a number or a flag stands, a variable may stand, too."""
    if isinstance(place, list):
        return [_or_variable(item) for item in place]
    if not isinstance(place, dict):
        return place
    if place.get("type") in ("integer", "number", "boolean"):
        rest = {key: value for key, value in place.items() if key != "default"}
        default = {"default": place["default"]} if "default" in place else {}
        return {"anyOf": [rest, _VARIABLE], **default}
    return {key: _or_variable(value) for key, value in place.items()}


_OF_STRENGTH = (
    "how much synchronisation, 0 (none) to 1 (full), in place of t_min, iterations, learning_rate "
    "and windows_per_step"
)


def _sampler() -> dict[str, Any]:
    kinds = []
    for name, kind in SAMPLERS.items():
        types_of = {field.name: str(field.type) for field in dataclasses.fields(kind)}
        words = _attributes(kind)
        properties: dict[str, Any] = {"name": {"const": name}}
        defaults = sampler_to_dict(kind())
        for field in sampler_fields(name):
            parts = re.split(r"\s*\|\s*", types_of[field])
            types = [_KINDS[part] for part in parts if part in _KINDS]
            options: list[dict[str, Any]] = [{"type": one} for one in types]
            if "tuple[float, ...]" in parts:
                options.append({"type": "array", "items": {"type": "number"}, "minItems": 1})
            if "None" in parts:
                options.append({"type": "null"})
            place = {"anyOf": [*options, _VARIABLE], "default": defaults[field]}
            properties[field] = _described(place, words.get(field))
        if name == "syncos":
            number = {"type": "number", "minimum": 0, "maximum": 1}
            properties[STRENGTH] = _described({"anyOf": [number, _VARIABLE]}, _OF_STRENGTH)
        kinds.append(
            {
                "type": "object",
                "description": _first_line(kind),
                "additionalProperties": False,
                "required": ["name"],
                "properties": properties,
            }
        )
    return {"description": "The sampler and its settings.", "anyOf": [*kinds, {"type": "null"}]}


def _attributes(kind: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say about each attribute."""
    found: dict[str, str] = {}
    for base in kind.__mro__:
        text = (base.__doc__ or "").partition("Attributes:")[2].partition("Raises:")[0]
        for names, words in re.findall(
            r"^ {6}(\w+(?:, \w+)*): (.*?)(?=^ {6}\w|\Z)", text, re.M | re.S
        ):
            for name in names.split(", "):
                found.setdefault(name, " ".join(words.split()))
    return found


def _first_line(kind: type) -> str:
    return " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split())


def _variables() -> dict[str, Any]:
    entry = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "default": _described(_SCALAR, OF_VARIABLES["default"]),
            "allowed": _described(
                {"type": "array", "items": _SCALAR, "minItems": 1}, OF_VARIABLES["allowed"]
            ),
            "description": _described({"type": "string"}, OF_VARIABLES["description"]),
        },
    }
    values = {"type": "array", "items": _SCALAR, "minItems": 1}
    return {
        "description": "Variables, {name} in the texts: a default, a list of the allowed values, "
        "or {default, allowed, description}.",
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "additionalProperties": {"anyOf": [_SCALAR, values, entry]},
    }


def schema_text() -> str:
    """The shipped file."""
    return json.dumps(scenario_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")
