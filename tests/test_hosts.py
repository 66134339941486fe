"""Hosts of one video that do not come: said at once, ended by SIGTERM or by a limit."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from syncos_jax.errors import InputError
from syncos_jax.sampling.hosts import initialize

MAIN = "from syncos_jax.cli import main; main()"


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def start(process, port, limit, processes=2, **environment):
    where = [
        "--coordinator",
        f"127.0.0.1:{port}",
        "--processes",
        processes,
        "--process-id",
        process,
    ]
    given = [
        "generate",
        "--global",
        "a",
        "--prompt",
        "x",
        "--seconds",
        "1",
        "--join-timeout",
        limit,
    ]
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, [*given, "--distributed", *where])],
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_others_do_not_come(tmp_path, monkeypatch):
    """Process 1 without process 0, and process 0 without process 1, at once."""
    monkeypatch.chdir(tmp_path)
    ports = free_port(), free_port()
    begin = time.monotonic()
    one, zero = start(1, ports[0], 3), start(0, ports[1], 3)
    said = one.communicate(timeout=120)[1].splitlines()
    assert one.returncode == 2 and len(said) == 2, said
    address = f"127.0.0.1:{ports[0]}"
    assert said[0] == f"process 1 of 2 waits for process 0 at {address}, at most 3 s"
    assert said[1].startswith(
        f"error: distributed: process 1 of 2 could not reach process 0 at {address}"
    )
    assert said[1].endswith("is process 0 running, and its port open?")
    said = zero.communicate(timeout=120)[1].splitlines()
    assert zero.returncode == 2 and len(said) == 2, said
    assert said[0] == f"process 0 of 2 waits at 127.0.0.1:{ports[1]} for 1 other, at most 3 s"
    assert said[1].startswith("error: distributed: the other process did not come within 3 s")
    assert time.monotonic() - begin < 90  # of which most is importing


@pytest.mark.parametrize("process", [0, 1])
def test_sigterm_while_waiting(process, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    waiting = start(process, free_port(), 300)
    assert " waits " in waiting.stderr.readline()  # at once: long before the limit
    time.sleep(0.5)
    begin = time.monotonic()
    waiting.send_signal(signal.SIGTERM)
    rest = waiting.communicate(timeout=60)[1]
    assert waiting.returncode == 75 and time.monotonic() - begin < 20
    assert rest == "error: terminated; no partial files are left\n"


def test_a_limit_is_more_than_nothing():
    with pytest.raises(InputError, match="join_timeout must be more than 0 seconds, got 0"):
        initialize("127.0.0.1:1", 2, 1, timeout=0.0)


COUNTS = """
import os, sys
from syncos_jax.errors import InputError
from syncos_jax.sampling.hosts import initialize
import signal
try:
    initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), timeout=60)
    own = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    print("joined", own, flush=True)
except InputError as error:
    print(error, flush=True)
sys.stdin.readline()
os._exit(0)
"""


@pytest.mark.parametrize("counts", [(2, 3), (2, 2)])
def test_numbers_of_processes_that_differ_are_refused(counts):
    """One waited for ever for a process that does not exist. And SIGTERM stays Python's own: JAX's
    handler took it and did nothing."""
    address = f"127.0.0.1:{free_port()}"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", COUNTS, address, str(count), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
        for number, count in enumerate(counts)
    ]
    try:
        said = [process.stdout.readline() for process in both]
    finally:
        for process in both:
            process.kill()
            process.wait()
    if counts == (2, 2):
        assert said == ["joined True\n"] * 2
    else:
        assert "process 1 was given 3 processes, this one 2" in said[0]
        assert "process 0 was given 2 processes, this one 3" in said[1]
