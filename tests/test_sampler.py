"""`sample`: compiled once, donates nothing of the caller's, reports, says what is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import FRAME, Network, conditioning, parameters

from syncos_jax.errors import InputError
from syncos_jax.sampling import CoDenoising, RefinementOnly, SynCoS, sample
from syncos_jax.sampling.methods import make_tape
from syncos_jax.sampling.scan import Inputs, Program, init_carry, play
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout

LAYOUT = WindowLayout(frames=10, window=4, stride=2)
KEY = jax.random.key(0, impl="rbg")
SHORT = SynCoS(steps=2, iterations=2, t_min=400, windows_per_step=2)


def run(network=None, cond=None, **changes):
    given = {
        "uncond": conditioning(LAYOUT.count, seed=1),
        "params": parameters(),
        "layout": LAYOUT,
        "frame_shape": FRAME,
        "schedule": NoiseSchedule.from_betas(),
        "sampler": SHORT,
        "key": KEY,
    } | changes
    return sample(network or Network(), cond or conditioning(LAYOUT.count), **given)


def lowered(network, sampler, **program):
    tape = make_tape(LAYOUT, NoiseSchedule.from_betas(), sampler)
    inputs = Inputs(
        params=parameters(),
        cond=conditioning(LAYOUT.count),
        uncond=conditioning(LAYOUT.count, seed=1),
        key=KEY,
        guidance=jnp.float32(2.0),
        learning_rate=jnp.float32(0.2),
        weight_decay=jnp.float32(1e-4),
        step_noise=None,
    )
    program = Program(network, LAYOUT, "epsilon", ancestral=True, **program)
    carry = init_carry(LAYOUT, FRAME, tape.slots, KEY)
    return play.lower(carry, tape.rows, inputs, program=program)


@pytest.mark.parametrize("sampler", [SHORT, CoDenoising(steps=2, eta=1.0), RefinementOnly(steps=2)])
def test_the_program_holds_the_network_once(sampler):
    network = Network()
    program = lowered(network, sampler)
    assert program.as_text().count("stablehlo.atan2") == 1
    assert network.traces == 1


def test_small_calls_are_of_few_clips():
    clips = []

    class Noting(Network):
        def __call__(self, params, x, t, cond):
            clips.append(x.shape[0])
            return super().__call__(params, x, t, cond)

    assert make_tape(LAYOUT, NoiseSchedule.from_betas(), SHORT).few == 2
    program = lowered(Noting(), SHORT, few=2)
    assert clips == [8, 4]  # with guidance twice the windows
    assert program.as_text().count("stablehlo.atan2") == 2


def test_two_runs_of_the_same_shapes_trace_once():
    network = Network()
    run(network)
    changed = SynCoS(
        steps=2,
        iterations=2,
        t_min=300,
        windows_per_step=2,
        guidance=3.0,
        learning_rate=0.1,
        weight_decay=0.5,
    )
    other = jax.tree.map(lambda leaf: leaf + 1.0, parameters())
    key = jax.random.key(9, impl="rbg")
    run(network, conditioning(LAYOUT.count, 4), sampler=changed, params=other, key=key)
    run(network, layout=WindowLayout(10, 4, 2))
    assert network.traces == 2  # all windows, and the two of a refinement


def test_the_carry_is_donated_and_the_callers_arrays_are_not():
    latents = jax.random.normal(KEY, (10, *FRAME))
    step_noise = jnp.zeros((2, 10, *FRAME))
    cond, params = conditioning(LAYOUT.count), parameters()
    first = run(cond=cond, params=params, latents=latents, step_noise=step_noise)
    assert not any(v.is_deleted() for v in jax.tree.leaves((latents, step_noise, cond, params)))
    assert np.isfinite(first).all()

    tape = make_tape(LAYOUT, NoiseSchedule.from_betas(), RefinementOnly(steps=1, iterations=1))
    carry = init_carry(LAYOUT, FRAME, tape.slots, KEY, latents)
    scalar = jnp.float32(1.0)
    inputs = Inputs(params, cond, None, KEY, scalar, scalar, scalar, None)
    program = Program(Network(), LAYOUT, "epsilon", ancestral=False)
    play(carry, tape.rows, inputs, program=program)
    assert all(v.is_deleted() for v in (carry.x, carry.x0, carry.eps, carry.slots))
    assert not latents.is_deleted()


def test_same_key_same_video_and_old_keys_are_understood():
    network = Network()
    first = run(network)
    np.testing.assert_array_equal(first, run(network))
    assert not np.allclose(first, run(network, key=jax.random.key(1, impl="rbg")))
    old, new = jax.random.PRNGKey(3), jax.random.key(3)
    np.testing.assert_array_equal(run(network, key=old), run(network, key=new))


def test_networks_in_half_precision_and_without_conditioning():
    def denoise(x, t, cond):
        assert cond is None
        return jnp.tanh(x.astype(jnp.bfloat16))

    result = sample(
        denoise,
        None,
        layout=LAYOUT,
        frame_shape=FRAME,
        schedule=NoiseSchedule.from_betas(),
        sampler=SHORT,
        key=KEY,
    )
    assert result.dtype == jnp.float32 and np.isfinite(result).all()


def test_progress_reports_every_row_without_tracing_again():
    network = Network()
    rows = len(make_tape(LAYOUT, NoiseSchedule.from_betas(), SHORT))
    seen, again = [], []
    silent = run(network)
    first = run(network, progress=lambda done, total: seen.append((done, total)))
    run(network, progress=lambda done, total: again.append(done))
    np.testing.assert_array_equal(silent, first)
    assert seen[-1] == (rows, rows) and again[-1] == rows
    assert seen == sorted(set(seen))
    assert network.traces == 4  # with and without reports, all windows and two


def test_what_progress_raises_reaches_the_caller():
    def stop(done, total):
        raise RuntimeError("stop it")

    network = Network()
    with pytest.raises(RuntimeError, match="stop it"):
        run(network, progress=stop)
    run(network, progress=lambda done, total: None)
    assert network.traces == 2


WINDOWS = LAYOUT.count


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cond": conditioning(3)}, r"cond\['text'\] has shape \(3, 4, 5\); .* the 4 windows"),
        ({"uncond": conditioning(3)}, r"uncond\['text'\] has shape"),
        ({"uncond": {"words": conditioning(WINDOWS)["text"]}}, "uncond has structure"),
        ({"uncond": {"text": jnp.zeros((WINDOWS, 2, 5))}}, r"float32\[4, 2, 5\], cond float32"),
        ({"uncond": {"text": jnp.zeros((WINDOWS, 4, 5), jnp.bfloat16)}}, "is bfloat16"),
        ({"frame_shape": (2, 3)}, r"frame_shape must be \(H, W, C\)"),
        ({"latents": jnp.zeros((9, *FRAME))}, r"latents has shape .* expected \(10, 2, 2, 3\)"),
        ({"step_noise": jnp.zeros((10, *FRAME))}, r"expected \(2, 10, 2, 2, 3\)"),
        ({"sampler": "syncos"}, "sampler must be settings"),
        ({"key": 0}, "key must be a JAX PRNG key"),
        ({"key": jax.random.split(jax.random.key(0))}, "must be one key"),
        ({"network": 3}, "denoise must be a function"),
        ({"network": lambda p, x, t, c: x[:, :1]}, r"denoise returned \(8, 1, 2, 2, 3\) for x of"),
        ({"network": lambda p, x, t, c: (x, x)}, "denoise returned tuple"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(InputError, match=message):
        run(**changes)


def test_a_network_that_cannot_be_hashed():
    class Unhashable(Network):
        __hash__ = None

    with pytest.raises(InputError, match="cannot be hashed"):
        run(Unhashable())
