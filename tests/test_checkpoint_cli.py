"""`syncos generate` after a kill: the same run goes on, any other is refused."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from fakes import FakeModel
from typer.testing import CliRunner

import syncos_jax.pipeline.load
from syncos_jax import Pipeline, Scenario
from syncos_jax.cli import app
from syncos_jax.errors import Terminated
from syncos_jax.pipeline import saved_latents
from syncos_jax.pipeline.checkpoint import Checkpoint, run_folder
from syncos_jax.pipeline.fingerprint import digest
from syncos_jax.runs import signals

STORY = {
    "global": "a cat",
    "events": [{"prompt": "sleeps", "frames": 6}],
    "sampler": {"name": "co_denoising", "steps": 2},
}
FOLDER = Path(".a.mp4.run")


class OtherModel(FakeModel):
    """As the fake one, with other weights."""

    def __init__(self):
        super().__init__()
        self.unet.weight[...] = self.unet.weight[...] * 2


@pytest.fixture(autouse=True)
def killed(monkeypatch, tmp_path):
    """A folder as a run leaves it that was killed when all rows were done."""
    models = {"fake": FakeModel, "other": OtherModel}
    monkeypatch.setattr(
        syncos_jax.pipeline.load, "load_model", lambda name, *_, **__: models[name]()
    )
    monkeypatch.setenv("SYNCOS_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    Path("story.yaml").write_text(yaml.safe_dump(STORY))
    request = Pipeline(FakeModel()).prepare(Scenario.from_dict(STORY))
    with Checkpoint(FOLDER, request.fingerprint):
        zeros = np.zeros((6, 2, 3, 4), np.float32)
        saved_latents.write(FOLDER, digest(json.loads(json.dumps(request.fingerprint))), zeros)


def generate(*arguments):
    given = ["generate", "story.yaml", "--model", "fake", "--out", "a.mp4", *arguments]
    given += ["--no-contact-sheet", "--no-sidecar", "--no-cache"]
    result = CliRunner().invoke(app, [str(argument) for argument in given])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_run_that_died_while_it_decoded_starts_with_decoding():
    result = generate("--latents", "a.npy")
    assert result.exit_code == 0
    assert "resuming with decoding: all network calls are done  (.a.mp4.run)" in result.stderr
    assert (np.load("a.npy") == 0).all()  # those of the folder: no row has been played
    assert sorted(path.name for path in Path().iterdir()) == ["a.mp4", "a.npy", "story.yaml"]


CHANGES = [
    (["--seed", 4], {}, "seed was 0, is 4"),
    (["--steps", 3], {}, "sampler.steps was 2, is 3"),
    (["--guidance", 3], {}, "sampler.guidance was 2.0, is 3.0"),
    (["--sampler", "syncos"], {}, "sampler.name was 'co_denoising', is 'syncos'"),
    (["--model", "other"], {}, "model.weights_sha256 was "),
    ([], {"global": "a dog"}, "scenario.global was 'a cat', is 'a dog'"),
    ([], {"events": [{"prompt": "eats", "frames": 6}]}, "events[0].prompt was 'sleeps', is 'eats'"),
]


@pytest.mark.parametrize(("arguments", "story", "message"), CHANGES)
def test_no_state_of_another_setting_is_used(arguments, story, message):
    Path("story.yaml").write_text(yaml.safe_dump({**STORY, **story}))
    result = generate(*arguments)
    assert result.exit_code == 2
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert message in error and "--no-resume" in error
    assert (FOLDER / "latents.npy").exists() and not Path("a.mp4").exists()


def test_no_resume_starts_anew():
    result = generate("--seed", 4, "--no-resume", "--latents", "a.npy")
    assert result.exit_code == 0 and "resuming" not in result.stderr
    assert (np.load("a.npy") != 0).any() and not FOLDER.exists()


def test_a_run_that_cannot_begin_leaves_nothing():
    result = generate("--no-resume", "--checkpoint-every", "often")
    assert result.exit_code == 2 and "--checkpoint-every must be seconds" in result.stderr
    assert (FOLDER / "latents.npy").exists()  # nothing has been touched


def test_sigterm_is_taken_at_once_or_patiently():
    before = signal.getsignal(signal.SIGTERM)
    with signals.preemptible():
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        assert not signals.stop_requested()
        reports = []
        with pytest.raises(Terminated):
            with signals.defer_sigterm(lambda *done: reports.append(done)) as progress:
                progress(1, 2)  # the program is compiled, and rows are being played
                os.kill(os.getpid(), signal.SIGTERM)
                deadline = time.monotonic() + 5
                while not signals.stop_requested() and time.monotonic() < deadline:
                    time.sleep(0.01)
                reports.append("saved")
        assert reports == [(1, 2), "saved"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_after_ctrl_c_an_earlier_state_is_kept_and_named(monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("syncos_jax.runs.generate_video.decode_and_write", interrupted)
    result = generate()
    assert result.exit_code == 130
    said = "error: interrupted; no partial files are left; the same command resumes with decoding"
    assert said in result.stderr and (FOLDER / "latents.npy").exists()


def test_where_the_state_of_a_run_is():
    assert run_folder(Path("videos/out.webm")) == Path("videos/.out.webm.run")
