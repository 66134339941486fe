"""The plan says what the run then does."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import FakeModel

from syncos_jax.errors import InputError
from syncos_jax.pipeline import Pipeline, timings
from syncos_jax.pipeline.cost import peak_live_bytes, timing_key
from syncos_jax.pipeline.flops import flops_of
from syncos_jax.sampling import CoDenoising, SynCoS
from syncos_jax.scenario import Scenario

STORY = Scenario.from_dict(
    {
        "global": "a cat",
        "events": [
            {"prompt": "sleeps", "seconds": 1},
            {"prompt": "wakes", "frames": 5, "negative": "dark"},
            {"prompt": "runs", "seconds": 0.5},
        ],
        "overrides": [{"prompt": "yawns", "frames": [3, 5]}],
        "crossfade": 1,
        "sampler": {"name": "syncos", "iterations": 2, "t_min": 500, "windows_per_step": 3},
        "seed": 5,
    }
)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SYNCOS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline(FakeModel())


@pytest.mark.parametrize(
    "sampler",
    [
        None,
        CoDenoising(steps=3, windows_per_call=3),
        SynCoS(steps=4, t_min=500, iterations=2, windows_per_call=2),
    ],
    ids=["scenario's", "co_denoising", "batch 2"],
)
def test_the_run_does_what_the_plan_says(pipeline, sampler, monkeypatch):
    plan = pipeline.plan(STORY, sampler)
    seen = []
    calls = []
    encode = pipeline.model.encode_prompts
    monkeypatch.setattr(
        pipeline.model, "encode_prompts", lambda texts: calls.append(texts) or encode(texts)
    )
    watch = lambda done, total: seen.append((done, total))  # noqa: E731
    video = pipeline(STORY, sampler=sampler, progress=watch)

    assert seen[-1] == (plan.cost.calls, plan.cost.calls)
    request = pipeline.prepare(STORY, sampler)
    call_schedule = request.call_schedule
    assert call_schedule.used.shape == (plan.cost.calls, plan.cost.samples_per_call)
    assert int(call_schedule.used.sum()) == plan.cost.samples == 2 * plan.cost.windows
    assert int((~call_schedule.used).sum()) == plan.cost.padding
    assert video.frames.shape == (plan.frames, plan.height, plan.width, 3)
    assert video.fps == plan.fps and video.seconds == plan.seconds
    assert video.events == tuple((event.start, event.prompt) for event in plan.events)
    texts = {text for window in plan.windows for text, _ in window.prompts}
    assert texts | {event.negative for event in plan.events} <= set(calls[0])

    layout, table = request.layout, pipeline.conditioning(request)["text"]
    assert len(plan.windows) == layout.count == len(request.cond_index[0])
    for window in plan.windows:
        assert window.start == layout.starts[window.index] and window.stop == window.start + 4
        features = encode([text for text, _ in window.prompts])["text"]
        mixed = sum(
            share * np.asarray(f) for (_, share), f in zip(window.prompts, features, strict=True)
        )
        np.testing.assert_allclose(table[request.cond_index[0][window.index]], mixed, atol=1e-5)


def test_events_windows_transitions(pipeline):
    plan = pipeline.plan(STORY)
    assert [(e.start, e.stop, e.windows) for e in plan.events] == [(0, 4, 1), (4, 9, 3), (9, 11, 1)]
    assert [e.start_seconds for e in plan.events] == [0, 1, 2.25]
    assert [w.middle for w in plan.windows] == [2, 4, 6, 8, 9]
    assert [w.event for w in plan.windows] == [0, 1, 1, 1, 2]
    assert plan.windows[1].override == 0 and plan.windows[1].prompts == (("a cat, yawns", 1.0),)
    assert plan.windows[4].prompts == (("a cat, runs", 0.5), ("a cat, wakes", 0.5)) or plan.windows[
        4
    ].prompts == (("a cat, wakes", 0.5), ("a cat, runs", 0.5))
    assert [(t.frame, t.before, t.after) for t in plan.transitions] == [(4, 0, 1), (9, 1, 2)]
    assert plan.transitions[0].windows == (1,) and plan.transitions[1].windows == (3, 4)
    assert plan.warnings == ()


def test_warnings(pipeline):
    events = [
        {"prompt": "a", "frames": 7},
        {"prompt": "b", "frames": 1},
        {"prompt": "c", "frames": 8},
    ]
    story = Scenario.from_dict({"global": "g", "events": events, "crossfade": 5, "stride": 4})
    said = pipeline.plan(story).warnings
    assert len(said) == 3 and said[0].startswith("events[1] ('b') has no window: it is too short")
    assert said[1].startswith("crossfade: 5 windows") and said[2].startswith("stride: 4 is")


def test_errors_are_those_of_the_run(pipeline):
    short = Scenario.from_dict({"global": "a", "events": [{"prompt": "b", "frames": 3}]})
    with pytest.raises(InputError, match="3 frames in all, but the model"):
        pipeline.plan(short)


def test_cost(pipeline):
    cost = pipeline.plan(STORY).cost
    unet = 2 * 2 * 4  # the tint: text [n, 2] @ [2, 4], n clips
    assert cost.flops_per_call == cost.samples_per_call * unet
    assert cost.flops == cost.flops_per_call * cost.calls + cost.flops_decode_frame * 11
    assert cost.weights_bytes == 4 * (8 + 1 + 128 * 2)
    layout = pipeline.prepare(STORY).layout
    latent = 4 * 2 * 3 * 4  # bytes of a latent frame
    assert cost.state_bytes >= latent * (2 * layout.frames + 4 * layout.count)
    assert cost.memory_bytes == cost.weights_bytes + cost.state_bytes + cost.call_bytes


def test_measures():
    f = jax.jit(lambda a, b: jnp.tanh(a @ b) @ b)
    a = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    jaxpr = f.trace(a, a).jaxpr.jaxpr
    flops, needed = flops_of(jaxpr), peak_live_bytes(jaxpr)
    assert flops == 2 * (2 * 8**3)
    assert needed == 2 * 8 * 8 * 4  # a product, and what is made of it
    one = jax.make_jaxpr(lambda x: x + 1.0)(jnp.ones(10)).jaxpr
    assert peak_live_bytes(one) == 40


def test_json(pipeline):
    import json

    plan = pipeline.plan(STORY)
    data = json.loads(json.dumps(plan.to_dict(), allow_nan=False))
    assert data["cost"]["calls"] == plan.cost.calls and data["windows"][2]["event"] == 1


# -- time ------------------------------------------------------------------------------------------


def test_time_is_that_of_the_last_run(pipeline):
    assert pipeline.plan(STORY).cost.seconds is None
    kind = timing_key(pipeline.prepare(STORY))
    timings.remember(kind, timings.Speed(9.0))
    timings.remember(kind, timings.Speed(0.5, compile=2, load=1, decode_frame=0.1, write_frame=0.1))
    cost = pipeline.plan(STORY).cost
    assert cost.seconds == pytest.approx(3 + cost.calls * 0.5 + 11 * 0.2)
    assert cost.seconds_per_call == 0.5 and cost.scaled_from is None


def test_time_is_scaled_from_another_batch(pipeline):
    of_two = pipeline.prepare(STORY, CoDenoising(steps=3, windows_per_call=5))
    assert of_two.call_schedule.samples_per_call == 10
    timings.remember(timing_key(of_two), timings.Speed(1.0))
    cost = pipeline.plan(STORY, CoDenoising(steps=3, windows_per_call=1)).cost
    assert cost.seconds_per_call == 0.2 and cost.scaled_from == 10
    other = STORY.model_copy(update={"size": (40, 40)})
    assert pipeline.plan(other).cost.seconds is None


def test_a_damaged_file_is_an_empty_one(pipeline, tmp_path):
    path = timings.timings_path()
    path.parent.mkdir()
    for content in (
        b"",
        b"{}",
        b"[1, {}]",
        b"\xff",
        b'[{"kind": {"clips": 1}, "speed": {"x": 1}}]',
    ):
        path.write_bytes(content)
        assert pipeline.plan(STORY).cost.seconds is None
    timings.remember(timing_key(pipeline.prepare(STORY)), timings.Speed(1.0))
    assert timings.recall(timing_key(pipeline.prepare(STORY))) == timings.Speed(1.0)


def test_no_place_for_the_file_is_no_error(pipeline, monkeypatch):
    monkeypatch.setenv("SYNCOS_CACHE", "/dev/null/x")
    timings.remember(timing_key(pipeline.prepare(STORY)), timings.Speed(1.0))
    assert timings.recall(timing_key(pipeline.prepare(STORY))) is None


def test_stopwatch_leaves_out_the_first_report():
    watch = timings.Stopwatch()
    assert watch.call is None
    watch(1, 9)
    assert watch.call is None
    time.sleep(0.05)
    watch(6, 9)
    assert 0.01 <= watch.call < 0.05


def test_speed_adds_up():
    speed = timings.Speed(2.0, compile=3.0, load=1.0, decode_frame=0.5, write_frame=0.25)
    assert speed.total(10, 4) == 27.0
    assert dataclasses.asdict(speed)["scaled_from"] is None


# -- lengths in seconds ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fps", "seconds", "count"),
    [(8, 60 / 140, 60), (16, 60 / 128, 60), (16, 0.1, 10), (24, 60 / 174, 64)],
)
def test_boundaries_of_events_do_not_drift(fps, seconds, count):
    """60 beats at 140 bpm and 8 fps were 12.5 % too short, each event being rounded alone."""
    events = [{"prompt": f"e{n}", "seconds": seconds} for n in range(count)]
    scenario = Scenario.from_dict({"global": "g", "events": events, "fps": fps})
    frames = scenario.event_frames(fps)
    ends = np.cumsum(frames)
    exact = np.arange(1, count + 1) * seconds * fps
    assert np.abs(ends - exact).max() <= 0.5 + 1e-9 and min(frames) >= 1


def test_a_plan_says_how_far_events_are_from_their_times(pipeline):
    events = [{"prompt": "a", "seconds": 1.1}, {"prompt": "b", "seconds": 1.05}]
    plan = pipeline.plan(Scenario.from_dict({"global": "g", "events": events, "fps": 8}))
    assert [event.stop for event in plan.events] == [9, 17]  # of 8.8 and 17.2
    assert [event.rounding_seconds for event in plan.events] == [0.025, -0.025]
    (said,) = [line for line in plan.warnings if "whole frames" in line]
    assert "up to 0.025 s" in said and "the whole video -0.025 s" in said
    assert not any("whole frames" in line for line in pipeline.plan(STORY).warnings)


def test_a_frame_rate_whose_video_never_ends_is_refused():
    with pytest.raises(InputError, match="fps must be a number of frames per second from 0.01"):
        Scenario.from_dict({"global": "g", "events": [{"prompt": "a", "frames": 8}], "fps": 1e-308})
