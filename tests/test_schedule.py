"""Schedules: against VideoCrafter2's own buffers, against formulas, and in and out again."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncos_jax.errors import InputError
from syncos_jax.sampling.prediction import decode, encode
from syncos_jax.sampling.schedule import NoiseSchedule

DATA = Path(__file__).parent / "data"
PREDICTIONS = ["epsilon", "v", "x0", "flow"]


def videocrafter2(**changes):
    scale = np.concatenate([np.linspace(1, 0.7, 400), np.full(1000, 0.7)])
    given = {"signal_scale": scale, "final_timestep": 0, "spacing": "every", **changes}
    return NoiseSchedule.from_betas(**given)


@pytest.mark.parametrize("run", ["S50_eta0", "S50_eta1", "S16_eta1", "S60_eta1", "S64_eta1"])
def test_steps_are_those_of_videocrafter2(run):
    data = np.load(DATA / "vc2_ddim_schedule.npz")

    def stored(name):  # from low to high noise there
        return data[f"{run}_ddim_{name}"][::-1].astype(np.float64)

    eta = float(run[-1])
    steps = videocrafter2().steps(int(run[1:3]), eta=eta)
    close = {"rtol": 2e-6, "atol": 2e-7}
    np.testing.assert_array_equal(steps.t, stored("timesteps"))
    np.testing.assert_allclose(steps.a, np.sqrt(stored("alphas")) * stored("scale_arr"), **close)
    np.testing.assert_allclose(steps.b, stored("sqrt_one_minus_alphas"), **close)
    previous = stored("alphas_prev")
    scale = stored("scale_arr_prev")
    np.testing.assert_allclose(steps.a_next, np.sqrt(previous) * scale, **close)
    np.testing.assert_allclose(steps.b_next, np.sqrt(1 - previous), rtol=2e-5)
    np.testing.assert_allclose(steps.sigma, stored("sigmas"), rtol=2e-5, atol=1e-9)


def test_add_noise_is_q_sample_of_videocrafter2():
    data = np.load(DATA / "vc2_q_sample.npz")
    x = videocrafter2().add_noise(*(jnp.asarray(data[k]) for k in ("x0", "noise", "t")))
    np.testing.assert_allclose(x, data["out"], rtol=1e-6, atol=1e-6)


def test_target_is_what_decode_turns_back():
    rng = np.random.default_rng(0)
    x0, eps = (jnp.asarray(rng.normal(size=(3, 2, 4)), jnp.float32) for _ in range(2))
    t = jnp.asarray([1, 500, 999])
    for prediction in PREDICTIONS:
        schedule = videocrafter2(prediction=prediction)
        a, b = (jnp.asarray(r, jnp.float32).reshape(3, 1, 1) for r in schedule.rates(t))
        noisy = schedule.add_noise(x0, eps, t)
        decoded = decode(prediction, schedule.target(x0, eps, t), noisy, a, b)
        np.testing.assert_allclose(decoded[0], x0, atol=2e-5)
        np.testing.assert_allclose(decoded[1], eps, atol=5e-5)


@settings(max_examples=30)
@given(st.sampled_from(PREDICTIONS), st.floats(0.05, 1.2), st.floats(0.05, 1.2), st.integers(0, 9))
def test_decode_inverts_encode_for_any_rates(prediction, a, b, seed):
    rng = np.random.default_rng(seed)
    x0, eps = (jnp.asarray(rng.normal(size=5), jnp.float32) for _ in range(2))
    a, b = jnp.float32(a), jnp.float32(b)
    value = encode(prediction, x0, eps, a, b)
    got = decode(prediction, value, a * x0 + b * eps, a, b)
    np.testing.assert_allclose(got[0], x0, atol=2e-4)
    np.testing.assert_allclose(got[1], eps, atol=2e-4)


def test_v_and_flow_read_as_published():
    x0, eps = jnp.asarray([2.0]), jnp.asarray([-3.0])
    a, b = jnp.float32(0.6), jnp.float32(0.8)
    np.testing.assert_allclose(encode("v", x0, eps, a, b), [0.6 * -3 - 0.8 * 2], rtol=1e-6)
    sigma = jnp.float32(0.3)
    v = encode("flow", x0, eps, 1 - sigma, sigma)
    x = (1 - sigma) * x0 + sigma * eps
    got = decode("flow", v, x, 1 - sigma, sigma)
    np.testing.assert_allclose(got[0], x - sigma * v, rtol=1e-6)
    np.testing.assert_allclose(got[1], x + (1 - sigma) * v, rtol=1e-6)


def test_variance_preserving_rates():
    for betas in ("scaled_linear", "linear", "squaredcos"):
        schedule = NoiseSchedule.from_betas(betas)
        np.testing.assert_allclose(schedule.signal**2 + schedule.noise**2, 1.0, rtol=1e-12)
        assert (np.diff(schedule.signal) < 0).all()
    linear = NoiseSchedule.from_betas("linear", beta_start=1e-4, beta_end=0.02)
    np.testing.assert_allclose(linear.signal[1] ** 2, (1 - 1e-4) * (1 - 1e-4 - 0.0199 / 999))
    cosine = NoiseSchedule.from_betas("squaredcos").signal[:900] ** 2
    u = (np.arange(1, 901) / 1000 + 0.008) / 1.008
    expected = np.cos(u * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(cosine, expected, rtol=1e-9)
    given_betas = NoiseSchedule.from_betas([0.1, 0.2])
    np.testing.assert_allclose(given_betas.signal**2, [0.9, 0.72])


def test_zero_terminal_snr():
    schedule = NoiseSchedule.from_betas(prediction="v", zero_terminal_snr=True, spacing="trailing")
    plain = NoiseSchedule.from_betas()
    assert schedule.signal[-1] == 0.0 and schedule.noise[-1] == 1.0
    np.testing.assert_allclose(schedule.signal[0], plain.signal[0])
    steps = schedule.steps(10, eta=1.0)
    assert steps.t[0] == 999 and steps.a[0] == 0.0 and np.isfinite(steps.sigma).all()
    with pytest.raises(InputError, match="zero terminal SNR"):
        NoiseSchedule.from_betas(zero_terminal_snr=True)


def test_spacings():
    def timesteps(spacing, n, **more):
        return NoiseSchedule.from_betas(spacing=spacing, **more).steps(n).t.tolist()

    assert timesteps("leading", 4) == [751, 501, 251, 1]
    assert timesteps("leading", 4, offset=2) == [752, 502, 252, 2]
    assert timesteps("trailing", 4) == [999, 749, 499, 249]
    assert timesteps("linspace", 4) == [999, 666, 333, 0]
    assert timesteps("leading", 3) == [667, 334, 1]
    assert timesteps("every", 3) == [667, 334, 1]  # 1000 would be the fourth
    assert len(timesteps("every", 60)) == 63  # more than asked for, as VideoCrafter2 has it


@pytest.mark.parametrize("n", [*range(7, 78), 333, 999, 1000])
@pytest.mark.parametrize("offset", [0, 1])
def test_leading_makes_as_many_steps_as_are_asked_for(n, offset):
    """From the timestep that diffusers begins with, however little `n` divides 1000."""
    t = NoiseSchedule.from_betas(spacing="leading", offset=offset).steps(n).t
    if (n, offset) == (1000, 1):  # 1000 itself is past the end; diffusers fails there
        assert len(t) == 999
        return
    assert len(t) == n and t[0] == (n - 1) * (1000 // n) + offset
    assert set(np.diff(t)) == {-(1000 // n)}


def test_the_last_step_goes_to_the_clean_latent_or_to_a_timestep():
    plain = NoiseSchedule.from_betas()
    steps = plain.steps(50, eta=1.0)
    assert (steps.a_next[-1], steps.b_next[-1], steps.sigma[-1]) == (1.0, 0.0, 0.0)
    np.testing.assert_array_equal(steps.a_next[:-1], steps.a[1:])
    steps = NoiseSchedule.from_betas(final_timestep=0).steps(50)
    assert (steps.a_next[-1], steps.b_next[-1]) == (plain.signal[0], plain.noise[0])


def test_flow_levels():
    steps = NoiseSchedule.flow().steps(4)
    np.testing.assert_allclose(steps.t, [1000, 750, 500, 250])
    np.testing.assert_allclose(steps.b, [1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(steps.a, 1 - steps.b)
    assert (steps.a_next[-1], steps.b_next[-1]) == (1.0, 0.0)
    shifted = NoiseSchedule.flow(shift=3.0).steps(4)
    np.testing.assert_allclose(shifted.b, [1, 0.9, 0.75, 0.5])
    np.testing.assert_allclose(shifted.t, 1000 * shifted.b)


def test_flow_eta_is_the_posterior():
    """Going s <- t with eta 1 keeps the marginal: checked as variances of a Gaussian x0."""
    steps = NoiseSchedule.flow(shift=2.0).steps(10, eta=1.0)
    assert (steps.sigma <= steps.b_next).all()
    assert steps.sigma[0] == pytest.approx(steps.b_next[0])  # at pure noise nothing is kept
    # x_t = (a / a') x_s + rest, the rest fresh: cov(x_t, x_s | x0) = (a / a') b'^2, and DDIM's
    # x_s = a' x0 + sqrt(b'^2 - sigma^2) eps + sigma z has cov b sqrt(b'^2 - sigma^2).
    a, b, a2, b2, sigma = (np.asarray(v) for v in steps[1:6])
    np.testing.assert_allclose(b * np.sqrt(b2**2 - sigma**2), a / a2 * b2**2, atol=1e-7)


def test_general_and_variance_preserving_sigma_agree():
    steps = NoiseSchedule.from_betas().steps(50, eta=0.7)
    a, b, a2, b2, sigma = steps[1:6]
    general = 0.7 * b2 / b * np.sqrt(b**2 - (a / a2) ** 2 * b2**2)
    np.testing.assert_allclose(sigma, general, rtol=1e-9)


def test_drawn_timesteps_lie_in_the_middle_of_the_range():
    for schedule in (NoiseSchedule.from_betas(), NoiseSchedule.flow()):
        drawn = [schedule.draw_timestep(np.random.default_rng(i)) for i in range(500)]
        assert 20 <= min(drawn) < 60 and 940 < max(drawn) <= 980


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NoiseSchedule.from_betas("cosine"), "unknown betas 'cosine'; one of scaled"),
        (lambda: NoiseSchedule.from_betas(prediction="eps"), "unknown prediction 'eps'"),
        (lambda: NoiseSchedule.from_betas(spacing="even"), "unknown spacing 'even'"),
        (lambda: NoiseSchedule.from_betas([0.1, 1.5]), "betas must be"),
        (lambda: NoiseSchedule.from_betas(signal_scale=np.ones(10)), "one entry for each of the"),
        (lambda: NoiseSchedule.from_betas(final_timestep=1000), "outside 0..999"),
        (lambda: NoiseSchedule.flow(shift=0.0), "shift must be > 0"),
        (lambda: NoiseSchedule.from_betas().steps(0), "choose 1 to 1000"),
        (lambda: NoiseSchedule.from_betas().steps(50, eta=2.0), "eta must be between 0 and 1"),
        (lambda: NoiseSchedule.from_betas(offset=-1), "offset -1 is outside 0..999"),
        (lambda: NoiseSchedule.from_betas([0.0, 0.1], offset=0).steps(2), "timestep 0 holds no"),
    ],
)
def test_bad_schedules(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_repr_is_one_line():
    text = repr(NoiseSchedule.from_betas(prediction="v", spacing="trailing"))
    assert text == "NoiseSchedule(prediction='v', train_steps=1000, spacing='trailing')"
    assert "\n" not in repr(NoiseSchedule.flow(shift=5.0))
