"""Which window has which prompts: middle frames, cross-fades, overrides, negatives, sizes."""

import jax.numpy as jnp
import numpy as np
import pytest
from fakes import FakeModel

from syncos_jax.errors import InputError
from syncos_jax.pipeline import Pipeline
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.scenario import Scenario
from syncos_jax.scenario.conditioning import window_prompts

EVENTS = [{"prompt": "a", "frames": 12}, {"prompt": "b", "frames": 12}]
LAYOUT = WindowLayout(frames=24, window=4, stride=2)  # 11 windows, centers 2, 4, ..., 22


def of(layout=LAYOUT, **changes):
    data = {"events": EVENTS, "structured": False, **changes}
    return window_prompts(Scenario.from_dict(data), layout, fps=4)


def share(found, text):
    return found.weights[:, found.prompts.index(text)].tolist()


def test_the_middle_frame_decides():
    found = of()
    assert found.events.tolist() == [0] * 5 + [1] * 6
    assert found.prompts == ("a", "b") and found.weights.tolist() == [[1, 0]] * 5 + [[0, 1]] * 6
    assert (found.overrides == -1).all() and found.negatives == ("",)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (1, {5: 1 / 2}),
        (2, {4: 1 / 3, 5: 2 / 3}),
        (3, {4: 1 / 4, 5: 2 / 4, 6: 3 / 4}),
    ],
)
def test_crossfade(width, expected):
    weights = of(crossfade=width).weights
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    for window in range(11):
        plain = 0.0 if window < 5 else 1.0
        assert weights[window, 1] == pytest.approx(expected.get(window, plain), abs=1e-6)


def test_crossfades_that_meet_stay_shares():
    events = [{"prompt": text, "frames": 4} for text in "abcdef"]
    found = of(events=events, crossfade=9)
    assert (found.weights >= 0).all()
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-6)


def test_an_event_that_is_too_short_for_a_window():
    events = [{"prompt": "a", "frames": 11}, {"prompt": "b", "frames": 1}, EVENTS[1]]
    for crossfade in (0, 2):
        found = of(events=events, crossfade=crossfade)
        assert found.events.tolist() == [0] * 5 + [2] * 6
        assert "b" in found.prompts  # as it stands twice
    events[1] = {"prompt": "c", "frames": 1}
    assert max(share(of(events=events, crossfade=2), "c")) == 0


def test_overrides():
    overrides = [
        {"prompt": "x", "frames": [8, 15]},
        {"prompt": "y", "seconds": [3.5, 4.5]},  # frames 14 to 17, of which 14 is taken from x
    ]
    found = of(overrides=overrides)
    assert found.overrides.tolist() == [-1, -1, -1, 0, 0, 0, 1, 1, -1, -1, -1]
    assert share(found, "x") == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    assert share(found, "a") == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(found.weights.sum(axis=1), 1)
    assert of(overrides=overrides, structured=True, **{"global": "g"}).prompts[2] == "g, x"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"frames": [20, 30]}, r"overrides\[0\]: ends at frame 30, expected at most 24"),
        (
            {"frames": [3, 4]},
            r"overrides\[0\]: has no effect: no window has its middle in frames 3 to 3",
        ),
        ({"frames": [4, 4]}, r"overrides\[0\]: the range \[4, 4\] is empty"),
        ({"frames": [4]}, r"overrides\[0\].frames.* expected .*two integers"),
        ({"frames": [1, 2.5]}, r"overrides\[0\].frames\[1\] must be .*two integers.*got 2.5"),
        ({"seconds": [-1, 2]}, r"overrides\[0\].seconds\[0\] must be .*two numbers.*got -1"),
        ({}, r"overrides\[0\]: has no range; add seconds"),
        ({"frames": [1, 2], "seconds": [1, 2]}, r"overrides\[0\]: has both"),
        ({"frame": [1, 2]}, r"overrides\[0\].frame: unknown key; did you mean 'frames'"),
    ],
)
def test_bad_overrides(override, message):
    with pytest.raises(InputError, match=message):
        of(overrides=[{"prompt": "x", **override}])


def test_negatives_of_events_follow_their_windows():
    events = [EVENTS[0], {**EVENTS[1], "negative": "dark"}]
    found = of(events=events, negative="blurred", crossfade=1)
    assert found.negatives == ("blurred", "dark")
    np.testing.assert_array_equal(found.negative_weights, found.weights)


def test_features_are_mixed_as_the_weights_say():
    pipeline = Pipeline(FakeModel())
    events = [EVENTS[0], {**EVENTS[1], "negative": "dark"}]
    data = {"events": events, "structured": False, "crossfade": 2}
    scenario = Scenario.from_dict(data)
    request = pipeline.prepare(scenario)
    table = np.asarray(pipeline.conditioning(request)["text"])
    cond, uncond = ({"text": table[index]} for index in request.cond_index)
    encoded = pipeline.model.encode_prompts(["a", "b", "dark", ""])["text"]
    a, b, dark, empty = (np.asarray(row) for row in encoded)
    np.testing.assert_array_equal(cond["text"][3], a)
    np.testing.assert_array_equal(cond["text"][6], b)
    np.testing.assert_allclose(cond["text"][4], (2 * a + b) / 3, atol=1e-6)
    np.testing.assert_allclose(uncond["text"][5], (empty + 2 * dark) / 3, atol=1e-6)


@pytest.mark.parametrize("size", [[24, 16], [17, 9], [40, 33]])
def test_the_size_of_the_scenario(size):
    pipeline = Pipeline(FakeModel())
    scenario = Scenario.from_dict({"events": EVENTS, "structured": False, "size": size})
    height, width, channels = pipeline.prepare(scenario).frame_shape
    assert (height, width, channels) == (-(-size[1] // 8), -(-size[0] // 8), 4)
    latents = jnp.zeros((24, height, width, channels))
    video = pipeline.video(scenario, pipeline.decode(latents))
    assert video.frames.shape == (24, size[1], size[0], 3)
