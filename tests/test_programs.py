"""Compiled programs on disk: what a kill or a full disk leaves costs one compilation, never all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from syncos_jax.runs.programs import Programs

COMPILES = """
import json, sys, warnings
warnings.simplefilter("error")
from syncos_jax.runs.cache import Watch, keep_programs
import jax, jax.numpy as jnp
keep_programs()
watch = Watch()
for size in range(2, 6):
    jax.jit(lambda x: jnp.tanh(x @ x), inline=True)(jnp.ones((size, size))).block_until_ready()
print(json.dumps([watch.compiled, watch.found]))
"""


def start(folder):
    environment = os.environ | {"SYNCOS_CACHE": str(folder), "JAX_PLATFORMS": "cpu"}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", COMPILES], env=environment, **pipe)


def result(process):
    out, error = process.communicate()
    assert process.returncode == 0, error
    return json.loads(out)


def test_what_is_damaged_is_compiled_again_alone(tmp_path):
    """Orphans, truncated and foreign files, two processes at a time; no warning (they raise)."""
    compiled, found = result(start(tmp_path))
    assert compiled >= 4 and found == 0
    folder = tmp_path / "programs"
    whole = sorted(folder.glob("*.program"))
    assert len(whole) == compiled
    # As a SIGKILL or a full disk would leave them, or a loss of power.
    whole[0].write_bytes(whole[0].read_bytes()[:100])
    whole[1].write_bytes(b"")
    (folder / "jit_play_part-0123456789abcdef-cache").write_bytes(os.urandom(1000))
    both = [result(process) for process in [start(tmp_path), start(tmp_path)]]
    assert all(compiled <= 2 and compiled + found == len(whole) for compiled, found in both), both
    assert sum(compiled for compiled, _ in both) >= 2
    assert result(start(tmp_path)) == [0, len(whole)]
    assert sorted(folder.glob("*")) == whole


WRITES = """
import sys; from pathlib import Path
from syncos_jax.runs.programs import Programs
programs = Programs(Path(sys.argv[1]), 2**30)
print("ready", flush=True)
while True:
    programs.put("one", b"x" * 2_000_000)
"""


@pytest.mark.slow
def test_killed_while_writing(tmp_path):
    """20 times, at whatever moment: a program is whole or not there, for those who still run."""
    for number in range(20):
        command = [sys.executable, "-c", WRITES, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.003 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        programs = Programs(tmp_path, 2**30)
        assert programs.get("one") in (None, b"x" * 2_000_000)
        programs.put("two", b"y")
        assert programs.get("two") == b"y"


def test_the_longest_unused_go(tmp_path):
    programs = Programs(tmp_path, 2_900)
    for age, name in enumerate(("a", "b", "c")):
        programs.put(name, b"x" * 900)
        os.utime(tmp_path / f"{name}.program", (1e9 + age, 1e9 + age))
    assert programs.get("a") == b"x" * 900  # used just now
    programs.put("d", b"x" * 900)
    assert [programs.get(name) is not None for name in "abcd"] == [True, False, True, True]
    programs.put("large", b"x" * 3_000)
    assert programs.get("large") is None and programs.get("a") is not None


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path):
    programs = Programs(tmp_path / "gone", 100)
    programs.put("a", b"x")
    assert programs.get("a") is None and programs.prune() == 0


def test_what_killed_processes_left_goes(tmp_path):
    for name in (".abc.program", "x-atime", "x-cache"):
        Path(tmp_path / name).write_bytes(b"1")
    (tmp_path / "other.txt").write_bytes(b"1")
    programs = Programs(tmp_path, 100)
    assert programs.prune() == 2  # the first may be being written
    os.utime(tmp_path / ".abc.program", (1e9, 1e9))
    assert programs.prune() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]
