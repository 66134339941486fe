"""Known frames: every method against its plain loop, bit-equal in the result, resumable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_loop import sample_plainly
from test_fifo import SCHEDULE as FIFO_SCHEDULE
from test_fifo import plain_loop as fifo_plainly
from toy import FRAME, Network, conditioning, parameters

from syncos_jax.errors import InputError
from syncos_jax.sampling import (
    FIFO,
    Chained,
    CoDenoising,
    FlowLong,
    FreeNoise,
    KnownFrames,
    RefinementOnly,
    Sampling,
    SynCoS,
    sample,
    start,
)
from syncos_jax.sampling import known as known_module
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout

LAYOUT = WindowLayout(frames=11, window=4, stride=3)  # 4 windows, the last one not on the grid
BETAS = NoiseSchedule.from_betas(beta_end=0.006)
RESIDUAL = NoiseSchedule.from_betas(beta_end=0.006, final_timestep=0, prediction="v")
FLOW = NoiseSchedule.flow(shift=2.0)
KEY = jax.random.key(5, impl="rbg")
NETWORK = Network()
RULES = ("replace", "timestep", "reference")
SYNCOS = {"steps": 4, "guidance": 2.0, "t_min": 400, "iterations": 3, "learning_rate": 0.2}

CASES = {
    "co_denoising": (CoDenoising(steps=4, guidance=2.0, windows_per_call=3), BETAS),
    "co_denoising, eta, residual noise": (CoDenoising(steps=4, eta=0.6), RESIDUAL),
    "co_denoising, flow": (CoDenoising(steps=4), FLOW),
    "co_denoising, reuse": (CoDenoising(steps=9, guidance=2.0, reuse=0.2), BETAS),
    "syncos": (SynCoS(**SYNCOS), BETAS),
    "syncos, minibatch": (SynCoS(**SYNCOS, windows_per_step=3, weight_decay=0.1), BETAS),
    "syncos, flow": (SynCoS(**SYNCOS), FLOW),
    "syncos, reuse": (SynCoS(**{**SYNCOS, "t_min": 800, "steps": 9}, reuse=0.2), BETAS),
    "refinement_only": (RefinementOnly(steps=3, iterations=2, learning_rate=0.2), BETAS),
    "flowlong": (FlowLong(steps=4, fresh_noise_t_min=300), BETAS),
    "chained": (Chained(steps=4, guidance=2.0, eta=0.5), BETAS),
    "freenoise": (FreeNoise(steps=4, guidance=2.0), BETAS),
}


def known_frames(rule="replace", frames=11, at=(0, 5, 10)):
    mask = np.zeros(frames, bool)
    mask[list(at)] = True
    latents = np.random.default_rng(3).normal(size=(frames, *FRAME)).astype(np.float32)
    latents[~mask] = np.nan  # never read
    return KnownFrames(latents, mask, rule)


def arguments(sampler, schedule=BETAS, **changes):
    entries = LAYOUT.frames if sampler.lookahead is not None else LAYOUT.count
    return {
        "cond": conditioning(entries),
        "uncond": conditioning(entries, seed=1),
        "params": parameters(),
        "layout": LAYOUT,
        "frame_shape": FRAME,
        "schedule": schedule,
        "sampler": sampler,
        "key": KEY,
    } | changes


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", CASES)
def test_every_method_equals_the_plain_loop(case, rule):
    sampler, schedule = CASES[case]
    # Of four windows, the two in the middle hold no known frame but that of frame 2 before them.
    at = (2,) if rule == "reference" else (0, 5, 10)
    known, network = known_frames(rule, at=at), jax.jit(NETWORK)
    given = arguments(sampler, schedule)
    result = np.asarray(sample(NETWORK, **given, known=known))
    params = given.pop("params")
    expected = sample_plainly(lambda x, t, c: network(params, x, t, c), **given, known=known)
    close = 2e-5 * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(result, expected, rtol=0, atol=close)
    np.testing.assert_array_equal(result[known.mask], known.latents[known.mask])
    without = np.asarray(sample(NETWORK, **given, params=params))
    assert np.abs(result - without)[~known.mask].max() > 1e-3  # the others follow them


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("lookahead", [True, False])
def test_fifo_equals_the_plain_loop(rule, lookahead):
    frames, key = 7, jax.random.key(3)
    settings = FIFO(steps=8, guidance=2.0, eta=0.5, lookahead=lookahead)
    known = known_frames(rule, frames, (0, 3, 6))
    known = KnownFrames(np.nan_to_num(known.latents), known.mask, rule)
    cond, uncond = conditioning(frames), conditioning(frames, seed=1)
    layout = WindowLayout(frames=frames, window=4, stride=4)
    given = {"cond": cond, "uncond": uncond, "layout": layout, "schedule": FIFO_SCHEDULE}
    result = sample(NETWORK, **(arguments(settings) | given | {"key": key, "known": known}))
    plain = fifo_plainly(cond, uncond, frames, 4, settings, key, known)
    plain[known.mask] = known.latents[known.mask]
    np.testing.assert_allclose(result, plain, rtol=0, atol=3e-5)
    np.testing.assert_array_equal(result[known.mask], known.latents[known.mask])


@pytest.mark.parametrize("sampler", [SynCoS(**SYNCOS), FIFO(steps=4)], ids=["syncos", "fifo"])
def test_in_parts_and_restored_it_is_the_same_bit_for_bit(sampler):
    given = arguments(sampler, known=known_frames("timestep"))
    whole = start(NETWORK, **given)
    whole.advance()
    parts, other = start(NETWORK, **given), start(NETWORK, **given)
    parts.advance(parts.num_calls // 2)
    other.restore(parts.samples_done, jax.tree.map(np.asarray, parts.carry))
    other.advance()
    np.testing.assert_array_equal(other.latents(), whole.latents())
    shown = np.asarray(other.clean)
    np.testing.assert_array_equal(shown[given["known"].mask], other.latents()[given["known"].mask])


def by_channels(params, x, t, cond):
    return NETWORK(params, x, t, {"text": cond["text"]}) + 0.1 * cond["channels"]


def test_conditioned_by_window_it_is_resumed_bit_for_bit():
    channels = np.random.default_rng(6).normal(size=(LAYOUT.count, 4, *FRAME)).astype(np.float32)
    given = arguments(SynCoS(**SYNCOS), window_cond={"channels": channels})
    whole = start(by_channels, **given)
    whole.advance()
    parts, other = start(by_channels, **given), start(by_channels, **given)
    parts.advance(parts.num_calls // 2)
    other.restore(parts.samples_done, jax.tree.map(np.asarray, parts.carry))
    other.advance()
    np.testing.assert_array_equal(other.latents(), whole.latents())


def test_pure_functions_have_known_frames_too():
    given = arguments(CoDenoising(steps=3))
    key, known = given.pop("key"), known_frames()
    pure = jax.jit(Sampling(NETWORK, **given, known=known))(key)
    plain = sample(NETWORK, **given, key=key, known=(known.latents, known.mask))
    np.testing.assert_allclose(pure, plain, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(pure[known.mask], known.latents[known.mask])


def test_solvers_keep_known_frames_on_their_path():
    """With a multistep solver, known frames are at each step the known latent, noised."""
    from syncos_jax.sampling.solvers import Solver

    for name in ("dpm++", "unipc"):
        schedule = NoiseSchedule(
            BETAS.signal, BETAS.noise, solver=Solver(name), beta_settings={"offset": 1}
        )
        seen = []

        def denoise(params, x, t, cond, seen=seen):
            jax.debug.callback(lambda x, t: seen.append((float(t[0]), np.asarray(x[0, 0]))), x, t)
            return NETWORK(params, x, t, cond)

        known, latents = known_frames(), np.random.default_rng(4).normal(size=(11, *FRAME))
        given = arguments(CoDenoising(steps=5, guidance=1.0), schedule, uncond=None)
        run = start(denoise, **given, known=known, latents=latents)
        run.advance()
        run.wait()
        jax.effects_barrier()
        assert len(seen) == 5
        for t, first in seen:
            a, b = schedule.rates(round(t))
            np.testing.assert_allclose(first, a * known.latents[0] + b * latents[0], atol=1e-5)


def test_a_run_without_known_frames_never_touches_their_code(monkeypatch):
    """The program of text-only runs holds no operation of known frames."""
    network = Network()
    given = arguments(SynCoS(**SYNCOS))
    kept = start(network, **given, known=known_frames()).lower().as_text()

    def touched(*args):
        raise AssertionError("known frames in a text-only program")

    for name in ("_wide", "at_frames", "select"):
        monkeypatch.setattr(known_module, name, touched)
    for name in ("select",):
        monkeypatch.setattr(f"syncos_jax.sampling.syncos_method.{name}", touched)
    plain = start(network, **given).lower().as_text()
    assert kept.count("stablehlo.select") > plain.count("stablehlo.select")


def test_conditioning_by_window():
    """What a window shows by its place, next to its prompt; the sampler replaces nothing."""
    image = np.random.default_rng(6).normal(size=(LAYOUT.count, 4, *FRAME)).astype(np.float32)

    def by_image(params, x, t, cond):
        return NETWORK(params, x, t, {"text": cond["text"]}) + 0.1 * cond["image"]

    def by_prompt(params, x, t, cond):  # the same, each prompt with an image of its own
        return by_image(params, x, t, cond)

    sampler = SynCoS(**SYNCOS, windows_per_call=3)
    known = known_frames("condition")
    result = sample(
        by_image, **arguments(sampler), window_cond={"image": jnp.asarray(image)}, known=known
    )
    given = arguments(sampler)
    for name in ("cond", "uncond"):
        given[name] = {**given[name], "image": jnp.asarray(image)}
    np.testing.assert_allclose(result, sample(by_prompt, **given), rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="fifo's windows have no fixed place"):
        sample(by_image, **arguments(FIFO(steps=4)), window_cond={"image": jnp.asarray(image)})


def test_an_unknown_rule():
    with pytest.raises(
        InputError, match="rule must be one of replace, timestep, reference, condition"
    ):
        KnownFrames(np.zeros((2, *FRAME)), np.ones(2, bool), "paste")
