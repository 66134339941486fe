"""Clips made one after the other are runs of known frames, bit for bit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_families import story_of, write
from toy import FRAME, Network, conditioning, parameters

from syncos_jax.errors import InputError
from syncos_jax.pipeline import Pipeline
from syncos_jax.sampling import Chained, CoDenoising, KnownFrames, Sampling, sample, start
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.scenario import Scenario

LAYOUT = WindowLayout(frames=11, window=4, stride=3)  # the last clip begins at 7, not at 9
ONE = WindowLayout(4, 4, 4)
KEY = jax.random.key(5, impl="rbg")
SCHEDULES = {
    "betas": NoiseSchedule.from_betas(beta_end=0.006, spacing="every"),
    "flow": NoiseSchedule.flow(shift=2.0),
}
SETTINGS = {"steps": 4, "guidance": 2.0}


def arguments(layout, clips=slice(None), **changes):
    cond, uncond = (
        jax.tree.map(lambda leaf: leaf[clips], conditioning(LAYOUT.count, seed=seed))
        for seed in (0, 1)
    )
    return {
        "cond": cond,
        "uncond": uncond,
        "params": parameters(),
        "layout": layout,
        "frame_shape": FRAME,
        "schedule": SCHEDULES["betas"],
        "key": KEY,
    } | changes


CASES = {
    "replace": ("replace", {}, "betas"),
    "timestep, eta, flow": ("timestep", {"eta": 0.5}, "flow"),
    "replace, eta, flow": ("replace", {"eta": 0.5}, "flow"),
    "timestep": ("timestep", {}, "betas"),
    "timestep, multistep, flow": ("timestep", {"solver": "dpm++"}, "flow"),
    "replace, multistep": ("replace", {"solver": "dpm++"}, "betas"),
}
QUICK = ("replace", "timestep, eta, flow")


@pytest.mark.parametrize(
    "case",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_each_clip_is_a_run_of_known_frames_bit_for_bit(case):
    rule, own, schedule = CASES[case]
    network, of = Network(), {"schedule": SCHEDULES[schedule]}
    nothing = KnownFrames(np.zeros((11, *FRAME), np.float32), np.zeros(11, bool), rule)
    chained = Chained(**SETTINGS, **own)
    video = np.asarray(sample(network, **arguments(LAYOUT, **of), sampler=chained, known=nothing))
    made = 0
    for n, first in enumerate(LAYOUT.starts):
        latents, mask = np.zeros((4, *FRAME), np.float32), np.arange(4) + first < made
        latents[mask] = video[first : first + 4][mask]
        alone = sample(
            network,
            **arguments(ONE, slice(n, n + 1), **of, key=jax.random.fold_in(KEY, n)),
            sampler=CoDenoising(**SETTINGS, **own),
            known=KnownFrames(latents, mask, rule),
        )
        np.testing.assert_array_equal(alone, video[first : first + 4])
        made = first + 4
    assert made == LAYOUT.frames and video.std() > 0.05


def test_a_longer_video_begins_with_the_same_clips():
    """Nothing that comes later changes a clip; the memory is that of one, and the finished video's
    (`State.video`)."""
    network, sampler = Network(), Chained(**SETTINGS)
    longer = WindowLayout(frames=16, window=4, stride=3)  # clips at 0, 3, 6, 9, 12
    cond, uncond = (conditioning(longer.count, seed=seed) for seed in (0, 1))
    both = []
    for layout in (longer, WindowLayout(frames=10, window=4, stride=3)):
        rows = {
            name: jax.tree.map(lambda leaf, n=layout.count: leaf[:n], tree)
            for name, tree in (("cond", cond), ("uncond", uncond))
        }
        run = start(network, **arguments(layout, **rows), sampler=sampler)
        assert run.carry.predictions.shape == (1, 4, *FRAME)
        run.advance()
        both.append(np.asarray(run.latents()))
    np.testing.assert_array_equal(both[0][:10], both[1])


def test_clips_on_the_way_are_shown():
    run = start(Network(), **arguments(LAYOUT), sampler=Chained(**SETTINGS))
    run.advance(run.num_calls // 2)
    half = np.asarray(run.clean)
    run.advance()
    whole = np.asarray(run.latents())
    np.testing.assert_array_equal(half[:7], whole[:7])
    assert not half[10:].any() and whole[10:].any()


@pytest.mark.slow
def test_two_videos_side_by_side_are_those_of_separate_runs():
    given = arguments(LAYOUT, key=None)
    del given["key"]
    pure = Sampling(Network(), given.pop("cond"), **given, sampler=Chained(**SETTINGS, eta=0.5))
    keys = jax.random.split(jax.random.key(0), 2)
    both = jax.jit(jax.vmap(pure))(keys)
    for key, video in zip(keys, both, strict=True):
        np.testing.assert_allclose(video, jax.jit(pure)(key), rtol=0, atol=1e-5)
    assert np.abs(both[0] - both[1]).max() > 0.1


def test_clips_that_share_no_frame_are_refused():
    layout = WindowLayout(frames=8, window=4, stride=4)
    with pytest.raises(InputError, match="clips of 4 frames at a stride of 4 share none"):
        sample(Network(), **arguments(layout, slice(0, 2)), sampler=Chained(**SETTINGS))


def test_what_it_does_not_take_is_refused():
    given = arguments(LAYOUT)
    with pytest.raises(InputError, match="chained draws its own noise"):
        sample(Network(), **given, sampler=Chained(**SETTINGS), step_noise=jnp.zeros(1))
    with pytest.raises(InputError, match="chained's windows have no fixed place"):
        sample(Network(), **given, sampler=Chained(), window_cond={"image": jnp.zeros((4, 1))})


def test_a_scenario_file_asks_for_it_and_the_model_says_how(tmp_path):
    """Wan TI2V receives known frames clean, and begins with the picture; in a file as in Python."""
    folder = write(tmp_path / "model", "wan_ti2v")
    story = story_of("wan_ti2v", "co_denoising", tmp_path)
    file = tmp_path / "story.yaml"
    file.write_text(json.dumps({**story, "sampler": {"name": "chained", "steps": 2}}))
    pipeline = Pipeline.from_pretrained(folder)
    with_picture = pipeline.prepare(Scenario.from_file(file))
    without = pipeline.prepare(with_picture.scenario.model_copy(update={"image": None}))
    assert without.layout.count > 1 and without.sampler == Chained(steps=2, guidance=5.0)
    made = {}
    for name, request in (("picture", with_picture), ("none", without)):
        run = pipeline.start(request)
        assert run.program.method.known == "timestep"
        made[name] = run.clean
    assert np.asarray(made["picture"])[0].any() and not np.asarray(made["none"])[4:].any()
