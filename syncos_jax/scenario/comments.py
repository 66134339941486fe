"""Text that YAML takes for a comment, where it may have been meant as part of a prompt."""

from __future__ import annotations

import os
import re
from pathlib import Path

import yaml

from syncos_jax.errors import InputError
from syncos_jax.files.documents import read_text

_NUMBER = re.compile(r"[-+.\d][\d_.eE+-]*|true|false|null|~", re.IGNORECASE)


def comments_behind_text(path: str | os.PathLike[str]) -> list[str]:
    """A note for each text without quotes that YAML ends at a ``#``, which may belong to it:
    behind a key, in a list, over several lines.

    A comment that stands two spaces or more away and begins with ``# `` is taken for one.
    """
    if Path(path).suffix.lower().startswith(".json"):
        return []
    try:
        text = read_text(path)
        if "#" not in text:
            return []
        tokens = list(yaml.scan(text, Loader=yaml.SafeLoader))
    except (InputError, yaml.YAMLError, RecursionError):
        return []  # whoever reads the file says what is wrong with it
    lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", text)  # as YAML counts them
    notes, key, is_key = [], "", False
    for token in tokens:
        if isinstance(token, yaml.ScalarToken):
            if is_key:
                key = token.value
            elif token.plain and not _NUMBER.fullmatch(token.value):
                rest = lines[token.end_mark.line][token.end_mark.column :]
                notes += _note(f"{path}:{token.end_mark.line + 1}", rest, key)
        is_key = isinstance(token, yaml.KeyToken)
    return notes


def _note(where: str, rest: str, key: str) -> list[str]:
    """The note on what stands behind a text, if it is one."""
    found = re.match(r"(\s+)(#.*)", rest)
    if found is None or (len(found[1]) > 1 and re.match(r"#(?:\s|$)", found[2])):
        return []
    shown = found[2][:60]
    return [
        f"{where}: {shown!r} is a comment to YAML and no part of {key or 'the text'}; if it is "
        "meant, put the whole text in quotes"
    ]
