"""What a run will do, said before it does it: events, windows, prompts, calls, cost."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from syncos_jax.pipeline.pipeline import _decode, _encode, embeds_fps
from syncos_jax.runs.record import device_of
from syncos_jax.runs.record import events as event_rows
from syncos_jax.runs.timings import recall
from syncos_jax.sampling.scan import init_carry
from syncos_jax.sampling.settings import settings_to_dict
from syncos_jax.scenario.conditioning import WindowPrompts, window_prompts

if TYPE_CHECKING:
    from syncos_jax.pipeline import Pipeline
    from syncos_jax.sampling.settings import Settings
    from syncos_jax.sampling.windows import WindowLayout
    from syncos_jax.scenario import Scenario


@dataclass(frozen=True)
class PlannedEvent:
    """An event: its frames ``start .. stop-1``, its prompts, the windows that belong to it."""

    index: int
    prompt: str
    text: str
    negative: str
    start: int
    stop: int
    start_seconds: float
    stop_seconds: float
    windows: int


@dataclass(frozen=True)
class PlannedWindow:
    """A window: frames ``start .. stop-1``; what it is conditioned on is decided by ``middle``.

    ``prompts`` are (text, share) of the mixture, the largest first; ``override`` the number of the
    override that replaced its event's prompt, or None.
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
    """A change of event: at which frame, and the windows that see both sides of it."""

    frame: int
    seconds: float
    before: int
    after: int
    windows: tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """What a run takes.

    Attributes:
        rows: calls of the network.
        unguided_rows: those of them without guidance, half the work.
        batch: windows of a call; the network gets twice as many with guidance.
        few: windows of the smaller calls, or None where all are alike.
        small_rows: how many of the calls are such.
        windows: windows predicted in all.
        padding: repeated windows that only fill a call.
        full_calls: how many guided calls on `batch` windows are as much work as all rows.
        steps, co_denoising_rounds, refinement_rounds: as `TapeSummary` counts them.
        flops_per_call: floating-point operations of one call, as XLA counts them.
        flops_decode_frame: of decoding one frame.
        flops: of the whole run, calls and decoding.
        weights_bytes: weights of the networks, as loaded.
        state_bytes: what the sampler keeps: latents, noise, optimiser, predictions of a round.
        call_bytes: an upper estimate of what one call needs at once: its largest sum of living
            intermediate values, before XLA fuses any.
        seconds: of the whole run, by the last run of this kind on this machine; None where there
            was none.
        seconds_start: of it, loading the model and compiling; 0 where nothing is known.
        seconds_per_call: the same for one call.
        scaled_from: windows of a call in that run, where it was another number.
    """

    rows: int
    unguided_rows: int
    batch: int
    few: int | None
    small_rows: int
    windows: int
    padding: int
    full_calls: float
    steps: int
    co_denoising_rounds: int
    refinement_rounds: int
    flops_per_call: float
    flops_decode_frame: float
    flops: float
    weights_bytes: int
    state_bytes: int
    call_bytes: int
    seconds: float | None
    seconds_start: float
    seconds_per_call: float | None
    scaled_from: int | None

    @property
    def memory_bytes(self) -> int:
        """Weights, state and one call."""
        return self.weights_bytes + self.state_bytes + self.call_bytes


@dataclass(frozen=True)
class Plan:
    """A run before it starts; `Pipeline.plan` makes it."""

    title: str
    frames: int
    fps: float
    seconds: float
    width: int
    height: int
    window: int
    stride: int
    sampler: dict[str, Any]
    seed: int
    events: tuple[PlannedEvent, ...]
    windows: tuple[PlannedWindow, ...]
    transitions: tuple[Transition, ...]
    cost: Cost
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        values = dataclasses.asdict(self)
        values["cost"]["memory_bytes"] = self.cost.memory_bytes
        return values


def make_plan(pipeline: Pipeline, scenario: Scenario, sampler: Settings, seed: int) -> Plan:
    """Works out what `pipeline` would do. Traces the networks, but compiles and runs nothing.

    Raises:
        InputError: as the run itself would.
    """
    config = pipeline.model.config
    layout = pipeline.layout(scenario)
    rate = float(scenario.fps or config.fps)
    of = window_prompts(scenario, layout, config.fps)
    with _said_by("syncos_jax.models.tokenizer") as said:
        pipeline.model.tokenizer([*of.prompts, *of.negatives])
    rows = event_rows(scenario, config.fps)
    events = tuple(
        PlannedEvent(**row, windows=int((of.events == row["index"]).sum())) for row in rows
    )
    height, width = pipeline.frame_size(scenario)
    return Plan(
        title=scenario.global_prompt,
        frames=layout.frames,
        fps=rate,
        seconds=layout.frames / rate,
        width=width,
        height=height,
        window=layout.window,
        stride=layout.stride,
        sampler=settings_to_dict(sampler),
        seed=seed,
        events=events,
        windows=tuple(_windows(layout, of)),
        transitions=tuple(_transitions(layout, events, rate)),
        cost=_cost(pipeline, scenario, sampler, seed),
        warnings=(*_warnings(scenario, layout, events), *said),
    )


def _windows(layout: WindowLayout, of: WindowPrompts) -> Iterator[PlannedWindow]:
    for index, start in enumerate(layout.starts.tolist()):
        share = of.weights[index]
        mixture = sorted(np.flatnonzero(share).tolist(), key=lambda p: -share[p])
        override = int(of.overrides[index])
        yield PlannedWindow(
            index=index,
            start=start,
            stop=start + layout.window,
            middle=start + layout.window // 2,
            event=int(of.events[index]),
            override=None if override < 0 else override,
            prompts=tuple((of.prompts[p], round(float(share[p]), 6)) for p in mixture),
        )


def _transitions(
    layout: WindowLayout, events: tuple[PlannedEvent, ...], rate: float
) -> Iterator[Transition]:
    for before, after in zip(events, events[1:], strict=False):
        frame = after.start
        sees = (layout.starts < frame) & (layout.starts + layout.window > frame)
        windows = tuple(np.flatnonzero(sees).tolist())
        yield Transition(frame, frame / rate, before.index, after.index, windows)


def _warnings(
    scenario: Scenario, layout: WindowLayout, events: tuple[PlannedEvent, ...]
) -> Iterator[str]:
    for event in events:
        if event.windows == 0:
            yield (
                f"events[{event.index}] ({event.prompt!r}) has no window: it is too short for "
                f"windows {layout.stride} frames apart, and will not be seen; make it longer or "
                "the stride smaller"
            )
    shortest = min((event.windows for event in events if event.windows), default=0)
    if scenario.crossfade > shortest:
        yield (
            f"crossfade: is {scenario.crossfade} windows, more than the {shortest} of the shortest "
            "event, which is therefore never shown alone"
        )
    if layout.stride == layout.window and layout.count > 1:
        yield (
            f"stride: is {layout.stride}, as long as a window: windows do not overlap, so nothing "
            "joins them; make it smaller"
        )


# -- cost ------------------------------------------------------------------------------------------


def _cost(pipeline: Pipeline, scenario: Scenario, sampler: Settings, seed: int) -> Cost:
    tape = pipeline.tape(scenario, sampler, seed)
    summary = tape.describe()
    counts = dataclasses.asdict(summary)
    layout, shape = pipeline.layout(scenario), pipeline.frame_shape(scenario)
    flops_call, call_bytes = measure(
        jax.jit(pipeline._denoiser), *_call(pipeline, layout.window, shape, counts["batch"])
    )
    one = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    flops_frame, _ = measure(_decode, *pipeline._vae, one)
    speed = recall(run_kind(pipeline, scenario, counts["batch"]))
    key = jax.eval_shape(lambda: jax.random.key(0))
    carry = jax.eval_shape(partial(init_carry, layout, shape, tape.slots), key)
    return Cost(
        **counts,
        flops_per_call=flops_call,
        flops_decode_frame=flops_frame,
        flops=flops_call * summary.full_calls + flops_frame * layout.frames,
        weights_bytes=tree_bytes(pipeline._unet, pipeline._text[1], pipeline._vae[1]),
        state_bytes=tree_bytes(carry),
        call_bytes=call_bytes,
        seconds=None if speed is None else speed.total(summary.full_calls, layout.frames),
        seconds_start=0.0 if speed is None else speed.load + speed.compile,
        seconds_per_call=None if speed is None else speed.row,
        scaled_from=None if speed is None else speed.scaled_from,
    )


def _call(pipeline: Pipeline, window: int, shape: tuple[int, int, int], batch: int) -> list[Any]:
    """Abstract arguments of one call of the network, both halves of the guidance."""
    count = 2 * batch
    config = pipeline.model.config
    ids = np.asarray(pipeline.model.tokenizer([""]), np.int32)
    features = jax.eval_shape(partial(_encode, pipeline._text[0]), pipeline._text[1], ids)
    cond = {"text": jax.ShapeDtypeStruct((count, *features.shape[1:]), features.dtype)}
    if embeds_fps(pipeline.model):
        cond["fps"] = jax.ShapeDtypeStruct((count,), jnp.float32)
    x = jax.ShapeDtypeStruct((count, config.window, *shape), jnp.float32)
    return [pipeline._unet, x, jax.ShapeDtypeStruct((count,), jnp.float32), cond]


def run_kind(pipeline: Pipeline, scenario: Scenario, batch: int) -> dict[str, Any]:
    """What the speed of a run depends on, beside its length: the key of
    `syncos_jax.runs.timings`."""
    leaves = jax.tree_util.tree_leaves_with_path((pipeline._unet, pipeline._vae[1]))
    told = [f"{jax.tree_util.keystr(path)} {leaf.dtype}{leaf.shape}" for path, leaf in leaves]
    device = device_of(pipeline)
    return {
        "networks": hashlib.sha256("\n".join(told).encode()).hexdigest()[:16],
        "window": pipeline.model.config.window,
        "latent": list(pipeline.frame_shape(scenario)),
        "batch": batch,
        "device": device["kind"],
        "devices": device["count"],
    }


def measure(function: Any, *arguments: Any) -> tuple[float, int]:
    """Floating-point operations of a function, and the bytes its intermediate values need at once.

    Args:
        function: a jitted function.
        arguments: arrays, or `jax.ShapeDtypeStruct` in their place. Nothing is compiled or run.
    """
    traced = function.trace(*arguments)
    analysis = traced.lower().cost_analysis() or {}
    return float(analysis.get("flops", 0.0)), living_bytes(traced.jaxpr.jaxpr)


def living_bytes(jaxpr: Any) -> int:
    """The largest sum of intermediate values that live at once, in bytes, inputs left out.

    Each value lives from the equation that makes it to the last one that reads it. XLA fuses and
    reorders, so that a program mostly needs less.
    """
    last: dict[Any, int] = {}
    for index, equation in enumerate(jaxpr.eqns):
        for value in equation.invars:
            if not isinstance(value, Literal):
                last[value] = index
    for value in jaxpr.outvars:
        if not isinstance(value, Literal):
            last[value] = len(jaxpr.eqns)
    dying: dict[int, list[Any]] = {}
    made: set[Any] = set()
    living = most = 0
    for index, equation in enumerate(jaxpr.eqns):
        inner = max((living_bytes(sub) for sub in _inner(equation.params)), default=0)
        out = 0
        for value in equation.outvars:
            out += _bytes(value.aval)
            made.add(value)
            dying.setdefault(last.get(value, index), []).append(value)
        most = max(most, living + max(inner, out))
        living += out
        living -= sum(_bytes(value.aval) for value in dying.pop(index, ()))
    return most


def _inner(parameters: dict[str, Any]) -> Iterator[Any]:
    for value in parameters.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns"):
                yield inner


def _bytes(aval: Any) -> int:
    try:
        return int(np.prod(aval.shape, dtype=np.int64)) * jnp.dtype(aval.dtype).itemsize
    except (AttributeError, TypeError):  # a PRNG key, a token
        return 0


def tree_bytes(*trees: Any) -> int:
    """Bytes of all arrays in `trees`, real or abstract."""
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(trees))


@contextmanager
def _said_by(name: str) -> Iterator[list[str]]:
    """Collects a logger's warnings in place of printing them."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
