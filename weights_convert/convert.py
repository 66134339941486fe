"""From a source of PyTorch weights to a converted model's folder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from syncos_jax.errors import Argument, InputError
from syncos_jax.models import saved
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.scenario.lora_files import NETWORKS
from syncos_jax.weights_convert.checkpoint import Checkpoint
from syncos_jax.weights_convert.few_steps import check_sampling, with_few_steps
from syncos_jax.weights_convert.file_tree import network_files
from syncos_jax.weights_convert.lora import Lora
from syncos_jax.weights_convert.lora_targets import open_loras, tables_for
from syncos_jax.weights_convert.model_tokenizer import find_tokenizer, write_tokenizer
from syncos_jax.weights_convert.new_folder import building_folder, check_folder, check_space
from syncos_jax.weights_convert.sources import Format, open_files, open_source
from syncos_jax.weights_convert.state_dict import Choice
from syncos_jax.weights_convert.table import AnyTable, leaves
from syncos_jax.weights_convert.write import plan_networks, write_networks

DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
_LONGEST_CLIP = 1000


@dataclasses.dataclass(frozen=True)
class Result:
    """What was written.

    Attributes:
        folder: where.
        config: the model's.
        parameters: of each network.
        nbytes: of all weights.
        warnings: what the user should know.
    """

    folder: Path
    config: Any
    parameters: Mapping[str, int]
    nbytes: int
    warnings: tuple[str, ...]


def convert(
    source: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    files: Mapping[str, str | os.PathLike[str]] | None = None,
    format: Format | None = None,
    config: list[Path] | None = None,
    only: str | None = None,
    tokenizer: str | None = None,
    dtype: str | None = None,
    key: str | None = None,
    ema: bool = False,
    window: int | None = None,
    size: tuple[int, int] | None = None,
    lora: Sequence[str] = (),
    motion: str | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Converts a checkpoint; the folder is there when it is complete, and else not at all.

    Args:
        source: a checkpoint file, a folder, or an id on the hub; None with `files`.
        out: the folder to write.
        files: a file, or a folder, for each network: ``{"transformer": …, "text_encoder": …,
            "vae": …}``, and ``"transformer_2"`` where there are two.
        format: ``"videocrafter"``, ``"diffusers"`` or ``"wan"``; None to recognise it.
        config: files with the original code's configuration, for VideoCrafter checkpoints.
        only: one network alone, of `NETWORKS`.
        tokenizer: folder, BPE file or hub id of the tokenizer; see `tokenizer_files.find`.
        dtype: of the weights on disk, a key of `DTYPES`; None for the checkpoint's own.
        key: of several sets of weights in a file, the one to take; see `state_dict.Choice`.
        ema: take the averaged copy (EMA) of the weights.
        window: frames of a clip; None for what the source says.
        size: width and height of a frame in pixels; None for what the source says.
        lora: LoRA files to merge, ``[NETWORK=]FILE[:STRENGTH]`` each, into the denoiser by default.
        motion: a motion adapter of AnimateDiff's (folder, file or hub id), where `source` is a
            folder of Stable Diffusion 1.5.
        force: replace a folder that is there.
        progress: called with (tensors done, tensors in all).

    Raises:
        InputError: what cannot be converted, and why.
        OSError: what cannot be written.
    """
    if only is not None and only not in NETWORKS:
        raise InputError(argument="only", expected=f"one of {', '.join(NETWORKS)}", value=only)
    if dtype is not None and dtype not in DTYPES:
        raise InputError(argument="dtype", expected=f"one of {', '.join(DTYPES)}", value=dtype)
    target = check_folder(out, force)
    choice = Choice(key, ema, only)
    opened = _opened(source, files or {}, format, config or [], choice, target.name, motion)
    opened = _asked(opened, window, size)
    opened = with_few_steps(opened, [source, *(files or {}).values(), motion], lora)
    check_sampling(opened)
    planned = plan_networks(opened, None if dtype is None else DTYPES[dtype])
    warnings = list(opened.warnings)
    loras = _loras(opened, lora, warnings)
    found = find_tokenizer(opened, tokenizer, only, warnings)
    with building_folder(target, force) as folder:
        check_space(target, sum(part.nbytes for part in planned.values()))
        saved.write_config(folder, _noted(opened.config, loras), list(planned))
        if found is not None:
            write_tokenizer(found, folder, opened.config)
        warnings += write_networks(folder, planned, loras, progress)
        saved.seal(folder)
    return Result(
        folder=target,
        config=opened.config,
        parameters={name: part.parameters for name, part in planned.items()},
        nbytes=sum(part.nbytes for part in planned.values()),
        warnings=tuple(warnings),
    )


def _opened(
    source: str | os.PathLike[str] | None,
    files: Mapping[str, str | os.PathLike[str]],
    format: Format | None,
    config: list[Path],
    choice: Choice,
    name: str,
    motion: str | None,
) -> Checkpoint:
    """The source, opened after its format was recognised."""
    if source is not None and not files:
        return open_source(str(source), format, config, choice, name=name, motion=motion)
    if not files:
        raise InputError("nothing to convert; give a source, or a file for each network")
    if config or motion or choice.network:
        given = "config" if config else "motion" if motion else "only"
        raise InputError("does not go with a file for each network", argument=given)
    places = {network: Path(file) for network, file in files.items()}
    if source is not None:
        if not Path(source).is_dir():
            raise InputError(
                f"goes with a folder of files, not with {source}", argument=next(iter(files))
            )
        places = {**network_files(Path(source), places), **places}
    absent = [
        network for network in ("transformer", "text_encoder", "vae") if network not in places
    ]
    if absent:
        raise InputError(
            "is missing; a model needs a transformer, a text encoder and an autoencoder",
            argument=absent[0],
            remedy=("for one network alone use ", Argument("only")),
        )
    source = " + ".join(path.name for path in places.values())
    return open_files(places, choice, name=name, source=source)


def _asked(opened: Checkpoint, window: int | None, size: tuple[int, int] | None) -> Checkpoint:
    """With the requested clip length and frame size."""
    config = opened.config
    if not isinstance(config, ModelConfig):
        if window is not None or size is not None:
            given = "window" if window is not None else "size"
            raise InputError(f"`{given}`: is for UNets; {config.family} has its own clips")
        return opened
    changes: dict[str, Any] = {}
    if window is not None:
        if not 1 <= window <= _LONGEST_CLIP:
            expected = f"from 1 to {_LONGEST_CLIP} frames"
            raise InputError(argument="window", expected=expected, value=window)
        changes |= {"window": window, "stride": max(1, window // 4)}
    if size is not None:
        changes |= {"width": size[0], "height": size[1]}
    config = dataclasses.replace(config, **changes)
    step = config.latent_factor
    if min(config.width, config.height) < 1 or config.width % step or config.height % step:
        near = "x".join(
            str(max(step, round(n / step) * step)) for n in (config.width, config.height)
        )
        raise InputError(
            f"{config.width}x{config.height} are not multiples of {step}",
            argument="size",
            remedy=("pass ", Argument("size", near)),
        )
    said = opened.assumed if window is None and "unet" in opened.parts else ()
    return dataclasses.replace(opened, config=config, warnings=(*opened.warnings, *said))


def _loras(opened: Checkpoint, given: Sequence[str], warnings: list[str]) -> dict[str, list[Lora]]:
    """The LoRA files of each network, opened."""
    if not given:
        return {}

    def tables_of(network: str) -> Sequence[AnyTable]:
        part = opened.parts[network]
        try:
            return (part.table, *part.names, *tables_for(opened.config, network))
        except InputError:  # a family that names its tables itself
            return (part.table, *part.names)

    found, said = open_loras(
        given,
        list(opened.parts),
        lambda network: leaves(saved.build(network, opened.config, jnp.float32)),
        tables_of,
    )
    warnings += said
    return found


def _noted(config: Any, loras: Mapping[str, list[Lora]]) -> Any:
    """The configuration, with the LoRA files that were merged among its notes."""
    if not loras:
        return config
    files = [f"{name}={lora.where}" for name, held in loras.items() for lora in held]
    return dataclasses.replace(config, notes={**config.notes, "lora": files})
