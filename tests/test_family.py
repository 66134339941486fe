"""A family of one's own: a toy of a temporal autoencoder and a flow model, through everything."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import syncos_jax.pipeline.load
from syncos_jax import NoiseSchedule, SynCoS
from syncos_jax.cli import app
from syncos_jax.errors import InputError
from syncos_jax.models import Geometry, Model, register
from syncos_jax.models.family import family_named
from syncos_jax.pipeline import Pipeline
from syncos_jax.scenario import Scenario


class ToyFlow(Model):
    """Causal, four frames a latent frame, predicts a flow, has a mask of its prompts' letters."""

    family = "toy_flow"
    name = "toy flow"
    schedule = NoiseSchedule.flow(shift=3.0)
    steps, guidance = 5, 2.0
    geometry = Geometry(
        window=3,
        stride=2,
        channels=2,
        cell=4,
        height=8,
        width=12,
        fps=8,
        temporal=4,
        causal=True,
    )

    def __init__(self):
        self.params = {"tint": jnp.linspace(-1.0, 1.0, 16).reshape(8, 2)}

    def denoise(self, params, x, t, cond):
        mask = cond["mask"].astype(jnp.float32)[..., None]
        mean = (cond["text"] * mask).sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1.0)
        tint = (mean @ params["tint"])[:, None, None, None, :]
        return (
            0.5 * x - tint + 0.1 * jnp.roll(x, 1, axis=1) * (t / 1000.0)[:, None, None, None, None]
        )

    def encode_prompts(self, prompts):
        codes = np.zeros((len(prompts), 12), np.int32)
        for row, prompt in enumerate(prompts):
            codes[row, : len(prompt[:12])] = [ord(c) % 8 for c in prompt[:12]]
        mask = np.arange(12)[None] < [[len(prompt)] for prompt in prompts]
        return {"text": jax.nn.one_hot(codes, 8), "mask": jnp.asarray(mask)}

    def decode_stream(self, latents, placement, batch=None):
        pixels = np.repeat(np.repeat(latents[..., [0, 1, 0]], 4, axis=1), 4, axis=2)
        frames = np.clip(127.5 + 60 * pixels, 0, 255).astype(np.uint8)
        yield frames[:1]  # the first latent frame is one frame
        for frame in frames[1:]:
            yield np.repeat(frame[None], 4, axis=0)


STORY = {
    "global": "ab",
    "events": [{"prompt": "c", "seconds": 2}, {"prompt": "defg", "frames": 11}],
    "overrides": [{"prompt": "hh", "frames": [8, 12]}],
    "sampler": {"name": "syncos", "iterations": 2, "t_min": 700},
    "crossfade": 1,
}


@pytest.fixture
def model(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNCOS_CACHE", str(tmp_path / "cache"))
    model = ToyFlow()
    monkeypatch.setattr(syncos_jax.pipeline.load, "load_model", lambda *_, **__: model)
    Path("story.yaml").write_text(yaml.safe_dump(STORY))
    return model


def test_a_scenario_on_latent_frames(model):
    pipeline = Pipeline(model)
    request = pipeline.prepare(Scenario.from_dict(STORY))
    # 16 + 11 frames are 1 + 4 * 7 = 29 decoded ones; windows of 3 latent frames are 9 frames.
    assert request.frames == 27 and request.layout.frames == 8
    assert request.layout.starts.tolist() == [0, 2, 4, 5]
    # The centers 1, 3, 5, 6 begin at frames 1, 9, 17, 21; the second event at frame 16.
    assert request.prompts.events.tolist() == [0, 0, 1, 1]
    assert request.sampler == SynCoS(steps=5, guidance=2.0, iterations=2, t_min=700)
    plan = pipeline.plan(request)
    assert [(w.start, w.stop, w.middle) for w in plan.windows] == [
        (0, 9, 1),
        (5, 17, 9),
        (13, 25, 17),
        (17, 27, 21),
    ]
    assert plan.frames == 27 and plan.latent_frames == 8 and plan.seconds == 27 / 8
    video = pipeline(Scenario.from_dict(STORY))
    assert video.frames.shape == (27, 8, 12, 3)
    assert video.events == ((0, "c"), (16, "defg"))
    table = pipeline.conditioning(request)
    assert table["mask"].dtype == bool and table["text"].shape[1:] == (12, 8)


def test_a_mixture_has_the_letters_of_both(model):
    cond = model.encode_prompts(["ab", "abcd"])
    mixed = model.interpolate_conditioning(cond, np.asarray([[0.25, 0.75], [1.0, 0.0]], np.float32))
    assert mixed["mask"].sum(axis=1).tolist() == [4, 2]
    expected = 0.25 * cond["text"][0] + 0.75 * cond["text"][1]
    np.testing.assert_allclose(mixed["text"][0], expected, atol=1e-6)
    np.testing.assert_array_equal(mixed["text"][1], cond["text"][0])


def syncos(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_generate_record_and_again(model):
    result = syncos("generate", "story.yaml", "--model", "toy", "--out", "a.mp4")
    assert result.exit_code == 0, result.output
    record = json.loads(Path("a.json").read_text())
    assert record["video"]["frames"] == 27 and record["layout"]["frames"] == 8
    assert record["model"]["name"] == "toy flow" and record["latents"]["shape"] == [8, 2, 3, 2]
    again = syncos("generate", "--from", "a.json", "--model", "toy", "--out", "b.mp4")
    assert again.exit_code == 0 and "bit-identical to those of a.json" in again.stderr
    plan = json.loads(syncos("plan", "story.yaml", "--model", "toy", "--json").stdout)
    assert plan["latent_frames"] == 8 and plan["cost"]["calls"] == record["cost"]["calls"]


def test_batch(model):
    lines = [
        json.dumps({"name": name, **STORY, "seed": seed}) for name, seed in (("a", 0), ("b", 1))
    ]
    Path("stories.jsonl").write_text("\n".join(lines))
    result = syncos("batch", "stories.jsonl", "--model", "toy", "--out", "videos")
    assert result.exit_code == 0 and "2 done, 0 failed" in result.stderr
    assert "1 shape to compile" in result.stderr


def test_a_run_goes_on_where_it_was(model):
    from syncos_jax.errors import Terminated
    from syncos_jax.pipeline.checkpoint import Checkpoint, SaveInterval

    pipeline = Pipeline(model)
    request = pipeline.prepare(Scenario.from_dict(STORY))
    whole = np.asarray(pipeline.latents(request))
    seen = []
    stop = lambda: seen[-1] >= 4  # noqa: E731
    with Checkpoint("run", request.fingerprint, every=SaveInterval(calls=1), stop=stop) as kept:
        with pytest.raises(Terminated):
            kept.play(pipeline.start(request), lambda done, total: seen.append(done))
    later = []
    latents = pipeline.latents(request, progress=lambda *at: later.append(at), checkpoint="run")
    assert later[0][0] == seen[-1] + 1
    np.testing.assert_array_equal(latents, whole)


def test_families_by_name():
    register("toy_flow", ToyFlow)
    assert family_named("toy_flow") is ToyFlow
    with pytest.raises(InputError, match="unknown family of models 'sora'; known: unet_clip"):
        family_named("sora")
