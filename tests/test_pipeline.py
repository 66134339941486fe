"""The pipeline around a model of a few numbers: what is encoded, sampled, decoded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import FakeModel
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.clip_text import CLIPTextConfig, CLIPTextEncoder
from syncos_jax.models.unet_clip.unet3d import UNet3D, UNet3DConfig
from syncos_jax.models.unet_clip.vae import AutoencoderKL, VAEConfig
from syncos_jax.pipeline import Pipeline
from syncos_jax.sampling import CoDenoising, SynCoS
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.scenario import Scenario

STORY = {
    "global": "a cat",
    "events": [
        {"prompt": "sleeps", "seconds": 1},
        {"prompt": "wakes", "frames": 5},
        {"prompt": "sleeps", "seconds": 0.5},
    ],
    "sampler": {"name": "syncos", "iterations": 2, "t_min": 500},
}


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline(FakeModel())


@pytest.fixture
def story():
    return Scenario.from_dict(STORY)


def test_scenario_to_video(pipeline, story):
    seen = []
    video = pipeline(story, progress=lambda done, total: seen.append((done, total)))
    assert video.frames.shape == (11, 16, 24, 3) and video.frames.dtype == np.uint8
    assert video.fps == 4 and video.title == "a cat"
    assert video.events == ((0, "sleeps"), (4, "wakes"), (9, "sleeps"))
    assert seen[-1][0] == seen[-1][1] and seen == sorted(set(seen))


def test_the_seed_decides(pipeline, story):
    first, again = pipeline(story, seed=5).frames, pipeline(story, seed=5).frames
    np.testing.assert_array_equal(first, again)
    assert (first != pipeline(story, seed=6).frames).any()


def test_settings_come_from_scenario_model_and_call(pipeline, story):
    used = pipeline.prepare(story).sampler
    assert used == SynCoS(steps=4, guidance=2.0, iterations=2, t_min=500)
    plain = Scenario.from_dict({key: STORY[key] for key in ("global", "events")})
    assert pipeline.prepare(plain).sampler == SynCoS(steps=4, guidance=2.0)
    # What is left open is the model's, wherever the settings come from.
    assert pipeline.prepare(plain, SynCoS()).sampler == SynCoS(steps=4, guidance=2.0)
    ours = pipeline.latents(story, CoDenoising(steps=2))
    theirs = pipeline.latents(story.with_sampler("co_denoising", steps=2))
    np.testing.assert_array_equal(ours, theirs)


def test_without_a_scenario(pipeline):
    video = pipeline("a cat in a kitchen", ["sleeps", "wakes up"], seconds=2)
    assert video.events == ((0, "sleeps"), (8, "wakes up")) and len(video) == 16
    assert video.title == "a cat in a kitchen"
    scenario = Scenario.from_dict(
        {
            "global": "a cat in a kitchen",
            "events": [{"prompt": p, "seconds": 2} for p in ("sleeps", "wakes up")],
        }
    )
    np.testing.assert_array_equal(pipeline(scenario).frames, video.frames)
    with pytest.raises(InputError, match="a global prompt needs events"):
        pipeline("a cat")
    with pytest.raises(InputError, match=r"pass settings as sampler=SynCoS\(...\)"):
        pipeline(scenario, SynCoS())


def test_layout(pipeline, story):
    assert pipeline.prepare(story).layout == WindowLayout(frames=11, window=4, stride=2)
    own = Scenario.from_dict({**STORY, "stride": 3, "fps": 8})
    assert pipeline.prepare(own).layout == WindowLayout(frames=17, window=4, stride=3)
    short = Scenario.from_dict({"global": "a", "events": [{"prompt": "b", "frames": 3}]})
    with pytest.raises(InputError, match=r"3 frames in all.* clips of 4; .*\(1 seconds\)"):
        pipeline.prepare(short)
    with pytest.raises(InputError, match="stride must be at most the window's 4 frames.*got 5"):
        pipeline.prepare(Scenario.from_dict({**STORY, "stride": 5}))


def test_each_window_has_the_text_of_its_event(story):
    model = FakeModel()
    pipeline = Pipeline(model)
    request = pipeline.prepare(story)
    table = np.asarray(pipeline.conditioning(request)["text"])
    cond, uncond = (table[index] for index in request.cond_index)
    assert model.tokenized == [["a cat, sleeps", "a cat, wakes", ""]]  # each prompt once
    encoded = model.encode_prompts(["a cat, sleeps", "a cat, wakes", ""])
    sleeps, wakes, empty = encoded["text"]
    events = request.layout.event_of_window([4, 5, 2])
    for window, event in enumerate(events):
        np.testing.assert_array_equal(cond[window], [sleeps, wakes, sleeps][event])
        np.testing.assert_array_equal(uncond[window], empty)
    assert set(encoded) == {"text"}


def test_many_prompts(pipeline):
    prompts = [f"prompt {index}" for index in range(19)]
    together = pipeline.model.encode_prompts(prompts)["text"]
    assert together.shape == (19, 20, 2)
    alone = pipeline.model.encode_prompts(["prompt 17"])["text"]
    np.testing.assert_array_equal(together[17], alone[0])


@pytest.mark.parametrize("batch", [1, 3, 11, 50, None])
def test_decode(pipeline, batch):
    latents = jnp.linspace(-1, 1, 11 * 2 * 3 * 4, dtype=jnp.float32).reshape(11, 2, 3, 4)
    seen = []
    frames = pipeline.decode(latents, batch, progress=lambda done, total: seen.append(done))
    images = np.clip(np.asarray(latents) / 0.5, -1, 1)[..., :3]
    expected = np.round((images + 1) * 127.5).astype(np.uint8)
    np.testing.assert_array_equal(frames[:, ::8, ::8], expected)
    assert seen[-1] == 11


def test_a_second_pipeline_traces_nothing_anew(story):
    traces = []

    class Counting(type(FakeModel().unet)):
        def __call__(self, *args, **kwargs):
            traces.append(1)
            return super().__call__(*args, **kwargs)

    def build(scale):
        model = FakeModel()
        model.unet = Counting()
        model.unet.weight = nnx.Param(model.unet.weight[...] * scale)
        return Pipeline(model)

    first = build(1.0).latents(story)
    count = len(traces)
    second = build(3.0).latents(story)
    assert len(traces) == count and (first != second).any()


def test_divergence_is_said(story):
    model = FakeModel()
    model.unet.weight = nnx.Param(jnp.full((2, 4), jnp.nan))
    with pytest.raises(InputError, match="NaN or Inf"):
        Pipeline(model).latents(story)


def test_latents_do_not_depend_on_the_batch(pipeline, story):
    whole = pipeline.latents(story)
    parts = pipeline.latents(story.with_sampler(windows_per_call=2))
    np.testing.assert_allclose(whole, parts, atol=1e-5)
    assert isinstance(whole, jax.Array) and whole.shape == (11, 2, 3, 4)


@pytest.mark.slow
def test_real_networks_of_one_architecture_are_one_program():
    def networks(seed):
        rngs = nnx.Rngs(seed)
        sizes = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_groups": 4}
        unet = UNet3DConfig(**sizes, attention=(True, False), head_size=8, text_features=16)
        text = CLIPTextConfig(vocabulary=9, tokens=4, features=16, inner=16, layers=1, heads=2)
        vae = AutoencoderKL(VAEConfig(**sizes), rngs=rngs)
        return UNet3D(unet, rngs=rngs), vae, CLIPTextEncoder(text, rngs=rngs)

    for one, other in zip(networks(0), networks(1), strict=True):
        first, second = (nnx.split(network)[0] for network in (one, other))
        assert first == second and hash(first) == hash(second)
