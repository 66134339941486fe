"""FIFOMethod denoising: against a plain loop, and on the demo model.

That the UNet takes a timestep for each frame as FIFO's own does: tests/test_convert_fixtures.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import FRAME, Network, conditioning, parameters

from syncos_jax.errors import InputError
from syncos_jax.metrics.world.tracker import read, track
from syncos_jax.pipeline import Pipeline
from syncos_jax.sampling import FIFO, CoDenoising, KnownFrames, sample, start
from syncos_jax.sampling.failures import NonFiniteError
from syncos_jax.sampling.fifo import fifo_schedule, make_method
from syncos_jax.sampling.methods import make_call_schedule
from syncos_jax.sampling.run import run_to_end
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.scenario import Scenario

SCHEDULE = NoiseSchedule.from_betas(prediction="v")
network = Network()
compiled = jax.jit(Network())
KEY = jax.random.key(3, impl="rbg")


def plain_loop(cond, uncond, frames, window, settings, key, known=None):
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
        known=None
        if known is None
        else KnownFrames(known.latents[:window], known.mask[:window], known.rule),
    )
    clip = np.asarray(clip, np.float64)

    def given(number):
        """The known latent of a frame, or None."""
        number = max(number, 0)
        if known is None or number >= frames or not known.mask[number]:
            return None
        return np.asarray(known.latents[number], np.float64)

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
            held = [queue[q] for q in places]
            at = np.array(t[places])
            for i, q in enumerate(places):
                exact = given(k + q - (p + s - w))
                if exact is not None and known.rule in ("timestep", "reference"):
                    held[i], at[i] = exact, 0.0
            x = jnp.asarray(np.stack(held), jnp.float32)[None]
            times = jnp.asarray(at, jnp.float32)[None]

            def value(conditioning, x=x, times=times, number=number):
                one = jax.tree.map(lambda leaf: leaf[number][None], conditioning)
                return np.asarray(compiled(parameters(), x, times, one)[0], np.float64)

            without = value(uncond)
            v = without + settings.guidance * (value(cond) - without)
            for i, q in enumerate(places):
                if i >= p:
                    x0 = a[q] * queue[q] - b[q] * v[i]
                    eps = b[q] * queue[q] + a[q] * v[i]
                    exact = given(k + q - (p + s - w))
                    if exact is not None:
                        x0, eps = exact, (queue[q] - a[q] * exact) / b[q]
                    new[q] = a_next[q] * x0 + np.sqrt(b_next[q] ** 2 - sigma[q] ** 2) * eps
                    new[q] = new[q] + sigma[q] * gauss(2 + k, q - p)
        out.append(new[p])
        queue = [*new[1:], gauss(1, k)]
    return np.stack(out[-frames:])


@pytest.mark.parametrize(
    ("window", "settings"),
    [
        (4, FIFO(steps=8, guidance=2.0, eta=1.0, windows_per_call=3)),
        (4, FIFO(steps=8, guidance=2.0, eta=0.0, lookahead=False)),
        (3, FIFO(steps=5, guidance=2.0, eta=0.5)),  # a window of odd length
    ],
)
def test_the_scan_is_the_plain_loop(window, settings):
    frames, key = 7, jax.random.key(3)
    cond, uncond = conditioning(frames), conditioning(frames, seed=1)
    fused = run(window, settings, frames=frames, key=key)
    plain = plain_loop(cond, uncond, frames, window, settings, key)
    assert fused.shape == plain.shape
    np.testing.assert_allclose(fused, plain, rtol=0, atol=2e-5)


def arguments(window, settings, *, frames=7, key=KEY):
    return {
        "cond": conditioning(frames),
        "uncond": conditioning(frames, seed=1),
        "params": parameters(),
        "layout": WindowLayout(frames=frames, window=window, stride=window),
        "frame_shape": FRAME,
        "schedule": SCHEDULE,
        "sampler": settings,
        "key": key,
    }


def run(window, settings, **changes):
    return sample(network, **arguments(window, settings, **changes))


SHORT = FIFO(steps=8, guidance=2.0)


def test_in_parts_and_put_back_in_the_clip_and_in_the_queue():
    whole = run(4, SHORT)
    before = network.traces
    parts, other = (start(network, **arguments(4, SHORT)) for _ in range(2))
    assert parts.call_schedule.samples_per_call == 2
    for call in (3, 8, 14, 31):
        parts.advance(call - parts.next_call)
        other.restore(parts.samples_done, jax.tree.map(np.asarray, parts.carry))
        other.advance()
        np.testing.assert_array_equal(other.latents(), whole)
    run_to_end(parts, pause=lambda run: None, pause_seconds=0, part_seconds=0.0)
    np.testing.assert_array_equal(parts.latents(), whole)
    assert network.traces == before


def test_the_stride_does_not_matter_and_the_first_noise_may_be_given():
    given = arguments(4, SHORT)
    plain = sample(network, **given)
    other = sample(network, **given | {"layout": WindowLayout(7, 4, 1)})
    np.testing.assert_array_equal(other, plain)
    latents = jnp.zeros((4, *FRAME))
    moved = sample(network, **given, latents=latents)
    assert np.abs(moved - plain).max() > 1e-3 and not latents.is_deleted()


def test_what_diverges_is_named():
    def breaks(params, x, t, cond):
        # In the queue alone, whose windows have several timesteps.
        several = (t != t[:, :1]).any(axis=1)[:, None, None, None, None]
        return jnp.where(several, jnp.float32(jnp.nan), jnp.float32(0.1)) * x

    with pytest.raises(NonFiniteError, match="NaN or Inf in the prediction for 0") as caught:
        sample(breaks, **arguments(4, SHORT))
    assert caught.value.call == 8  # after the clip's steps


def test_a_window_has_the_prompt_of_the_frames_that_it_updates():
    queue = make_method(20, 4, SCHEDULE, FIFO(steps=8))
    assert (queue.steps, queue.updated, queue.windows, queue.context) == (8, 2, 4, 2)
    assert queue.iterations == 24
    table = np.stack([queue.frame_of_window(k) for k in range(24)])
    assert table.shape == (24, 4)
    # In the last iteration frame 19 leaves the queue; all behind it are past the video's end.
    assert table[-1].tolist() == [19, 19, 19, 19] and table[0].tolist() == [0, 0, 1, 3]
    assert (np.diff(table, axis=0) >= 0).all() and (np.diff(table, axis=1) >= 0).all()
    call_schedule = make_call_schedule(
        WindowLayout(20, 4, 2), SCHEDULE, FIFO(steps=8, guidance=2.0)
    )
    assert call_schedule.describe().windows == 24 * 4 + 8
    cond_index, updates = (
        call_schedule.calls.cond_index[call_schedule.used],
        np.repeat(call_schedule.calls.update, call_schedule.used.sum(axis=1)),
    )
    assert (cond_index[updates < 8] == [2, 22] * 8).all()  # of the clip's middle frame
    each = np.stack([table, table + 20], axis=2).ravel()  # prompt and negative one
    assert (cond_index[updates >= 8] == each).all()


@pytest.mark.parametrize("steps", [1, 7, 8, 50])
def test_the_queue_has_exactly_its_steps(steps):
    for lookahead in (True, False):
        queue = make_method(30, 8, SCHEDULE, FIFO(steps=steps, lookahead=lookahead))
        t = fifo_schedule(SCHEDULE).steps(queue.steps).t
        assert len(t) == queue.steps >= queue.window and queue.steps % queue.updated == 0
        assert (t[0], t[-1]) == (999, 0) and (np.diff(t) < 0).all()


def test_bad_input():
    with pytest.raises(InputError, match="7 frames is shorter than a window of 8"):
        make_method(7, 8, SCHEDULE, FIFO())
    with pytest.raises(InputError, match="no half"):
        make_method(7, 1, SCHEDULE, FIFO())
    given = arguments(4, SHORT) | {"cond": conditioning(6)}
    with pytest.raises(InputError, match="the 7 windows .*for FIFO, its frames"):
        sample(network, **given)


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline.from_pretrained("demo")


@pytest.mark.slow
def test_a_video_of_one_window_follows_its_prompt(pipeline):
    """Exactly one clip long: finite, and with the colour, the place and the motion prompted."""
    scenario = Scenario.from_dict(
        {
            "global": "a red ball on a green meadow",
            "events": [{"prompt": "the ball rolls to the left", "frames": 8}],
        }
    )
    latents = pipeline.latents(scenario, FIFO(steps=16, guidance=3.0), seed=0)
    assert latents.shape == (8, 16, 16, 4) and bool(jnp.isfinite(latents).all())
    seen = read(track(pipeline.decode(latents)))
    assert (seen["colour"], seen["background"], seen["motion"]) == ("red", "meadow", "left")
