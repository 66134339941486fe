"""The plan of a run, before it starts: events, windows, prompts, calls, cost."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from syncos_jax.pipeline.flops import flops_of
from syncos_jax.pipeline.request import Request
from syncos_jax.pipeline.timings import recall
from syncos_jax.pipeline.versions import device_of
from syncos_jax.sampling.loop import init_carry
from syncos_jax.sampling.sampler_dict import sampler_to_dict
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
        calls: network calls.
        samples_per_call, samples, padding, windows: as `CallSummary` counts them.
        steps, passes, optimizer_steps: likewise.
        flops_per_call: floating-point operations of one call (`syncos_jax.pipeline.flops`).
        flops_decode_frame: of decoding one latent frame; 0 where the model does not say.
        flops: of the whole run, calls and decoding.
        weights_bytes: weights of the networks, as loaded.
        state_bytes: what the sampler keeps: latents, noise, optimiser, predictions of a round.
        call_bytes: an upper estimate of what one call needs at once: its largest sum of living
            intermediate values, before XLA fuses any.
        seconds: of the whole run, by the last run of this kind on this machine; None where there
            was none.
        seconds_start: of it, loading the model and compiling; 0 where nothing is known.
        seconds_per_call: the same for one call.
        scaled_from: clips of a call in that run, where it was another number.
    """

    calls: int
    samples_per_call: int
    samples: int
    padding: int
    windows: int
    steps: int
    passes: int
    optimizer_steps: int
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
    latent_frames: int
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


def make_plan(request: Request) -> Plan:
    """Works out what making a request's video would do. Traces the networks, but compiles and runs
    nothing."""
    layout, prompts = request.layout, request.prompts
    with _log_messages("syncos_jax.models.tokenizer") as messages:
        cond = jax.eval_shape(
            lambda: request.model.encode_prompts([*prompts.prompts, *prompts.negatives])
        )
    events = tuple(
        PlannedEvent(**row, windows=int((prompts.events == row["index"]).sum()))
        for row in request.events
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
        events=events,
        windows=tuple(_windows(request)),
        transitions=tuple(_transitions(request, events)),
        cost=_cost(request, cond),
        warnings=(*_warnings(request.scenario, layout, events), *messages),
    )


def _windows(request: Request) -> Iterator[PlannedWindow]:
    layout, of, geometry = request.layout, request.prompts, request.model.geometry
    starts = geometry.first_frame(layout.starts).tolist()
    stops = geometry.first_frame(layout.starts + layout.window).tolist()
    centers = geometry.first_frame(layout.centers).tolist()
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
    layout, geometry = request.layout, request.model.geometry
    starts = geometry.first_frame(layout.starts)
    stops = geometry.first_frame(layout.starts + layout.window)
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


def _cost(request: Request, cond: Any) -> Cost:
    model, summary = request.model, request.summary
    flops_call, call_bytes = measure(jax.jit(model.denoiser), *abstract_call(request, cond))
    decoding = model.decoding(request.frame_shape)
    flops_frame = 0.0
    if decoding is not None:  # of one latent frame, or of several that go through together
        flops_frame = measure(decoding[0], *decoding[1])[0] / decoding[1][2].shape[0]
    speed = recall(timing_key(request))
    return Cost(
        **dataclasses.asdict(summary),
        flops_per_call=flops_call,
        flops_decode_frame=flops_frame,
        flops=flops_call * summary.calls + flops_frame * request.layout.frames,
        weights_bytes=tree_bytes(dict(model.weights)),
        state_bytes=tree_bytes(abstract_carry(request)),
        call_bytes=call_bytes,
        seconds=None if speed is None else speed.total(summary.calls, request.frames),
        seconds_start=0.0 if speed is None else speed.load + speed.compile,
        seconds_per_call=None if speed is None else speed.row,
        scaled_from=None if speed is None else speed.scaled_from,
    )


def abstract_carry(request: Request) -> Any:
    """The shapes of what the sampler keeps."""
    method = request.program[0]

    def carry() -> Any:
        state = method.init(jax.random.key(0), request.frame_shape)
        return init_carry(state, method.windows, (method.window, *request.frame_shape))

    return jax.eval_shape(carry)


def abstract_call(request: Request, cond: Any, clips: int | None = None) -> list[Any]:
    """Abstract arguments of one call of the network; `cond` as of any number of prompts.

    With `clips`, of a call of so many, in place of the run's own number."""
    count, window = clips or request.call_schedule.samples_per_call, request.layout.window
    each = (count,) if request.sampler.lookahead is None else (count, window)
    of_clips = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), cond
    )
    x = jax.ShapeDtypeStruct((count, window, *request.frame_shape), jnp.float32)
    return [request.model.params, x, jax.ShapeDtypeStruct(each, jnp.float32), of_clips]


def timing_key(request: Request) -> dict[str, Any]:
    """What the speed of a run depends on, beside its length: the key of
    `syncos_jax.pipeline.timings`."""
    leaves = jax.tree_util.tree_leaves_with_path(dict(request.model.weights))
    shapes = [f"{jax.tree_util.keystr(path)} {leaf.dtype}{leaf.shape}" for path, leaf in leaves]
    device = device_of(request.placement)
    return {
        "networks": hashlib.sha256("\n".join(shapes).encode()).hexdigest()[:16],
        "window": request.layout.window,
        "latent": list(request.frame_shape),
        "clips": request.call_schedule.samples_per_call,
        "device": device["kind"],
        "devices": device["count"],
    }


def measure(function: Any, *arguments: Any) -> tuple[float, int]:
    """Floating-point operations of a function, and the bytes its intermediate values need at once.

    Args:
        function: a jitted function.
        arguments: arrays, or `jax.ShapeDtypeStruct` in their place. Nothing is compiled or run.
    """
    jaxpr = function.trace(*arguments).jaxpr.jaxpr
    return flops_of(jaxpr), peak_live_bytes(jaxpr)


def peak_live_bytes(jaxpr: Any) -> int:
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
        inner = max((peak_live_bytes(sub) for sub in _inner(equation.params)), default=0)
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
def _log_messages(name: str) -> Iterator[list[str]]:
    """Collects a logger's warnings in place of printing them."""
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
