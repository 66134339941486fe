"""What is marked as done is on disk; metadata describes the run that was made; stops on signals."""

import json
import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from fakes import FakeModel
from typer.testing import CliRunner

import syncos_jax.pipeline.load
from syncos_jax import Pipeline, Scenario, SynCoS
from syncos_jax.cli import app
from syncos_jax.errors import InputError, Terminated
from syncos_jax.media.video import Video
from syncos_jax.pipeline import pipeline as pipelines
from syncos_jax.pipeline import timings
from syncos_jax.runs import signals

STORY = {
    "global": "a cat",
    "events": [{"prompt": "sleeps", "frames": 8}],
    "sampler": {"name": "co_denoising", "steps": 2},
}


@pytest.fixture(autouse=True)
def fake_models(monkeypatch, tmp_path):
    monkeypatch.setattr(syncos_jax.pipeline.load, "load_model", lambda *_, **__: FakeModel())
    monkeypatch.setenv("SYNCOS_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    Path("story.yaml").write_text(yaml.safe_dump(STORY))


def syncos(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# -- power loss ------------------------------------------------------------------------------------


@pytest.fixture
def on_disk(monkeypatch):
    """Syncs, renames (with whether the content was synced before) and removals, in order."""
    done, synced = [], set()
    sync, replace, unlink = os.fsync, os.replace, os.unlink

    def note_sync(handle):
        found = os.stat(handle)
        synced.add((found.st_dev, found.st_ino))
        done.append(("sync", os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))))
        sync(handle)

    def note_replace(old, new, **kwargs):
        found = os.stat(old)
        whole = (found.st_dev, found.st_ino) in synced
        replace(old, new, **kwargs)
        done.append(("rename", os.path.basename(new), whole))

    def note_unlink(path, *args, **kwargs):
        done.append(("remove", os.path.basename(path)))
        unlink(path, *args, **kwargs)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    monkeypatch.setattr(os, "unlink", note_unlink)
    return done


@pytest.mark.parametrize("command", ["generate", "batch"])
def test_what_counts_as_done_is_on_disk_before_the_state_goes(on_disk, command):
    """The files, their folder, then the marker, then the state of the run is removed."""
    if command == "generate":
        assert syncos("generate", "story.yaml", "--out", "a.mp4", "--no-cache").exit_code == 0
        marker, folder = "a.json", "work"
    else:
        Path("list.jsonl").write_text(json.dumps({"name": "a", **STORY}))
        assert syncos("batch", "list.jsonl", "--out", "o", "--no-cache").exit_code == 0
        marker, folder = "a.json", "o"
    renamed = [step for step in on_disk if step[0] == "rename"]
    video = next(i for i, step in enumerate(on_disk) if step[:2] == ("rename", "a.mp4"))
    last = max(i for i, step in enumerate(on_disk) if step[:2] == ("rename", marker))
    gone = next(i for i, step in enumerate(on_disk) if step == ("remove", "run.json"))
    assert video < last < gone
    assert ("sync", folder) in on_disk[video:last]  # the video's name is on disk, too
    parent = "items" if command == "batch" else folder
    assert ("sync", parent) in on_disk[last:gone]
    assert all(whole for _, name, whole in renamed if name != "timings.json"), renamed


# -- one request -----------------------------------------------------------------------------------


def test_windows_lowered_by_the_memory_are_in_all_that_is_written(monkeypatch):
    """Metadata, progress and timings described the run that would not have fitted."""
    monkeypatch.setattr(pipelines, "reports_memory", lambda mesh: True)
    monkeypatch.setattr(pipelines, "choose_batch", lambda run: 1)
    encoded = []
    encode = FakeModel.encode_prompts
    monkeypatch.setattr(
        FakeModel, "encode_prompts", lambda self, p: (encoded.append(p), encode(self, p))[1]
    )
    asked = Pipeline(FakeModel()).prepare(Scenario.from_dict(STORY))
    result = syncos("generate", "story.yaml", "--out", "a.mp4", "--no-cache", "--latents", "a.npy")
    assert result.exit_code == 0 and len(encoded) == 1  # not once more for the smaller run
    written = json.loads(Path("a.json").read_text())
    assert written["sampler"]["windows_per_call"] == 1
    assert written["cost"]["samples_per_call"] == 2 < asked.summary.samples_per_call
    assert written["cost"]["calls"] > asked.summary.calls
    (entry,) = json.loads(timings.timings_path().read_text())
    assert entry["kind"]["clips"] == 2
    # The state of the run is that of any number of windows: on another machine it resumes.
    fitted = Pipeline(FakeModel()).fitted(asked)
    assert fitted.fingerprint == asked.fingerprint and fitted.sampler.windows_per_call == 1
    again = syncos("generate", "--from", "a.json", "--no-cache", "--latents", "b.npy")
    assert again.exit_code == 0 and "bit-identical" in again.stderr


def test_a_number_of_windows_that_is_given_stays(monkeypatch):
    monkeypatch.setattr(pipelines, "reports_memory", lambda mesh: True)
    monkeypatch.setattr(pipelines, "choose_batch", lambda run: pytest.fail("was asked"))
    pipeline = Pipeline(FakeModel())
    request = pipeline.prepare(Scenario.from_dict(STORY), SynCoS(steps=2, windows_per_call=2))
    assert pipeline.fitted(request) is request


# -- stops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_signals_before_a_time_limit(number):
    before = signal.getsignal(number)
    with signals.preemptible():
        with pytest.raises(Terminated):
            with signals.defer_sigterm(lambda *done: None) as progress:
                progress(1, 2)
                os.kill(os.getpid(), number)
                deadline = time.monotonic() + 5
                while not signals.stop_requested() and time.monotonic() < deadline:
                    time.sleep(0.01)
                assert signals.stop_requested()
    assert signal.getsignal(number) == before


def test_nohup_stays_in_force():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.preemptible():
            os.kill(os.getpid(), signal.SIGHUP)  # ignored
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_without_a_home_a_video_is_made(monkeypatch, tmp_path):
    """An unknown user without HOME, as in a container: a traceback came out of Path.home."""

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("SYNCOS_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    result = syncos("generate", "story.yaml", "--out", "a.mp4", "--no-cache")
    assert result.exit_code == 0 and Path("a.mp4").exists()
    assert timings.timings_path().parent == tmp_path / f"syncos_jax-{os.getuid()}"


@pytest.mark.parametrize("address", ["gs://bucket/wan", "s3://bucket/wan", "hf://Wan-AI/Wan2.1"])
def test_addresses_of_models_and_videos_are_one_line(address, monkeypatch):
    from syncos_jax.media.encode import check_video_path
    from syncos_jax.pipeline.load import model_folder

    with pytest.raises(InputError, match=f"^{address}: models are read from local folders"):
        model_folder(address)
    with pytest.raises(InputError, match=f"^{address}/a.mp4: single videos are written to local"):
        check_video_path(f"{address}/a.mp4")


def test_programs_that_cannot_be_stored_are_counted(monkeypatch, tmp_path):
    """`syncos compile` ended with 0 where a full disk kept none of its programs."""
    from syncos_jax.runs import programs

    kept = programs.Programs(tmp_path, 1000)
    kept.put("a", b"1" * 100)
    assert kept.failed == 0 and kept.get("a") == b"1" * 100
    kept.put("b", b"1" * 2000)  # larger than the folder may be
    assert kept.failed == 1

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkstemp", full)
    kept.put("c", b"1")
    assert kept.failed == 2 and kept.get("c") is None


def test_compile_fails_where_its_programs_are_not_stored(monkeypatch, tmp_path):
    monkeypatch.setattr("syncos_jax.runs.cache.keep_programs", lambda: tmp_path)
    monkeypatch.setattr("syncos_jax.runs.cache.failed", lambda folder: 3)
    result = syncos("compile", "story.yaml")
    assert result.exit_code == 2
    assert "3 programs could not be stored; free some space there" in result.stderr


# -- mutants that survived -------------------------------------------------------------------------


def test_a_video_is_cropped_around_its_middle():
    pipeline = Pipeline(FakeModel())
    story = Scenario.from_dict({**STORY, "size": [20, 10]})
    request = pipeline.prepare(story)
    latents = np.zeros((8, *request.frame_shape), np.float32)
    frames = pipeline.decode(latents)
    assert frames.shape[1:3] == (16, 24)
    rows, columns = np.indices((16, 24))
    frames[:] = np.stack([rows, columns, columns], axis=-1)
    cropped = pipeline.video(request, frames).frames
    assert cropped.shape == (8, 10, 20, 3)
    assert cropped[0, 0, 0].tolist() == [3, 2, 2] and cropped[0, -1, -1].tolist() == [12, 21, 21]


def test_the_frame_rate_of_the_scenario_is_the_videos():
    pipeline = Pipeline(FakeModel())
    assert pipeline.model.geometry.fps == 4
    story = Scenario.from_dict({**STORY, "fps": 10})
    assert pipeline(story).fps == 10
    request = pipeline.prepare(story)
    assert request.fps == 10 and request.events[0]["stop_seconds"] == 0.8
    assert syncos("generate", "story.yaml", "--out", "slow.mp4", "--no-cache").exit_code == 0
    Path("story.yaml").write_text(yaml.safe_dump({**STORY, "fps": 10}))
    assert syncos("generate", "story.yaml", "--out", "fast.mp4", "--no-cache").exit_code == 0
    from syncos_jax.media.video import load_video

    assert [load_video(name).fps for name in ("slow.mp4", "fast.mp4")] == [4, 10]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm"])
def test_quality_is_that_which_was_asked_for(name):
    rng = np.random.default_rng(0)
    video = Video(rng.integers(0, 256, (4, 64, 64, 3)).astype(np.uint8), 8.0)
    sizes = []
    for crf in (5, 45):
        sizes.append(video.save(name, crf=crf).stat().st_size)
    assert sizes[0] > 2 * sizes[1], sizes
