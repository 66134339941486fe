"""Another length for a scenario."""

from __future__ import annotations

import math

from syncos_jax.errors import InputError
from syncos_jax.scenario.scenario import Event, Scenario


def with_frames(scenario: Scenario, frames: int) -> Scenario:
    """The scenario with `frames` frames in total; the events keep their proportions.

    Raises:
        InputError: fewer frames than events, events in seconds and frames without ``fps``, or a
            scenario with overrides, whose ranges would no longer fit.
    """
    if scenario.overrides:
        raise InputError("cannot be combined with overrides", argument="frames")
    units = {event.frames is None for event in scenario.events}
    if len(units) > 1 and scenario.fps is None:
        raise InputError(
            "events have lengths in both seconds and frames",
            argument="frames",
            remedy="add fps to the scenario",
        )
    ends = scenario.boundaries(scenario.fps or 1.0)
    rounded = [math.floor(end * frames / ends[-1] + 0.5) for end in ends]
    counts = [end - start for start, end in zip([0, *rounded], rounded, strict=False)]
    if min(counts) < 1:
        raise InputError(
            "too few for this scenario: an event would have none", argument="frames", value=frames
        )
    events = tuple(
        Event(prompt=event.prompt, negative=event.negative, frames=count)
        for event, count in zip(scenario.events, counts, strict=True)
    )
    return scenario.model_copy(update={"events": events})
