"""The captioned world: what is drawn, where it stands, and what is said about it."""

import itertools

import numpy as np
import pytest

from demo_model.world import (
    Scene,
    caption,
    captions_corpus,
    coverage,
    render,
    render_clips,
    sample_scene,
)
from syncos_jax.errors import InputError
from syncos_jax.metrics.world import (
    BACKGROUNDS,
    CLIP_FRAMES,
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZE,
    global_prompt,
    local_prompt,
)
from syncos_jax.metrics.world.drawing import backgrounds
from syncos_jax.metrics.world.words import (
    ANY_SHAPE,
    COLOUR_WORDS,
    MOVES,
    PLACES,
    ROLLS,
    SHAPE_WORDS,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_clips_are_reproducible_and_have_the_promised_form():
    frames, scenes, captions = render_clips(rng(3), 5)
    again, scenes_again, captions_again = render_clips(rng(3), 5)
    assert frames.shape == (5, CLIP_FRAMES, SIZE, SIZE, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames, again)
    assert (scenes, captions) == (scenes_again, captions_again)
    assert render_clips(rng(), 0)[0].shape == (0, CLIP_FRAMES, SIZE, SIZE, 3)
    assert np.array_equal(render(scenes, 3), frames[:, :3])  # the rate does not depend on frames
    assert np.array_equal(render(scenes[2:3])[0], frames[2])  # nor a clip on its neighbours


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("ball", np.pi),
        ("box", 1.76**2),
        ("triangle", 0.75 * np.sqrt(3) * 1.35**2),
        ("star", 5 * 1.32 * 0.54 * np.sin(np.pi / 5)),
    ],
)
def test_the_area_and_the_centre_of_a_shape_are_those_of_the_formula(shape, area):
    size = np.asarray([8.0, 11.3, 16.0])
    x, y = np.asarray([30.2, 32.0, 31.7]), np.asarray([33.1, 31.5, 32.0])
    mask = coverage(shape, x, y, size)
    total = mask.sum(axis=(1, 2))
    np.testing.assert_allclose(total, area * size**2, rtol=0.02)
    axis = np.arange(SIZE)
    np.testing.assert_allclose(mask.sum(axis=1) @ axis / total, x, atol=0.15)
    np.testing.assert_allclose(mask.sum(axis=2) @ axis / total, y, atol=0.15)
    assert 0 < (np.abs(mask[0] - 0.5) < 0.45).sum() < 160  # edges are soft, one pixel wide


def test_the_star_has_five_tips_and_five_valleys():
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    mask = coverage("star", np.asarray([32.0]), np.asarray([32.0]), np.asarray([16.0]))[0]
    ring = mask[np.rint(32 - 14 * np.cos(angle)).astype(int),
                np.rint(32 + 14 * np.sin(angle)).astype(int)] > 0.5  # fmt: skip
    assert np.count_nonzero(ring & ~np.roll(ring, 1)) == 5
    assert ring[0]  # one tip points up


def test_colours_and_backgrounds_are_well_apart():
    palette = np.asarray(list(COLOURS.values()), float)
    places = backgrounds().reshape(len(BACKGROUNDS), -1, 3)
    for one, other in itertools.combinations(palette, 2):
        assert np.linalg.norm(one - other) > 120
    for one, other in itertools.combinations(places.mean(axis=1), 2):
        assert np.linalg.norm(one - other) > 120
    for colour, place in itertools.product(palette, places):
        assert np.percentile(np.linalg.norm(place - colour, axis=1), 1) > 85


@pytest.mark.parametrize("name", MOTIONS)
def test_a_motion_is_visible_and_keeps_the_subject_inside(name):
    source = rng(7)
    for _ in range(100):
        scene = sample_scene(source, motion=name)
        path = scene.path()
        dx, dy, ratio = path[-1, 0] - path[0, 0], path[-1, 1] - path[0, 1], path[-1, 2] / path[0, 2]
        along = {"left": -dx, "right": dx, "up": -dy, "down": dy}.get(name)
        if along is not None:
            assert 16 <= along <= 30 and abs(dx) + abs(dy) == pytest.approx(along)
            assert ratio == pytest.approx(1)
        else:
            assert (dx, dy) == (0, 0)
            assert max(ratio, 1 / ratio) >= 1.499 and (ratio > 1) == (name == "grow")
        areas = coverage(scene.shape, path[:, 0], path[:, 1], path[:, 2]).sum(axis=(1, 2))
        whole = coverage(scene.shape, np.full(8, 31.5), np.full(8, 31.5), path[:, 2])
        assert (areas / whole.sum(axis=(1, 2))).min() > 0.84


def test_starts_are_broad():
    scenes = [sample_scene(rng(seed)) for seed in range(400)]
    for values in ([s.x for s in scenes], [s.y for s in scenes]):
        assert min(values) < 12 and max(values) > 52
    assert min(s.size for s in scenes) < 9 and max(s.size for s in scenes) > 16


def test_fixed_fields_are_kept():
    scene = sample_scene(rng(), shape="star", x=20.0, size=9.0, motion="grow")
    assert (scene.shape, scene.x, scene.size, scene.motion) == ("star", 20.0, 9.0, "grow")


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: sample_scene(rng(), color="red"), "no field 'color'"),
        (lambda: sample_scene(rng(), colour="mauve"), "colour 'mauve' is not one of red"),
        (lambda: sample_scene(rng(), motion="sideways"), "motion 'sideways'"),
        (lambda: Scene("ball", "red", "snow", "up", size=0.0), "must be > 0"),
        (lambda: Scene("ball", "red", "snow", "up", x=float("nan")), "finite"),
        (lambda: render([], frames=0), "at least 1"),
        (lambda: render_clips(rng(), -1), "negative"),
        (lambda: coverage("blob", np.ones(1), np.ones(1), np.ones(1)), "shape 'blob'"),
        (lambda: caption(sample_scene(rng()), rng(), leave_open=("size",)), "'size'"),
        (lambda: global_prompt("ball", "grey"), "colour 'grey'"),
        (lambda: local_prompt("roll"), "motion 'roll'"),
    ],
)
def test_bad_input_is_named(call, part):
    with pytest.raises(InputError, match=part):
        call()


def words_of(table, key) -> tuple[str, ...]:
    return tuple(word.split()[-1] for word in table[key])


def tells(text: str, words) -> bool:
    return bool(set(text.replace(",", "").split()) & set(words))


def test_captions_tell_the_truth_and_leave_open_at_the_promised_rates():
    source = rng(11)
    n = 4000
    told = dict.fromkeys(("colour", "shape", "background", "motion"), 0)
    structured = 0
    for _ in range(n):
        scene = sample_scene(source)
        text = caption(scene, source)
        moves = MOVES[scene.motion] + ((ROLLS[scene.motion],) if scene.motion in ROLLS else ())
        told["colour"] += tells(text, words_of(COLOUR_WORDS, scene.colour))
        told["shape"] += tells(text, words_of(SHAPE_WORDS, scene.shape))
        told["background"] += any(place in text for place in PLACES[scene.background])
        told["motion"] += any(word in text for pair in moves for word in pair)
        others = [words_of(COLOUR_WORDS, c) for c in COLOURS if c != scene.colour]
        others += [words_of(SHAPE_WORDS, s) for s in SHAPES if s != scene.shape]
        assert not tells(text, itertools.chain(*others)), text
        head, _, tail = text.partition(", ")
        structured += head.startswith(("a ", "an ")) and tail.startswith(("the ", "it "))
    rates = {name: 1 - count / n for name, count in told.items()}
    assert rates == pytest.approx(
        {"colour": 0.25, "shape": 0.10, "background": 0.10, "motion": 0.05}, abs=0.025
    )
    assert structured / n == pytest.approx(0.6, abs=0.03)


def test_leave_open_never_tells():
    source = rng(12)
    for _ in range(300):
        scene = sample_scene(source)
        text = caption(scene, source, leave_open=("colour", "shape", "background"))
        assert not tells(text, words_of(COLOUR_WORDS, scene.colour))
        assert not tells(text, words_of(SHAPE_WORDS, scene.shape))
        assert tells(text, ANY_SHAPE) and "roll" not in text
        assert not any(place in text for place in PLACES[scene.background])
        assert "," not in caption(scene, source, leave_open=("motion",))


def test_the_canonical_prompts_are_among_the_captions():
    assert global_prompt("ball", "red", "meadow") == "a red ball on a green meadow"
    assert global_prompt("star", background="night") == "a star in the night sky"
    assert global_prompt(None, "blue") == "a blue thing"
    assert local_prompt("left", "ball") == "the ball rolls to the left"
    assert local_prompt("left", "box") == "the box moves to the left"
    assert local_prompt("grow") == "it grows"
    corpus = captions_corpus()
    assert len(corpus) == len(set(corpus)) > 10_000
    assert corpus[:50] == captions_corpus(200)[:50]
    every = set(corpus)
    for shape, colour, place in itertools.product(SHAPES, COLOURS, BACKGROUNDS):
        prompts = {
            f"{global_prompt(shape, colour, place)}, {local_prompt(motion, actor)}"
            for motion, actor in itertools.product(MOTIONS, (shape, None))
            if not (actor is None and shape == "ball" and motion in ROLLS)
        }
        assert prompts & every, (shape, colour, place)
