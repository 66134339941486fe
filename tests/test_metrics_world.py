"""The demo world's measures on drawn videos, whose content is known; and ``syncos evaluate``."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from demo_model.world import Scene, render
from syncos_jax.cli import app
from syncos_jax.errors import InputError
from syncos_jax.media.video import Video
from syncos_jax.metrics import Expected, evaluate, expected_from_prompt, judge_video
from syncos_jax.metrics.features import background_features, subject_features
from syncos_jax.metrics.similarity import consistency
from syncos_jax.metrics.world import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    SHAPES,
    global_prompt,
    local_prompt,
)
from syncos_jax.metrics.world.judge import majority_share
from syncos_jax.metrics.world.tracker import track
from syncos_jax.metrics.world.words import COLOUR_WORDS, MOVES, PLACES, SHAPE_WORDS
from syncos_jax.scenario import Scenario

LEFT = Scene("ball", "red", "meadow", "left", x=44)
RIGHT = Scene("ball", "red", "meadow", "right", x=20)
GROW = Scene("ball", "red", "meadow", "grow", size=9, amount=1.7)


def drawn(*scenes):
    return render(list(scenes)).reshape(-1, 64, 64, 3)


def expecting(*told):
    return [Expected(8 * i, 8 * i + 8, **one) for i, one in enumerate(told)]


def test_a_video_that_shows_what_it_should():
    told = {"colour": "red", "shape": "ball", "background": "meadow"}
    events = expecting(
        {**told, "motion": "left"}, {**told, "motion": "right"}, {**told, "motion": "grow"}
    )
    found = judge_video(drawn(LEFT, RIGHT, GROW), events)
    assert found["right"] == dict.fromkeys(("shape", "colour", "background", "motion"), 1)
    assert found["global_right"] == found["local_right"] == found["visible"] == 1
    assert found["held"] == {"colour": 1, "shape": 1, "background": 1}
    assert found["coherence"] == 1 and found["open_same"] == {}
    of = found["fidelity"]
    assert min(of["global"], of["local"]) > 0.85 and max(of["global"], of["local"]) <= 1
    assert of["all"] == pytest.approx((3 * of["global"] + of["local"]) / 4, abs=1e-3)
    json.dumps(found, allow_nan=False)


def test_a_colour_that_drifts_where_it_was_left_open():
    """24 frames: 16 red, 8 blue."""
    blue = Scene("ball", "blue", "meadow", "grow", size=9, amount=1.7)
    told = {"shape": "ball", "background": "meadow"}
    events = expecting(*({**told, "motion": m} for m in ("left", "right", "shrink")))
    found = judge_video(drawn(LEFT, RIGHT, blue), events)
    assert found["held"]["colour"] == pytest.approx(16 / 24)
    assert found["held"]["background"] == 1
    assert found["open_same"] == {"colour": False}
    assert found["right"]["motion"] == pytest.approx(2 / 3)  # it grew, and should have shrunk
    assert found["local_right"] == pytest.approx(2 / 3) and found["global_right"] == 1
    assert [event["seen"]["colour"] for event in found["events"]] == ["red", "red", "blue"]
    same = judge_video(drawn(LEFT, RIGHT, GROW), events)
    assert same["open_same"] == {"colour": True}


def test_what_is_meant_to_change_need_not_hold():
    snow = Scene("ball", "red", "snow", "right", x=20)
    told = {"colour": "red", "shape": "ball"}
    events = expecting({**told, "background": "meadow"}, {**told, "background": "snow"})
    found = judge_video(drawn(LEFT, snow), events)
    assert set(found["held"]) == {"colour", "shape"} and found["local_right"] == 1
    held = judge_video(drawn(LEFT, RIGHT), events)  # it did not change, and should have
    assert held["local_right"] == 0.5 and held["global_right"] == 1


def test_frames_without_a_subject():
    empty = np.repeat(render([Scene("ball", "red", "meadow", "left", x=-40)])[0, -1:], 8, axis=0)
    found = judge_video(np.concatenate([drawn(LEFT), empty]), expecting({}, {}))
    assert found["visible"] == 0.5 and found["held"]["colour"] == 0.5
    assert found["open_same"] == {"colour": False, "shape": False, "background": True}
    assert found["global_right"] is None and found["right"] == {}
    assert found["fidelity"] == dict.fromkeys(("global", "local", "all"))


def test_majority_share():
    assert majority_share(np.asarray([2, 2, -1, 1])) == 0.5
    assert majority_share(np.asarray([-1, -1])) == 0


def test_events_that_do_not_cover_the_video():
    for events in ([], [Expected(0, 8)], [Expected(0, 8), Expected(9, 16)], [Expected(8, 16)]):
        with pytest.raises(InputError, match="do not cover the video's 16 frames"):
            judge_video(drawn(LEFT, RIGHT), events)
    with pytest.raises(InputError, match="is not one of"):
        Expected(0, 8, colour="green")


def test_features_of_the_world_do_not_see_what_may_change():
    """The subject's features are the same wherever it is; the background's wherever the subject."""
    frames = drawn(LEFT, GROW)
    found = track(frames)
    assert consistency(subject_features(frames, found)) > 0.97
    assert consistency(background_features(frames, found)) > 0.97
    other = drawn(LEFT, Scene("box", "blue", "snow", "right", x=20))
    found = track(other)
    assert consistency(subject_features(other, found)) < 0.75
    assert consistency(background_features(other, found)) < 0.85


@pytest.mark.parametrize("motion", MOTIONS)
def test_prompts_are_read_back(motion):
    for shape in (*SHAPES, None):
        for colour in (*COLOURS, None):
            for place in (*BACKGROUNDS, None):
                told = {"motion": motion, "colour": colour, "shape": shape, "background": place}
                overall = global_prompt(shape, colour, place)
                assert expected_from_prompt(local_prompt(motion, shape), overall) == told


def test_every_word_of_the_captions_is_read():
    for attribute, words in (
        ("shape", SHAPE_WORDS),
        ("colour", COLOUR_WORDS),
        ("background", PLACES),
        ("motion", {m: [w for pair in pairs for w in pair] for m, pairs in MOVES.items()}),
    ):
        for name, options in words.items():
            for word in options:
                assert expected_from_prompt(f"A {word.upper()} thing")[attribute] == name, word


def test_the_event_speaks_before_the_whole():
    found = expected_from_prompt("the blue ball in the snow", "a red ball on a meadow")
    assert (found["colour"], found["background"]) == ("blue", "snow")
    assert expected_from_prompt("red and blue balls")["colour"] is None
    assert set(expected_from_prompt("a cat reads a starry redwood map").values()) == {None}


# -- the command ---------------------------------------------------------------------------------

STORY = {
    "global": "a ball on a green meadow",
    "events": [
        {"prompt": "the ball rolls to the left", "seconds": 1},
        {"prompt": "the ball grows", "seconds": 1},
    ],
}


def syncos(*arguments):
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "ball.mp4"
    Video(drawn(LEFT, GROW), 8).save(path, scale=4)
    return path


def test_evaluate_with_a_scenario(video, tmp_path):
    """Enlarged four times and compressed; brought back and read."""
    Scenario.from_dict(STORY).save(tmp_path / "story.yaml")
    result = syncos(video, "--scenario", tmp_path / "story.yaml", "--json", tmp_path / "m.json")
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "m.json").read_text())
    assert data["format"] == "syncos_jax.metrics"
    (report,) = data["videos"]
    assert (report["width"], report["frames"], report["features"]) == (64, 16, "world")
    world = report["world"]
    assert world["right"] == {"motion": 1, "shape": 1, "background": 1}
    assert world["open_same"] == {"colour": True} and world["coherence"] == 1
    assert "motion accuracy" in result.stdout and "0-7" in result.stdout


def test_evaluate_reads_what_stands_beside_the_video(video):
    story = {**STORY, "global": "a blue ball on a green meadow"}
    events = [
        {"prompt": event["prompt"], "start": 8 * i, "stop": 8 * i + 8}
        for i, event in enumerate(story["events"])
    ]
    sidecar = {
        "format": "syncos_jax.video",
        "version": 1,
        "video": {"scale": 4},
        "events": events,
        "scenario": story,
    }
    video.with_suffix(".json").write_text(json.dumps(sidecar))
    result = syncos(video)
    assert result.exit_code == 0 and "red (not blue)" in result.stdout, result.output


def test_evaluate_a_folder(video, tmp_path):
    Video(np.zeros((4, 32, 48, 3), np.uint8), 8).save(tmp_path / "black.mp4")
    result = syncos(tmp_path, "--json", tmp_path / "m.json")
    assert result.exit_code == 0, result.output
    ball, black = json.loads((tmp_path / "m.json").read_text())["videos"]
    assert black["file"].endswith("black.mp4") and black["world"] is None
    assert black["dynamic_degree"] is False and black["temporal_flicker"] == 1
    assert ball["world"]["held"]["colour"] == 1 and ball["dynamic_degree"] is True


def test_evaluate_says_what_is_wrong(video, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    short = {**STORY, "events": STORY["events"][:1]}
    Scenario.from_dict(short).save(tmp_path / "short.yaml")
    for arguments, message in (
        ([tmp_path / "none.mp4"], "No such file"),
        ([tmp_path / "text.mp4"], "cannot be read as a video"),
        ([tmp_path / "empty"], "has no video in it"),
        ([video, "--scenario", tmp_path / "short.yaml"], "has 16 frames, but the scenario's"),
        ([video, "--scenario", tmp_path / "no.yaml"], "no such file"),
        ([video, "--json", tmp_path / "no" / "m.json"], "does not exist"),
    ):
        result = syncos(*arguments)
        assert result.exit_code == 2 and result.stderr.startswith("error: "), result.output
        assert message in result.stderr and result.stderr.strip().count("\n") == 0, result.stderr


def test_evaluating_frames_of_another_size_against_events():
    with pytest.raises(InputError, match="demo world's are 64"):
        evaluate(np.zeros((8, 32, 32, 3), np.uint8), 8, expecting({}))
