"""Diagonal denoising: against a plain loop, and on the demo model.

That the UNet takes a timestep for each frame as FIFO's own does: tests/test_convert_fixtures.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import FRAME, conditioning, parameters

from syncos_jax.demo.world.tracker import read, track
from syncos_jax.errors import InputError
from syncos_jax.pipeline import Pipeline
from syncos_jax.sampling import FIFO, CoDenoising, sample
from syncos_jax.sampling.fifo import fifo_schedule, make_queue, pipeline_latents, sample_fifo
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.scenario import Scenario

SCHEDULE = NoiseSchedule.from_betas(prediction="v")


def network(params, x, t, cond):
    """Nonlinear, mixes the frames of a window; a timestep for each frame, or one for all."""
    t = t if t.ndim == 2 else jnp.broadcast_to(t[:, None], x.shape[:2])
    hidden = jnp.einsum("nfhwc,cd->nfhwd", x, params["in"])
    hidden = hidden + 0.5 * jnp.roll(hidden, 1, axis=1)
    bias = cond["text"].mean(axis=1)[:, None, :] + (t / 1000.0)[:, :, None]
    hidden = jnp.atan2(hidden + bias[:, :, None, None, :], jnp.float32(1.0))
    return jnp.einsum("nfhwd,dc->nfhwc", hidden, params["out"])


def plain_loop(cond, uncond, frames, window, settings, key):
    """Frame by frame and window by window, in NumPy float64; only the network is float32."""
    w, u = window, (window // 2 if settings.lookahead else window)
    p = w - u
    s = max(-(-w // u), round(settings.steps / u)) * u
    schedule = fifo_schedule(SCHEDULE)
    clip = sample(
        network,
        jax.tree.map(lambda leaf: leaf[w // 2][None], cond),
        uncond=jax.tree.map(lambda leaf: leaf[w // 2][None], uncond),
        params=parameters(),
        layout=WindowLayout(frames=w, window=w, stride=w),
        frame_shape=FRAME,
        schedule=schedule,
        sampler=CoDenoising(steps=s, guidance=settings.guidance, eta=settings.eta),
        key=key,
    )
    clip = np.asarray(clip, np.float64)
    stream = jax.random.fold_in(key, 0xF1F0)

    def gauss(draw, frame):
        of_draw = jax.random.fold_in(stream, np.uint32(draw))
        return np.asarray(jax.random.normal(jax.random.fold_in(of_draw, frame), FRAME), np.float64)

    steps = schedule.steps(s, eta=settings.eta)
    level = [max(0, place - p) for place in range(p + s)]  # 0: the least noisy
    t, a, b, a_next, b_next, sigma = (
        np.asarray(column[::-1][level], np.float64)
        for column in (steps.t, steps.a, steps.b, steps.a_next, steps.b_next, steps.sigma)
    )
    queue = [a[q] * clip[max(0, q - (p + s - w))] + b[q] * gauss(0, q) for q in range(p + s)]
    out = []
    for k in range(frames + s - w):
        new = list(queue)
        for first in range(0, s, u):
            places = list(range(first, first + w))
            number = min(max(k + first + u // 2 - (s - w), 0), frames - 1)
            x = jnp.asarray(np.stack([queue[q] for q in places]), jnp.float32)[None]
            times = jnp.asarray(t[places], jnp.float32)[None]

            def value(conditioning, x=x, times=times, number=number):
                one = jax.tree.map(lambda leaf: leaf[number][None], conditioning)
                return np.asarray(network(parameters(), x, times, one)[0], np.float64)

            without = value(uncond)
            v = without + settings.guidance * (value(cond) - without)
            for i, q in enumerate(places):
                if i >= p:
                    x0 = a[q] * queue[q] - b[q] * v[i]
                    eps = b[q] * queue[q] + a[q] * v[i]
                    new[q] = a_next[q] * x0 + np.sqrt(b_next[q] ** 2 - sigma[q] ** 2) * eps
                    new[q] = new[q] + sigma[q] * gauss(2 + k, q - p)
        out.append(new[p])
        queue = [*new[1:], gauss(1, k)]
    return np.stack(out[-frames:])


@pytest.mark.parametrize(
    ("window", "settings"),
    [
        (4, FIFO(steps=8, guidance=2.0, eta=1.0, batch=3)),
        (4, FIFO(steps=8, guidance=2.0, eta=0.0, lookahead=False)),
        (3, FIFO(steps=5, guidance=2.0, eta=0.5)),  # a window of odd length
    ],
)
def test_the_scan_is_the_plain_loop(window, settings):
    frames, key = 7, jax.random.key(3)
    cond, uncond = conditioning(frames), conditioning(frames, seed=1)
    fused = sample_fifo(
        network,
        cond,
        uncond=uncond,
        params=parameters(),
        frames=frames,
        window=window,
        frame_shape=FRAME,
        schedule=SCHEDULE,
        settings=settings,
        key=key,
    )
    plain = plain_loop(cond, uncond, frames, window, settings, key)
    assert fused.shape == plain.shape
    np.testing.assert_allclose(fused, plain, rtol=0, atol=2e-5)


def test_a_window_has_the_prompt_of_the_frames_that_it_updates():
    queue = make_queue(20, 4, FIFO(steps=8))
    assert (queue.steps, queue.updated, queue.windows, queue.context) == (8, 2, 4, 2)
    assert queue.iterations == 24 and queue.cost == 24 * 4 + 8
    table = queue.frame_of_window()
    assert table.shape == (24, 4)
    # In the last iteration frame 19 leaves the queue; all behind it are past the video's end.
    assert table[-1].tolist() == [19, 19, 19, 19] and table[0].tolist() == [0, 0, 1, 3]
    assert (np.diff(table, axis=0) >= 0).all() and (np.diff(table, axis=1) >= 0).all()


@pytest.mark.parametrize("steps", [1, 7, 8, 50])
def test_the_queue_has_exactly_its_steps(steps):
    for lookahead in (True, False):
        queue = make_queue(30, 8, FIFO(steps=steps, lookahead=lookahead))
        t = fifo_schedule(SCHEDULE).steps(queue.steps).t
        assert len(t) == queue.steps >= queue.window and queue.steps % queue.updated == 0
        assert (t[0], t[-1]) == (999, 0) and (np.diff(t) < 0).all()


def test_bad_input():
    with pytest.raises(InputError, match="fewer than one window of 8"):
        make_queue(7, 8, FIFO())
    with pytest.raises(InputError, match="no half"):
        make_queue(7, 1, FIFO())
    with pytest.raises(InputError, match="eta"):
        FIFO(eta=2)
    with pytest.raises(InputError, match="one entry for each of the 7 frames"):
        sample_fifo(
            network,
            conditioning(6),
            params=parameters(),
            frames=7,
            window=4,
            frame_shape=FRAME,
            schedule=SCHEDULE,
            settings=FIFO(steps=8),
            key=jax.random.key(0),
        )


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline.from_pretrained("demo")


def test_a_video_of_one_window_follows_its_prompt(pipeline):
    """Exactly one clip long: finite, and with the colour, the place and the motion prompted."""
    scenario = Scenario.from_dict(
        {
            "global": "a red ball on a green meadow",
            "events": [{"prompt": "the ball rolls to the left", "frames": 8}],
        }
    )
    latents = pipeline_latents(pipeline, scenario, FIFO(steps=16, guidance=3.0), seed=0)
    assert latents.shape == (8, 8, 8, 4) and bool(jnp.isfinite(latents).all())
    seen = read(track(pipeline.decode(latents)))
    assert (seen["colour"], seen["background"], seen["motion"]) == ("red", "meadow", "left")
