"""What a source of weights is: a checkpoint, a folder of diffusers', or something near one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from syncos_jax.errors import Argument, InputError
from syncos_jax.weights_convert import file_tree, layouts
from syncos_jax.weights_convert.checkpoint import Checkpoint
from syncos_jax.weights_convert.meant import is_checkpoint_name, meant, snapshot
from syncos_jax.weights_convert.recognise import find_network, unknown
from syncos_jax.weights_convert.state_dict import Choice
from syncos_jax.weights_convert.weight_files import read_file

Format = Literal["videocrafter", "diffusers", "wan"]


def open_source(
    source: str,
    format: Format | None,
    config: list[Path],
    choice: Choice,
    *,
    name: str,
    motion: str | None = None,
) -> Checkpoint:
    """Opens what `source` names, after recognising its format.

    Args:
        source: a path, or an id on the hub.
        format: None to recognise it.
        config: the original code's configuration, for VideoCrafter checkpoints.
        choice: which part of it to read.
        name: for the model.
        motion: a motion adapter, for a folder of Stable Diffusion 1.5.

    Raises:
        InputError: there is no such thing, or nothing that can be converted; says what to give.
    """
    from syncos_jax.weights_convert import cogvideox, hub, ltx, lvdm, open_sora_plan, wan
    from syncos_jax.weights_convert.diffusers_folder import open_pipeline

    if format is not None and format not in get_args(Format):
        raise InputError(
            argument="format", expected=f"one of {', '.join(get_args(Format))}", value=format
        )
    path = Path(source)
    if not os.path.exists(source):  # a name that is too long is no error here
        if not hub.is_id(source):
            raise InputError(f"{source}: no such file or folder")
        path = hub.fetch(source)
    if motion is not None:
        return _with_motion(path, motion, choice, name)
    try:
        family = _family(path, format)
        if not (family or (format != "videocrafter" and cogvideox.recognises(path))):
            path = meant(path, format, choice.network)
            family = _family(path, format)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if path.is_dir():
        if config:
            raise InputError(
                "only for VideoCrafter checkpoints",
                argument="config",
                remedy="omit it: the folder has its own",
            )
        if family == "wan":
            opened = wan.open_model(path, choice.network, choice)
        elif family:
            reader = ltx if family == "ltx" else open_sora_plan
            opened = reader.open_model(path, choice.network)
        elif files := file_tree.network_files(path):
            opened = open_files(files, choice, name=name, source=source)
        else:
            if path.is_dir() and is_checkpoint_name(source):
                choice = dataclasses.replace(choice, file=path / Path(source).name)
            opened = open_pipeline(path, choice.network, choice, source)
        given = path.is_dir() and (path / "syncos.json").is_file()  # which may say both
        said = {} if given else {"name": name, "source": source}
        opened = dataclasses.replace(opened, config=dataclasses.replace(opened.config, **said))
    elif format == "diffusers":
        raise InputError(f"{source}: is a file; give the folder that it lies in, with config.json")
    elif format == "videocrafter" or config:
        opened = lvdm.open_checkpoint(path, config, choice, name)
    else:
        opened = _open_single(path, format, choice, name)
    if path == Path(source):
        return opened
    return dataclasses.replace(opened, warnings=(f"took {path}", *opened.warnings))


def _open_single(path: Path, format: Format | None, choice: Choice, name: str) -> Checkpoint:
    """Opens a file by what it is recognised to be."""
    from syncos_jax.weights_convert import ltx, lvdm

    tensors = read_file(path, choice).tensors
    found = layouts.matches(tensors)
    held = [match.layout for match in found]
    refused = next((layout for layout in held if layout.refused), None)
    only = choice.network
    if refused is not None and not lvdm.has_prefixes(tensors):
        raise InputError(f"{refused.name}: {refused.refused}", place=path)
    if any(layout.key == "sd15" for layout in held):
        raise InputError(
            "is a Stable Diffusion 1.5 checkpoint, which makes images",
            place=path,
            remedy=("add an AnimateDiff motion module: ", Argument("motion", "FILE")),
        )
    if any(layout.network == "motion" for layout in held):
        raise InputError(
            "is an AnimateDiff motion module",
            place=path,
            remedy=("convert Stable Diffusion 1.5 with ", Argument("motion", "FILE")),
        )
    if any(layout.family == "ltx" for layout in held):
        return ltx.open_model(path, only)
    networks = {layout.network: path for layout in held}
    if only is None and {"transformer", "text_encoder", "vae"} <= networks.keys():
        return open_files(networks, choice, name=name, source=str(path))
    if any(layout.family in ("wan", "t5", "cogvideox") for layout in held) or format == "wan":
        if only is None:
            network = held[0].network if held else "network"
            raise InputError(
                f"holds a {network} alone ({held[0].name if held else 'unknown'})",
                place=path,
                remedy=("add ", Argument("only", network), ", or pass a file for each network"),
            )
        return open_files({only: path}, choice, name=name, source=str(path))
    if not held and not lvdm.has_prefixes(tensors) or only in ("transformer", "transformer_2"):
        if held:
            names = ", ".join(layout.name for layout in held)
            raise InputError(f"holds no {only}, but: {names}", place=path)
        raise unknown(path, tensors)
    return lvdm.open_checkpoint(path, [], choice, name)


def open_files(places: Mapping[str, Path], choice: Choice, *, name: str, source: str) -> Checkpoint:
    """Opens a model of which each network lies in a file or folder of its own.

    Args:
        places: by the network's name.
        choice: of several sets of weights in a file, which one.
        name: for the model.
        source: where it is from.

    Raises:
        InputError: a file that is missing, unreadable or another network, or networks that do not
            fit one another.
    """
    from syncos_jax.weights_convert import cogvideox, wan

    for network, place in places.items():
        if not place.exists():
            raise InputError("no such file or folder", argument=network, value=str(place))
    denoiser = next((n for n in ("transformer", "transformer_2") if n in places), None)
    first = denoiser or next(iter(places))
    family = find_network(places[first], choice, first).layout.family
    reader = cogvideox.open_files if family in ("cogvideox", "t5") else wan.open_files
    opened = reader(places, choice)
    config = dataclasses.replace(opened.config, name=name, source=source)
    return dataclasses.replace(opened, config=config)


def _with_motion(path: Path, motion: str, choice: Choice, name: str) -> Checkpoint:
    """Stable Diffusion 1.5 with a motion adapter; each a path, the adapter an id, too."""
    from syncos_jax.weights_convert import animatediff, hub

    adapter = Path(motion)
    if not adapter.exists():
        if not hub.is_id(motion):
            raise InputError("no such file or folder", argument="motion", value=str(motion))
        adapter = hub.fetch(motion)
    if path.is_file():
        _check_base(path)
        opened = animatediff.open_checkpoint(path, adapter, choice.network)
        source = f"{path} with {motion}"
        config = dataclasses.replace(opened.config, name=name, source=source)
        return dataclasses.replace(opened, config=config)
    folder = path if (path / "unet").is_dir() else snapshot(path) or path
    opened = animatediff.open_model(folder, adapter, choice.network)
    source = f"{path} with {motion}"
    said = {} if (folder / "syncos.json").is_file() else {"name": name, "source": source}
    return dataclasses.replace(opened, config=dataclasses.replace(opened.config, **said))


def _check_base(path: Path) -> None:
    """InputError where a file given together with a motion module is not Stable Diffusion 1.5."""
    tensors = read_file(path).tensors
    found = [match.layout for match in layouts.matches(tensors)]
    if any(layout.key == "sd15" for layout in found):
        return
    if not found:
        raise unknown(path, tensors)
    raise InputError(
        f"{found[0].name}" + (f": {found[0].refused}" if found[0].refused else ""),
        place=path,
        expected=("a Stable Diffusion 1.5 checkpoint, to go with ", Argument("motion")),
    )


def _family(path: Path, format: Format | None) -> str:
    """The family whose reader takes the folder `path`, where it has several layouts; "" for
    others."""
    from syncos_jax.weights_convert import ltx, open_sora_plan, wan

    if not path.is_dir() or format == "videocrafter":
        return ""
    if format == "wan" or wan.recognises(path):
        return "wan"
    if ltx.recognises(path):
        return "ltx"
    return "open_sora_plan" if open_sora_plan.recognises(path) else ""
