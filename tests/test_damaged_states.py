"""Damaged run states: the same video or one line, never another video."""

import errno
import os
import random
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from test_checkpoint import EACH, RUN, stopped_at
from test_checkpoint import toy_run as small_run

from syncos_jax.errors import InputError, Terminated
from syncos_jax.files import locks
from syncos_jax.pipeline import saved_latents
from syncos_jax.pipeline.checkpoint import Checkpoint, RunLocked, SaveInterval
from syncos_jax.pipeline.fingerprint import digest
from syncos_jax.pipeline.states import States

OTHER = {**RUN, "seed": 4}
FRAME = (16, 16, 3)  # so large that Orbax keeps the arrays in files of their own, without checksum


def toy_run(seed=0):
    return small_run(seed, frame=FRAME)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Folders of runs that were stopped: in the middle (two states), when all calls were done, and
    those of another seed. With the latents of the undisturbed runs."""
    base = tmp_path_factory.mktemp("stopped")
    stopped_at(base / "middle", 9, FRAME)
    expected = {}
    for name, run, seed in (("done", RUN, 0), ("other", OTHER, 4)):
        with Checkpoint(base / name, run, every=EACH) as kept:
            expected[name] = np.asarray(kept.play(toy_run(seed)))
    assert (expected["done"] != expected["other"]).any()
    assert sorted(os.listdir(base / "middle" / "rows")) == ["8", "9"]
    return base, expected["done"]


def resumed(folder):
    """The latents of the run in a folder, and the warnings."""
    said = []
    with Checkpoint(folder, RUN, warn=said.append) as kept:
        latents = kept.latents()
        if latents is None:
            latents = kept.play(toy_run())
    return np.asarray(latents), said


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "lock")


def mutate(rng, folder):
    """Damages one file of a folder; says how."""
    newest = folder / "rows" / "9"
    part = newest if rng.random() < 0.6 and newest.is_dir() else folder
    path = rng.choice([p for p in files(part) if p.stat().st_size])
    raw = bytearray(path.read_bytes())
    at = rng.randrange(len(raw))
    how = rng.choice(["flip", "truncate", "zero", "append", "remove"])
    if how == "flip":
        raw[at] ^= 1 << rng.randrange(8)
    elif how == "truncate":
        del raw[at:]
    elif how == "zero":
        end = min(len(raw), at + rng.choice([1, 64, 4096]))
        raw[at:end] = bytes(end - at)
    elif how == "append":
        raw += os.urandom(9)
    if how == "remove":
        path.unlink()
    else:
        path.write_bytes(raw)
    return f"{how} {path.relative_to(folder)} at {at} of {len(raw)}"


def same_or_one_line(stopped, tmp_path, kind, count, seed):
    base, expected = stopped
    rng = random.Random(seed)
    silent, refused, warned = [], 0, 0
    for number in range(count):
        folder = tmp_path / str(number)
        shutil.copytree(base / kind, folder)
        what = mutate(rng, folder)
        try:
            latents, said = resumed(folder)
        except InputError as error:  # run.json is damaged
            assert "\n" not in str(error) and "run.json" in what, what
            refused += 1
            continue
        finally:
            shutil.rmtree(folder)
        warned += bool(said)
        if not np.array_equal(latents, expected):
            silent.append(what)
    assert not silent, silent
    assert warned > 0
    return refused, warned


def test_mutated_states(stopped, tmp_path):
    same_or_one_line(stopped, tmp_path, "middle", 12, seed=1)


def test_mutated_latents(stopped, tmp_path):
    same_or_one_line(stopped, tmp_path, "done", 15, seed=2)


@pytest.mark.slow
def test_many_mutated_states_and_latents(stopped, tmp_path):
    same_or_one_line(stopped, tmp_path, "middle", 300, seed=3)
    same_or_one_line(stopped, tmp_path, "done", 60, seed=4)


def test_a_flipped_bit_of_the_data_is_found(stopped, tmp_path):
    """Orbax restores another state without a word; the run resumes from the one before."""
    base, expected = stopped
    shutil.copytree(base / "middle", tmp_path / "run")
    data = max(files(tmp_path / "run" / "rows" / "9"), key=lambda p: p.stat().st_size)
    raw = bytearray(data.read_bytes())
    raw[len(raw) // 2] ^= 4
    data.write_bytes(raw)
    latents, said = resumed(tmp_path / "run")
    assert np.array_equal(latents, expected)
    assert len(said) == 1 and "state at call 9 is unusable" in said[0] and "changed" in said[0]


def of_another_seed(run, base):
    shutil.rmtree(run / "rows")
    shutil.copytree(base / "other" / "rows", run / "rows")


def renamed(old, new):
    def change(run, base):
        (run / "rows" / old).rename(run / "rows" / new)

    return change


SPECIAL = {
    "of another seed": of_another_seed,
    "another row": lambda run, base: (
        shutil.rmtree(run / "rows" / "8"),
        (run / "rows" / "9").rename(run / "rows" / "3"),
    ),
    "far ahead": lambda run, base: shutil.copytree(run / "rows" / "8", run / "rows" / "999999"),
    "a huge row": renamed("9", "1" + "0" * 30),
    "a negative row": renamed("9", "-1"),
    "a padded row": renamed("9", "09"),
    "other digits": renamed("9", "²"),
    "of Orbax": renamed("9", "9.orbax-checkpoint-tmp-12"),
    "an empty state": lambda run, base: (run / "rows" / "10").mkdir(),
    "a file": lambda run, base: (run / "rows" / "10").write_text("x"),
    "a link": lambda run, base: (run / "rows" / "10").symlink_to("/nonexistent"),
    "no states": lambda run, base: shutil.rmtree(run / "rows"),
    "no identity": lambda run, base: shutil.rmtree(run / "rows" / "9" / "identity"),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_states_that_are_not_this_runs(stopped, tmp_path, name):
    base, expected = stopped
    shutil.copytree(base / "middle", tmp_path / "run")
    SPECIAL[name](tmp_path / "run", base)
    assert np.array_equal(resumed(tmp_path / "run")[0], expected)


def saved(change):
    def write(run, base):
        np.save(run / "latents.npy", change(np.load(run / "latents.npy")))

    return write


def piped(run, base):
    (run / "latents.npy").unlink()
    os.mkfifo(run / "latents.npy")


def huge(run, base):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117)
    (run / "latents.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + header + b"\n")


LATENTS = {
    "nan": saved(lambda x: x * np.nan),
    "one frame less": saved(lambda x: x[:-1]),
    "half": saved(lambda x: x.astype(np.float16)),
    "scalar": saved(lambda x: np.float32(1)),
    "text": saved(lambda x: np.array("abc")),
    "big endian": saved(lambda x: x.astype(">f4")),
    "another seed's": lambda run, base: shutil.copy(base / "other/latents.npy", run),
    "a pipe": piped,
    "a folder": lambda run, base: ((run / "latents.npy").unlink(), (run / "latents.npy").mkdir()),
    "a huge header": huge,
    "no hash": lambda run, base: (run / "latents.json").unlink(),
    "another's hash": lambda run, base: shutil.copy(base / "other/latents.json", run),
}


@pytest.mark.parametrize("name", LATENTS)
def test_latents_that_are_not_this_runs(stopped, tmp_path, name):
    """Hours of sampling are in latents.npy; what is damaged is sampled again."""
    base, expected = stopped
    shutil.copytree(base / "done", tmp_path / "run")
    LATENTS[name](tmp_path / "run", base)
    latents, said = resumed(tmp_path / "run")
    assert np.array_equal(latents, expected) and latents.dtype == np.float32
    assert len(said) == 1 and "latents.npy is damaged" in said[0]


def test_latents_of_another_run_with_their_hash(stopped, tmp_path):
    base, expected = stopped
    shutil.copytree(base / "done", tmp_path / "run")
    for name in ("latents.npy", "latents.json"):
        shutil.copy(base / "other" / name, tmp_path / "run")
    assert np.array_equal(resumed(tmp_path / "run")[0], expected)


def test_a_state_that_cannot_be_deleted_is_not_resumed(stopped, tmp_path, monkeypatch):
    """A read-only mount: the rows of seed 0 stay, and a run of seed 4 would have resumed there."""
    base, _ = stopped
    shutil.copytree(base / "middle", tmp_path / "run")

    def refuse(path, *args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(InputError, match="cannot be deleted: Read-only file system"):
        Checkpoint(tmp_path / "run", OTHER, resume=False)
    monkeypatch.undo()
    assert np.array_equal(resumed(tmp_path / "run")[0], stopped[1])  # run.json is as it was


def test_a_damaged_newest_state_does_not_stop_checkpointing(stopped, tmp_path):
    """Orbax's `save` answers False for a step at or below the latest one: nothing was written
    until the run had passed the damaged state, and the good one before it went."""
    base, expected = stopped
    shutil.copytree(base / "middle", tmp_path / "run")
    shutil.copytree(tmp_path / "run" / "rows" / "9", tmp_path / "run" / "rows" / "11")
    shutil.rmtree(tmp_path / "run" / "rows" / "9")
    seen = []
    every = SaveInterval(calls=1)
    said = []
    kept = Checkpoint(
        tmp_path / "run", RUN, every=every, stop=lambda: seen[-1] >= 10, warn=said.append
    )
    with kept, pytest.raises(Terminated, match="call 10 of"):
        kept.play(toy_run(), lambda done, total: seen.append(done))
    assert seen == [9, 10] and kept.saved == 2 and "call 11 is unusable" in said[0]
    assert sorted(os.listdir(tmp_path / "run" / "rows")) == ["10", "9"]
    assert np.array_equal(resumed(tmp_path / "run")[0], expected)


def test_what_was_not_saved_is_not_counted(tmp_path):
    run = toy_run()
    run.advance(2)
    states = States(tmp_path / "rows", "run")
    assert states.save(2, run.samples_done, run.carry, wait=True)
    assert not states.save(2, run.samples_done, run.carry, wait=True)
    assert not states.save(1, run.samples_done, run.carry, wait=True)
    assert states.calls() == [2]
    states.close()


def test_a_hash_of_a_run_knows_no_settings_that_are_off():
    assert digest({"a": 1, "b": None}) == digest({"a": 1}) != digest({"a": 2})
    assert digest({"a": {"b": 1}}) != digest({"a": 1, "b": 1})


# -- file systems without locks --------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    import fcntl

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said = []
    with Checkpoint(tmp_path / "run", RUN, warn=said.append) as kept:
        assert kept.empty
    assert len(said) == 1 and "no file locks here" in said[0]
    with pytest.raises(locks.NoLocks):
        locks.try_lock(tmp_path / "file")


def test_a_lock_that_another_has(tmp_path):
    first = locks.try_lock(tmp_path / "file")
    assert first is not None and locks.try_lock(tmp_path / "file") is None
    first()
    again = locks.try_lock(tmp_path / "file")
    assert again is not None
    again()
    with Checkpoint(tmp_path / "run", RUN), pytest.raises(RunLocked):
        Checkpoint(tmp_path / "run", RUN)


def test_the_latents_are_on_disk_before_their_hash(tmp_path, monkeypatch):
    written = []
    replace = os.replace
    monkeypatch.setattr(
        os, "replace", lambda a, b: (written.append(Path(b).name), replace(a, b))[1]
    )
    saved_latents.write(tmp_path, "run", jax.numpy.ones((2, 3)))
    assert written == ["latents.npy", "latents.json"]
    assert saved_latents.read(tmp_path, "run") is not None
    assert saved_latents.read(tmp_path, "another") is None
