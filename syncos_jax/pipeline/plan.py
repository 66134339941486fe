"""Plans: what a run will consist of and cost, before it starts."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from syncos_jax.pipeline.cost import Cost, estimate
from syncos_jax.pipeline.known_inputs import InputFile
from syncos_jax.pipeline.request import Request
from syncos_jax.sampling.sampler_dict import sampler_to_dict
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.scenario import Scenario
from syncos_jax.scenario.timed_prompts import foreign_syntax


@dataclass(frozen=True)
class PlannedEvent:
    """An event: frames ``start .. stop-1``, prompts, number of windows.

    ``rounding_seconds`` is how much later the event ends than the scenario says, from rounding to
    whole frames.
    """

    index: int
    prompt: str
    text: str
    negative: str
    start: int
    stop: int
    start_seconds: float
    stop_seconds: float
    rounding_seconds: float
    windows: int


@dataclass(frozen=True)
class PlannedWindow:
    """A window: frames ``start .. stop-1``; its frame ``middle`` decides its prompts.

    ``prompts`` are (text, weight) of the mixture, the largest first; ``override`` is the index of
    the override that replaced its event's prompt, or None.
    """

    index: int
    start: int
    stop: int
    middle: int
    event: int
    override: int | None
    prompts: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Transition:
    """A change of event at ``frame``, and the windows that contain it."""

    frame: int
    seconds: float
    before: int
    after: int
    windows: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A run before it starts, from `Pipeline.plan`."""

    title: str
    frames: int
    latent_frames: int
    fps: float
    seconds: float
    width: int
    height: int
    window: int
    stride: int
    sampler: dict[str, Any]
    seed: int
    inputs: tuple[InputFile, ...]
    loras: tuple[dict[str, Any], ...]
    events: tuple[PlannedEvent, ...]
    windows: tuple[PlannedWindow, ...]
    transitions: tuple[Transition, ...]
    cost: Cost
    warnings: tuple[str, ...]
    few_steps: str = ""
    """How distilled weights are meant to be sampled; empty for others."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        values = dataclasses.asdict(self)
        values["cost"]["memory_bytes"] = self.cost.memory_bytes
        return values


def make_plan(request: Request) -> Plan:
    """Predicts what a request consists of and costs; traces the networks, compiles and runs
    nothing."""
    layout, prompts = request.layout, request.prompts
    with _log_messages("syncos_jax.models.tokenizer") as messages:
        texts = [*prompts.prompts, *prompts.negatives]
        cond = jax.eval_shape(
            lambda: request.model.complete_conditioning(
                request.model.encode_prompts(texts), request.fps, np.zeros(len(texts), bool)
            )
        )
    events = tuple(
        PlannedEvent(
            **row,
            rounding_seconds=round((row["stop"] - end) / request.fps, 6),
            windows=int((prompts.events == row["index"]).sum()),
        )
        for row, end in zip(request.events, _ends(request), strict=True)
    )
    return Plan(
        title=request.scenario.global_prompt,
        frames=request.frames,
        latent_frames=layout.frames,
        fps=request.fps,
        seconds=request.frames / request.fps,
        width=request.width,
        height=request.height,
        window=layout.window,
        stride=layout.stride,
        sampler=sampler_to_dict(request.sampler),
        seed=request.seed,
        inputs=request.files,
        loras=tuple(lora.to_dict() for lora in request.model.loras),
        events=events,
        windows=tuple(_windows(request)),
        transitions=tuple(_transitions(request, events)),
        cost=estimate(request, cond),
        warnings=(
            *request.few_steps_warnings,
            *_warnings(request.scenario, layout, events),
            *messages,
        ),
        few_steps=str(request.model.few_steps or ""),
    )


def _ends(request: Request) -> list[float]:
    """Where each event ends in the whole video, in frames, not rounded."""
    return [request.before + end for end in request.scenario.boundaries(request.fps)]


def _in_video(request: Request, latents: np.ndarray) -> np.ndarray:
    """The frames of the whole video that some latent frames begin with, int ``[n]``."""
    return request.model.geometry.first_frame(latents) + request.before - request.lead


def _windows(request: Request) -> Iterator[PlannedWindow]:
    layout, of = request.layout, request.prompts
    starts = _in_video(request, layout.starts).clip(min=0).tolist()
    stops = _in_video(request, layout.starts + layout.window).tolist()
    centers = _in_video(request, layout.centers).clip(min=0).tolist()
    for index, (start, stop, middle) in enumerate(zip(starts, stops, centers, strict=True)):
        share = of.weights[index]
        mixture = sorted(np.flatnonzero(share).tolist(), key=lambda p: -share[p])
        override = int(of.overrides[index])
        yield PlannedWindow(
            index=index,
            start=start,
            stop=min(stop, request.frames),
            middle=middle,
            event=int(of.events[index]),
            override=None if override < 0 else override,
            prompts=tuple((of.prompts[p], round(float(share[p]), 6)) for p in mixture),
        )


def _transitions(request: Request, events: tuple[PlannedEvent, ...]) -> Iterator[Transition]:
    layout = request.layout
    starts = _in_video(request, layout.starts)
    stops = _in_video(request, layout.starts + layout.window)
    for before, after in zip(events, events[1:], strict=False):
        frame = after.start
        windows = tuple(np.flatnonzero((starts < frame) & (stops > frame)).tolist())
        yield Transition(frame, frame / request.fps, before.index, after.index, windows)


def _warnings(
    scenario: Scenario, layout: WindowLayout, events: tuple[PlannedEvent, ...]
) -> Iterator[str]:
    for event in events:
        if event.windows == 0:
            yield (
                f"events[{event.index}] ({event.prompt!r}) has no window: it is too short for "
                f"stride {layout.stride} and will not be seen; make it longer or reduce the stride"
            )
    furthest = max(events, key=lambda event: abs(event.rounding_seconds))
    if furthest.rounding_seconds:
        yield (
            f"events end on whole frames: up to {abs(furthest.rounding_seconds):.3f} s from the "
            f"given times (event {furthest.index}), the whole video "
            f"{events[-1].rounding_seconds:+.3f} s"
        )
    yield from foreign_syntax([scenario.global_prompt, *(e.prompt for e in scenario.events)])
    shortest = min((event.windows for event in events if event.windows), default=0)
    if scenario.crossfade > shortest:
        yield (
            f"crossfade: {scenario.crossfade} windows are more than the {shortest} of the shortest "
            "event, which is never shown alone"
        )
    if layout.stride == layout.window and layout.count > 1:
        yield (
            f"stride: {layout.stride} is the length of a window: windows do not overlap, so "
            "nothing joins them; reduce it"
        )


@contextmanager
def _log_messages(name: str) -> Iterator[list[str]]:
    """Collects a logger's messages instead of printing them."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
