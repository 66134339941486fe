"""YAML and JSON files written by people: one mapping each, read strictly, tags never executed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from syncos_jax.errors import InputError

MAX_BYTES = 1_000_000
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of the text files of some Windows programs."""
_MAX_DEPTH = 200

# PyYAML follows YAML 1.1, where 1e-3 is text. Here it is a number, as in YAML 1.2 and JSON.
_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d+)[eE][-+]?\d+$")


class _Loader(yaml.SafeLoader):
    """The safe loader, with numbers such as 1e-3 and without duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Hashable, yaml.Node] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # the base class raises
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key!r}", key_node.start_mark
                )
            seen[key] = key_node
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """The safe dumper; quotes text that the loader above would read as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class WrittenInt(int):
    """An integer with the text it was written as, for use in a template."""

    written: str


class WrittenFloat(float):
    """A number with the text it was written as, for use in a template."""

    written: str


def _as_written(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    text = node.value
    if node.tag.endswith(":int"):
        # YAML 1.1 reads 010 as eight and 1:30 as ninety, which nobody means in a prompt file.
        if ":" in text or (len(text.lstrip("-+")) > 1 and text.lstrip("-+").startswith("0")):
            return text
        value: Any = WrittenInt(loader.construct_yaml_int(node))
    else:
        if ":" in text:
            return text
        value = WrittenFloat(loader.construct_yaml_float(node))
    value.written = text
    return value


for _name in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _as_written)
# Dates are text, and so are yes, no, on and off, as in YAML 1.2.
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)

_HINTS = {
    "mapping values are not allowed here": "put text that contains a colon in quotes",
    "found character '\\t'": "indent with spaces, not tabs",
    "found unexpected end of stream": "a quotation mark is not closed",
    "expected <block end>": "put text that contains a quotation mark, a bracket or a brace in "
    "quotes as a whole, and double an apostrophe within '...'",
    "expected ',' or": "within {...}, put text that contains a comma, a colon or # in quotes",
    "undefined alias": "put text that begins with * in quotes",
    "found undefined": "put text that begins with & or * in quotes",
    "cannot start any token": "put text that begins with @, % or ` in quotes",
    "unknown escape character": "double a backslash within double quotes",
}


def _hint(problem: str | None) -> str:
    """What to type instead, in brackets, for an error of the YAML parser."""
    for beginning, remedy in _HINTS.items():
        if problem and beginning in problem:
            return f" ({remedy})"
    return ""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """``object_pairs_hook`` for `json` that raises InputError on duplicate keys."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise InputError(f"duplicate key {key!r}", remedy="remove one of the two")
        result[key] = value
    return result


def read_mapping(path: str | os.PathLike[str]) -> dict[Any, Any]:
    """Reads the mapping in a ``.yaml``, ``.yml`` or ``.json`` file.

    Raises:
      InputError: no such file, larger than 1 MB, not UTF-8, not YAML (JSON), a duplicate key, or
        something other than a mapping; names the file and where possible the line.
    """
    text = read_text(path)
    try:
        if Path(path).suffix.lower() == ".json":
            data = json.loads(text, object_pairs_hook=unique)
        else:
            _check_depth(text)
            data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        what = f"not readable as YAML: {error.problem}{_hint(error.problem)}"
        raise InputError(what, place=f"{path}{line}") from error
    except yaml.YAMLError as error:
        raise InputError(f"not readable as YAML: {error}", place=path) from error
    except json.JSONDecodeError as error:
        what = f"not readable as JSON: {error.msg}"
        raise InputError(what, place=f"{path}:{error.lineno}") from error
    except RecursionError as error:
        raise InputError("nested too deeply", place=path) from error
    except InputError as error:
        raise error.within(path) from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # An impossible date, a number of ten thousand digits, a tag on the wrong type.
        raise InputError(f"contains a value that cannot be read: {error}", place=path) from error
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise InputError(f"contains {found}", place=path, expected="a mapping of keys to values")
    return data


def _check_depth(text: str) -> None:
    """Raises InputError for deep nesting: PyYAML's time grows with the square of the depth."""
    depth = 0
    for sign in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if sign in "[{" else max(0, depth - 1)
        if depth > _MAX_DEPTH:
            raise InputError("nested too deeply")


def read_text(path: str | os.PathLike[str]) -> str:
    """Reads a text file of at most 1 MB, in UTF-8, or UTF-16 with a byte order mark.

    Raises:
      InputError: it cannot be read; names the file.
    """
    try:
        if Path(path).is_dir():
            raise InputError("is a folder", place=path, expected="a file")
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError("no such file", place=path) from error
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot be read: {reason}", place=path) from error
    if len(raw) > MAX_BYTES:
        raise InputError(f"larger than {MAX_BYTES // 1_000_000} MB", place=path)
    try:
        return raw.decode("utf-16" if raw[:2] in _UTF_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(
            "not UTF-8 text", place=f"{path}:{line}", remedy="save it as UTF-8"
        ) from error


def to_text(data: dict[str, Any], suffix: str) -> str:
    """`data` as JSON text if `suffix` is ``.json``, else as YAML."""
    if suffix.lower() == ".json":
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def scalar(text: str) -> Any:
    """`text` as a number, true or false, where YAML would read it so; else the text itself.

    Leading zeros of an integer are ignored.
    """
    text = re.sub(r"^\s*([-+]?)0+(\d+)\s*$", r"\1\2", text)
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float) else text
