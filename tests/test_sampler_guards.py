"""Single lines of the sampler whose absence other tests would not notice."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from toy import FRAME, Network, conditioning, parameters

from syncos_jax.sampling import CoDenoising, SynCoS, WindowLayout, loop, memory, noise, start
from syncos_jax.sampling.methods import make_call_schedule
from syncos_jax.sampling.schedule import NoiseSchedule

LAYOUT = WindowLayout(frames=11, window=4, stride=3)
SCHEDULE = NoiseSchedule.from_betas(beta_end=0.006)


def call(windows):
    windows = np.asarray(windows, np.int32)
    return SimpleNamespace(index=jnp.int32(7), windows=jnp.asarray(windows))


def test_a_window_whose_first_sample_is_wrong_stays_marked():
    """Of a guided window's two samples, NaN in the first is not undone by the second."""
    value = jnp.zeros((4, 2, 1, 1, 1)).at[0].set(jnp.nan)
    failure = loop.Failure(jnp.int32(-1), jnp.zeros(3, bool))
    found = loop._check(failure, value, call([1, 1, 2, 2]))
    assert int(found.call) == 7 and found.windows.tolist() == [False, True, False]
    later = loop._check(found, value, call([0, 0, 2, 2]))  # only the first call is recorded
    assert later.windows.tolist() == [False, True, False]


def test_no_pass_is_reused_before_two_passes_after_a_refined_step():
    sampler = SynCoS(steps=8, refine_steps=2, iterations=1, reuse=0.1)
    updates = make_call_schedule(LAYOUT, SCHEDULE, sampler).updates
    passes = ~updates.refine
    assert (updates.reuse[passes] > 0).tolist() == [False] * 4 + [True] * (passes.sum() - 5) + [
        False
    ]
    alone = make_call_schedule(LAYOUT, SCHEDULE, CoDenoising(steps=8, reuse=0.1)).updates
    count = len(alone.step)
    assert (alone.reuse > 0).tolist() == [False] * 2 + [True] * (count - 3) + [False]


def test_the_first_window_keeps_its_leading_frames():
    """Also at frames that other windows cover: the video's first window drops nothing."""
    layout = WindowLayout(frames=6, window=4, stride=1, drop_leading=2)  # windows at 0, 1, 2
    values = jnp.stack([jnp.full((4, 1), float(n)) for n in (1, 10, 100)])
    fused = np.asarray(layout.fuse(values))[:, 0]
    # Frame 1: window 0 alone (window 1 drops it); frame 3: windows 0 and 1, window 2 drops it.
    np.testing.assert_allclose(fused[:4], [1.0, 1.0, 1.0, 5.5])
    np.testing.assert_allclose(fused[4:], [55.0, 100.0])


def test_donated_buffers_do_not_count_twice():
    """Output bytes that reuse an argument's buffer are subtracted."""
    analysis = SimpleNamespace(
        temp_size_in_bytes=100,
        output_size_in_bytes=70,
        alias_size_in_bytes=60,
        generated_code_size_in_bytes=5,
    )
    compiled = SimpleNamespace(memory_analysis=lambda: analysis)
    run = SimpleNamespace(lower=lambda samples: SimpleNamespace(compile=lambda: compiled))
    assert memory.program_bytes(run, 3) == 115


def test_the_result_is_checked_after_the_last_call():
    run = start(
        Network(),
        conditioning(LAYOUT.count),
        params=parameters(),
        layout=LAYOUT,
        frame_shape=FRAME,
        schedule=SCHEDULE,
        sampler=CoDenoising(steps=2),
        key=jax.random.key(0, impl="rbg"),
    )
    run.advance()
    state = run.carry.state
    run.carry = run.carry._replace(state=state._replace(x=state.x.at[3].set(jnp.inf)))
    try:
        run.latents()
    except Exception as error:
        assert "the result holds NaN or Inf" in str(error)
    else:
        raise AssertionError("an infinite result was returned")


def test_a_seed_gives_one_key_whatever_the_default_generator():
    data = jax.random.key_data(noise.video_key(3))
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(jax.random.key_data(noise.video_key(3)), data)
        old = jax.random.PRNGKey(3)  # of four words
        assert noise.as_key(old) == jax.random.key(3, impl="rbg")
    assert noise.as_key(jax.random.PRNGKey(3)) == jax.random.key(3, impl="threefry2x32")
