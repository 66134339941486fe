"""SIGKILL at any moment, a full disk at every write, a clock that goes back."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KINDS = ("convert", "generate", "batch")


def faults(*arguments):
    run = subprocess.run(
        [sys.executable, Path(__file__).parent / "faults.py", *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_a_full_disk_at_some_writes():
    (found,) = faults("limit", "--kind", "convert", "--count", 3)
    # The first limit is below the largest array; the others are shares of a file whose size
    # depends on how many arrays happened to be written together, and may be enough.
    assert len(found["codes"]) == 3 and found["codes"][0] == 2
    assert found["words"] == ["error: cannot write /model: File too large"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_at_every_write(kind):
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("may not mount")
    (found,) = faults("disk", "--kind", kind, "--count", 16)
    assert len(found["codes"]) == 16 and set(found["codes"]) - {0}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("convert", 20), ("generate", 16), ("batch", 16)])
def test_killed_at_any_moment(kind, count):
    (found,) = faults("kills", "--kind", kind, "--count", count)
    assert found["killed"] >= count and found["finished"] >= count / 4 - 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_clock_that_goes_back(kind):
    assert faults("clock", "--kind", kind) == [{"kind": kind}]
