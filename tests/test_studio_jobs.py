"""The queue in SQLite: order, ends, repeats, bounds, and a process that is killed."""

import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from syncos_jax.errors import InputError
from syncos_jax.studio.jobs import Jobs
from syncos_jax.studio.records import MAX_DEATHS, PATIENCE, KeyTaken, QueueFull

SCENARIO = {"global": "a Cat in a kitchen", "events": [{"prompt": "sleeps", "seconds": 1}]}


def values(**more):
    return {
        "title": "first",
        "model": "demo",
        "template": None,
        "variables": None,
        "settings": None,
        "scenario": SCENARIO,
        "seed": 0,
        **more,
    }


@pytest.fixture
def jobs(tmp_path):
    opened = Jobs(tmp_path / "jobs.sqlite")
    yield opened
    opened.close()


def add(jobs, id, takes=1, most=100, **more):
    return jobs.add(id, values(**more), list(range(takes)), most)


def statuses(jobs, id):
    video = jobs.get(id)
    return video.status, [take.status for take in video.takes]


def test_takes_are_claimed_in_order_and_each_once(jobs):
    add(jobs, "a", takes=2)
    add(jobs, "b")
    claimed = [jobs.claim() for _ in range(4)]
    assert [(v.id, t.take) for v, t in claimed[:3]] == [("a", 1), ("a", 2), ("b", 1)]
    assert claimed[3] is None
    assert jobs.places() == {"a": 0, "b": 0}


def test_two_threads_never_claim_the_same(jobs):
    for index in range(40):
        add(jobs, f"v{index}")
    found = []

    def work():
        while (claimed := jobs.claim()) is not None:
            found.append(claimed[0].id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(f"v{index}" for index in range(40))


def test_a_video_is_done_when_its_takes_are(jobs):
    add(jobs, "a", takes=2)
    video, _ = jobs.claim()
    jobs.ended(video, 1, "completed", 2.0)
    assert statuses(jobs, "a") == ("in_progress", ["completed", "queued"])
    jobs.claim()
    jobs.ended(video, 2, "failed", None, ("it diverges", "Take another seed"))
    assert statuses(jobs, "a") == ("failed", ["completed", "failed"])
    assert jobs.get("a").error == {"message": "it diverges", "remedy": "Take another seed"}
    assert jobs.get("a").ended is not None and jobs.places() == {}


def test_cancelling(jobs):
    add(jobs, "waits")
    assert jobs.cancel("waits").status == "queued"
    assert statuses(jobs, "waits") == ("cancelled", ["cancelled"])
    add(jobs, "runs", takes=3)
    video, take = jobs.claim()
    jobs.cancel("runs")
    assert statuses(jobs, "runs") == ("cancelling", ["in_progress", "cancelled", "cancelled"])
    assert jobs.claim() is None
    jobs.ended(video, take.take, "cancelled")
    assert statuses(jobs, "runs") == ("cancelled", ["cancelled"] * 3)
    assert jobs.cancel("runs").status == "cancelled" and jobs.cancel("none") is None


def test_cancelled_while_the_last_take_was_being_written(jobs):
    add(jobs, "a")
    video, _ = jobs.claim()
    jobs.cancel("a")
    jobs.ended(video, 1, "completed", 2.0)  # the worker was past the place where it looks
    assert statuses(jobs, "a") == ("cancelled", ["completed"])


def test_the_same_key_makes_one_video(jobs):
    assert jobs.add("a", values(), [0], 9, "key", "body") == "a"
    assert jobs.add("b", values(), [0], 9, "key", "body") == "a"
    assert jobs.by_key("key") == ("a", "body") and jobs.get("b") is None
    with pytest.raises(KeyTaken):
        jobs.add("c", values(), [0], 9, "key", "another body")
    assert len(jobs.history()[0]) == 1


def test_the_queue_is_bounded(jobs):
    add(jobs, "a", takes=3, most=4)
    with pytest.raises(QueueFull):
        add(jobs, "b", takes=2, most=4)
    assert jobs.get("b") is None
    add(jobs, "c", takes=1, most=4)
    jobs.claim()
    add(jobs, "d", takes=1, most=4)  # a running take is not queued


def test_listing(jobs):
    for index in range(5):
        add(jobs, f"v{index}", title=f"Video {index}")
    found, more = jobs.history(limit=2)
    assert [video.id for video in found] == ["v4", "v3"]
    found, more = jobs.history(limit=2, after=found[-1].number)
    assert [video.id for video in found] == ["v2", "v1"]
    assert jobs.history(limit=2, after=found[-1].number) == ([jobs.get("v0")], False)
    assert [video.id for video in jobs.history(search="CAT video 3")[0]] == ["v3"]
    assert jobs.history(search="100%' OR 1=1 --")[0] == []
    jobs.cancel("v2")
    assert [video.id for video in jobs.history(status="cancelled")[0]] == ["v2"]
    assert jobs.forget("v2") and not jobs.forget("v3") and jobs.get("v2") is None


def test_what_a_killed_process_was_making_is_first_again(tmp_path):
    jobs = Jobs(tmp_path / "jobs.sqlite")
    add(jobs, "a", takes=2)
    add(jobs, "b")
    video, _ = jobs.claim()
    jobs.ended(video, 1, "completed", 1.0)
    jobs.claim()
    jobs.close()
    again = Jobs(tmp_path / "jobs.sqlite")
    again.recover()
    assert statuses(again, "a") == ("in_progress", ["completed", "queued"])
    assert statuses(again, "b") == ("queued", ["queued"])
    video, take = again.claim()
    assert (video.id, take.take, take.deaths) == ("a", 2, 1)
    again.progressed(video, 2, 5)
    assert again.get("a").takes[1].deaths == 0
    again.close()


def test_one_that_kills_the_process_each_time_fails_in_the_end(tmp_path):
    jobs = Jobs(tmp_path / "jobs.sqlite")
    add(jobs, "a")
    add(jobs, "b")
    for death in range(PATIENCE):
        assert jobs.claim()[0].id == "a", death
        jobs.recover()
    video, take = jobs.claim()
    assert video.id == "b"  # is not held up
    jobs.ended(video, take.take, "completed", 1.0)
    for death in range(PATIENCE, MAX_DEATHS):
        assert jobs.claim()[0].id == "a", death
        jobs.recover()
    assert statuses(jobs, "a") == ("failed", ["failed"])
    assert "crashed 10 times" in jobs.get("a").error["message"]
    assert jobs.claim() is None
    jobs.close()


def test_one_that_was_being_cancelled_is_cancelled(tmp_path):
    jobs = Jobs(tmp_path / "jobs.sqlite")
    add(jobs, "a", takes=2)
    jobs.claim()
    jobs.cancel("a")
    jobs.recover()
    assert statuses(jobs, "a") == ("cancelled", ["cancelled", "cancelled"])
    jobs.close()


KILLED = """
import sys
from pathlib import Path
from syncos_jax.studio.jobs import Jobs
jobs = Jobs(Path(sys.argv[1]))
scenario = {"global": "a cat", "events": [{"prompt": "sleeps", "seconds": 1}]}
values = dict(title="x", model="demo", template=None, variables=None, settings=None,
              scenario=scenario, seed=0)
for index in range(100_000):
    print(jobs.add(f"v{index}", values, [0], 10**9), flush=True)
"""


def test_what_was_accepted_outlives_a_kill(tmp_path):
    path = tmp_path / "jobs.sqlite"
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    )
    said = [run.stdout.readline().strip() for _ in range(20)]
    run.send_signal(signal.SIGKILL)
    said += run.stdout.read().split()
    run.wait()
    jobs = Jobs(path)
    assert all(jobs.get(id) is not None for id in said if id)
    assert len(jobs.history(limit=100)[0]) >= 20
    jobs.close()


def test_files_that_are_something_else(tmp_path):
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="not a job database"):
        Jobs(path)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("PRAGMA user_version=7")
    with pytest.raises(InputError, match="has version 7, but this package reads 2"):
        Jobs(other)


def test_a_queued_video_moves(jobs):
    for id in "abcd":
        add(jobs, id)
    jobs.claim()
    assert jobs.move("d", 1) and jobs.places() == {"a": 0, "d": 1, "b": 2, "c": 3}
    assert jobs.move("d", 2) and jobs.places() == {"a": 0, "b": 1, "d": 2, "c": 3}
    assert jobs.move("b", 99) and jobs.places() == {"a": 0, "d": 1, "c": 2, "b": 3}
    assert not jobs.move("a", 1) and not jobs.move("x", 1)
    assert [jobs.claim()[0].id for _ in range(3)] == ["d", "c", "b"]


def test_more_takes(jobs):
    add(jobs, "a", takes=2)
    for take in (1, 2):
        video, _ = jobs.claim()
        jobs.ended(video, take, "completed", 1.0, None, 2.5)
    assert [take.seed for take in jobs.add_takes("a", 2, 9).takes] == [0, 1, 2, 3]
    assert statuses(jobs, "a") == ("queued", ["completed", "completed", "queued", "queued"])
    assert jobs.device_seconds() == 5.0 and jobs.counts()["queued"] == 2
    with pytest.raises(QueueFull):
        jobs.add_takes("a", 8, 9)
    jobs.cancel("a")
    assert len(jobs.add_takes("a", 1, 9).takes) == 4 and jobs.add_takes("none", 1, 9) is None


def test_a_database_of_the_first_version_is_migrated(tmp_path):
    path = tmp_path / "jobs.sqlite"
    old = sqlite3.connect(path)
    old.executescript("""
        CREATE TABLE videos (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
          title TEXT NOT NULL, status TEXT NOT NULL, model TEXT NOT NULL, template TEXT,
          variables TEXT, settings TEXT, scenario TEXT NOT NULL, seed INTEGER NOT NULL, error TEXT,
          created TEXT NOT NULL, started TEXT, ended TEXT, words TEXT NOT NULL, key TEXT UNIQUE,
          body TEXT);
        CREATE TABLE takes (video INTEGER NOT NULL REFERENCES videos(number) ON DELETE CASCADE,
          take INTEGER NOT NULL, seed INTEGER NOT NULL, status TEXT NOT NULL, seconds REAL,
          deaths INTEGER NOT NULL DEFAULT 0, row INTEGER NOT NULL DEFAULT 0,
          PRIMARY KEY (video, take));
        INSERT INTO videos VALUES (1, 'a', 't', 'running', 'demo', NULL, NULL, NULL,
          '{"events": []}', 0, NULL, '2026-01-01T00:00:00Z', NULL, NULL, 't', NULL, NULL);
        INSERT INTO takes VALUES (1, 1, 0, 'done', 2.0, 0, 0), (1, 2, 1, 'running', NULL, 0, 0);
        PRAGMA user_version = 1;
    """)
    old.close()
    jobs = Jobs(path)
    assert statuses(jobs, "a") == ("in_progress", ["completed", "in_progress"])
    jobs.recover()
    assert jobs.claim()[1].take == 2
