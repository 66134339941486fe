"""Two processes at one run's folder: one deletes it while the other one opens it."""

import fcntl

import pytest

from syncos_jax.files.locks import try_lock
from syncos_jax.pipeline import run_folder
from syncos_jax.pipeline.run_folder import LOCK, lock_folder, remove_folder


def test_a_lock_is_of_the_file_that_others_find(tmp_path, monkeypatch):
    """The owner before deleted the file between its opening and its locking here."""
    path, lock, times = tmp_path / LOCK, fcntl.flock, []

    def late(handle, how):
        if not times:
            path.unlink()
        times.append(1)
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    unlock = try_lock(path)
    assert len(times) == 2 and path.exists()
    assert try_lock(path) is None  # nobody else gets it
    unlock()
    again = try_lock(path)
    assert again is not None
    again()


def test_a_folder_that_vanishes_is_made_again(tmp_path, monkeypatch):
    folder, times = tmp_path / "run", []

    def first_gone(path):
        if not times:
            folder.rmdir()
        times.append(1)
        return try_lock(path)

    monkeypatch.setattr(run_folder, "try_lock", first_gone)
    unlock = lock_folder(folder)
    assert unlock is not None and (folder / LOCK).exists() and len(times) == 2
    unlock()


@pytest.mark.parametrize("taken", [False, True])
def test_the_lock_is_deleted_last(tmp_path, monkeypatch, taken):
    folder, removed = tmp_path / "run", []
    unlock = lock_folder(folder)
    (folder / "rows" / "10").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    remove = run_folder.remove_path

    def recorded(path):
        removed.append(path.name)
        remove(path)
        if taken and path.name == LOCK:
            path.write_text("")  # another process has made its own

    monkeypatch.setattr(run_folder, "remove_path", recorded)
    remove_folder(folder)
    unlock()
    assert removed[-1] == LOCK and len(removed) == 3
    assert folder.exists() == taken
