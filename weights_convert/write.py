"""Writing a converted model: where every tensor goes, then the weights, one at a time."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.models import saved
from syncos_jax.models.streamed import PendingWeight
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.weights_convert.checkpoint import Checkpoint
from syncos_jax.weights_convert.lora import Lora
from syncos_jax.weights_convert.table import Target, leaves, match, refuse

_CHUNK = 2**22
"""Elements that are looked through at a time."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """Where the tensors of a network go.

    Attributes:
        read: reads a tensor by name.
        plan: name of each tensor -> where it goes.
        dtypes: on disk, by name.
        shapes: of the network's parameters, by dotted path.
    """

    read: Callable[[str], Any]
    plan: Mapping[str, tuple[Target, ...]]
    dtypes: Mapping[str, np.dtype]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        """How many values the network has."""
        return sum(map(math.prod, self.shapes.values()))

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return sum(
            math.prod(self.shapes[target.path]) * self.dtypes[key].itemsize
            for key, targets in self.plan.items()
            for target in targets
        )


def plan_networks(opened: Checkpoint, dtype: np.dtype | None) -> dict[str, Planned]:
    """Where every tensor goes, before any is read; InputError with all that do not fit."""
    planned: dict[str, Planned] = {}
    problems = list(opened.problems)
    where = [part.where for part in opened.parts.values()]
    for name, part in opened.parts.items():
        expected = leaves(saved.build(name, opened.config, jnp.float32))
        plan, found = match(expected, part.table, part.tensors)
        problems += [p if len(where) == 1 else f"{name}: {p}" for p in found]
        dtypes = {key: dtype or kept_dtype(part.tensors[key].dtype) for key in plan}
        shapes = {path: tuple(leaf.shape) for path, leaf in expected.items()}
        planned[name] = Planned(part.tensors.__getitem__, plan, dtypes, shapes)
    if problems:
        raise refuse(
            where[0] if len(where) == 1 else where[0].split(" (")[0], problems, opened.hint
        )
    if len(planned) > 1 and isinstance(opened.config, ModelConfig):
        _check_fit(opened.config)
    return planned


def kept_dtype(dtype: np.dtype) -> np.dtype:
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


def write_networks(
    folder: Path,
    planned: Mapping[str, Planned],
    loras: Mapping[str, list[Lora]],
    progress: Callable[[int, int], None] | None,
) -> list[str]:
    """Writes the weights of every network, one tensor at a time; returns what to warn of."""
    warnings: list[str] = []
    done, total = 0, sum(len(part.plan) for part in planned.values())
    for name, part in planned.items():

        def made(key: str, last: bool, bad: int, size: int, name: str = name) -> None:
            nonlocal done
            if bad:
                warnings.append(f"{name}: {bad} of {size} values are NaN or infinite in {key}")
            done += last
            if last and progress is not None:
                progress(done, total)

        saved.write_network(folder / name, _weights(part, loras.get(name, ()), made))
    return warnings


def _weights(
    part: Planned, loras: Sequence[Lora], finished: Callable[[str, bool, int, int], None]
) -> dict[str, PendingWeight]:
    """The weights of a network by dotted path, to be made while they are written.

    Args:
        part: the network.
        loras: that are merged into it.
        finished: called with a tensor's name, whether it was its last part, how many values of
            the part are not finite, and of how many.
    """
    read = functools.lru_cache(maxsize=1)(lambda key: np.asarray(part.read(key)))

    def make(key: str, target: Target) -> np.ndarray:
        tensor = read(key) if len(part.plan[key]) > 1 else np.asarray(part.read(key))
        array = target.transform(tensor)
        for lora in loras:
            array = lora.merged(target.path, array)
        dtype = part.dtypes[key]
        with np.errstate(over="ignore"):  # reported as not finite
            made = np.ascontiguousarray(array, dtype)
        bad = _not_finite(array if dtype.itemsize > 2 else made)
        finished(key, target is part.plan[key][-1], bad, array.size)
        return made

    return {
        target.path: PendingWeight(
            part.shapes[target.path], part.dtypes[key], functools.partial(make, key, target)
        )
        for key, targets in part.plan.items()
        for target in targets
    }


def _not_finite(array: Any) -> int:
    """How many values are NaN or infinite."""
    flat = np.asarray(array).reshape(-1)
    return sum(
        int(np.count_nonzero(~np.isfinite(flat[i : i + _CHUNK])))
        for i in range(0, flat.size, _CHUNK)
    )
