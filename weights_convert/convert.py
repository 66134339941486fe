"""From a source of PyTorch weights to a converted model's folder."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from syncos_jax.errors import Argument, InputError
from syncos_jax.files.atomic import followed, put_folder, temporary_folder
from syncos_jax.models import saved
from syncos_jax.models.family import family_named
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.weights_convert import packed_tokenizer, tokenizer_files
from syncos_jax.weights_convert.checkpoint import Checkpoint, Part
from syncos_jax.weights_convert.few_steps import check_sampling, with_few_steps
from syncos_jax.weights_convert.file_tree import network_files
from syncos_jax.weights_convert.lora import Lora
from syncos_jax.weights_convert.lora_targets import NETWORKS, open_loras, tables_for
from syncos_jax.weights_convert.sources import Format, open_files, open_source
from syncos_jax.weights_convert.state_dict import Choice
from syncos_jax.weights_convert.table import AnyTable, Target, arrays, leaves, match, refuse

DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
_LONGEST_CLIP = 1000
_CHUNK = 2**22
"""Elements that are looked through at a time."""


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


@dataclasses.dataclass(frozen=True)
class _Planned:
    read: Callable[[str], Any]
    plan: Mapping[str, tuple[Target, ...]]
    dtypes: Mapping[str, np.dtype]
    sizes: Mapping[str, int]

    @property
    def nbytes(self) -> int:
        return sum(
            self.sizes[target.path] * self.dtypes[key].itemsize
            for key, targets in self.plan.items()
            for target in targets
        )


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
        lora: LoRA files to merge, ``[NETWORK=]FILE[:SCALE]`` each, into the denoiser by default.
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
    planned = _plan(opened, None if dtype is None else DTYPES[dtype])
    warnings = list(opened.warnings)
    loras = _loras(opened, lora, warnings)
    found = _tokenizer(opened, tokenizer, only, warnings)
    with building_folder(target, force) as folder:
        _check_space(target, sum(part.nbytes for part in planned.values()))
        saved.write_config(folder, _noted(opened.config, loras), list(planned))
        if found is not None:
            if isinstance(found, str):
                packed_tokenizer.write(found, folder / saved.TOKENIZER)
            else:
                openclip = getattr(opened.config, "openclip_tokens", False)
                tokenizer_files.write(found, folder / saved.TOKENIZER, openclip=openclip)
            _check_tokenizer(folder / saved.TOKENIZER, opened.config)
        warnings += _write_networks(folder, planned, loras, progress)
        saved.seal(folder)
    return Result(
        folder=target,
        config=opened.config,
        parameters={name: sum(part.sizes.values()) for name, part in planned.items()},
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


def _write_networks(
    folder: Path,
    planned: Mapping[str, _Planned],
    loras: Mapping[str, list[Lora]],
    progress: Callable[[int, int], None] | None,
) -> list[str]:
    """Writes the weights of every network, one tensor at a time; returns what to warn of."""
    warnings: list[str] = []
    done, total = 0, sum(len(part.plan) for part in planned.values())
    for name, part in planned.items():
        weights: dict[str, jax.Array] = {}
        for key, path, array in arrays(part.plan, part.read):
            for lora in loras.get(name, ()):
                array = lora.merged(path, array)
            weights[path] = _place(array, part.dtypes[key])
            bad = _not_finite(array if part.dtypes[key].itemsize > 2 else weights[path])
            if bad:
                warnings.append(
                    f"{name}: {bad} of {array.size} values are NaN or infinite in {key}"
                )
            if path == part.plan[key][-1].path:
                done += 1
                if progress is not None:
                    progress(done, total)
        saved.write_network(folder / name, weights)
    return warnings


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


def _plan(opened: Checkpoint, dtype: np.dtype | None) -> dict[str, _Planned]:
    """Where every tensor goes, before any is read; InputError with all that do not fit."""
    planned: dict[str, _Planned] = {}
    problems = list(opened.problems)
    where = [part.where for part in opened.parts.values()]
    for name, part in opened.parts.items():
        expected = leaves(saved.build(name, opened.config, jnp.float32))
        plan, found = match(expected, part.table, part.tensors)
        problems += [p if len(where) == 1 else f"{name}: {p}" for p in found]
        dtypes = {key: dtype or _kept(part.tensors[key].dtype) for key in plan}
        sizes = {path: math.prod(leaf.shape) for path, leaf in expected.items()}
        planned[name] = _Planned(part.tensors.__getitem__, plan, dtypes, sizes)
    if problems:
        raise refuse(
            where[0] if len(where) == 1 else where[0].split(" (")[0], problems, opened.hint
        )
    if len(planned) > 1 and isinstance(opened.config, ModelConfig):
        _check_fit(opened.config)
    return planned


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


def _kept(dtype: np.dtype) -> np.dtype:
    """The dtype on disk where none is asked for: the checkpoint's, float64 as float32, and float8,
    which no network computes in, as bfloat16, which holds each of its values."""
    if dtype.itemsize == 1:
        return np.dtype(ml_dtypes.bfloat16)
    return dtype if dtype.itemsize <= 4 else np.dtype(np.float32)


def _check_fit(config: ModelConfig) -> None:
    """Whether the networks fit one another."""
    pairs = (
        ("text features", config.unet.text_features, config.text.features),
        ("latent channels", config.unet.in_channels, config.vae.latent_channels),
    )
    for what, of_unet, other in pairs:
        if of_unet != other:
            raise InputError(
                f"the networks do not fit: the UNet takes {of_unet} {what}, the other has {other}"
            )


def _tokenizer(
    opened: Checkpoint, given: str | None, only: str | None, warnings: list[str]
) -> Path | str | None:
    """The tokenizer's source, a path or the text of a ``tokenizer.json``, where the model needs
    one; a text encoder alone may go without."""
    if "text_encoder" not in opened.parts:
        return None
    if given is None and opened.tokenizer is None:
        try:
            packed = _packed_tokenizer(opened.parts["text_encoder"])
        except InputError as error:
            if only is None:
                raise
            warnings.append(str(error))
            packed = None
        if packed is not None:
            return packed
    if given is None and (opened.tokenizer is not None or only is not None):
        return opened.tokenizer
    if given is None and not isinstance(opened.config, ModelConfig):
        raise InputError(
            "the checkpoint has no tokenizer",
            remedy=("pass a folder with its tokenizer.json as ", Argument("tokenizer")),
        )
    return tokenizer_files.find(given)


def _packed_tokenizer(part: Part) -> str | None:
    """The tokenizer that lies in the text encoder's file; None where there is none."""
    if "spiece_model" in part.tensors:
        data = packed_tokenizer.packed_bytes(part.tensors["spiece_model"])
        return packed_tokenizer.from_spiece(data, part.where)
    if "tokenizer.ggml.tokens" in part.metadata:
        return packed_tokenizer.from_gguf(part.metadata, part.where)
    return None


def _check_tokenizer(folder: Path, config: Any) -> None:
    model: Any = family_named(config.family).from_networks(
        config, {"text_encoder": None}, folder.parent
    )
    tokenizer = model.tokenizer
    if tokenizer.vocabulary > config.text.vocabulary:
        raise InputError(
            f"the tokenizer has {tokenizer.vocabulary} tokens, the text encoder only "
            f"{config.text.vocabulary}; give the one that the model was trained with"
        )


def _place(array: np.ndarray, dtype: np.dtype) -> jax.Array:
    """In main memory, whatever accelerators there are: Orbax writes from there."""
    with np.errstate(over="ignore"):  # reported as not finite
        array = np.ascontiguousarray(array, dtype)
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX was told to have no CPU
        device = jax.local_devices()[0]
    return jax.device_put(array, device)


def _not_finite(array: Any) -> int:
    """How many values are NaN or infinite."""
    flat = np.asarray(array).reshape(-1)
    return sum(
        int(np.count_nonzero(~np.isfinite(flat[i : i + _CHUNK])))
        for i in range(0, flat.size, _CHUNK)
    )


def _check_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise InputError(
            f"needs {needed / 2**30:.2f} GiB, only {free / 2**30:.2f} are free", place=target
        )


def check_folder(out: str | os.PathLike[str], force: bool) -> Path:
    """Whether a new folder may be put at `out`; InputError where not."""
    target = Path(out)
    if not target.name:
        raise InputError(argument="out", expected="the name of a new folder", value=str(out))
    if target.exists() and not target.is_dir():
        raise InputError("exists and is not a folder", argument="out", value=str(out))
    if target.is_dir() and any(target.iterdir()) and not force:
        raise InputError(
            "exists and is not empty",
            argument="out",
            value=str(out),
            remedy=("pass ", Argument("force", True), " to replace it"),
        )
    return target


@contextmanager
def building_folder(target: Path, force: bool) -> Iterator[Path]:
    """Yields a temporary folder beside `target`; puts it in place at the end.

    When the body raises, `target` is as it was before and nothing is left beside it. What a killed
    process has left of the same name goes first.
    """
    target = followed(target)
    made = [p for p in (target.parent, *target.parent.parents) if not p.exists()]
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: _remove_empty(made))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(temporary_folder(target))
        except OSError as error:
            raise InputError(
                f"cannot write {target}: {error.strerror or error}; choose another place"
            ) from error
        complete = temporary / "complete"
        try:
            complete.mkdir()
            yield complete
            if force and target.exists():
                put_folder(complete, target, temporary / "old")
            else:
                complete.rename(target)
            made = []
        except OSError as error:  # named after the requested folder, not the temporary one
            raise OSError(
                error.errno, error.strerror or str(error), f"cannot write {target}"
            ) from error


def _remove_empty(folders: list[Path]) -> None:
    """Removes folders that were made for nothing, inner ones first."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
