"""Windows: they cover, they fuse back, they know their event."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncos_jax.errors import InputError
from syncos_jax.sampling.windows import WEIGHTINGS, WindowLayout

few = settings(max_examples=15, deadline=None)  # each layout is a program of its own


@st.composite
def layouts(draw):
    window = draw(st.integers(1, 9))
    return WindowLayout(
        frames=draw(st.integers(window, 40)),
        window=window,
        stride=draw(st.integers(1, window)),
        weighting=draw(st.sampled_from(WEIGHTINGS)),
    )


def noise(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def test_starts_and_coverage_by_hand():
    layout = WindowLayout(frames=11, window=4, stride=3)
    assert layout.starts.tolist() == [0, 3, 6, 7]  # the last one makes up for the frame left over
    assert layout.count == len(layout) == 4
    assert layout.coverage.tolist() == [1, 1, 1, 2, 1, 1, 2, 2, 2, 2, 1]
    assert WindowLayout(52, 13, 4).starts.tolist() == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 39]
    assert WindowLayout(16, 16, 4).starts.tolist() == [0]


@given(layouts())
def test_every_frame_is_covered(layout):
    assert (layout.coverage >= 1).all()
    assert layout.starts[0] == 0 and layout.starts[-1] + layout.window == layout.frames
    assert (np.diff(layout.starts) > 0).all() and (np.diff(layout.starts) <= layout.stride).all()


@few
@given(layouts())
def test_weights_are_a_partition_of_unity(layout):
    ones = jax.jit(layout.fuse)(jnp.ones((layout.count, layout.window, 1)))
    np.testing.assert_allclose(ones, 1.0, rtol=1e-6)


@few
@given(layouts())
def test_fuse_inverts_gather(layout):
    x = noise(layout.frames, 2, 1, 3)
    back = jax.jit(lambda x: layout.fuse(layout.gather(x)))(x)
    np.testing.assert_allclose(back, x, rtol=1e-6, atol=1e-6)


@few
@given(layouts(), st.randoms(use_true_random=False))
def test_fuse_is_the_weighted_mean_over_the_given_windows(layout, random):
    windows = sorted(random.sample(range(layout.count), random.randint(1, layout.count)))
    v = noise(len(windows), layout.window, 2)
    total, weight = np.zeros((layout.frames, 2)), np.zeros((layout.frames, 1))
    for piece, n in zip(np.asarray(v), windows, strict=True):
        for place in range(layout.window):
            total[layout.starts[n] + place] += layout.weights[place] * piece[place]
            weight[layout.starts[n] + place] += layout.weights[place]
    expected = np.where(weight > 0, total / np.where(weight > 0, weight, 1), 0.0)
    fused = jax.jit(layout.fuse)(v, jnp.asarray(windows))
    np.testing.assert_allclose(fused, expected, rtol=1e-5, atol=1e-6)


def test_gather_of_some_windows():
    layout = WindowLayout(11, 4, 3)
    x = noise(11, 2)
    some = layout.gather(x, jnp.asarray([3, 1]))
    np.testing.assert_array_equal(some, np.stack([x[7:11], x[3:7]]))


def test_triangle_weights():
    assert WindowLayout(9, 5, 2, "triangle").weights.tolist() == [1, 2, 3, 2, 1]
    assert WindowLayout(9, 4, 2, "triangle").weights.tolist() == [1, 2, 2, 1]


def test_event_of_window_is_that_of_the_middle_frame():
    layout = WindowLayout(frames=10, window=4, stride=2)  # middle frames 2, 4, 6, 8
    assert layout.event_of_window([4, 6]).tolist() == [0, 1, 1, 1]
    assert layout.event_of_window([5, 0, 5]).tolist() == [0, 0, 2, 2]
    assert layout.event_of_window([10]).dtype == np.int32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8, 16, 4), "fewer than one window"),
        ((32, 8, 9), "leave frames uncovered"),
        ((32, 8, 0), "stride must be a positive integer"),
        ((32.5, 8, 4), "frames must be a positive integer"),
        ((32, 8, 4, "cosine"), "unknown weighting"),
    ],
)
def test_bad_layouts(arguments, message):
    with pytest.raises(InputError, match=message):
        WindowLayout(*arguments)


def test_bad_arguments():
    layout = WindowLayout(10, 4, 2)
    with pytest.raises(InputError, match="12 latent frames long together, the video 10"):
        layout.event_of_window([6, 6])
    with pytest.raises(InputError, match="must be integers"):
        layout.event_of_window([5.0, 5.0])
    with pytest.raises(InputError, match=r"gather: x has shape \(9, 2\)"):
        layout.gather(noise(9, 2))
    with pytest.raises(InputError, match=r"fuse: v has shape \(3, 4, 2\)"):
        layout.fuse(noise(3, 4, 2))
