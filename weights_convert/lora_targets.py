"""Which networks of a model a LoRA goes into, and under which names their layers are known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from syncos_jax.errors import Argument, InputError, Phrase
from syncos_jax.models.merged_lora import MergedLora
from syncos_jax.models.weights import assign, leaves
from syncos_jax.scenario.lora_files import LoraFile, check_lora
from syncos_jax.weights_convert.lora import Lora, networks_of, open_lora
from syncos_jax.weights_convert.table import AnyTable

DENOISERS = ("unet", "transformer")


def open_loras(
    given: Sequence[str | LoraFile],
    networks: Sequence[str],
    leaves_of: Callable[[str], Mapping[str, Any]],
    tables_of: Callable[[str], Sequence[AnyTable]],
) -> tuple[dict[str, list[Lora]], list[str]]:
    """The LoRAs of each network, opened, and what the user should know.

    Args:
        given: `LoraFile`, or as text, each; without a network, the denoiser and, where the file
            has layers of it, the text encoder.
        networks: those of the model.
        leaves_of: parameters (anything with a shape) of a network by dotted path.
        tables_of: tables of the checkpoints of a network, whose names the layers may have.

    Raises:
        InputError: no such file or network, or a LoRA that does not fit.
    """
    found: dict[str, list[Lora]] = {}
    warnings: list[str] = []
    for one in given:
        file = LoraFile.parse(one)
        path = check_lora(file)
        for network in _targets(file, networks_of(path), networks, warnings):
            lora = open_lora(path, file.strength, leaves_of(network), tables_of(network), network)
            found.setdefault(network, []).append(lora)
            warnings += lora.warnings
            if lora.skipped:
                warnings.append(
                    f"LoRA {path}: skipped {len(lora.skipped)} layers that only image-to-video "
                    f"networks have; merged {len(lora.changes)} changes into {network}"
                )
    if "transformer_2" in networks and len({"transformer", "transformer_2"} & set(found)) == 1:
        got = next(n for n in ("transformer", "transformer_2") if n in found)
        other = "transformer_2" if got == "transformer" else "transformer"
        noise = "high" if got == "transformer" else "low"
        warnings.append(
            Phrase(
                f"only {got} ({noise} noise) gets a LoRA; pass ",
                Argument("lora", f"{other}=FILE"),
                " for the other transformer",
            )
        )
    return found, warnings


def _targets(
    given: LoraFile,
    says: frozenset[str],
    networks: Sequence[str],
    warnings: list[str],
) -> list[str]:
    """The networks that a LoRA goes into."""
    name = given.network
    if name:
        if name not in networks:
            raise InputError(f"the model has no {name}", argument="lora", value=str(given))
        return [name]
    denoiser = next((n for n in DENOISERS if n in networks), None)
    wanted = [denoiser or "denoiser"] if "" in says else []
    wanted += [network for network in ("transformer_2", "text_encoder") if network in says]
    missing = [network for network in wanted if network not in networks]
    if missing and len(missing) == len(wanted):
        raise InputError(f"the model has no {missing[0]}", argument="lora", value=str(given))
    for network in missing:
        warnings.append(f"LoRA {given}: skipped its layers of the {network}, which is not there")
    return [network for network in wanted if network in networks]


def tables_for(config: Any, network: str) -> tuple[AnyTable, ...]:
    """Tables of every checkpoint of a network, for layers of a LoRA in any spelling.

    Args:
        config: of the model.
        network: its name.

    Raises:
        InputError: LoRAs for this family or network are not supported.
    """
    from syncos_jax.weights_convert import (
        animatediff,
        cogvideox_tables,
        diffusers_tables,
        lvdm_tables,
        t5,
        wan_tables,
    )

    family = config.family
    if network == "text_encoder" and family in ("wan", "cogvideox"):
        return (t5.t5_table(config.text, ()), wan_tables.ORIGINAL_TEXT)
    if network == "text_encoder" and family in ("unet_clip", "animatediff"):
        return (diffusers_tables.CLIP_TEXT,)
    if family == "wan" and network in ("transformer", "transformer_2"):
        return (wan_tables.TRANSFORMER, wan_tables.ORIGINAL_TRANSFORMER)
    if family == "cogvideox" and network == "transformer":
        return (cogvideox_tables.transformer_table(config.transformer),)
    if family == "animatediff" and network == "unet":
        return (animatediff.UNET,)
    if family == "unet_clip" and network == "unet":
        unet = config.unet
        return (diffusers_tables.unet_table(unet), lvdm_tables.unet_table(unet))
    raise InputError(f"LoRAs for the {network} of the family {family!r} are not supported")


def open_for(
    model: Any, given: Sequence[str | LoraFile]
) -> tuple[dict[str, list[Lora]], list[str]]:
    """`open_loras` for a loaded model."""
    if not hasattr(model, "replace_network"):
        raise InputError(
            f"LoRAs for the family {model.family!r} are not supported", argument="lora"
        )
    return open_loras(
        given,
        [name for name in model.config.networks if name in vars(model)],
        lambda network: leaves(getattr(model, network)),
        lambda network: tables_for(model.config, network),
    )


def merge(model: Any, given: Sequence[LoraFile]) -> list[str]:
    """Merges LoRAs into the weights of a loaded model, on their devices; the files of the model
    stay as they are.

    Args:
        model: of networks, with a configuration (`NetworkModel`).
        given: the LoRAs.

    Returns:
        What the user should know.

    Raises:
        InputError: as `open_loras`, or a model whose family takes no LoRAs.
    """
    found, warnings = open_for(model, given)
    for network, loras in found.items():
        module = getattr(model, network)
        values, changed = leaves(module), {}
        for path in {path for lora in loras for path in lora.changes}:
            array = np.asarray(values[path])
            for lora in loras:
                array = lora.merged(path, array)
            made = np.ascontiguousarray(array, values[path].dtype)
            changed[path] = jax.device_put(made, values[path].sharding)
        model.replace_network(network, assign(module, changed))
    # Hashed again from the weights, which are no longer those of the folder.
    model.hashes = {name: known for name, known in model.hashes.items() if name not in found}
    model.loras = (*model.loras, *(_merged(file, found) for file in given))
    return warnings


def _merged(file: LoraFile, found: Mapping[str, list[Lora]]) -> MergedLora:
    """What became of a LoRA."""
    path = Path(file.file)
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    counts = {
        network: len(lora.changes)
        for network, loras in found.items()
        for lora in loras
        if (lora.path, lora.strength) == (path, file.strength) and file.network in ("", network)
    }
    return MergedLora(file, digest, counts)
