"""A batch in shards: which task makes what, with real processes, kills and an object store."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from syncos_jax.errors import InputError
from syncos_jax.runs.shards import Shard, parse_shard, shard_of_environment

NAMES = [f"cat{index:02}" for index in range(40)]


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_each_item_is_of_one_shard(count):
    shards = [Shard(index, count) for index in range(count)]
    assert all(sum(shard.owns(name) for shard in shards) == 1 for name in NAMES)


def test_the_hash_stays_as_it_is():
    """Another version must find the shards that this one has made."""
    assert [name for name in NAMES[:20] if Shard(2, 7).owns(name)] == SHARD_2_OF_7


SHARD_2_OF_7 = ["cat04", "cat08"]


def test_shard_as_text():
    assert parse_shard(" 2/7 ") == Shard(2, 7) and str(Shard(2, 7)) == "2/7"
    for text in ("7/7", "2", "-1/7", "a/b", "0/0", "1/2/3"):
        with pytest.raises(InputError, match="shard must be I/N"):
            parse_shard(text)


def array(**values):
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


SCHEDULERS = [
    ({}, Shard(0, 1)),
    (array(ID=3, COUNT=8, MIN=0, MAX=7, STEP=1), Shard(3, 8)),
    (array(ID=4, COUNT=8, MIN=1, MAX=8, STEP=1), Shard(3, 8)),
    (array(ID=6, COUNT=4, MIN=0, MAX=6, STEP=2), Shard(3, 4)),
    ({"JOB_COMPLETION_INDEX": "2", "JOB_COMPLETIONS": "8"}, Shard(2, 8)),
    ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"}, Shard(1, 4)),
    # Within a batch script, not started by srun: one process, which makes everything.
    ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, Shard(0, 1)),
    (
        array(ID=1, COUNT=2) | {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"},
        Shard(7, 8),
    ),
]


@pytest.mark.parametrize(("environment", "shard"), SCHEDULERS)
def test_shard_of_a_scheduler(environment, shard):
    assert shard_of_environment(environment) == shard


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"JOB_COMPLETION_INDEX": "2"}, "set JOB_COMPLETIONS to the Job's completions"),
        (array(ID=5, COUNT=2, MIN=2, MAX=5, STEP=1), "has gaps between 2 and 5.*`shard=5/N`"),
        ({"JOB_COMPLETION_INDEX": "x", "JOB_COMPLETIONS": "8"}, "is 'x', not a number"),
    ],
)
def test_a_shard_that_is_not_known(environment, said):
    with pytest.raises(InputError, match=said):
        shard_of_environment(environment)


def run(*arguments):
    script = Path(__file__).with_name("batch_kills.py")
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
    return json.loads(done.stdout)


def check(found, count, kills, scenarios):
    """All but the two broken ones are made once, bit for bit as without shards."""
    assert found["codes"][:kills] == [-9] * kills, found["codes"]
    assert set(found["codes"][kills:]) <= {0, 1} and set(found["again"]) <= {0, 1}
    items = found["items"]
    failed = sorted(name for name, item in items.items() if item["status"] == "failed")
    assert failed == ["0005", "blink"] and len(items) == scenarios
    assert [item["made"] for n, item in items.items() if n not in failed] == [1] * (scenarios - 2)
    for name, item in items.items():
        index, of = map(int, item["shard"].split("/"))
        assert of == count and Shard(index, of).owns(name)
    pending = [name for name, item in found["then"].items() if item["status"] == "pending"]
    assert pending and found["touched"] == [] and found["went_on"] == kills
    assert found["locks"] == [] and found["left_over"] == []
    assert found["plain"] == 1 and found["identical"] is True
    assert found["videos"] == scenarios - 2
    # What is made is written down after the marker, so a kill may come in between.
    counted = sum(session["videos"] for session in found["sessions"])
    assert scenarios - 2 - kills <= counted <= scenarios - 2


@pytest.mark.slow
def test_shards_with_a_kill():
    check(run("--shards", 3, "--scenarios", 14, "--kills", 1), 3, 1, 14)


@pytest.mark.slow
def test_seven_shards_with_two_kills():
    check(run("--shards", 7, "--scenarios", 40, "--kills", 2), 7, 2, 40)


@pytest.mark.slow
def test_seven_shards_in_an_object_store():
    check(run("--shards", 7, "--scenarios", 40, "--kills", 2, "--store"), 7, 2, 40)
