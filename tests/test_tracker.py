"""The tracker against clips whose truth is known, clean and spoilt."""

import numpy as np
import pytest

from demo_model.world import Scene, render, render_clips
from syncos_jax.errors import InputError
from syncos_jax.metrics.world import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    OPPOSITE,
    SHAPES,
    SIZE,
)
from syncos_jax.metrics.world.drawing import backgrounds
from syncos_jax.metrics.world.tracker import fidelity, judge, motion, read, track


def blur(frames: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of float frames ``[..., H, W, 3]``, edges repeated."""
    reach = int(np.ceil(3 * sigma))
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in (frames.ndim - 3, frames.ndim - 2):
        pad = [(reach, reach) if a == axis else (0, 0) for a in range(frames.ndim)]
        padded = np.pad(frames, pad, mode="edge")
        frames = sum(
            w * np.take(padded, np.arange(i, i + SIZE), axis=axis) for i, w in enumerate(weights)
        )
    return frames


def spoil(rng, frames: np.ndarray, sigma: float, noise: float, shift: float) -> np.ndarray:
    """Blur (px), pixel noise and a colour shift for each clip (of 255)."""
    values = blur(frames.astype(np.float64), sigma) + rng.normal(0, noise, frames.shape)
    values += rng.uniform(-shift, shift, (len(frames), 1, 1, 1, 3))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def accuracy(frames: np.ndarray, scenes: list[Scene]) -> dict[str, float]:
    results = [judge(clip, scene.attributes) for clip, scene in zip(frames, scenes, strict=True)]
    return {name: float(np.mean([result[name] for result in results])) for name in ATTRIBUTES}


@pytest.fixture(scope="module")
def clips() -> tuple[np.ndarray, list[Scene]]:
    frames, scenes, _ = render_clips(np.random.default_rng(5), 240)
    return frames, scenes


def test_clean_clips_are_read_right(clips):
    assert min(accuracy(*clips).values()) >= 0.99


@pytest.mark.slow
def test_spoilt_clips_are_read_right(clips):
    frames, scenes = clips
    spoilt = spoil(np.random.default_rng(6), frames, sigma=1.5, noise=10, shift=12)
    assert min(accuracy(spoilt, scenes).values()) >= 0.97


def test_ghosts_and_flat_backgrounds_do_not_confuse(clips):
    frames, scenes = clips[0][:80], clips[1][:80]
    places = backgrounds()[[BACKGROUNDS.index(scene.background) for scene in scenes]][:, None]
    ground = np.abs(frames - places).sum(axis=-1, keepdims=True) < 3
    flat = np.where(ground, places.mean(axis=(2, 3), keepdims=True), frames)
    ghost = 0.75 * flat + 0.25 * np.roll(flat, 1, axis=1)
    assert min(accuracy(blur(ghost, 1.0).astype(np.uint8), scenes).values()) >= 0.97


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("shape", SHAPES)
def test_centre_and_size_are_measured(shape, colour):
    scenes = [Scene(shape, colour, place, "grow", 30.3, 33.6, 8.5, 1.9) for place in BACKGROUNDS]
    for scene, clip in zip(scenes, render(scenes), strict=True):
        seen, truth = track(clip), scene.path()
        assert seen.visible.all()
        np.testing.assert_allclose(seen.x, truth[:, 0], atol=0.4)
        np.testing.assert_allclose(seen.y, truth[:, 1], atol=0.4)
        np.testing.assert_allclose(seen.size, truth[:, 2], rtol=0.06)
        assert (seen.clutter == 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_subject_that_the_edge_cuts_is_still_measured(shape):
    scene = Scene(shape, "red", "meadow", "left", 24.0, 32.0, 12.0, 18.0)
    seen, truth = track(render([scene])[0]), scene.path()
    assert read(seen)["shape"] == shape and motion(seen) == "left"
    np.testing.assert_allclose(seen.x, truth[:, 0], atol=2.5)
    np.testing.assert_allclose(seen.size, truth[:, 2], rtol=0.25)


@pytest.mark.parametrize("place", BACKGROUNDS)
def test_an_empty_frame_shows_nobody(place):
    rng = np.random.default_rng(8)
    empty = np.repeat(backgrounds()[BACKGROUNDS.index(place)][None], 8, axis=0)
    for frames in (empty, empty + rng.normal(0, 15, empty.shape)):
        seen = track(np.clip(frames, 0, 255).astype(np.uint8))
        assert not seen.visible.any() and np.isnan(seen.x).all()
        assert (seen.shape == -1).all() and (seen.colour == -1).all()
        assert read(seen) == {"shape": None, "colour": None, "background": place, "motion": None}


@pytest.mark.parametrize("value", [0, 128, 255])
def test_grey_noise_is_nothing(value):
    rng = np.random.default_rng(9)
    frames = np.clip(value + rng.normal(0, 60, (8, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    seen = read(track(frames))
    assert seen["shape"] is None and seen["motion"] is None


def test_motions_of_a_long_video_are_told_apart_by_range():
    first = Scene("ball", "red", "meadow", "right", 15.0, 32.0, 9.0, 24.0)
    start_x = float(first.path()[-1, 0])
    second = Scene("ball", "red", "meadow", "grow", start_x, 32.0, 9.0, 1.8)
    third = Scene("ball", "red", "meadow", "up", start_x, 32.0, float(second.path()[-1, 2]), 16.0)
    seen = track(np.concatenate(list(render([first, second, third]))))
    assert [motion(seen, start, start + 8) for start in (0, 8, 16)] == ["right", "grow", "up"]


@pytest.mark.parametrize("name", MOTIONS)
def test_half_the_typical_rate_is_a_motion_and_a_tenth_is_not(name):
    half, tenth = (11.0, 2.2) if name not in ("grow", "shrink") else (1.75**0.5, 1.75**0.1)
    for amount, expected in ((half, name), (tenth, None)):
        scene = Scene("box", "cyan", "beach", name, 32.0, 32.0, 12.0, amount)
        assert motion(track(render([scene])[0])) == expected


@pytest.mark.parametrize("name", MOTIONS)
def test_fidelity_of_a_motion_is_its_rate(name):
    size = name in ("grow", "shrink")
    for share in (0.3, 0.6, 2):
        amount = 1.75**share if size else 22 * share
        x = {"left": 54.0, "right": 10.0}.get(name, 32.0)
        y = {"up": 54.0, "down": 10.0}.get(name, 32.0)
        frames = render([Scene("box", "cyan", "beach", name, x, y, 12.0, amount)])[0]
        seen = track(frames)
        assert fidelity(seen, {"motion": name})["motion"] == pytest.approx(min(share, 1), abs=0.08)
        assert fidelity(seen, {"motion": OPPOSITE[name]}) == {"motion": 0}


def test_fidelity_of_what_a_frame_has_is_its_nearness():
    """A red ball told in other colours: 1 minus the distance of the two colours over 441."""
    seen = track(render([Scene("ball", "red", "meadow", "left", 44.0, 32.0, 11.0, 22.0)])[0])
    red = np.asarray(COLOURS["red"], float)
    for name, colour in COLOURS.items():
        expected = 1 - np.linalg.norm(red - np.asarray(colour, float)) / (255 * 3**0.5)
        assert fidelity(seen, {"colour": name})["colour"] == pytest.approx(expected, abs=0.04)
    shapes = {name: fidelity(seen, {"shape": name})["shape"] for name in SHAPES}
    assert shapes["ball"] > 0.85 and max(shapes, key=shapes.get) == "ball"
    places = {name: fidelity(seen, {"background": name})["background"] for name in BACKGROUNDS}
    assert places["meadow"] > 0.97 and sorted(places.values())[-2] < 0.9


def test_a_frame_without_a_subject_shows_neither_colour_nor_shape():
    """Half of the frames: half of the nearness; too few to move."""
    scene = Scene("ball", "red", "meadow", "left", 44.0, 32.0, 11.0, 1.0)
    shown = render([scene])[0]
    hidden = render([Scene("ball", "red", "meadow", "left", -60.0, 32.0, 9.0, 1.0)])[0]
    told = {"colour": "red", "shape": "ball", "background": "meadow", "motion": "left"}
    whole = fidelity(track(shown), told)
    half = fidelity(track(np.concatenate([shown, hidden])), told)
    for name in ("colour", "shape"):
        assert half[name] == pytest.approx(whole[name] / 2, abs=0.01)
    assert half["background"] > 0.97
    none = fidelity(track(hidden), told)
    assert none["colour"] == none["shape"] == none["motion"] == 0


def test_one_stray_frame_does_not_turn_a_motion():
    scene = Scene("star", "yellow", "night", "down", 32.0, 18.0, 10.0, 24.0)
    frames = render([scene])[0]
    frames[4] = np.roll(frames[4], 25, axis=1)
    assert motion(track(frames)) == "down"


def test_judge_judges_what_it_is_asked():
    scene = Scene("star", "pink", "snow", "shrink", 32.0, 30.0, 16.0, 1.7)
    frames = render([scene])[0]
    assert judge(frames, scene.attributes) == dict.fromkeys(ATTRIBUTES, True)
    assert judge(frames, {"shape": "box", "colour": None, "motion": "shrink"}) == {
        "shape": False,
        "motion": True,
    }


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda frames: track(frames[0]), "uint8"),
        (lambda frames: track(frames / 255), "float64"),
        (lambda frames: track(frames[:0]), "no frames"),
        (lambda frames: motion(track(frames), 4, 9), "4..9"),
        (lambda frames: judge(frames, {"color": "red"}), "'color'"),
        (lambda frames: judge(frames, {"colour": "grey"}), "'grey'"),
    ],
)
def test_bad_input_is_named(call, part):
    with pytest.raises(InputError, match=part):
        call(render([Scene("ball", "red", "snow", "up")])[0])
