"""What a video would take, quickly enough to stand beside a form that is being filled in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax

from syncos_jax.pipeline.plan import abstract_call, abstract_carry, peak_live_bytes, timing_key
from syncos_jax.pipeline.plan import tree_bytes as bytes_of
from syncos_jax.pipeline.timings import recall
from syncos_jax.scenario import Scenario

if TYPE_CHECKING:
    from syncos_jax.models.family import Model
    from syncos_jax.pipeline.request import Request
    from syncos_jax.studio.video_request import VideoRequest

_call_bytes: dict[Any, tuple[int, int]] = {}
_measuring = threading.Lock()
_tokenizing = threading.Lock()


def plan(asked: VideoRequest) -> dict[str, Any]:
    """What ``POST /v1/plan`` answers; nothing is compiled or run."""
    request, takes = asked.request, len(asked.seeds)
    speed = recall(timing_key(request))
    seconds = None
    if speed is not None:
        once = speed.load + speed.compile
        each = speed.total(request.summary.calls, request.frames) - once
        seconds = round(speed.compile + takes * each, 1)
    return {
        "frames": request.frames,
        "seconds": request.frames / request.fps,
        "windows": request.layout.count,
        "calls": request.summary.calls * takes,
        "memory_bytes": memory_bytes(request),
        "estimated_seconds": seconds,
        "events": [
            {
                "prompt": row["prompt"],
                "seconds": row["stop_seconds"] - row["start_seconds"],
                "frames": row["stop"] - row["start"],
                "cut": lost,
            }
            for row, lost in zip(request.events, asked.lost, strict=True)
        ],
        "scenario": asked.scenario.to_dict(),
    }


def memory_bytes(request: Request) -> int:
    """Weights, state and one call of the network.

    What a call needs grows evenly with its clips, so that two traces of the network, of one clip
    and of two, say it for every length of video; `Pipeline.plan` traces the very call.
    """
    weights = bytes_of(dict(request.model.weights))
    one, two = _bytes_of_calls(request)
    clips = request.call_schedule.samples_per_call
    return weights + bytes_of(abstract_carry(request)) + one + (clips - 1) * (two - one)


def _bytes_of_calls(request: Request) -> tuple[int, int]:
    model = request.model
    key = (id(model), request.layout.window, request.frame_shape, request.sampler.lookahead)
    with _measuring:
        if key not in _call_bytes:
            cond = jax.eval_shape(lambda: model.encode_prompts([""]))
            denoise = jax.jit(model.denoiser)
            one, two = (
                peak_live_bytes(denoise.trace(*abstract_call(request, cond, clips)).jaxpr.jaxpr)
                for clips in (1, 2)
            )
            _call_bytes[key] = (one, two)
        return _call_bytes[key]


def lost_words(model: Model, scenario: Scenario) -> tuple[str | None, ...]:
    """Of each event, the words that the text encoder does not see; None where it sees them all.

    Raises InputError where two prompts are the same to it.
    """
    texts = [*scenario.prompts(), *scenario.negatives()]
    texts += [scenario.text(override.prompt) for override in scenario.overrides]
    unique = list(dict.fromkeys(texts))
    tokenize = getattr(model, "tokenizer", None)

    def read(prompts: list[str]) -> None:
        if tokenize is not None:
            tokenize(prompts)
        else:
            jax.eval_shape(lambda: model.encode_prompts(prompts))

    with _tokenizing:
        read(unique)
        lost: dict[str, str | None] = {}
        for text in unique[: len(set(scenario.prompts()))]:
            with _warnings("syncos_jax.models") as found:
                read([text])
            said = found[0].args if found else None
            lost[text] = str(said[-1]) if isinstance(said, tuple) and said else None
    return tuple(lost[text] for text in scenario.prompts())


@contextmanager
def _warnings(name: str) -> Iterator[list[logging.LogRecord]]:
    """Collects what a logger and those below it warn of, in this thread."""
    records: list[logging.LogRecord] = []
    thread = threading.get_ident()

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                records.append(record)

    handler = Collect()
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
