"""The demo model's next world, of drawn objects: what it shows is read back from its pixels."""

import numpy as np
import pytest

from demo_model.draw_objects import cell
from demo_model.gates import completed_right, frames_right
from demo_model.sizes import SIZES, TOKENS
from demo_model.tokenizer import train_tokenizer
from demo_model.train_text import batches, codes
from demo_model.train_vae import frames as vae_batches
from demo_model.world import (
    DRAWN_OBJECTS,
    LARGE_SUBJECTS,
    Scene,
    caption,
    prompt,
    render,
    sample_scene,
)
from demo_model.world.objects import OBJECT_WORDS, OBJECTS, PLACE_WORDS, SCENERY, drawn_object
from demo_model.world.recognise import judge_clip, recognise
from syncos_jax.errors import InputError
from syncos_jax.metrics.world import ATTRIBUTES, BACKGROUNDS, COLOURS, SHAPES
from syncos_jax.models.tokenizer import PromptTokenizer


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(77)
    return [sample_scene(rng, DRAWN_OBJECTS).at(int(rng.integers(8))) for _ in range(400)]


def test_there_are_forty_objects_in_six_places():
    assert len(OBJECTS) == 40 and len(SCENERY) == 6
    assert not set(OBJECTS) & set(SHAPES) and set(BACKGROUNDS) < set(SCENERY)
    words = [word for each in OBJECT_WORDS.values() for word in each]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("noise", [0, pytest.param(8, marks=pytest.mark.slow)])
def test_objects_colours_and_places_are_recognised(scenes, noise):
    drawn = render(scenes, 1)[:, 0]
    noisy = drawn + np.random.default_rng(0).normal(0, noise, drawn.shape)
    right = frames_right(noisy.clip(0, 255).astype(np.uint8), scenes, DRAWN_OBJECTS)
    assert right["shape"] >= 0.98 and right["colour"] >= 0.98 and right["background"] >= 0.98
    wrong = frames_right(drawn, scenes[::-1], DRAWN_OBJECTS)
    assert wrong["shape"] < 0.1


def test_a_frame_without_a_subject_shows_none():
    empty = render([Scene("cat", "red", "road", "up", x=-60, y=-60, size=12)], 1)[0]
    seen = recognise(empty)
    assert seen.shape[0] == -1 and seen.colour[0] == -1 and not seen.visible[0]
    assert SCENERY[seen.background[0]] == "road" and np.isnan(seen.x[0])


def test_clips_are_judged_by_all_they_show():
    rng = np.random.default_rng(5)
    scenes = [sample_scene(rng, DRAWN_OBJECTS) for _ in range(32)]
    clips = render(scenes)
    verdicts = [judge_clip(c, s, DRAWN_OBJECTS) for c, s in zip(clips, scenes, strict=True)]
    assert all(set(verdict) == set(ATTRIBUTES) for verdict in verdicts)
    assert np.mean([all(verdict.values()) for verdict in verdicts]) >= 0.96
    backwards = [judge_clip(c[::-1], s, DRAWN_OBJECTS) for c, s in zip(clips, scenes, strict=True)]
    assert np.mean([verdict["motion"] for verdict in backwards]) < 0.05
    whole = completed_right(clips, scenes, clips, (0,), DRAWN_OBJECTS)
    assert whole["shape"] >= 0.97 and whole["motion"] >= 0.97 and whole["jump"] < 4


def test_an_object_is_drawn_where_and_as_large_as_it_should_be():
    cover, light = drawn_object("heart", 30, 34, 14)
    y, x = np.mgrid[0:64, 0:64]
    assert abs((x * cover).sum() / cover.sum() - 30) < 1
    assert abs((y * cover).sum() / cover.sum() - 34) < 3
    rows = np.flatnonzero((cover > 0.5).any(axis=1))
    assert 28 <= np.ptp(rows) <= 35
    assert cover.min() >= 0 and cover.max() <= 1
    assert light[cover > 0.5].min() >= 0.54 and light[cover > 0.5].max() <= 1.11


def test_captions_name_objects_and_places():
    rng = np.random.default_rng(0)
    scene = sample_scene(rng, DRAWN_OBJECTS, shape="elephant", colour="blue", background="sea")
    assert prompt(scene).startswith("a blue elephant on the sea, the elephant ")
    seen = [caption(scene, rng) for _ in range(200)]
    assert 0.8 < np.mean(["elephant" in text for text in seen]) < 0.98
    assert any(place in text for text in seen for place in PLACE_WORDS["sea"][1:])
    with pytest.raises(InputError, match="'unicorn' is not one of"):
        Scene("unicorn", "red", "sea", "up")
    assert sample_scene(rng, LARGE_SUBJECTS).shape in SHAPES


def test_text_codes_have_room_for_forty_objects(tmp_path):
    sizes = SIZES["objects"]
    table = codes(sizes.unet.text_features, DRAWN_OBJECTS.attributes)
    assert [len(code) for code in table] == [40, 6, 6, 6]
    everything = np.concatenate(table)
    for i, one in enumerate(table):
        for other in table[:i]:
            np.testing.assert_array_equal(one @ other.T, 0)
    distances = np.square(everything[:40, None] - everything[None, :40]).sum(axis=-1)
    assert distances[~np.eye(40, dtype=bool)].min() > 1
    train_tokenizer(tmp_path, subjects=DRAWN_OBJECTS)
    tokenizer = PromptTokenizer(tmp_path, TOKENS)
    ids, labels = next(batches(tokenizer, DRAWN_OBJECTS, (0,)))
    assert ids.shape == (64, TOKENS) and (labels.max(axis=0) < [40, 6, 6, 6]).all()
    assert labels[:, list(ATTRIBUTES).index("shape")].max() >= len(COLOURS)
    assert (ids == tokenizer.end).any(axis=1).all()  # no caption is cut


def test_batches_of_the_autoencoder_mark_objects():
    images, subject = next(vae_batches(16, DRAWN_OBJECTS, (0,)))
    assert images.shape == (16, 64, 64, 3) and np.abs(images).max() <= 1
    assert ((subject.mean(axis=(1, 2, 3)) > 0.03) & (subject.mean(axis=(1, 2, 3)) < 0.6)).all()


def test_an_icon_becomes_its_silhouette_and_brightness():
    drawn = cell('<circle cx="40" cy="70" r="20" fill="#888"/>')
    assert drawn.shape == (64, 64, 2)
    assert abs((drawn[..., 1] / 255).sum() - np.pi * (32 / 1.06) ** 2) < 40
