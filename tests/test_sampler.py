"""`sample`: compiled once, donates nothing of the caller's, reports, says what is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import FRAME, Network, conditioning, parameters

from syncos_jax.errors import InputError
from syncos_jax.sampling import FIFO, CoDenoising, RefinementOnly, SynCoS, noise, sample, start
from syncos_jax.sampling.run import run_to_end
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout

LAYOUT = WindowLayout(frames=10, window=4, stride=2)
KEY = jax.random.key(0, impl="rbg")
SHORT = SynCoS(steps=2, iterations=2, t_min=400, windows_per_step=2)


def arguments(**changes):
    entries = LAYOUT.frames if changes.get("sampler", SHORT).name == "fifo" else LAYOUT.count
    return {
        "cond": conditioning(entries),
        "uncond": conditioning(entries, seed=1),
        "params": parameters(),
        "layout": LAYOUT,
        "frame_shape": FRAME,
        "schedule": NoiseSchedule.from_betas(),
        "sampler": SHORT,
        "key": KEY,
    } | changes


def run(network=None, cond=None, **changes):
    given = arguments(**changes)
    default = given.pop("cond")
    return sample(network or Network(), cond or default, **given)


SAMPLERS = {
    "co_denoising": CoDenoising(steps=2),
    "co_denoising, eta": CoDenoising(steps=2, eta=1.0),
    "co_denoising, guided in an interval": CoDenoising(steps=4, guidance_t_min=300),
    "co_denoising, unguided": CoDenoising(steps=2, guidance=1.0),
    "co_denoising, reuse": CoDenoising(steps=6, reuse=0.1),
    "paper, reuse": SynCoS.paper().replace(steps=8, reuse=0.1),
    "paper": SynCoS.paper().replace(steps=8),
    "paper, guided in an interval": SynCoS.paper().replace(steps=8, guidance_t_max=900),
    "paper, refinement unguided": SynCoS.paper().replace(steps=8, guided_refinement=False),
    "fast": SynCoS(strength=1.0, steps=4),
    "fast, guided in an interval": SynCoS(strength=1.0, steps=4).replace(guidance_t_min=400),
    "minibatch": SHORT,
    "minibatch, partial calls": SHORT.replace(windows_per_step=3, windows_per_call=2),
    "minibatch, unguided": SHORT.replace(guidance=1.0),
    "random timesteps, noise not fixed": SHORT.replace(grounded_timestep=False, fixed_noise=False),
    "refinement_only": RefinementOnly(steps=2, iterations=2),
    "refinement_only, minibatch": RefinementOnly(steps=2, iterations=2, windows_per_step=2),
    "fifo": FIFO(steps=4),
    "fifo, without lookahead": FIFO(steps=4, eta=0.0, lookahead=False),
}


@pytest.mark.parametrize("case", SAMPLERS)
def test_the_program_holds_the_network_once(case):
    network = Network()
    given = arguments(sampler=SAMPLERS[case])
    lowered = start(network, given.pop("cond"), **given).lower()
    assert lowered.as_text().count("stablehlo.atan2") == 1
    assert network.traces == 1


@pytest.mark.parametrize("case", ["fast, guided in an interval", "minibatch, unguided", "fifo"])
def test_a_run_is_one_program_watched_or_not_or_in_parts(case):
    network = Network()
    given = arguments(sampler=SAMPLERS[case])
    whole = sample(network, **given)
    watched = sample(network, **given, progress=lambda done, total: None)
    parts = start(network, **given)
    for calls in (1, 3, 2):
        parts.advance(calls)
    run_to_end(parts, pause=lambda run: None, pause_seconds=0, part_seconds=0.0)
    np.testing.assert_array_equal(watched, whole)
    np.testing.assert_array_equal(parts.latents(), whole)
    assert network.traces == 1


def test_two_runs_of_the_same_shapes_trace_once():
    network = Network()
    run(network)
    changed = SHORT.replace(t_min=300, guidance=3.0, learning_rate=0.1, weight_decay=0.5)
    other = jax.tree.map(lambda leaf: leaf + 1.0, parameters())
    key = jax.random.key(9, impl="rbg")
    run(network, conditioning(LAYOUT.count, 4), sampler=changed, params=other, key=key)
    run(network, layout=WindowLayout(10, 4, 2))
    assert network.traces == 1


def test_the_carry_is_donated_and_the_callers_arrays_are_not():
    latents = jax.random.normal(KEY, (10, *FRAME))
    step_noise = jnp.zeros((2, 10, *FRAME))
    cond, params = conditioning(LAYOUT.count), parameters()
    first = run(cond=cond, params=params, latents=latents, step_noise=step_noise)
    assert not any(v.is_deleted() for v in jax.tree.leaves((latents, step_noise, cond, params)))
    assert np.isfinite(first).all()

    for sampler in (RefinementOnly(steps=1, iterations=1), FIFO(steps=4)):
        given = arguments(sampler=sampler, params=params)
        frames = 4 if sampler.name == "fifo" else 10
        part = start(Network(), **given, latents=latents[:frames])
        carry = part.carry
        part.advance()
        assert all(v.is_deleted() for v in jax.tree.leaves(carry))
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
    calls = start(network, **arguments()).num_calls
    seen, again = [], []
    silent = run(network)
    first = run(network, progress=lambda done, total: seen.append((done, total)))
    run(network, progress=lambda done, total: again.append(done))
    np.testing.assert_array_equal(silent, first)
    assert seen[-1] == (calls, calls) and again[-1] == calls
    assert seen == sorted(set(seen))
    assert network.traces == 1


def test_what_progress_raises_reaches_the_caller():
    def stop(done, total):
        raise RuntimeError("stop it")

    network = Network()
    with pytest.raises(RuntimeError, match="stop it"):
        run(network, progress=stop)
    run(network, progress=lambda done, total: None)
    assert network.traces == 1


WINDOWS = LAYOUT.count


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cond": conditioning(3)}, r"cond\['text'\] has shape \(3, 4, 5\), .* the 4 windows"),
        ({"uncond": conditioning(3)}, r"uncond\['text'\] has shape"),
        ({"uncond": {"words": conditioning(WINDOWS)["text"]}}, "uncond has structure"),
        (
            {"uncond": {"text": jnp.zeros((WINDOWS, 2, 5))}},
            r"float32\[4, 2, 5\], expected that of cond, float32",
        ),
        ({"uncond": {"text": jnp.zeros((WINDOWS, 4, 5), jnp.bfloat16)}}, "is bfloat16"),
        ({"frame_shape": (2, 3)}, r"frame_shape must be \(H, W, C\)"),
        ({"latents": jnp.zeros((9, *FRAME))}, r"latents has shape .* expected \(10, 2, 2, 3\)"),
        ({"step_noise": jnp.zeros((10, *FRAME))}, r"expected \(2, 10, 2, 2, 3\)"),
        ({"latents": jnp.zeros((10, *FRAME)), "sampler": FIFO(steps=4)}, r"expected \(4, 2, 2, 3"),
        (
            {"step_noise": jnp.zeros(1), "sampler": FIFO(steps=4)},
            "fifo draws its own noise from the key; omit step_noise",
        ),
        ({"cond": conditioning(4), "sampler": FIFO(steps=4)}, "the 10 windows .*for FIFO, its fra"),
        ({"key": 0}, "key must be a JAX PRNG key"),
        ({"key": jax.random.split(jax.random.key(0))}, "must be one key"),
        ({"network": 3}, "denoise must be a function"),
        ({"network": lambda p, x, t, c: x[:, :1]}, r"denoise returned \(4, 1, 2, 2, 3\) for x of"),
        ({"network": lambda p, x, t, c: (x, x)}, "denoise returned tuple"),
        (
            {"network": lambda p, x, t, c: x[..., :2]},
            r"denoise returned .* for x of shape .* shaped",
        ),
        ({"network": lambda x, t: x}, r"expected denoise\(params, x, t, cond\)"),
        (
            {"network": lambda p, x, t, c: x * jnp.nan},
            r"NaN or Inf at its first call \(timestep 501",
        ),
        ({"known": jnp.zeros(3)}, r"known must be a pair \(latents, mask\)"),
        ({"known": (jnp.zeros((9, *FRAME)), np.ones(9, bool))}, "known: latents have shape"),
        (
            {"known": (jnp.zeros((10, *FRAME)), np.ones(10))},
            r"the mask is float.*expected bool\[10",
        ),
        ({"known": (jnp.full((10, *FRAME), jnp.nan), np.ones(10, bool))}, "holds NaN or Inf"),
        ({"window_cond": {"text": jnp.zeros(WINDOWS)}}, "window_cond and cond both have 'text'"),
        ({"window_cond": {"image": jnp.zeros(3)}}, r"window_cond\['image'\] has shape \(3,\)"),
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


def test_settings_that_are_none():
    with pytest.raises(InputError, match="sampler must be settings such as .*, got 'syncos'"):
        sample(Network(), **arguments() | {"sampler": "syncos"})


@pytest.mark.parametrize(("frames", "window", "stride"), [(5, 5, 2), (29, 8, 3), (24, 8, 8)])
def test_shuffled_noise_is_the_first_clips_a_stride_at_a_time(frames, window, stride):
    order = np.asarray(
        noise.shuffled_frames(jax.random.key(1), frames=frames, window=window, stride=stride)
    )
    assert order.shape == (frames,)
    np.testing.assert_array_equal(order[:window], np.arange(window))
    for first in range(window, frames - stride + 1, stride):
        before = order[first - window : first - window + stride]
        assert set(order[first : first + stride]) == set(before)
    if frames > 2 * window:
        assert (order[window:] != order[:-window]).any()
