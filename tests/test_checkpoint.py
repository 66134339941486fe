"""The state of a run in a folder: whole, of the same run, and bit for bit where it was."""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import FakeModel
from toy import FRAME, Network, conditioning, parameters

from syncos_jax import NoiseSchedule, Pipeline, Scenario, SynCoS, WindowLayout
from syncos_jax.errors import InputError, Terminated
from syncos_jax.pipeline.checkpoint import (
    Checkpoint,
    RunLocked,
    SaveInterval,
    parse_save_interval,
    run_folder,
)
from syncos_jax.pipeline.fingerprint import differences
from syncos_jax.pipeline.states import States
from syncos_jax.sampling import start
from syncos_jax.sampling.failures import NonFiniteError
from syncos_jax.sampling.solvers import Solver

LAYOUT = WindowLayout(frames=10, window=4, stride=2)
# Fresh noise, minibatches, a partial last call: whatever a carry can hold.
SAMPLER = SynCoS(steps=3, iterations=3, t_min=400, windows_per_step=3, windows_per_call=2, eta=0.5)
NETWORK = Network()
RUN = {"seed": 0, "sampler": {"steps": 3}, "scenario": {"events": [{"prompt": "a"}]}}
EACH = SaveInterval(calls=1)


def toy_run(seed=0, params=None, mesh=None, frame=FRAME):
    return start(
        NETWORK,
        conditioning(LAYOUT.count),
        params=parameters() if params is None else params,
        layout=LAYOUT,
        frame_shape=frame,
        schedule=NoiseSchedule.from_betas(beta_end=0.006),
        sampler=SAMPLER,
        key=jax.random.key(seed, impl="rbg"),
        mesh=mesh,
    )


@pytest.fixture(scope="module")
def undisturbed():
    run = toy_run()
    run.advance()
    return np.asarray(run.latents())


def stopped_at(folder, row, frame=FRAME, **kwargs):
    """Plays a run until `row`, where it is asked to stop."""
    seen = []
    opened = Checkpoint(folder, RUN, every=EACH, stop=lambda: seen[-1] >= row, **kwargs)
    with opened as kept, pytest.raises(Terminated, match=f"call {row} of"):
        kept.play(toy_run(frame=frame), lambda done, total: seen.append(done))


def test_a_run_goes_on_bit_for_bit(tmp_path, undisturbed):
    folder = tmp_path / ".out.mp4.run"
    rows = []
    for row in (2, 5, 9):  # within a round, within a step, in the co-denoising part
        stopped_at(folder, row)
        with Checkpoint(folder, RUN) as kept:
            assert kept.newest_call() == row and kept.latents() is None and not kept.empty
    with Checkpoint(folder, RUN, every=EACH) as kept:
        latents = kept.play(toy_run(), lambda done, total: rows.append(done))
        assert rows[0] == 10 and (np.asarray(latents) == undisturbed).all()
    with Checkpoint(folder, RUN) as kept:  # what died while it decoded
        assert (kept.latents() == undisturbed).all() and "decoding" in kept.position
        kept.remove()
    assert not folder.exists()


def test_what_is_half_written_is_never_used(tmp_path, undisturbed):
    folder = tmp_path / "run"
    stopped_at(folder, 5)
    rows = folder / "rows"
    # As Orbax leaves it when the process dies while it writes, and worse: renamed, but incomplete.
    shutil.copytree(rows / "5", rows / "7.orbax-checkpoint-tmp-1")
    shutil.copytree(rows / "5", rows / "8")
    for path in (rows / "8").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:40])
    shutil.copytree(rows / "5", rows / "9")
    shutil.rmtree(rows / "9" / "state")
    said, seen = [], []
    with Checkpoint(folder, RUN, warn=said.append) as kept:
        latents = kept.play(toy_run(), lambda done, total: seen.append(done))
    assert seen[0] == 6 and (np.asarray(latents) == undisturbed).all()
    assert ["call 9" in said[0], "call 8" in said[1]] == [True, True] and len(said) == 2


CHANGES = [
    ({**RUN, "seed": 4}, "seed was 0, is 4"),
    ({**RUN, "sampler": {"steps": 9}}, "sampler.steps was 3, is 9"),
    ({**RUN, "scenario": {"events": [{"prompt": "b"}]}}, r"events\[0\].prompt was 'a', is 'b'"),
    ({**RUN, "scenario": {}}, r"events\[0\].prompt was 'a', is nothing"),
]


@pytest.mark.parametrize(("run", "message"), CHANGES)
def test_another_run_is_refused_with_what_differs(tmp_path, run, message):
    folder = tmp_path / "run"
    Checkpoint(folder, RUN).close()
    (folder / "rows").mkdir()
    with pytest.raises(InputError, match=message) as error:
        Checkpoint(folder, run)
    assert "`resume=False`" in str(error.value) and "another output" in str(error.value)
    assert (folder / "rows").exists()  # an error changes nothing
    Checkpoint(folder, run, resume=False).close()
    assert not (folder / "rows").exists()
    Checkpoint(folder, run).close()


def test_of_many_differences_some_are_said():
    found = differences({"a": 1, "b": {"c": [1, 2]}}, {"a": 2, "b": {"c": [1, 3]}, "d": 0})
    assert found == ["a was 1, is 2", "b.c[1] was 2, is 3", "d was nothing, is 0"]


def test_a_setting_that_is_off_is_as_one_that_did_not_exist():
    """What was begun before there was a setting goes on, unless it is given."""
    assert differences({"sampler": {}}, {"sampler": {"reuse": None}}) == []
    found = differences({"sampler": {}}, {"sampler": {"reuse": 0.1}})
    assert found == ["sampler.reuse was nothing, is 0.1"]


def test_what_a_run_is():
    pipeline = Pipeline(FakeModel())
    story = {"global": "a cat", "events": [{"prompt": "sleeps", "frames": 8}]}
    one = pipeline.prepare(Scenario.from_dict(story)).fingerprint
    assert json.loads(json.dumps(one)) == one
    assert one["frame_shape"] == [2, 3, 4] and one["layout"]["frames"] == 8

    def changed(story=story, pipeline=pipeline, **kwargs):
        return differences(one, pipeline.prepare(Scenario.from_dict(story), **kwargs).fingerprint)

    assert changed() == []
    assert changed({**story, "seed": 3}, seed=0) == []  # what is used counts
    assert changed(seed=3) == ["seed was 0, is 3"]
    assert changed({**story, "global": "a dog"}) == ["scenario.global was 'a cat', is 'a dog'"]
    assert changed(sampler=SynCoS(steps=4, guidance=3.0)) == ["sampler.guidance was 2.0, is 3.0"]
    other = FakeModel()
    other.vae.gain[...] = other.vae.gain[...] * 2
    (difference,) = changed(pipeline=Pipeline(other))
    assert difference.startswith("model.weights_sha256 was ")
    other = FakeModel()
    other.schedule = dataclasses.replace(other.schedule, solver=Solver("unipc"))
    said = changed(pipeline=Pipeline(other))
    assert said == ["model.schedule.solver.name was 'ddim', is 'unipc'"]
    other.schedule = NoiseSchedule(other.schedule.signal * 0.99, other.schedule.noise)
    (difference,) = changed(pipeline=Pipeline(other))
    assert difference.startswith("model.schedule.rates_sha256 was ")


def test_one_process_at_a_time(tmp_path):
    with Checkpoint(tmp_path / "run", RUN), pytest.raises(RunLocked, match="another process"):
        Checkpoint(tmp_path / "run", RUN)
    Checkpoint(tmp_path / "run", RUN).close()


def test_folders_that_will_not_do(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    for name, message in (
        ("no/run", "no does not exist"),
        ("file", "is not a folder"),
        ("photos", "other files"),
    ):
        with pytest.raises(InputError, match=message):
            Checkpoint(tmp_path / name, RUN)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.png"]
    Checkpoint(tmp_path / "run", RUN).close()
    (tmp_path / "run" / "run.json").write_text('{"format": "other", "version": 1}')
    with pytest.raises(InputError, match="not the state of a run .format: 'other'"):
        Checkpoint(tmp_path / "run", RUN)


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    bad = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), parameters())
    stopped_at(tmp_path / "run", 5)
    with Checkpoint(tmp_path / "run", RUN, every=EACH) as kept:
        with pytest.raises(NonFiniteError) as error:
            kept.play(toy_run(params=bad))
        assert error.value.call == 5
    with Checkpoint(tmp_path / "run", RUN) as kept:
        assert kept.newest_call() == 5


def test_a_state_that_will_not_be_finite_is_not_saved_either(tmp_path):
    """The last optimiser step of a row goes wrong: the prediction that shows it is yet to come."""
    run = toy_run()
    run.advance(4)
    state = run.carry.state
    state = state._replace(x0=state.x0.at[0, 0, 0, 0].set(jnp.inf))
    run.restore(run.samples_done, run.carry._replace(state=state))
    with Checkpoint(tmp_path / "run", RUN, every=SaveInterval(seconds=0)) as kept:
        kept._states = States(tmp_path / "run" / "rows", "run")
        kept._pause(run)
        assert kept.saved == 0
        kept._not_before = 0.0  # however long the first look took
        kept._pause(toy_run())
        assert kept.saved == 1


def test_a_full_disk_does_not_stop_the_run(tmp_path, monkeypatch, undisturbed):
    import orbax.checkpoint as ocp

    def full(*_args, **_kwargs):
        raise ValueError("No space left on device")

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    said = []
    with Checkpoint(tmp_path / "run", RUN, every=SaveInterval(calls=9), warn=said.append) as kept:
        assert (np.asarray(kept.play(toy_run())) == undisturbed).all()
    assert said and all("No space left on device" in line for line in said)


def test_saving_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    """However slow the disk: after a save that took a second, none for 50 seconds."""
    now = [0.0]
    saved = []
    monkeypatch.setattr("syncos_jax.pipeline.checkpoint.monotonic", lambda: now[0])
    kept = Checkpoint(tmp_path / "run", RUN, every=SaveInterval(seconds=0))

    class Slow:
        busy = False

        def save(self, row, clips, carry, wait):
            now[0] += 1.0
            saved.append(now[0])
            return True

        def close(self):
            pass

    kept._states = Slow()
    run = toy_run()
    for _ in range(200):
        now[0] += 1.0
        kept._pause(run)
    assert len(saved) == 4 and (np.diff(saved) >= 50).all()
    kept.close()


def test_pipeline_keeps_a_run(tmp_path):
    pipeline = Pipeline(FakeModel())
    story = Scenario.from_dict(
        {"global": "a cat", "events": [{"prompt": "sleeps", "frames": 6}], "seed": 5}
    )
    folder = tmp_path / "run"
    first = pipeline(story, checkpoint=folder)
    calls = []
    again = pipeline(story, checkpoint=folder, progress=lambda *done: calls.append(done))
    assert calls == [] and (first.frames == again.frames).all()
    with pytest.raises(InputError, match="seed was 5, is 6"):
        pipeline(story, seed=6, checkpoint=folder)


def test_words_of_the_command_line():
    assert (
        parse_save_interval("30")
        == parse_save_interval("30s")
        == SaveInterval()
        == SaveInterval(seconds=30.0)
    )
    assert parse_save_interval(" 100rows ") == SaveInterval(calls=100)
    for text in ("", "often", "-1", "0rows", "1.5rows", "nan", "inf rows"):
        with pytest.raises(InputError):
            parse_save_interval(text)
    assert run_folder("a/out.mp4") == Path("a/.out.mp4.run")


def kills(*arguments):
    """The figures of tests/kills.py, whose runs are processes of their own."""
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, script, "--log", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_killed_and_terminated_runs_end_with_the_same_latents():
    found = kills("--kills", 3, "--terms", 2)
    assert found["codes"] == [-9] * 3 + [75] * 2
    assert found["runs"] == found["identical"] > 0 and found["left_over"] == []
    assert max(found["went_on_from"]) > 0
    # After SIGTERM the very row is saved, and how to go on is said.
    said = "error: terminated; no partial files are left; the same command resumes from call "
    rows = [int(part.split("\n")[0]) for part in found["log"].split(said)[1:]]
    asked = found["killed_at"][3:]
    assert len(rows) == 2 and all(0 <= row - at <= 1 for row, at in zip(rows, asked, strict=True))


@pytest.mark.slow
def test_two_processes_stop_at_the_same_row_and_go_on(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    script = Path(__file__).with_name("kept_processes.py")
    both = [
        subprocess.Popen([sys.executable, script, address, str(number), tmp_path])
        for number in (0, 1)
    ]
    try:
        assert [process.wait(timeout=900) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
            process.wait()
    for number in (0, 1):
        found = json.loads((tmp_path / f"{number}.json").read_text())
        assert (
            found["devices"] == 4 and found["stopped"] == f"call 5 of {found['rows'][-1]} is saved"
        )
        assert found["rows"][0] == 6 and found["identical"] and found["kept"]


@pytest.mark.slow
def test_fifty_kills():
    found = kills("--kills", 50, "--seed", 1)
    assert len(found["killed_at"]) == 50 and found["runs"] == found["identical"] > 5
