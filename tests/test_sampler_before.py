"""Latents of every method, preset and ablation, as they were before clips became rows.

``data/latents_before_clips.npz`` was made by the implementation of commit 619203f, which had a row
for a number of windows, two sizes of calls, and another program for FIFO.
"""

from pathlib import Path

import numpy as np
import pytest
from test_fifo import SCHEDULE
from test_fifo import network as network_of_frames
from test_sampler_twin import CASES, KEY, run
from toy import FRAME, conditioning, parameters

from syncos_jax.sampling import FIFO, SynCoS, WindowLayout, sample

BEFORE = np.load(Path(__file__).parent / "data" / "latents_before_clips.npz")
PRESETS = {
    "preset: paper": SynCoS.paper(),
    "preset: fast": SynCoS(strength=1.0, steps=6),
    "preset: strength 0.5": SynCoS(strength=0.5, steps=8),
}
QUEUES = {
    "fifo": FIFO(steps=8, guidance=2.0),
    "fifo, no lookahead": FIFO(steps=8, guidance=2.0, eta=0.0, lookahead=False),
}


def as_before(name, latents):
    close = 1e-5 * np.abs(BEFORE[name]).max()
    np.testing.assert_allclose(latents, BEFORE[name], rtol=0, atol=close, err_msg=name)


def test_all_of_them_are_here():
    """Cases younger than the file have the plain loop of ``test_sampler_twin`` alone."""
    assert set(BEFORE.files) <= {*CASES, *PRESETS, *QUEUES}
    assert {*PRESETS, *QUEUES} <= set(BEFORE.files)


@pytest.mark.parametrize("name", [name for name in CASES if name in BEFORE.files])
def test_methods_and_ablations(name):
    sampler, changes = CASES[name]
    as_before(name, run(sampler, **changes))


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    as_before(name, run(PRESETS[name]))


@pytest.mark.parametrize("name", QUEUES)
def test_fifo(name):
    latents = sample(
        network_of_frames,
        conditioning(11),
        uncond=conditioning(11, seed=1),
        params=parameters(),
        layout=WindowLayout(11, 4, 4),
        frame_shape=FRAME,
        schedule=SCHEDULE,
        sampler=QUEUES[name],
        key=KEY,
    )
    as_before(name, latents)
