"""Colours that drift and motion that repeats: closed forms."""

import numpy as np
import pytest

from syncos_jax.metrics.drift import colour_drift, lab, repetition, seam_visibility


def test_lab_of_the_primaries():
    """B. Lindbloom's calculator (brucelindbloom.com), sRGB under D65."""
    primaries = 255 * np.eye(3, dtype=np.uint8)[None, None]
    known = [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(lab(primaries)[0, 0], known, atol=0.03)


def test_grey_has_no_colour_and_white_is_light():
    greys = np.repeat(np.arange(0, 256, 51, dtype=np.uint8)[:, None, None, None], 3, axis=3)
    values = lab(greys)
    assert np.abs(values[..., 1:]).max() < 0.05
    assert values[-1, 0, 0, 0] == pytest.approx(100) and values[0, 0, 0, 0] == 0


def test_a_video_that_pales():
    frames = np.zeros((16, 4, 4, 3), np.uint8)
    frames[:, :2] = (200, 40, 40)
    still = colour_drift(frames)
    assert still == {"mean": 0, "chroma": 0, "contrast": 0}
    frames[8:, :2] = (150, 110, 110)
    pale = colour_drift(frames)
    assert pale["mean"] > 10 and pale["chroma"] < -10


def test_a_seam_that_shows():
    """Steps of one grey level within, of five across: dark greys are linear in lightness."""
    levels = np.cumsum([0, 1, 1, 1, 5, 1, 1, 1, 5, 1, 1, 1])[:12]
    linear = np.flatnonzero(np.arange(12) % 4 == 0)[1:]
    frames = np.zeros((12, 4, 4, 3), np.uint8) + (levels // 2)[:, None, None, None].astype(np.uint8)
    assert seam_visibility(frames, linear) > 3
    lightness = lab(frames)[:, 0, 0, 0]
    steps = np.abs(np.diff(lightness))
    across = np.isin(np.arange(1, 12), linear)
    expected = steps[across].mean() / steps[~across].mean()
    assert seam_visibility(frames, linear) == pytest.approx(expected, rel=1e-3)
    assert seam_visibility(frames, []) is None
    assert seam_visibility(frames[:1], []) is None
    assert seam_visibility(np.zeros_like(frames), [4]) is None
    assert seam_visibility(frames[[0, 4, 8]], [1]) == pytest.approx(1, abs=0.2)


def test_motion_that_repeats():
    rng = np.random.default_rng(0)
    once = rng.normal(size=(8, 3))
    again = np.cumsum(np.tile(once, (5, 1)), axis=0)
    assert repetition(again, [0]) == pytest.approx(1, abs=0.02)
    drifting = again + np.arange(40)[:, None]  # what an event asks for does not count
    assert repetition(drifting, [0]) == pytest.approx(repetition(again, [0]))
    other = [repetition(np.cumsum(rng.normal(size=(40, 3)), axis=0), [0]) for _ in range(20)]
    assert np.mean(other) < 0.4


def test_what_is_not_seen_or_still_has_no_repetition():
    path = np.cumsum(np.random.default_rng(0).normal(size=(40, 3)), axis=0)
    assert repetition(path[:10], [0]) is None
    assert repetition(np.zeros((40, 3)), [0]) is None
    hidden = path.copy()
    hidden[::3] = np.nan
    assert repetition(hidden, [0]) is None
    hidden = path.copy()
    hidden[5:7] = np.nan
    assert repetition(hidden, [0]) == pytest.approx(repetition(path, [0]), abs=0.2)
