"""A folder of single files, one for each network, such as ComfyUI's ``models/``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from syncos_jax.errors import Argument, InputError
from syncos_jax.weights_convert import layouts
from syncos_jax.weights_convert.weight_files import ENDINGS, read_file

_DEEPEST = 3
_MOST = 200
"""Files that are looked at."""
_PARTS = ("transformer", "text_encoder", "vae")


def network_files(folder: Path, given: Mapping[str, Path] | None = None) -> dict[str, Path]:
    """The files of one model's networks below `folder`, by network; empty where there is no
    transformer among them, or the folder has configurations and is no such folder.

    Args:
        folder: to look through.
        given: files that the user named, which are taken whatever lies in the folder.

    Raises:
        InputError: several files for one network, or a network without any.
    """
    if any((folder / name).is_file() for name in ("model_index.json", "config.json")):
        return {}
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in ENDINGS
        and path.is_file()
        and len(path.relative_to(folder).parts) <= _DEEPEST
    ]
    if len(files) < 2 or len(files) > _MOST:
        return {}
    found: dict[str, dict[Path, str]] = {name: {} for name in _PARTS}
    for path in files:
        layout = _layout(path)
        if layout is not None and layout.network in found:
            found[layout.network][path] = layout.family
    for name, path in (given or {}).items():
        layout = _layout(path)
        if layout is not None and name in found:
            found[name] = {path: layout.family}
    experts = {} if given and "transformer" in given else _experts(list(found["transformer"]))
    transformers = list(experts.values()) or list(found["transformer"])
    if not transformers:
        return {}
    family = found["transformer"][transformers[0]]
    texts = ("t5", family) if family != "wan" else ("wan",)
    chosen = dict(experts) or {"transformer": _only(folder, "transformer", transformers)}
    for name in _PARTS[1:]:
        families = texts if name == "text_encoder" else (family,)
        chosen[name] = _only(folder, name, [p for p, f in found[name].items() if f in families])
    return chosen


def _layout(path: Path) -> layouts.Layout | None:
    try:
        matches = layouts.matches(read_file(path).tensors)
    except InputError:  # a LoRA, say, or a file that is being downloaded: none of the networks
        return None
    return next((m.layout for m in matches if not m.layout.refused), None)


def _experts(files: list[Path]) -> dict[str, Path]:
    """Wan 2.2's two transformers, distinguished by their names; empty where there are not two."""
    names = {"transformer": r"high[_-]?noise|(?<![a-z])high(?![a-z])"}
    names["transformer_2"] = r"low[_-]?noise|(?<![a-z])low(?![a-z])"
    found = {
        network: [p for p in files if re.search(pattern, p.name.lower())]
        for network, pattern in names.items()
    }
    if len(files) == 2 and all(len(paths) == 1 for paths in found.values()):
        return {network: paths[0] for network, paths in found.items()}
    return {}


def _only(folder: Path, network: str, files: list[Path]) -> Path:
    if len(files) == 1:
        return files[0]
    held = ", ".join(str(path.relative_to(folder)) for path in files[:8])
    raise InputError(
        f"several files of a {network}: {held}" if files else f"no {network}",
        place=folder,
        remedy=("pass ", Argument(network, "FILE")),
    )
