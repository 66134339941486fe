"""One request: everything that follows from a scenario is derived once, and read by all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from fakes import FakeModel
from typer.testing import CliRunner

import syncos_jax.pipeline.load
from syncos_jax.cli import app
from syncos_jax.pipeline import Pipeline, request
from syncos_jax.sampling import FIFO, CoDenoising, SynCoS
from syncos_jax.scenario import Scenario

STORY = {
    "global": "a cat",
    "events": [{"prompt": "sleeps", "frames": 6}, {"prompt": "wakes", "frames": 5}],
    "seed": 3,
}


def test_one_generate_derives_each_once(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNCOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(syncos_jax.pipeline.load, "load_model", lambda *_, **__: FakeModel())
    Path("story.yaml").write_text(yaml.safe_dump(STORY))
    counts = {}

    def counted(name):
        real = getattr(request, name)

        def call(*args, **kwargs):
            counts[name] = counts.get(name, 0) + 1
            return real(*args, **kwargs)

        monkeypatch.setattr(request, name, call)

    for name in ("_layout", "window_prompts", "make_call_schedule"):
        counted(name)
    resolve = request.SamplerConfig.resolved

    def resolved(self, *own, **more):
        if own:  # with the model's steps and guidance
            counts["settings"] = counts.get("settings", 0) + 1
        return resolve(self, *own, **more)

    monkeypatch.setattr(request.SamplerConfig, "resolved", resolved)
    arguments = ["generate", "story.yaml", "--model", "fake", "--out", "a.mp4", "--steps", "2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert counts == {"_layout": 1, "window_prompts": 1, "make_call_schedule": 1, "settings": 1}
    record = json.loads(Path("a.json").read_text())
    assert record["cost"]["calls"] > 0 and record["layout"]["windows"] == 5


def test_plan_record_and_run_read_the_request():
    pipeline = Pipeline(FakeModel())
    made = pipeline.prepare(Scenario.from_dict(STORY), SynCoS(steps=3, t_min=400, iterations=2))
    plan, run = pipeline.plan(made), pipeline.start(made)
    assert (
        run.call_schedule is made.call_schedule
        and plan.cost.calls == run.num_calls == made.summary.calls
    )
    assert made.fingerprint["sampler"]["steps"] == 3 and made.fingerprint["seed"] == 3
    assert [event.prompt for event in plan.events] == ["sleeps", "wakes"]
    np.testing.assert_array_equal(
        pipeline.latents(made), pipeline.latents(made.scenario, made.sampler, made.seed)
    )


def test_fifo_is_a_run_like_the_others(tmp_path):
    pipeline = Pipeline(FakeModel())
    story = Scenario.from_dict({**STORY, "sampler": {"name": "fifo", "steps": 8}})
    made = pipeline.prepare(story)
    assert made.sampler == FIFO(steps=8, guidance=2.0)
    seen = []
    video = pipeline(story, progress=lambda *at: seen.append(at), checkpoint=tmp_path / "run")
    assert (
        seen[-1] == (len(made.call_schedule), len(made.call_schedule))
        and video.frames.shape[0] == 11
    )
    assert len(made.cond_index[0]) == 11 and len(made.prompts.events) == made.layout.count
    np.testing.assert_array_equal(pipeline(story).frames, video.frames)
    assert pipeline.plan(story).cost.optimizer_steps == 0


def test_equal_programs_are_told_from_others():
    pipeline = Pipeline(FakeModel())
    story = Scenario.from_dict(STORY)

    def program(settings, scenario=story):
        return pipeline.prepare(scenario, settings).program

    one = program(SynCoS(steps=3, t_min=400, iterations=2))
    for same in (
        SynCoS(
            steps=3, t_min=400, iterations=2, fixed_noise=False, learning_rate=0.1, guidance=3.0
        ),
        SynCoS(steps=3, t_min=400, iterations=2, grounded_timestep=False, weight_decay=0.5),
    ):
        assert program(same) == one
    for other in (
        SynCoS(steps=3, t_min=400, iterations=2, eta=0.5),
        SynCoS(steps=3, t_min=400, iterations=2, guided_refinement=False),
        SynCoS(steps=3, t_min=400, iterations=3),
        CoDenoising(steps=3),
    ):
        assert program(other) != one
    longer = Scenario.from_dict({**STORY, "events": [{"prompt": "sleeps", "frames": 14}]})
    assert program(SynCoS(steps=3, t_min=400, iterations=2), longer) != one
    renamed = Scenario.from_dict({**STORY, "global": "a dog", "crossfade": 1})
    assert program(SynCoS(steps=3, t_min=400, iterations=2), renamed) == one


SYNCOS = {"name": "syncos", "steps": 8, "iterations": 2, "t_min": 700, "learning_rate": 0.2}
CHANGES = {
    "steps": 5,
    "guidance": 3.0,
    "guidance_rescale": 0.5,
    "guidance_t_min": 300,
    "guidance_t_max": 500,
    "windows_per_call": 2,
    "eta": 0.5,
    "solver": "dpm++",
    "reuse": 0.5,
    "timesteps": [900, 700, 500, 300],
    "sigmas": [2.0, 1.0, 0.5, 0.2],
    "spacing": "trailing",
    "shared_noise": True,
    "fresh_noise_t_min": 300.0,
    "t_min": 400,
    "refine_steps": 4,
    "refine_snr": 5.0,
    "iterations": 3,
    "learning_rate": 0.05,
    "weight_decay": 0.5,
    "windows_per_step": 2,
    "grounded_timestep": False,
    "fixed_noise": False,
    "guided_refinement": False,
}


def with_change(name):
    values = SYNCOS | ({name: CHANGES[name]} if name else {})
    if name in ("refine_steps", "refine_snr"):
        del values["t_min"]
    if name in ("timesteps", "sigmas"):
        del values["steps"]
    return {**STORY, "sampler": values}


def batch_of_all_settings(folder):
    """Every setting of the sampler, one by one, beside the default, two at a time."""
    from syncos_jax.sampling.sampler_dict import sampler_fields

    # The fake model is no flow, and has no perturbed denoiser (test_ltx_family.py has one) and no
    # second network (test_wan_family.py).
    others = {"perturbed_guidance", "guidance_2", "boundary", "shift"}
    assert {*CHANGES, *others} == set(sampler_fields("syncos"))
    lines = [{"name": "default", **with_change(None)}]
    lines += [{"name": name.replace("_", "-"), **with_change(name)} for name in CHANGES]
    (folder / "stories.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code = (
        "import syncos_jax.pipeline.load as load, sys; from fakes import FakeModel;"
        "load.load_model = lambda *_, **__: FakeModel();"
        "import syncos_jax.runs.batch as b, numpy as np; real = b.decode_and_write;\n"
        "def decode_and_write(pipeline, job, phases, model, latents, **rest):\n"
        "    np.save(job.out.with_suffix('.npy'), np.asarray(latents))\n"
        "    return real(pipeline, job, phases, model, latents, **rest)\n"
        "b.decode_and_write = decode_and_write\n"
        "from syncos_jax.cli import main; main()"
    )
    arguments = ["batch", "stories.jsonl", "--out", "videos", "--model", "fake"]
    arguments += ["--devices", "2", "--no-contact-sheet"]
    flags = "--xla_force_host_platform_device_count=2"
    here = str(Path(__file__).parent)
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": here, "SYNCOS_CACHE": "cache"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


@pytest.mark.slow
def test_every_setting_is_the_videos_own_in_a_batch(tmp_path):
    said = batch_of_all_settings(tmp_path)
    assert "2 at a time" in said
    pipeline, default = Pipeline(FakeModel()), None
    for name in [None, *CHANGES]:
        story = Scenario.from_dict(with_change(name))
        alone = np.asarray(pipeline.latents(story))
        file = tmp_path / "videos" / f"{(name or 'default').replace('_', '-')}.npy"
        np.testing.assert_allclose(np.load(file), alone, rtol=0, atol=1e-4, err_msg=str(name))
        default = alone if name is None else default
        if name not in (
            None,
            "windows_per_call",
        ):  # each changes something, and the batch is not one default
            assert np.abs(alone - default).max() > 1e-3, name
        record = json.loads(file.with_suffix(".json").read_text())
        assert name is None or record["sampler"][name] == CHANGES[name]
