"""From a source of PyTorch weights to a converted model's folder."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.models import saved
from syncos_jax.models.t5_tokenizer import T5Tokenizer
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.weights_convert import cogvideox, tokenizer_files
from syncos_jax.weights_convert.checkpoint import Checkpoint
from syncos_jax.weights_convert.lora import Lora, open_lora, parse
from syncos_jax.weights_convert.table import Target, arrays, leaves, match, refuse

Format = Literal["videocrafter", "diffusers", "wan"]
DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
NETWORKS = ("unet", "transformer", "transformer_2", "vae", "text_encoder")
"""Networks of all families."""
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
        warnings: what its reader ought to know.
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
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: Format | None = None,
    config: list[Path] | None = None,
    only: str | None = None,
    tokenizer: str | None = None,
    dtype: str | None = None,
    lora: Sequence[str] = (),
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Converts a checkpoint; the folder is there when it is complete, and else not at all.

    Args:
        source: a checkpoint file, a folder of diffusers', or an id on the hub.
        out: the folder to write.
        format: ``"videocrafter"``, ``"diffusers"`` or ``"wan"``; None to recognise it.
        config: files with the original code's configuration, for VideoCrafter checkpoints.
        only: one network alone, of `NETWORKS`.
        tokenizer: folder, BPE file or hub id of the tokenizer; see `tokenizer_files.find`.
        dtype: of the weights on disk, a key of `DTYPES`; None for the checkpoint's own.
        lora: LoRA files to merge, ``[NETWORK=]FILE[:SCALE]`` each, into the denoiser by default.
        force: replace a folder that is there.
        progress: called with (tensors done, tensors in all).

    Raises:
        InputError: what cannot be converted, and why.
        OSError: what cannot be written.
    """
    if only is not None and only not in NETWORKS:
        raise InputError(f"`only={only}`: unknown network; one of {', '.join(NETWORKS)}")
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"`dtype={dtype}`: unknown; one of {', '.join(DTYPES)}")
    target = check_folder(out, force)
    opened = open_source(str(source), format, config or [], only, name=target.name)
    planned = _plan(opened, None if dtype is None else DTYPES[dtype])
    loras = _loras(opened, lora)
    files = _tokenizer(opened, tokenizer, only)
    warnings = list(opened.warnings)
    total = sum(len(part.plan) for part in planned.values())
    with building_folder(target, force) as folder:
        _check_space(target, sum(part.nbytes for part in planned.values()))
        saved.write_config(folder, _noted(opened.config, loras), list(planned))
        if files is not None:
            openclip = getattr(opened.config, "openclip_tokens", False)
            tokenizer_files.write(files, folder / saved.TOKENIZER, openclip=openclip)
            _check_tokenizer(folder / saved.TOKENIZER, opened.config)
        done = 0
        for name, part in planned.items():
            weights: dict[str, jax.Array] = {}
            for key, path, array in arrays(part.plan, part.read):
                for one in loras.get(name, ()):
                    array = one.merged(path, array)
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
    return Result(
        folder=target,
        config=opened.config,
        parameters={name: sum(part.sizes.values()) for name, part in planned.items()},
        nbytes=sum(part.nbytes for part in planned.values()),
        warnings=tuple(warnings),
    )


def open_source(
    source: str, format: Format | None, config: list[Path], only: str | None, *, name: str
) -> Checkpoint:
    """Opens what `source` names, after recognising its format."""
    from syncos_jax.weights_convert import hub, lvdm, wan
    from syncos_jax.weights_convert.diffusers_folder import open_pipeline

    if format is not None and format not in get_args(Format):
        raise InputError(f"`format={format}`: unknown; one of {', '.join(get_args(Format))}")
    path = Path(source)
    if not path.exists():
        if not hub.is_id(source):
            raise InputError(f"{source}: no such file or folder")
        path = hub.fetch(source)
    own = format == "wan" or (format != "videocrafter" and path.is_dir() and wan.recognises(path))
    if path.is_dir() and format != "diffusers" and not own:
        path = _checkpoint_in(path, format)
    own = own or (format is None and not config and path.is_file() and wan.recognises(path))
    if path.is_dir() or own:
        if config:
            raise InputError("`config`: is for VideoCrafter checkpoints; a folder has its own")
        opened = (wan.open_model if own else open_pipeline)(path, only)
        given = path.is_dir() and (path / "syncos.json").is_file()  # which may say both
        said = {} if given else {"name": name, "source": source}
        return dataclasses.replace(opened, config=dataclasses.replace(opened.config, **said))
    if format == "diffusers":
        raise InputError(f"{source}: is a file; give the folder that it lies in, with config.json")
    return lvdm.open_checkpoint(path, config, only, name)


def _checkpoint_in(folder: Path, format: Format | None) -> Path:
    """The folder itself if it is one of diffusers', or the one checkpoint that lies in it."""
    if format is None and any(
        (folder / name).is_file()
        for name in ("model_index.json", "config.json", "unet/config.json")
    ):
        return folder
    if format is None and cogvideox.recognises(folder):
        return folder
    found = sorted(p for p in folder.iterdir() if p.suffix in (".ckpt", ".safetensors"))
    if len(found) == 1:
        return found[0]
    names = ", ".join(p.name for p in found) or "none"
    raise InputError(
        f"{folder}: neither a folder of diffusers' (model_index.json, unet/config.json) nor one "
        f"with a single checkpoint (found {names})"
    )


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


def _loras(opened: Checkpoint, given: Sequence[str]) -> dict[str, list[Lora]]:
    """The LoRA files of each network, opened."""
    found: dict[str, list[Lora]] = {}
    denoisers = [name for name in ("unet", "transformer") if name in opened.parts]
    for one in given:
        name, _, file = one.rpartition("=") if one.partition("=")[0] in NETWORKS else ("", "", one)
        if not name and not denoisers:
            raise InputError(f"`lora={one}`: there is no denoiser among the networks")
        name = name or denoisers[0]
        if name not in opened.parts:
            raise InputError(f"`lora={one}`: there is no {name} among the networks")
        part = opened.parts[name]
        expected = leaves(saved.build(name, opened.config, jnp.float32))
        path, scale = parse(file)
        tables = (part.table, *part.names)
        found.setdefault(name, []).append(open_lora(path, scale, expected, tables, name))
    return found


def _noted(config: Any, loras: Mapping[str, list[Lora]]) -> Any:
    """The configuration, with the LoRA files that were merged among its notes."""
    if not loras:
        return config
    files = [f"{name}={lora.where}" for name, held in loras.items() for lora in held]
    return dataclasses.replace(config, notes={**config.notes, "lora": files})


def _kept(dtype: np.dtype) -> np.dtype:
    """The dtype on disk where none is asked for: the checkpoint's, float64 as float32."""
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


def _tokenizer(opened: Checkpoint, given: str | None, only: str | None) -> Path | None:
    """The tokenizer's source, where the model needs one; a text encoder alone may go without."""
    if "text_encoder" not in opened.parts:
        return None
    if given is None and (opened.tokenizer is not None or only is not None):
        return opened.tokenizer
    if given is None and not isinstance(opened.config, ModelConfig):
        raise InputError(
            "no tokenizer: the checkpoint carries none; give `tokenizer`, a folder with its "
            "tokenizer.json"
        )
    return tokenizer_files.find(given)


def _check_tokenizer(folder: Path, config: Any) -> None:
    tokenizer: PromptTokenizer | T5Tokenizer
    if isinstance(config, ModelConfig):
        tokenizer = PromptTokenizer(folder, config.text.tokens, openclip=config.openclip_tokens)
    else:
        tokenizer = T5Tokenizer(folder, config.text_tokens)
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
            f"cannot write {target}: its weights need {needed / 2**30:.2f} GiB, only "
            f"{free / 2**30:.2f} are free"
        )


def check_folder(out: str | os.PathLike[str], force: bool) -> Path:
    """Whether a new folder may be put at `out`; InputError where not."""
    target = Path(out)
    if not target.name:
        raise InputError(f"`out={out}`: is not the name of a new folder")
    if target.exists() and not target.is_dir():
        raise InputError(f"`out={out}`: exists and is not a folder")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise InputError(f"`out={out}`: exists and is not empty; `force=True` replaces it")
    return target


@contextmanager
def building_folder(target: Path, force: bool) -> Iterator[Path]:
    """Yields a temporary folder beside `target`; puts it in place at the end.

    When the body raises, `target` is as it was before and nothing is left beside it.
    """
    made = [p for p in (target.parent, *target.parent.parents) if not p.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:40]}."))
    except OSError as error:
        _remove_empty(made)
        raise InputError(
            f"cannot write {target}: {error.strerror or error}; choose another place"
        ) from error
    complete = temporary / "complete"
    try:
        complete.mkdir()
        yield complete
        if force and target.exists():
            target.rename(temporary / "old")
        complete.rename(target)
        made = []
    except OSError as error:  # named after what was asked for, not after where it was made
        raise OSError(
            error.errno, error.strerror or str(error), f"cannot write {target}"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    """Removes folders that were made for nothing, inner ones first."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
