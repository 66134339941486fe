"""Files: written whole and synced, refused in one line."""

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from syncos_jax.errors import InputError
from syncos_jax.files import cache_folder, replacing, replacing_folder
from syncos_jax.files.atomic import save_array
from syncos_jax.files.versioned import FileFormat

NOTE = FileFormat("notes", "a note", "write a new one", max_bytes=200)


def test_what_is_written_is_read(tmp_path):
    path = NOTE.write(tmp_path / "a.json", {"text": "äö"})
    assert NOTE.read(path) == {"format": "notes", "version": 1, "text": "äö"}
    assert NOTE.holds(path) and [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{", "a.json: not readable as JSON: .*; write a new one"),
        (b"\xff", "not readable as JSON"),
        (b"[" * 190, "not readable as JSON"),
        (b"[]", "not a note .*; write a new one"),
        (b'{"format": "other"}', "not a note .format: 'other', expected 'notes'"),
        (b'{"format": "notes"}', "has version None, but this package reads 1; use the version"),
        (b'{"format": "notes", "version": 2}', "has version 2, but this package reads 1"),
        (b" " * 300, "larger than"),
    ],
)
def test_what_is_something_else_is_refused(tmp_path, raw, message):
    path = tmp_path / "a.json"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=message):
        NOTE.read(path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        NOTE.read(tmp_path / "a.json")
    assert not NOTE.holds(tmp_path / "a.json") and not NOTE.holds(tmp_path)
    with pytest.raises(InputError, match="not a regular file"):
        NOTE.read(tmp_path)


def test_nothing_is_written_that_could_not_be_read(tmp_path):
    path = NOTE.write(tmp_path / "a.json", {"text": "short"})
    with pytest.raises(InputError, match="would be larger than"):
        NOTE.write(path, {"text": "long " * 100})
    assert NOTE.read(path)["text"] == "short"


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    done = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(handle):
        done.append(("sync", Path(os.readlink(f"/proc/self/fd/{handle}"))))
        real_sync(handle)

    def replace(old, new):
        done.append(("rename", Path(new)))
        real_replace(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    NOTE.write(tmp_path / "a.json", {"text": "a"})
    (first, file), *rest = done
    assert first == "sync" and file.parent == tmp_path and file.name.startswith(".a.")
    assert rest == [("rename", tmp_path / "a.json"), ("sync", tmp_path)]
    done.clear()
    with replacing_folder(tmp_path / "frames") as folder:
        (folder / "1.png").write_text("1")
    kinds = [(kind, path.name) for kind, path in done]
    assert kinds == [
        ("sync", "1.png"),
        ("sync", "new"),
        ("rename", "frames"),
        ("sync", tmp_path.name),
    ]


def test_a_full_disk_is_named_as_such(tmp_path):
    """`np.save` raises an OSError without a number, which reads "[Errno None] None"."""
    with pytest.raises(OSError, match="No space left") as raised:
        with open("/dev/full", "wb", buffering=0) as file:
            save_array(file, np.zeros(9000))
    assert raised.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="9 requested and 4 written") as raised:
        with replacing(tmp_path / "a.npy"):
            raise OSError("9 requested and 4 written")
    assert raised.value.strerror and raised.value.filename == str(tmp_path / "a.npy")


def test_a_user_without_a_home(tmp_path, monkeypatch):
    monkeypatch.delenv("SYNCOS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    folder = cache_folder()
    assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
    assert cache_folder() == folder
    folder.rmdir()
    folder.symlink_to(tmp_path)  # as another user might have planted
    with pytest.raises(InputError, match="set SYNCOS_CACHE"):
        cache_folder()
