"""JSON files with a format and a version: written whole, refused in one line."""

import pytest

from syncos_jax.errors import InputError
from syncos_jax.files.versioned import FileFormat

NOTE = FileFormat("notes", "a note", "write a new one", max_bytes=200)


def test_what_is_written_is_read(tmp_path):
    path = NOTE.write(tmp_path / "a.json", {"text": "äö"}, durable=True)
    assert NOTE.read(path) == {"format": "notes", "version": 1, "text": "äö"}
    assert NOTE.holds(path) and [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{", "a.json: is not readable as JSON: .*; write a new one"),
        (b"\xff", "is not readable as JSON"),
        (b"[" * 190, "is not readable as JSON"),
        (b"[]", "is not a note .*; write a new one"),
        (b'{"format": "other"}', "is not a note .format: 'other', expected 'notes'"),
        (b'{"format": "notes"}', "version: is None, this package reads 1; use the version"),
        (b'{"format": "notes", "version": 2}', "version: is 2, this package reads 1"),
        (b" " * 300, "is larger than"),
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
    with pytest.raises(InputError, match="is not a regular file"):
        NOTE.read(tmp_path)


def test_nothing_is_written_that_could_not_be_read(tmp_path):
    path = NOTE.write(tmp_path / "a.json", {"text": "short"})
    with pytest.raises(InputError, match="is full"):
        NOTE.write(path, {"text": "long " * 100})
    assert NOTE.read(path)["text"] == "short"
