"""How a checkpoint is sampled: distilled weights are recognised by their names and metadata."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from syncos_jax.models.few_steps import FewSteps, with_recognised
from syncos_jax.sampling.samplers import CoDenoising
from syncos_jax.sampling.solver_choice import resolve_solver, solver_coefficients, timesteps_for
from syncos_jax.scenario.lora_files import LoraFile
from syncos_jax.weights_convert.checkpoint import Checkpoint

_TITLES = ("modelspec.title", "ss_output_name", "title", "name")
"""Entries of a safetensors file's metadata that name the weights."""


def with_few_steps(
    opened: Checkpoint, sources: Sequence[str | os.PathLike[str] | None], loras: Sequence[str]
) -> Checkpoint:
    """The checkpoint, sampled as its distilled weights, or those of a LoRA to be merged, are meant
    to be; a warning says which were recognised.

    Args:
        opened: the checkpoint.
        sources: files and folders that it is made of.
        loras: ``[NETWORK=]FILE[:STRENGTH]`` each.
    """
    config, found = with_recognised(opened.config, names_of(sources, loras))
    if found is None:
        return opened
    said = f"recognised {found}"
    return dataclasses.replace(opened, config=config, warnings=(*opened.warnings, said))


def adopt(model: Any, loras: Sequence[str | LoraFile]) -> FewSteps | None:
    """Lets a loaded model be sampled as distilled LoRAs that were merged into it; returns what was
    recognised."""
    config, found = with_recognised(getattr(model, "config", None), names_of([], loras))
    if found is not None:
        model.config, model.schedule, model.few_steps = config, config.noise_schedule(), found
        model.steps, model.guidance = config.steps, config.guidance
    return found


def names_of(
    sources: Sequence[str | os.PathLike[str] | None], loras: Sequence[str | LoraFile]
) -> Iterator[str]:
    """Paths, and the titles in the files' metadata."""
    files = [Path(LoraFile.parse(lora).file) for lora in loras]
    for path in [*(Path(source) for source in sources if source), *files]:
        yield str(path)
        if path.suffix == ".safetensors" and path.is_file():
            try:
                with safe_open(path, "np") as held:
                    metadata = held.metadata() or {}
            except (OSError, SafetensorError):  # reported where the file is read
                continue
            yield from (metadata[key] for key in _TITLES if key in metadata)


def check_sampling(opened: Checkpoint) -> None:
    """Raises InputError where the model could not be sampled."""
    if not {"unet", "transformer"} & set(opened.parts):
        return
    config = opened.config
    schedule, settings = config.noise_schedule(), CoDenoising(steps=config.steps)
    steps = timesteps_for(schedule, settings)
    solver_coefficients(resolve_solver(schedule, settings), steps, np.zeros(len(steps.t), bool))
