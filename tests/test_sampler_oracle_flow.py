"""The exact denoiser under flow matching: a flow is the other schedule with its signal and noise
rates scaled, so what the samplers make of it is the same."""

import dataclasses

import jax
import numpy as np
import pytest
from test_sampler_oracle import LAYOUT, MODES, SCHEDULE, SEEDS
from toy import mixture_denoiser, mixture_flow

from syncos_jax.sampling import CoDenoising, NoiseSchedule, Sampling, SynCoS, sample

FLOW = NoiseSchedule.flow(shift=3.0)
FRAME = (4, 4, 4)
DENOISE = mixture_flow(MODES, 0.1)


@dataclasses.dataclass(frozen=True, eq=False)
class SameLevels(NoiseSchedule):
    """A flow at the levels of `SCHEDULE`: ``a / (a + b)`` and ``b / (a + b)`` of its steps."""

    def steps(self, n, *, eta=0.0):
        steps = SCHEDULE.steps(n)
        size, next_size = steps.a + steps.b, steps.a_next + steps.b_next
        return steps._replace(
            t=1000.0 * steps.b / size,
            a=steps.a / size,
            b=steps.b / size,
            a_next=steps.a_next / next_size,
            b_next=steps.b_next / next_size,
        )


def test_a_flow_of_the_same_levels_gives_the_same_video():
    start = np.random.default_rng(0).normal(size=(LAYOUT.frames, *FRAME)).astype(np.float32)
    first, last = SCHEDULE.steps(20), SCHEDULE.steps(20)
    own = SameLevels(signal=FLOW.signal, noise=FLOW.noise, prediction="flow", flow_shift=1.0)

    def made(denoise, schedule, latents):
        video = sample(
            denoise,
            cond=None,
            layout=LAYOUT,
            frame_shape=FRAME,
            schedule=schedule,
            sampler=CoDenoising(steps=20),
            key=jax.random.key(0),
            latents=latents,
        )
        return np.asarray(video)

    expected = made(mixture_denoiser(MODES, 0.1, SCHEDULE), SCHEDULE, start)
    found = made(DENOISE, own, start / np.float32(first.a[0] + first.b[0]))
    scale = np.float32(last.a_next[-1] + last.b_next[-1])
    np.testing.assert_allclose(found * scale, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "least", "most"),
    [
        (CoDenoising(), 0.52, 0.66),
        (SynCoS(refine_snr=0.0239, learning_rate=0.5, iterations=20), 0.72, 1.0),
        (SynCoS(refine_snr=0.1916, learning_rate=0.5, iterations=20), 0.90, 1.0),
    ],
    ids=["co_denoising", "syncos_850", "syncos_600"],
)
def test_agreement_of_the_frames_on_one_subject(sampler, least, most):
    """As `test_sampler_oracle`, which ends the refinement at the same ratios of signal to noise."""
    one = Sampling(
        DENOISE,
        None,
        layout=LAYOUT,
        frame_shape=FRAME,
        schedule=FLOW,
        sampler=sampler,
        seed=(0,),
    )
    keys = jax.random.split(jax.random.key(0), SEEDS)
    videos = np.asarray(jax.jit(jax.vmap(one))(keys))
    flat = videos.reshape(SEEDS, LAYOUT.frames, 1, 64)
    nearest = ((flat - MODES) ** 2).sum(axis=-1).argmin(axis=-1)
    counts = np.stack([np.bincount(row, minlength=4) for row in nearest])
    agreement = (counts.max(axis=1) / LAYOUT.frames).mean()
    majorities = np.bincount(counts.argmax(axis=1), minlength=4)
    print(f"agreement {agreement:.3f}, majorities {majorities}")
    assert least <= agreement <= most
    assert (majorities > 0).all(), "a subject never occurs: the sampler has collapsed"
