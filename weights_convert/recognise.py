"""What a file or folder is: recognised by `layouts` before any reader is chosen."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from syncos_jax.errors import Argument, InputError
from syncos_jax.weights_convert import layouts, lora_names
from syncos_jax.weights_convert.layouts import Layout, Match
from syncos_jax.weights_convert.state_dict import AVERAGED, Choice
from syncos_jax.weights_convert.stored import BlockTensor, ScaledTensor, Tensors
from syncos_jax.weights_convert.weight_files import ENDINGS, open_folder, read_file

_SHOWN = 20
"""Names of an unknown file that are shown."""
_TOKENIZER = "spiece_model"
"""The tokenizer that ComfyUI packs into text encoders, perhaps behind a prefix."""
_SHARD = re.compile(r"-\d+-of-0*([2-9]|[1-9]\d+)\.\w+$")
"""The end of the name of one of several files of a network."""


@dataclasses.dataclass(frozen=True)
class Found:
    """One network in a file or folder.

    Attributes:
        layout: what it is.
        tensors: its own, without their prefix.
        warnings: what the user should know.
        metadata: of the file.
    """

    layout: Layout
    tensors: Tensors
    warnings: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _is_tokenizer(name: str) -> bool:
    return name.rpartition(".")[2] == _TOKENIZER


def find_network(path: Path, choice: Choice, network: str | None = None) -> Found:
    """The network that a file, or the folder of one network, holds.

    Args:
        path: the file or folder.
        choice: of several sets of weights, which one.
        network: the network that is wanted; None for the only one.

    Raises:
        InputError: unreadable, unknown, known and not supported, or not the network that is wanted.
    """
    sets: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = {}
    if path.is_dir():
        tensors = open_folder(path, choice)
    elif _SHARD.search(path.name):
        raise InputError(
            "is one of several files of a network",
            place=path,
            remedy=f"give their folder, {path.parent}",
        )
    else:
        file = read_file(path, choice)
        tensors, metadata, sets = file.tensors, file.metadata, file.sets
    found = layouts.matches(tensors)
    if not found:
        raise unknown(path, tensors)
    refused = next((m.layout for m in found if m.layout.refused), None)
    if refused is not None:
        raise InputError(f"{refused.name}: {refused.refused}", place=path)
    base = None if network is None else network.removesuffix("_2")
    fitting = [m for m in found if base is None or m.layout.network == base]
    if not fitting:
        held = ", ".join(m.layout.name for m in found)
        raise InputError(f"holds no {network}, but: {held}", place=path)
    match = _chosen(path, fitting, choice, sets)
    inside = {
        name.removeprefix(match.prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(match.prefix)
    }
    others = tuple(m.prefix for m in found if m.layout is not match.layout and m.prefix)
    extra = next(filter(_is_tokenizer, tensors), None)
    if match.layout.network == "text_encoder" and extra is not None:
        inside[_TOKENIZER] = tensors[extra]
    outside = [n for n in tensors if not n.startswith((match.prefix, *others)) and n != extra]
    left = len(outside)
    warnings = []
    if match.prefix:
        warnings.append(f"{path}: removed the prefix {match.prefix} from {len(inside)} names")
    if left:
        warnings.append(f"{path}: skipped {left} tensors outside {match.prefix or 'the network'}")
    return Found(match.layout, inside, tuple(warnings), metadata)


def _chosen(path: Path, found: list[Match], choice: Choice, sets: tuple[str, ...]) -> Match:
    """The match that `choice` asks for."""
    if choice.key is not None and choice.key not in sets:
        key = choice.key.rstrip(".") + "."
        named = [m for m in found if m.prefix.startswith(key)]
        if not named:
            names = ", ".join(sorted({*filter(None, sets), *_prefixes(found)})) or "no name"
            raise InputError(
                f"{path} has no weights under that name (but under {names})",
                argument="key",
                value=choice.key,
            )
        found = named
    elif choice.averaged:
        averaged = [m for m in found if AVERAGED.search(m.prefix[:-1].lower())]
        if not averaged and not any(AVERAGED.search(name.lower()) for name in sets):
            raise InputError(
                "has no averaged weights (EMA)",
                place=path,
                remedy=("omit ", Argument("ema", True)),
            )
        found = averaged or found
    if len(found) > 1:
        plain = [m for m in found if not AVERAGED.search(m.prefix[:-1].lower())]
        names = ", ".join(_prefixes(found))
        best = (plain or found)[0].prefix.rstrip(".")
        raise InputError(
            f"holds several sets of weights: {names}",
            place=path,
            remedy=("choose one: ", Argument("key", best)),
        )
    return found[0]


def _prefixes(found: Iterable[Match]) -> list[str]:
    return [m.prefix.rstrip(".") for m in found if m.prefix]


def unknown(path: Path, tensors: Tensors) -> InputError:
    """The error for a file that no layout matches."""
    if lora_names.is_lora(tensors):
        return InputError(
            f"is a LoRA ({lora_names.spelling(tensors)}), a change to a network, not a network",
            place=path,
            remedy=("merge it while converting the network: ", Argument("lora", "FILE")),
        )
    if lora_names.has_lora(tensors):
        return InputError(
            f"{path}: holds a network with a LoRA that is not merged; merge it with the program "
            "that trained it, and convert the result"
        )
    names = ", ".join(list(tensors)[:_SHOWN]) or "none"
    more = f" and {len(tensors) - _SHOWN} more" if len(tensors) > _SHOWN else ""
    return InputError(
        f"{path}: not recognised: {len(tensors)} tensors, {_count(tensors):,} values: {names}{more}"
    )


def _count(tensors: Tensors) -> int:
    return sum(math.prod(tensor.shape) for tensor in tensors.values())


def describe_file(path: Path) -> str:
    """One line: what a file of weights is, its size, precision, and whether it can be used.

    Raises:
        InputError: unreadable; says what it is instead.
    """
    file = read_file(path, Choice(key=None, averaged=False))
    tensors = file.tensors
    size = f"{len(tensors)} tensors, {_count(tensors):,} values, {_precision(tensors)}"
    wrote = _tool(file.metadata)
    size += f", written by {wrote}" if wrote else ""
    if lora_names.is_lora(tensors):
        what = f"LoRA for {lora_names.network_family(tensors)} ({lora_names.spelling(tensors)})"
        return f"{what}; {size}"
    found = layouts.matches(tensors)
    if not found:
        names = ", ".join(list(tensors)[:_SHOWN])
        return f"not recognised; {size}; {names}"
    said = []
    packed = "tokenizer.ggml.tokens" in file.metadata or any(map(_is_tokenizer, tensors))
    for match in found:
        under = f" under {match.prefix.rstrip('.')}" if match.prefix else ""
        why = f" (not supported: {match.layout.refused})" if match.layout.refused else ""
        own = " with its tokenizer" if packed and match.layout.network == "text_encoder" else ""
        said.append(f"{match.layout.name}{under}{own}{why}")
    return f"{'; '.join(said)}; {size}"


def describe(path: Path) -> list[tuple[str, str]]:
    """(name, what it is) of a file, or of every file of weights below a folder.

    Raises:
        InputError: there is no such file, or a folder without any.
    """
    if path.is_file():
        return [(path.name, describe_file(path))]
    files = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and file.suffix.lower() in ENDINGS and ".cache" not in file.parts
    )
    if not files:
        raise InputError("no files of weights in this folder", place=path)
    rows = []
    for file in files:
        try:
            rows.append((str(file.relative_to(path)), describe_file(file)))
        except InputError as error:
            rows.append((str(file.relative_to(path)), str(error.inside(file))))
    return rows


def _tool(metadata: Mapping[str, object]) -> str:
    """The program that wrote a file, where its metadata says so; else ""."""
    if any(name.startswith("ss_") for name in metadata):
        return "kohya sd-scripts or musubi-tuner"
    for name in ("modelspec.author", "software", "general.quantized_by", "general.architecture"):
        value = metadata.get(name)
        if value:
            return str(value)[:60] if name != "general.architecture" else "GGUF converter"
    return ""


def _precision(tensors: Tensors) -> str:
    """In which types the weights are stored, the most frequent first."""
    counts: Counter[str] = Counter()
    for tensor in tensors.values():
        if isinstance(tensor, BlockTensor):
            kind = f"GGUF {tensor.kind}"
        elif isinstance(tensor, ScaledTensor):
            kind = f"{tensor.values.dtype.name} with scales"
        else:
            kind = tensor.dtype.name
        counts[kind] += tensor.nbytes
    return ", ".join(kind for kind, _ in counts.most_common(3))
