"""review.json: what is decided survives concurrent writers, kills, and damaged files."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from syncos_jax.cli import app
from syncos_jax.errors import InputError
from syncos_jax.studio.review.approvals import (
    FILE,
    MAX_COMMENT,
    Reviews,
    StaleError,
    add_entry,
    file_sha256,
    read_reviews,
)


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    return path


def syncos(*arguments):
    result = CliRunner().invoke(app, ["review", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def status(path):
    return read_reviews(path.parent).status(path.name, file_sha256(path))


def test_a_decision_holds_for_the_bytes_it_was_about(video):
    assert status(video) == "undecided"
    add_entry(video, "comment", "Bo", "nice")
    assert status(video) == "undecided"
    add_entry(video, "approve", "Ada")
    assert status(video) == "approved"
    add_entry(video, "comment", "Bo", "agreed")
    assert status(video) == "approved"
    video.write_bytes(b"two")
    assert status(video) == "changed"
    add_entry(video, "reject", "Ada", "worse")
    assert status(video) == "rejected"
    reviews = read_reviews(video.parent)
    assert [e.action for e in reviews.of("a.mp4")] == ["comment", "approve", "comment", "reject"]
    assert [e.revision for e in reviews.of("a.mp4")] == [1, 2, 3, 4] and reviews.revision == 4
    assert sorted(p.name for p in video.parent.iterdir()) == [".review.lock", "a.mp4", FILE]


def test_decisions_on_what_somebody_else_changed_are_refused(video):
    seen = add_entry(video, "comment", "Bo", "the end is odd").revision
    shown = file_sha256(video)
    add_entry(video, "reject", "Bo", seen=seen, sha256=shown)
    with pytest.raises(StaleError, match=r"Bo wrote about a.mp4 meanwhile \(reject\)"):
        add_entry(video, "approve", "Ada", seen=seen, sha256=shown)
    assert status(video) == "rejected"
    add_entry(video, "comment", "Ada", "why?", seen=seen)  # saying something is never stale
    video.write_bytes(b"two")
    with pytest.raises(StaleError, match="has changed since it was shown"):
        add_entry(video, "approve", "Ada", sha256=shown)
    other = video.with_name("b.mp4")
    other.write_bytes(b"b")
    add_entry(other, "approve", "Ada", seen=0)  # entries on other videos do not matter


BAD = [
    (("approve", " "), "needs the name"),
    (("approve", "\n\0"), "needs the name"),
    (("approve", "x" * 101), "at most 100"),
    (("comment", "Ada", " "), "comment is empty"),
    (("comment", "Ada", "x" * (MAX_COMMENT + 1)), "at most 4000"),
    (("delete", "Ada"), "must be one of approve, reject, reopen, comment"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_entries_write_nothing(video, arguments, message):
    with pytest.raises(InputError, match=message):
        add_entry(video, *arguments)
    assert not (video.parent / FILE).exists()


@given(by=st.text(min_size=1, max_size=50), comment=st.text(max_size=200))
def test_any_text_comes_back(tmp_path_factory, by, comment):
    path = tmp_path_factory.mktemp("t") / "a.mp4"
    path.write_bytes(b"x")
    try:
        written = add_entry(path, "approve", by, comment)
    except InputError:
        assert not by.strip() or not by.isprintable()
        return
    assert read_reviews(path.parent) == written
    entry = written.of("a.mp4")[0]
    assert entry.by.isprintable() or "\n" not in entry.by
    if comment.isprintable():
        assert entry.comment == comment.strip()


DAMAGED = [
    ("{", "not readable as JSON"),
    ("\udcff", "not readable as JSON"),
    ("[" * 100_000, "not readable as JSON"),
    ("[]", "not a file of approvals"),
    ('{"format": "syncos_jax.video"}', "called review.mp4"),
    ('{"format": "syncos_jax review", "version": 2}', "has version 2, but this package reads 1"),
    ('{"format": "syncos_jax review", "version": 1, "revision": "7"}', "revision: is '7'"),
    (
        '{"format": "syncos_jax review", "version": 1, "videos": {"a": [{}]}}',
        r"videos.a\[0\].revision",
    ),
]


@pytest.mark.parametrize(("text", "message"), DAMAGED)
def test_a_damaged_file_is_left_alone(video, text, message):
    file = video.parent / FILE
    raw = text.encode(errors="surrogateescape")
    file.write_bytes(raw)
    with pytest.raises(InputError, match=message):
        add_entry(video, "approve", "Ada")
    assert file.read_bytes() == raw


# -- several processes ----------------------------------------------------------------------------

WRITER = """
import sys
from syncos_jax.studio.review.approvals import add_entry
video, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for index in range(count):
    add_entry(video, "comment", name, f"{name} {index}")
    print(index, flush=True)  # from here on it must never be lost
"""

STUCK = """
import os, sys, time
from syncos_jax.studio.review import approvals
def stop(_):
    print("written, not yet renamed", flush=True)
    time.sleep(600)
approvals.os.fsync = stop
approvals.add_entry(sys.argv[1], "approve", "Eve", "x" * 4000)
"""


def start(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_several_writers_at_once_lose_nothing(video):
    names = ["Ada", "Bo", "Cy", "Di"]
    writers = [start(WRITER, video, name, 25) for name in names]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    entries = read_reviews(video.parent).of("a.mp4")
    assert [entry.revision for entry in entries] == list(range(1, 101))
    for name in names:  # each in its own order
        said = [entry.comment for entry in entries if entry.by == name]
        assert said == [f"{name} {index}" for index in range(25)]


def test_a_kill_in_the_middle_of_writing(video):
    before = add_entry(video, "comment", "Ada", "before")
    writer = start(STUCK, video)
    assert writer.stdout.readline() == "written, not yet renamed\n"
    assert list(video.parent.glob(".review.*.json"))  # it is in the middle
    writer.send_signal(signal.SIGKILL)
    writer.wait(timeout=30)
    assert read_reviews(video.parent) == before
    after = add_entry(video, "approve", "Ada")  # the lock has gone with it
    assert after.revision == before.revision + 1 and status(video) == "approved"
    assert sorted(p.name for p in video.parent.iterdir()) == [".review.lock", "a.mp4", FILE]


def test_kills_at_any_moment_lose_nothing_that_was_acknowledged(video):
    chance = random.Random(0)
    writers = {name: start(WRITER, video, name, 100_000) for name in ("Ada", "Bo", "Cy")}
    try:
        for writer in writers.values():
            assert writer.stdout.readline() == "0\n"
        done = dict.fromkeys(writers, 0)
        for name, writer in writers.items():
            time.sleep(chance.uniform(0.05, 0.3))
            os.kill(writer.pid, signal.SIGKILL)
            said = writer.stdout.read().split()  # with what readline has taken ahead
            done[name] = int(said[-1]) + 1 if said else 1
            assert isinstance(read_reviews(video.parent), Reviews)  # readable at every moment
    finally:
        for writer in writers.values():
            writer.kill()
    add_entry(video, "approve", "Di")
    entries = read_reviews(video.parent).of("a.mp4")
    assert [entry.revision for entry in entries] == list(range(1, len(entries) + 1))
    for name, count in done.items():
        said = [entry.comment for entry in entries if entry.by == name]
        assert said == [f"{name} {index}" for index in range(len(said))]
        assert count <= len(said) <= count + 1  # one may have been written but not acknowledged


# -- by command -----------------------------------------------------------------------------------


def test_by_command(video):
    assert syncos("approve", video, "--by", "Ada").exit_code == 0
    assert syncos("status", video.parent, "--all-approved").exit_code == 0
    result = syncos("comment", video, "--comment", "well [bold]done[/bold]")
    assert result.exit_code == 0 and "comment by " in result.stdout
    result = syncos("reject", video, "--by", "Bo", "--comment", "the end")
    assert result.exit_code == 0
    result = syncos("status", video.parent, "--all-approved")
    assert result.exit_code == 1 and "rejected" in result.stdout and "Bo: the end" in result.stdout
    video.write_bytes(b"two")
    assert "changed" in syncos("status", video).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["approve", "none.mp4"], "none.mp4: no such file"),
        (["approve", "."], "is a folder"),
        (["status", "none"], "none: no such file"),
        (["status", "."], "has no video in it"),
        (["comment", "a.mp4", "--comment", " "], "comment is empty"),
    ],
)
def test_bad_commands_are_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    if arguments[1] == "a.mp4":
        Path("a.mp4").write_bytes(b"x")
    result = syncos(*arguments)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert not Path(FILE).exists()


def test_the_file_is_plain_json(video):
    add_entry(video, "approve", "Ada", "schön")
    data = json.loads((video.parent / FILE).read_text(encoding="utf-8"))
    entry = data["videos"]["a.mp4"][0]
    assert set(entry) == {"revision", "action", "by", "at", "comment", "sha256"}
    assert (video.parent / FILE).stat().st_mode & 0o077 or os.umask(0) == 0o077
