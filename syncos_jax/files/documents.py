"""YAML and JSON files that people write: one mapping each, read strictly, tags never executed."""

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
"""How the text files of some Windows programs begin."""
_MOST_BRACKETS = 200

# PyYAML follows YAML 1.1, where 1e-3 is text. Here it is a number, as in YAML 1.2 and in JSON.
_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d+)[eE][-+]?\d+$")


class _Loader(yaml.SafeLoader):
    """The safe loader, with numbers like 1e-3 and without keys that stand twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Hashable, yaml.Node] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # the base class has the words for it
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen[key] = key_node
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """The safe dumper; quotes text that the loader above would take for a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class WrittenInt(int):
    """A whole number that knows how it was written, for where it stands in a text."""

    written: str


class WrittenFloat(float):
    """A number that knows how it was written, for where it stands in a text."""

    written: str


def _as_written(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    text = node.value
    if node.tag.endswith(":int"):
        # YAML 1.1 takes 010 for eight and 1:30 for ninety. Nobody means that in a prompt's file.
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
    "mapping values are not allowed here": "a text with a colon in it is put in quotes",
    "found character '\\t'": "indent with spaces, not tabs",
    "found unexpected end of stream": "a quotation mark has no partner",
    "expected <block end>": "a text that begins with or holds a quotation mark, a bracket or a "
    "brace is put in quotes as a whole, and in '...' an apostrophe is written twice",
    "expected ',' or": "within {...}, a text with a comma, a colon or # in it is put in quotes",
    "undefined alias": "a text that begins with * is put in quotes",
    "found undefined": "a text that begins with & or * is put in quotes",
    "cannot start any token": "a text that begins with a sign such as @, % or ` is put in quotes",
    "unknown escape character": "in a text in double quotes a backslash is written twice",
}


def _hint(problem: str | None) -> str:
    """What to type, for a finding of the YAML reader."""
    for beginning, remedy in _HINTS.items():
        if problem and beginning in problem:
            return f" ({remedy})"
    return ""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For ``object_pairs_hook`` of `json`: a key that stands twice is an InputError."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise InputError(f"the key {key!r} stands twice; remove one of the two")
        result[key] = value
    return result


def read_mapping(path: str | os.PathLike[str]) -> dict[Any, Any]:
    """Reads the one mapping of a ``.yaml``, ``.yml`` or ``.json`` file.

    Raises InputError, naming the file and where possible the line: no such file, not UTF-8, larger
    than 1 MB, not YAML (JSON), a key that stands twice, something other than a mapping.
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
        said = f"{error.problem}{_hint(error.problem)}"
        raise InputError(f"{path}{line}: not readable as YAML: {said}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not readable as YAML: {error}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not readable as JSON: {error.msg}") from error
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # A date that does not exist, a number of ten thousand digits, a tag on the wrong kind.
        raise InputError(f"{path}: has a value that cannot be read: {error}") from error
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise InputError(f"{path}: holds {found}, but a mapping of keys to values was expected")
    return data


def _check_depth(text: str) -> None:
    """InputError for brackets within brackets that PyYAML would need minutes for: its time grows
    with the square of their depth."""
    depth = 0
    for sign in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if sign in "[{" else max(0, depth - 1)
        if depth > _MOST_BRACKETS:
            raise InputError("nested too deeply")


def read_text(path: str | os.PathLike[str]) -> str:
    """Reads a text file of at most 1 MB, in UTF-8, or in UTF-16 where it begins with that one's
    mark; raises InputError, naming the file."""
    try:
        if Path(path).is_dir():
            raise InputError(f"{path}: is a folder, but a file was expected")
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from error
    if len(raw) > MAX_BYTES:
        raise InputError(f"{path}: is larger than {MAX_BYTES // 1_000_000} MB")
    try:
        return raw.decode("utf-16" if raw[:2] in _UTF_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: is not UTF-8 text; save it as UTF-8") from error


def to_text(data: dict[str, Any], suffix: str) -> str:
    """``data`` as JSON text when ``suffix`` is ``.json``, else as YAML."""
    if suffix.lower() == ".json":
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def scalar(text: str) -> Any:
    """What `text` would be in a YAML file if it is a number, true or false; else the text.

    Zeros in front of a whole number say nothing.
    """
    text = re.sub(r"^\s*([-+]?)0+(\d+)\s*$", r"\1\2", text)
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float) else text
