"""Frames that windows in mid-video predict and throw away, measured on a causal toy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from syncos_jax.errors import InputError
from syncos_jax.sampling import CoDenoising, NoiseSchedule, SynCoS, WindowLayout, sample

FRAME = (2, 2, 3)
SCENE_START = np.random.default_rng(0).normal(size=FRAME).astype(np.float32) * 2
SCHEDULE = NoiseSchedule.flow(shift=3.0)
LAYOUT = {"frames": 26, "window": 8, "stride": 3}


def causal(x, t, cond):
    """The flow of a model of constant scenes that is causal in time: a frame's clean latent is the
    mean of what the frames up to it say, and the first frame of a clip begins with a flash."""
    b = (t / 1000.0)[:, None, None, None, None]
    a = 1.0 - b
    seen = jnp.cumsum(a * x, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=jnp.float32).reshape(
        1, -1, 1, 1, 1
    )
    x0 = seen / (a**2 + b**2)
    x0 = x0.at[:, 0].add(jnp.asarray(SCENE_START))
    return (x - a * x0) / b - x0


def made(drop_leading, sampler=None):
    """The video, as the flash's share in each frame: how far it lies along it."""
    video = sample(
        causal,
        cond=None,
        layout=WindowLayout(**LAYOUT, drop_leading=drop_leading),
        frame_shape=FRAME,
        schedule=SCHEDULE,
        sampler=sampler or CoDenoising(steps=20),
        key=jax.random.key(0),
    )
    return np.einsum("fhwc,hwc->f", video, SCENE_START) / float((SCENE_START**2).sum())


def test_flashes_in_mid_video_go():
    """Without, every third frame shows the beginning of a scene; with one frame thrown away the
    first alone does."""
    starts = WindowLayout(**LAYOUT).starts
    plain, mended = made(0), made(1)
    inner = np.isin(np.arange(LAYOUT["frames"]), starts[1:])

    def jumps(share):
        return np.abs(np.diff(share))[1:].max()  # but for the one behind the first frame

    print(f"largest jump between frames: {jumps(plain):.3f}, {jumps(mended):.3f}")
    print(f"at starts of windows {plain[inner].mean():.3f}, {mended[inner].mean():.3f}")
    assert mended[inner].mean() < 0.35 * plain[inner].mean()
    assert jumps(mended) < 0.7 * jumps(plain)
    assert mended[0] > 0.5 and plain[0] > 0.5  # the video does begin there
    assert jumps(made(1, SynCoS(steps=20, refine_steps=5, iterations=2))) < jumps(plain)


def test_fusing():
    layout = WindowLayout(frames=7, window=4, stride=2, drop_leading=1)
    values = jnp.arange(layout.count, dtype=jnp.float32)[:, None] * jnp.ones((1, 4))
    assert layout.starts.tolist() == [0, 2, 3]
    # Frame 2 is the second window's first, frame 3 the third's.
    np.testing.assert_allclose(layout.fuse(values), [0, 0, 0, 0.5, 1.5, 1.5, 2])
    # A minibatch without the window before has nothing to say of that frame.
    chosen = layout.fuse(values[1:2], jnp.asarray([1], jnp.int32))
    np.testing.assert_allclose(chosen, [0, 0, 0, 1, 1, 1, 0])
    assert WindowLayout(frames=7, window=4, stride=2) != layout


def test_off_by_default_and_refused_where_frames_would_be_uncovered():
    assert WindowLayout(frames=8, window=4, stride=4).drop_leading == 0
    with pytest.raises(InputError, match="drop_leading 1 and stride 4"):
        WindowLayout(frames=8, window=4, stride=4, drop_leading=1)
    with pytest.raises(InputError, match="drop_leading -1"):
        WindowLayout(frames=8, window=4, stride=4, drop_leading=-1)
