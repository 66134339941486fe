"""The measures of frames and features: where the answer is known in closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from syncos_jax.errors import InputError
from syncos_jax.metrics import (
    consistency,
    cuts,
    diversity,
    drift_curve,
    dynamic_degree,
    evaluate,
    frame_difference_flow,
    moves,
    native_frames,
    pixel_features,
    similarity_matrix,
    temporal_flicker,
)
from syncos_jax.metrics.frames import content_changes, mean_movement, movement
from syncos_jax.metrics.similarity import concat_normalised


def flat(*greys, side=16):
    """Frames of one grey each."""
    return np.stack([np.full((side, side, 3), grey, np.uint8) for grey in greys])


def angles(*degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


# -- features ------------------------------------------------------------------------------------


def test_a_constant_video():
    features = np.tile([[3.0, -1.0, 2.0]], (5, 1))
    assert consistency(features) == pytest.approx(1)
    np.testing.assert_allclose(similarity_matrix(features), np.ones((5, 5)), atol=1e-12)
    np.testing.assert_allclose(drift_curve(features), np.ones(5), atol=1e-12)
    assert diversity(features) == pytest.approx(0, abs=1e-12)


def test_two_alternating_orthogonal_frames():
    """f = a b a b a: a neighbour is never alike, the first frame every other time."""
    features = angles(0, 90, 0, 90, 0)
    assert consistency(features) == pytest.approx((0 + 0.5 + 0 + 0.5) / 4)
    expected = (np.add.outer(np.arange(5), np.arange(5)) % 2 == 0).astype(float)
    np.testing.assert_allclose(similarity_matrix(features), expected, atol=1e-12)


def test_orthogonal_features():
    features = np.eye(6) * np.arange(1, 7)[:, None]  # of any length
    assert consistency(features) == 0
    np.testing.assert_array_equal(similarity_matrix(features), np.eye(6))
    np.testing.assert_array_equal(drift_curve(features), [1, 0, 0, 0, 0, 0])
    assert diversity(features) == 1


def test_a_known_drift():
    """A turn of 10 degrees a frame."""
    turned = np.arange(13) * 10
    features = angles(*turned)
    cos = np.cos(np.radians(turned))
    np.testing.assert_allclose(drift_curve(features), cos, atol=1e-12)
    first = np.maximum(cos[1:], 0)  # VBench cuts the cosine off at 0: past 90 degrees nothing
    assert consistency(features) == pytest.approx((np.cos(np.radians(10)) + first.mean()) / 2)
    # Against the mean of the first three frames, which points where the second does.
    expected = np.cos(np.radians(turned - 10))
    np.testing.assert_allclose(drift_curve(features, first=3), expected, atol=1e-12)


def test_features_put_together_count_alike():
    both = concat_normalised(100 * angles(0, 90), angles(0, 0))  # the one turns, the other does not
    np.testing.assert_allclose(similarity_matrix(both), [[1, 0.5], [0.5, 1]], atol=1e-12)


def test_opposite_features_count_as_no_likeness_at_all():
    assert consistency(angles(0, 180)) == 0
    np.testing.assert_allclose(similarity_matrix(angles(0, 180))[0, 1], -1)
    assert diversity(angles(0, 180)) == pytest.approx(2)


def test_a_frame_of_zeros_is_like_no_other():
    matrix = similarity_matrix([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(matrix, [[1, 0, 1], [0, 1, 0], [1, 0, 1]])


def test_a_single_frame():
    assert consistency([[1.0, 2.0]]) == 1 and temporal_flicker(flat(3)) == 1
    assert diversity([[1.0, 2.0]]) == 0 and cuts(flat(3)) == []
    assert dynamic_degree(flat(3), 8) is False


@settings(max_examples=40)
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 8), st.integers(1, 5)),
        elements=st.floats(-1e6, 1e6, allow_subnormal=False),
    ),
    st.floats(1e-3, 1e3),
)
def test_similarity_in_general(features, scale):
    matrix = similarity_matrix(features)
    assert (matrix == matrix.T).all() and (np.abs(matrix) <= 1).all()
    assert (np.diagonal(matrix) == 1).all() and 0 <= consistency(features) <= 1
    np.testing.assert_allclose(similarity_matrix(features * scale), matrix, atol=1e-9)


@pytest.mark.parametrize(
    "features",
    [np.ones(3), np.ones((0, 3)), np.ones((3, 0)), [[1.0, np.nan]], [[np.inf, 0.0]]],
    ids=["flat", "no frames", "no numbers", "nan", "inf"],
)
def test_features_that_are_none(features):
    with pytest.raises(InputError, match="features"):
        consistency(features)


def test_a_beginning_of_no_frames():
    with pytest.raises(InputError, match="give 1 to 2"):
        drift_curve(np.eye(2), first=0)


# -- frames --------------------------------------------------------------------------------------


def test_flicker():
    assert temporal_flicker(flat(7, 7, 7)) == 1
    assert temporal_flicker(flat(0, 255, 0, 255)) == 0
    assert temporal_flicker(flat(100, 151, 100)) == pytest.approx(1 - 51 / 255)


def test_cuts_of_two_alternating_frames():
    """Grey has no hue and no saturation: the change is a third of that of the value."""
    assert content_changes(flat(0, 90, 0)).tolist() == [30, 30]
    assert cuts(flat(0, 0, 90, 90, 90)) == [2]
    assert cuts(flat(0, 80, 0)) == []  # 26.7, below the threshold of 27
    assert cuts(flat(0, 90, 0, 90, 0)) == [1, 2, 3, 4]
    assert cuts(flat(0, 90, 0, 90, 0), shortest=2) == [2, 4]
    assert cuts(flat(5, 5, 5, 5)) == []


def test_hue_goes_the_short_way_round():
    reds = np.zeros((2, 8, 8, 3), np.uint8)
    reds[0, ..., :], reds[1, ..., :] = (255, 0, 6), (255, 6, 0)
    assert content_changes(reds)[0] < 1.5


def test_the_rule_of_the_dynamic_degree():
    """16 pairs' flow at 256 pixels: a pair counts above 6 px, and 17 frames need 4 of them."""
    flow = np.zeros((16, 20, 20))
    flow[:3, :1, :] = 6.5  # 20 of 400 pixels: exactly the top 5 %
    assert not moves(flow, side=256)
    flow[3, :1, :] = 6.5
    assert moves(flow, side=256)
    assert not moves(flow, side=512)  # twice the picture, twice the movement
    np.testing.assert_allclose(movement(flow, side=256), [6.5 / 6] * 4 + [0] * 12)
    flow[3, 0, 0] = 0  # the mean of the top 5 % is now 6.175 there
    assert moves(flow, side=256)
    flow[3, 0, :2] = 0  # and 5.85
    assert not moves(flow, side=256)


def test_the_stand_in_for_flow_on_a_slope():
    """I(x) = 8 x moved by d pixels: |I_t| = 8 d and the slope is 8, so flow = 64 d / (64 + 4)."""
    x = np.arange(64, dtype=np.float64)
    frames = np.stack(
        [np.broadcast_to((8 * (x - d))[None, :, None], (64, 64, 3)) for d in (0, 0.5, 1.5)]
    )
    frames = np.clip(frames / 4 + 60, 0, 255).astype(np.uint8)  # a slope of 2, rounded down
    flow = frame_difference_flow(frames)[:, 20:40, 20:40]
    np.testing.assert_allclose(flow[1], 2 * 2 * 1 / (4 + 4), atol=0.1)
    np.testing.assert_allclose(flow[0], 2 * 2 * 0.5 / (4 + 4), atol=0.1)
    assert not frame_difference_flow(flat(9, 9)).any()


def test_what_stands_still_does_not_move():
    rng = np.random.default_rng(0)
    still = np.repeat(rng.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8), 8, axis=0)
    assert dynamic_degree(still, 8) is False and mean_movement(still, 8) == 0
    assert mean_movement(still[:1], 8) == 0
    square = np.zeros((8, 64, 64, 3), np.uint8)
    for frame in range(8):
        square[frame, 20:44, 4 + 4 * frame : 28 + 4 * frame] = 255
    assert dynamic_degree(square, 8) is True
    thrice = square.repeat(3, axis=0)  # three times the frame rate
    assert dynamic_degree(thrice, 24) is True
    assert mean_movement(thrice, 24) == mean_movement(square, 8) > 1


def test_pixel_features():
    features = pixel_features(flat(127, 255, 0), cells=2)
    assert features.shape == (3, 12) and features.dtype == np.float32
    np.testing.assert_allclose(features, np.repeat([[-0.5], [127.5], [-127.5]], 12, axis=1))
    halves = flat(0)
    halves[0, :, 8:] = 255
    row = pixel_features(halves, cells=2)[0].reshape(2, 2, 3)
    assert (row[:, 0] == -127.5).all() and (row[:, 1] == 127.5).all()
    odd = np.zeros((1, 7, 9, 3), np.uint8)
    assert pixel_features(odd, cells=4).shape == (1, 48)


def test_frames_that_are_none():
    for frames in (np.zeros((2, 4, 4, 3)), np.zeros((0, 4, 4, 3), np.uint8)):
        with pytest.raises(InputError, match=r"uint8 \[F, H, W, 3\] is needed"):
            temporal_flicker(frames)


# -- reports -------------------------------------------------------------------------------------


def test_enlarged_frames_are_brought_back():
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    large = small.repeat(4, axis=1).repeat(4, axis=2)
    assert (native_frames(large) == small).all()
    noisy = np.clip(large.astype(int) + rng.integers(-2, 3, large.shape), 0, 255).astype(np.uint8)
    assert np.abs(native_frames(noisy).astype(int) - small).max() <= 2
    photo = rng.integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    assert native_frames(photo) is photo  # 256 pixels, but nothing was enlarged
    assert native_frames(small) is small
    odd = np.pad(small[:, :5, :7].repeat(3, 1).repeat(3, 2), ((0, 0), (0, 1), (0, 1), (0, 0)))
    assert (native_frames(odd, scale=3) == small[:, :5, :7]).all()
    with pytest.raises(InputError, match="scale is 0"):
        native_frames(small, scale=0)


def test_the_report_of_any_video():
    """Not of the demo world: no events, pixels for features."""
    report = evaluate(flat(0, 0, 90, 90, side=20), 2)
    assert report["world"] is None and report["features"] == "pixels"
    assert (report["scenes"], report["cuts"], report["seconds"]) == (2, [2], 2)
    assert report["temporal_flicker"] == pytest.approx(1 - 30 / 255)
    # 0 and 90 are both darker than mid-grey, so their features point the same way.
    assert report["subject_consistency"] == pytest.approx(1)
    assert np.shape(report["similarity"]) == (4, 4) and len(report["drift"]) == 4
    assert "similarity" not in evaluate(flat(0, 0), 2, matrix=False)


def test_a_report_of_features_that_are_brought():
    features = {"subject": angles(0, 90, 0), "background": angles(0, 0, 0)}
    report = evaluate(flat(0, 0, 0), 8, features=features)
    assert report["features"] == "given"
    assert report["subject_consistency"] == pytest.approx(0.25)
    assert report["background_consistency"] == pytest.approx(1)
    with pytest.raises(InputError, match="background must have one row for each frame"):
        evaluate(flat(0, 0, 0), 8, features={"subject": angles(0, 0, 0)})
