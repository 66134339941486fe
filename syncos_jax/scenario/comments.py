"""Text that YAML takes for a comment, where it may have been meant as part of a prompt."""

from __future__ import annotations

import os
import re
from pathlib import Path

from syncos_jax.errors import InputError
from syncos_jax.files.documents import read_text

_BEHIND = re.compile(
    r"""^\s*(?:-\s*)?(?:\{\s*)?(?P<key>[A-Za-z_]\w*)\s*:\s+   # a key,
    (?P<text>[^'"\s\#\[{|>&*][^'"]*?)                         # a text without quotes,
    (?P<gap>\s+)(?P<comment>\#.*)$                            # and what YAML leaves out
    """,
    re.VERBOSE,
)
_NUMBER = re.compile(r"[-+.\d][\d_.eE+-]*|true|false|null|~", re.IGNORECASE)


def comments_behind_text(path: str | os.PathLike[str]) -> list[str]:
    """A note for each text without quotes that YAML ends at a ``#``, which may belong to it.

    A comment that stands two spaces or more away and begins with ``# `` is taken for one.
    """
    if Path(path).suffix.lower() == ".json":
        return []
    try:
        lines = read_text(path).split("\n")
    except InputError:
        return []
    notes = []
    for number, line in enumerate(lines, 1):
        found = _BEHIND.match(line.rstrip("\r"))
        if found is None or _NUMBER.fullmatch(found["text"].strip()):
            continue
        if len(found["gap"]) > 1 and re.match(r"#(?:\s|$)", found["comment"]):
            continue
        shown = found["comment"][:60]
        notes.append(
            f"{path}:{number}: {shown!r} is a comment to YAML and no part of {found['key']}; if it "
            "is meant, put the whole text in quotes"
        )
    return notes
