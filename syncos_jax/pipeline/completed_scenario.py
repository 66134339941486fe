"""Scenarios completed with what a model says."""

from __future__ import annotations

from collections.abc import Sequence

from syncos_jax.errors import Argument, InputError
from syncos_jax.models.family import Model
from syncos_jax.scenario import Scenario
from syncos_jax.scenario.lora_files import LoraFile


def scenario_of(
    model: Model, prompt: str, events: Sequence[str] | None, seconds: float | None
) -> Scenario:
    """The scenario of a global prompt and events of `seconds` each; None for two clips."""
    if events is None or isinstance(events, str) or not events:
        raise InputError(
            "a global prompt needs events, such as ['sleeps', 'wakes up']", place="pipeline"
        )
    geometry = model.geometry
    length = 2 * geometry.frames(geometry.window) / geometry.fps if seconds is None else seconds
    rows = [{"prompt": event, "seconds": length} for event in events]
    return Scenario.from_dict({"global": prompt, "events": rows})


def with_loras(model: Model, scenario: Scenario) -> Scenario:
    """The scenario with the LoRAs that are merged into the model; InputError where it names
    others."""
    merged = [lora.file for lora in model.loras]
    given = [LoraFile.parse(text) for text in scenario.lora]
    same = len(given) == len(merged) and all(map(LoraFile.same, given, merged))
    if given and not same:
        held = ", ".join(map(str, merged)) or "none"
        raise InputError(
            "other LoRAs than the model was loaded with",
            place="lora",
            value=", ".join(scenario.lora),
            expected=held,
            remedy=("load them with the model: ", Argument("lora", "FILE")),
        )
    return scenario.model_copy(update={"lora": tuple(map(str, merged))})
