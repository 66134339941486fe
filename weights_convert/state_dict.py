"""Which of a file's tensors are a network's weights, and under which names.

People save weights in many wrappings: under a key of a trainer's checkpoint, beside an optimiser
and an averaged copy (EMA), with a prefix that `DataParallel`, ``torch.compile`` or a whole pipeline
put before every name. What is unambiguous is read; the rest must be named.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from syncos_jax.errors import Argument, InputError
from syncos_jax.weights_convert.stored import LazyTensor, Tensors

_DEEPEST = 4
_SHOWN = 8
_WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_forward_module|_fsdp_wrapped_module|_checkpoint_wrapped_module|"
    r"_ddp_module)\."
)
"""What torch's wrappers put into names, wherever in them."""

_NOT_WEIGHTS = re.compile(
    r"optim|lr_sched|scheduler|scaler|callback|loops|(?:^|_)rng|random|hyper_param|hparam|"
    r"(?:^|_)arg|config|metric|discriminator|teacher"
)
AVERAGED = re.compile(r"(?:^|[._])(?:ema|shadow|averaged|swa)(?:$|[._])|^ema|ema$")
"""Names of averaged copies (EMA)."""
_OF_NETWORK = {
    "unet": ("unet", "denoiser", "diffusion_model"),
    "transformer": ("transformer", "dit", "generator", "diffusion_model"),
    "vae": ("vae", "first_stage_model", "autoencoder"),
    "text_encoder": ("text_encoder", "cond_stage_model"),
}
_LORA = re.compile(r"lora_(?:A|B|down|up|unet|te)|_lora\.|\.base_layer\.|lokr_|hada_w")


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is wanted of a file that holds more than one set of weights.

    Attributes:
        key: the name that a set stands under, or the prefix of its names; None to find it.
        averaged: take the averaged copy (EMA) of the weights.
        network: the one network that is wanted; None for all.
        file: that was given; in its folder it is read, whatever else lies there.
    """

    key: str | None = None
    averaged: bool = False
    network: str | None = None
    file: Path | None = None


def choose(path: Path, content: Any, choice: Choice) -> Tensors:
    """The named tensors of a checkpoint's content, in its one set of weights.

    Raises:
        InputError: none, or several of which none is the obvious one: their names are said.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds {_described(content)}, not named tensors")
    sets = dict(_sets(content, ""))
    if choice.key is not None and choice.key in sets:
        return sets[choice.key]
    named = {
        name: tensors
        for name, tensors in sets.items()
        if not any(map(_NOT_WEIGHTS.search, name.lower().split(".")))
    }
    # Beside a state dict, tensors at the top are a trainer's counters and random states.
    if len(named) > 1 and not any("." in key for key in named.get("", ())):
        named.pop("", None)
    averaged = {name: t for name, t in named.items() if AVERAGED.search(name.lower())}
    plain = {name: t for name, t in named.items() if name not in averaged}
    if choice.averaged and averaged:
        return _only(path, averaged, choice)
    if plain and averaged:
        raise _ask(path, named)
    return _only(path, named, choice) if named else _nothing(path, content)


def set_names(content: Any) -> tuple[str, ...]:
    """Names of the sets of tensors in a checkpoint's content."""
    return tuple(dict(_sets(content, ""))) if isinstance(content, Mapping) else ()


def _described(content: Any) -> str:
    name = type(content).__name__
    if type(content).__module__ == "builtins":
        return f"a {name}"
    return f"a whole object ({name}); load it where its code is at hand, and save its state_dict()"


def _sets(content: Mapping[Any, Any], name: str, depth: int = 0) -> Iterator[tuple[str, Tensors]]:
    """The mappings within `content` that hold tensors, by their dotted keys."""
    tensors: Tensors = {
        str(key): value for key, value in content.items() if isinstance(value, LazyTensor)
    }
    if tensors:
        yield name, tensors
    if depth < _DEEPEST:
        for key, value in content.items():
            if isinstance(value, Mapping) and isinstance(key, str):
                yield from _sets(value, f"{name}.{key}" if name else key, depth + 1)


def _only(path: Path, sets: Mapping[str, Tensors], choice: Choice) -> Tensors:
    if len(sets) == 1:
        return next(iter(sets.values()))
    if choice.network is not None:
        words = _OF_NETWORK.get(choice.network, (choice.network,))
        fitting = [t for name, t in sets.items() if any(w in name.lower() for w in words)]
        if len(fitting) == 1:
            return fitting[0]
    by_network = {
        network: [n for n in sets if n.rpartition(".")[2].lower() in words]
        for network, words in _OF_NETWORK.items()
    }
    if sum(map(len, by_network.values())) == len(sets) and max(map(len, by_network.values())) == 1:
        # A pipeline as {"unet": {...}, "vae": {...}}: as one state dict.
        return {
            f"{name.rpartition('.')[2]}.{key}": tensor
            for name, tensors in sets.items()
            for key, tensor in tensors.items()
        }
    raise _ask(path, sets)


def _ask(path: Path, sets: Mapping[str, Tensors]) -> InputError:
    shown = [f"{name or 'the top'} ({len(t)} tensors)" for name, t in sets.items()][:_SHOWN]
    more = f" and {len(sets) - _SHOWN} more" if len(sets) > _SHOWN else ""
    best = next((name for name in sets if name and not AVERAGED.search(name.lower())), "NAME")
    return InputError(
        f"holds several sets of weights: {', '.join(shown)}{more}",
        place=path,
        remedy=("choose one: ", Argument("key", best)),
    )


def _nothing(path: Path, content: Mapping[Any, Any]) -> Tensors:
    names = ", ".join(map(str, list(content)[:5])) or "nothing"
    raise InputError(f"{path}: holds no tensors by name (but {names})")


def unwrapped(
    tensors: Tensors, known: Callable[[str], Any], where: str, choice: Choice
) -> tuple[Tensors, str]:
    """The tensors under the names that a table knows, and a word on what was taken off.

    Wrappers' parts of names go wherever they stand. A prefix goes where the names behind it are
    known and those in front of it are not. Tensors without that prefix (other networks of the
    same pipeline) are left out where one network is wanted.

    Args:
        tensors: by the names of the file.
        known: true for the names of the table.
        where: names the file in errors.
        choice: what is wanted.

    Raises:
        InputError: weights of a LoRA that are not merged; several prefixes that would do.
    """
    _refuse_lora(tensors, where)
    clean = without_wrappers(tensors)
    if any(known(key) for key in clean):
        return clean, ""
    counts = {
        prefix: sum(bool(known(key[len(prefix) :])) for key in clean if key.startswith(prefix))
        for prefix in _prefixes(clean)
    }
    best = max(counts.values(), default=0)
    if best == 0:
        return clean, ""
    found = [prefix for prefix, count in counts.items() if count >= 0.9 * best]
    # A table may know names with and without their own first part: the same tensors.
    found = [p for p in found if not any(p != q and p.startswith(q) for q in found)]
    asked = None if choice.key is None else choice.key.rstrip(".") + "."
    if asked in found:
        found = [asked]
    averaged = [prefix for prefix in found if AVERAGED.search(prefix[:-1].lower())]
    if choice.averaged and averaged:
        found = averaged
    if len(found) > 1 and choice.network is not None:
        words = _OF_NETWORK.get(choice.network, (choice.network,))
        own = [prefix for prefix in found if any(word in prefix.lower() for word in words)]
        found = own if len(own) == 1 else found
    if len(found) > 1:
        names = ", ".join(prefix.rstrip(".") for prefix in found[:_SHOWN])
        plain = next((p for p in found if p not in averaged), found[0]).rstrip(".")
        raise InputError(
            f"holds several sets of weights, under {names}",
            place=where,
            remedy=("choose one: ", Argument("key", plain)),
        )
    prefix = found[0]
    inside = {key[len(prefix) :]: t for key, t in clean.items() if key.startswith(prefix)}
    return inside, f"{where}: {prefix.rstrip('.')} taken off {len(inside)} names"


def without_wrappers(tensors: Tensors) -> Tensors:
    """The same under names without what torch's wrappers put into them."""
    clean = {_WRAPPERS.sub("", key): tensor for key, tensor in tensors.items()}
    return clean if len(clean) == len(tensors) else dict(tensors)


def without_common_prefix(tensors: Tensors, beginnings: Iterable[str]) -> Tensors:
    """The same without what stands before names that begin as `beginnings` do."""
    clean = without_wrappers(tensors)
    beginnings = tuple(beginnings)
    if any(key.startswith(beginnings) for key in clean):
        return clean
    for prefix in _prefixes(clean):
        if any(
            key.startswith(prefix) and key[len(prefix) :].startswith(beginnings) for key in clean
        ):
            inside = {k.removeprefix(prefix): tensor for k, tensor in clean.items()}
            return inside if len(inside) == len(clean) else clean
    return clean


def _prefixes(names: Iterable[str]) -> list[str]:
    """What the names begin with, up to each of their first dots."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")[:-1]
        for count in range(1, min(len(parts), _DEEPEST) + 1):
            found.setdefault(".".join(parts[:count]) + ".")
        if len(found) > 500:
            break
    return list(found)


def _refuse_lora(tensors: Tensors, where: str) -> None:
    found = [key for key in tensors if _LORA.search(key)]
    if not found:
        return
    alone = len(found) == len(tensors) or all(
        _LORA.search(key) or key.endswith(".alpha") for key in tensors
    )
    what = (
        "is a LoRA, a change to a network and not a network"
        if alone
        else f"holds a LoRA that is not merged ({len(found)} tensors such as {found[0]})"
    )
    raise InputError(
        f"{where}: {what}; load it onto its network with the library that trained it, merge it "
        "there (fuse_lora() in diffusers, merge_and_unload() in peft), save that, and convert it"
    )
