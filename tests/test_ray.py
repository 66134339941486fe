"""A batch on Ray: who makes what, a lost worker, and the same videos as without it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import FakeModel
from typer.testing import CliRunner

import syncos_jax.pipeline.load
from syncos_jax.cli import app
from syncos_jax.cli.batch import _Group
from syncos_jax.errors import InputError
from syncos_jax.runs import VideoGenerator, on_ray
from syncos_jax.runs.items import Item
from syncos_jax.runs.markers import Markers
from syncos_jax.runs.on_ray import MAX_ATTEMPTS, Queue, resources, shape_of
from syncos_jax.runs.outputs import Outputs
from syncos_jax.scenario.template import Template

STORY = {
    "global": "a cat",
    "events": [{"prompt": "sleeps", "frames": 6}],
    "sampler": {"name": "co_denoising", "steps": 2},
}


def item(name, frames=6, **sampler):
    story = {**STORY, "events": [{"prompt": name, "frames": frames}]}
    story["sampler"] = STORY["sampler"] | sampler
    return Item(name, Path("x.jsonl"), "x.jsonl:1", Template.from_dict(story).expand()[0])


# -- who makes what --------------------------------------------------------------------------------


def test_equal_shapes():
    assert shape_of(item("a")) == shape_of(item("b", guidance=3.0))  # prompts and values may differ
    assert len({shape_of(item("a", frames=f, steps=s)) for f in (6, 12) for s in (2, 3)}) == 4


def test_a_worker_keeps_to_the_shapes_it_knows():
    items = [item(f"{frames}-{n}", frames) for n in range(12) for frames in (6, 12, 18)]
    queue = Queue(items, 3)
    first = [queue.take(worker) for worker in range(3)]
    assert len({shape_of(chunk[0]) for chunk in first}) == 3  # three workers, three shapes
    while len(queue):
        for worker in range(3):
            chunk = queue.take(worker)
            assert {shape_of(one) for one in chunk} <= {shape_of(first[worker][0])}
    assert queue.take(0) == []


def test_an_idle_worker_helps_with_another_shape():
    queue = Queue([item("a", 6), *(item(f"b{n}", 12) for n in range(40))], 2)
    assert shape_of(queue.take(0)[0]) == shape_of(item("b", 12))  # most are left of it
    assert queue.take(1)[0].name == "a"
    taken = queue.take(1)
    assert taken[0].name.startswith("b") and 1 < len(taken) <= 8


def test_what_a_lost_worker_had_comes_first_and_one_by_one():
    queue = Queue([item(f"a{n}") for n in range(10)], 1)
    lost = queue.take(0)
    assert len(lost) == 5 and queue.lost(0, lost) == []
    again = queue.take(0)
    assert [one.name for one in again] == ["a0"]  # alone: which of them kills is not known
    for _ in range(MAX_ATTEMPTS - 2):
        assert queue.lost(0, again) == []
        again = queue.take(0)
    assert queue.lost(0, again) == again  # it is given up
    assert [one.name for one in queue.take(0)] == ["a1"]


class FakeRay:
    def __init__(self, nodes, **found):
        self.found, self.count = found, nodes

    def cluster_resources(self):
        return self.found

    def nodes(self):
        return [{"Alive": True}] * self.count


def test_workers_of_a_cluster():
    assert resources(FakeRay(2, CPU=16, GPU=8), 2, None) == ({"num_gpus": 2}, 4)
    assert resources(FakeRay(2, CPU=16, TPU=8), 4, None) == ({"resources": {"TPU": 4}}, 2)
    assert resources(FakeRay(2, CPU=16), 1, None) == ({"num_cpus": 1}, 2)
    assert resources(FakeRay(1, CPU=16), 1, 3) == ({"num_cpus": 1}, 3)
    with pytest.raises(InputError, match="room for 4; pass fewer"):
        resources(FakeRay(2, CPU=16, GPU=8), 2, 5)
    with pytest.raises(InputError, match="room for 0"):
        resources(FakeRay(2, CPU=16, GPU=8), 16, 1)


# -- the command line ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "address"),
    [
        (["--ray"], "auto"),
        (["--ray", "--out"], "auto"),
        (["--ray", "stories.jsonl"], "auto"),
        (["--ray", "head:6379"], "head:6379"),
        (["--ray", "ray://head:10001"], "ray://head:10001"),
        (["--ray", "local"], "local"),
    ],
)
def test_the_address_may_be_left_out(given, address):
    words = _Group.with_address(given)
    rest = given[1:] if address == "auto" else given[2:]
    assert words == ["--ray", address, *rest]


BAD = [
    (["--workers", "2"], "--workers needs --ray"),
    (["--ray", "--shard", "0/2"], "--shard and --ray cannot be combined"),
    (
        ["--ray", "--devices", "all"],
        "with --ray, --devices must be a number: the devices of each worker",
    ),
]


@pytest.mark.parametrize(("options", "said"), BAD)
def test_options_that_do_not_go_together(options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("stories.jsonl").write_text(json.dumps(STORY))
    result = CliRunner().invoke(app, ["batch", "stories.jsonl", "--out", "videos", *options])
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1


# -- a worker by itself ----------------------------------------------------------------------------


def test_video_generator(monkeypatch, tmp_path):
    monkeypatch.setattr(syncos_jax.pipeline.load, "load_model", lambda *_, **__: FakeModel())
    monkeypatch.setenv("SYNCOS_CACHE", str(tmp_path / "cache"))
    videos = VideoGenerator(tmp_path / "videos", "fake", cache=False)
    rows = [json.dumps(STORY), STORY | {"seed": 3}, "{", json.dumps(STORY)]
    found = videos({"scenario": np.asarray(rows, object), "id": np.arange(4)})
    assert list(found["id"]) == [0, 1, 2, 3] and list(found["scenario"]) == rows
    assert list(found["status"]) == ["done", "done", "failed", "done"]
    assert found["name"][0] == found["name"][3] != found["name"][1]  # equal rows are one video
    assert "Expecting property name" in found["error"][2] and found["video"][2] == ""
    assert all(Path(found["video"][n]).stat().st_size > 500 for n in (0, 1))
    times = [Path(found["video"][n]).stat().st_mtime_ns for n in (0, 1)]
    again = videos({"scenario": rows[:2]})
    assert times == [Path(video).stat().st_mtime_ns for video in again["video"]]
    named = videos({"scenario": rows[:1] * 2, "name": ["a", "../up"]})
    assert named["name"][0] == "a" and named["status"].tolist() == ["done", "failed"]
    with pytest.raises(InputError, match="no column 'scenario', got"):
        videos({"text": rows})


# -- what the actors have in hand ------------------------------------------------------------------


class LostWorker(Exception):
    pass


class TaskError(Exception):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class RayInProcess:
    """As much of Ray as a batch uses: actors of this process, whose work is done when it is asked
    for. Of those in `lost`, counted over all actors, the actor dies instead."""

    exceptions = SimpleNamespace(RayActorError=LostWorker, RayTaskError=TaskError)

    def __init__(self, lost=()):
        self.lost, self.calls, self.killed = set(lost), 0, 0

    def cluster_resources(self):
        return {"CPU": 4}

    def nodes(self):
        return [{"Alive": True}] * 2

    def remote(self, **options):
        assert options == {"max_restarts": 0, "num_cpus": 1}
        return lambda cls: SimpleNamespace(remote=lambda *a: self.actor(cls(*a)))

    def actor(self, worker):
        later = SimpleNamespace(remote=lambda items: lambda: worker.make(items))
        return SimpleNamespace(make=later)

    def wait(self, results, timeout):
        return results[-1:], results[:-1]

    def get(self, result):
        self.calls += 1
        if self.calls in self.lost:
            raise LostWorker
        try:
            return result()
        except InputError as error:
            raise TaskError(error) from error

    def kill(self, actor):
        self.killed += 1


@pytest.fixture
def on_fake_ray(monkeypatch, tmp_path):
    monkeypatch.setattr(syncos_jax.pipeline.load, "load_model", lambda *_, **__: FakeModel())
    monkeypatch.setenv("SYNCOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    lines = [{"name": f"cat{n}", **STORY, "seed": n} for n in range(5)]
    Path("stories.jsonl").write_text("\n".join([*map(json.dumps, lines), "{"]))

    def batch(ray, *more):
        monkeypatch.setattr(on_ray, "connect", lambda address: ray)
        given = ["batch", "stories.jsonl", "--out", "videos", "--no-contact-sheet", "--no-cache"]
        return CliRunner().invoke(app, [*given, "--ray", *more])

    return batch


def made():
    markers = Markers(Outputs("videos", make=False)).read_all([f"cat{n}" for n in range(5)])
    return [marker.get("made", 0) for marker in markers.values()]


def test_a_lost_worker_is_made_good(on_fake_ray):
    ray = RayInProcess(lost={2})
    result = on_fake_ray(ray, "--workers", "2")
    assert result.exit_code == 1 and "5 done, 1 failed, 0 pending" in result.stderr, result.stderr
    assert "died with" in result.stderr and ray.killed == 3 and made() == [1] * 5
    assert result.stderr.splitlines()[-1].startswith("error: 0006: stories.jsonl:6: not readable")
    again = RayInProcess()
    assert "5 done, 1 failed, 0 pending" in on_fake_ray(again).stderr and made() == [1] * 5


def test_what_kills_every_worker_is_given_up(on_fake_ray):
    result = on_fake_ray(RayInProcess(lost=range(1, 100)), "--workers", "1")
    assert result.exit_code == 1 and "0 done, 6 failed, 0 pending" in result.stderr
    assert "error: cat3: its worker died 3 times" in result.stderr
    marker = Markers(Outputs("videos", make=False)).read("cat3")
    assert marker["status"] == "failed" and "died 3 times" in marker["error"]


def test_what_a_worker_refuses_ends_the_batch(on_fake_ray):
    assert on_fake_ray(RayInProcess()).exit_code == 1
    result = on_fake_ray(RayInProcess(), "--steps", "3")
    assert result.exit_code == 2 and "was made with other settings" in result.stderr


# -- a cluster -------------------------------------------------------------------------------------


def check(found, workers, scenarios):
    assert found["code"] == 1 and found["again"] == 1 and found["killed"] is True
    items = found["items"]
    failed = {name: item["error"] for name, item in items.items() if item["status"] == "failed"}
    assert sorted(failed) == ["0005", "blink"], failed
    assert "not readable as JSON" in failed["0005"]
    assert [i["made"] for n, i in items.items() if n not in failed] == [1] * (scenarios - 2)
    # Nothing was played twice but what the killed one had in hand, which went on.
    assert found["played"] == scenarios - 2 + 1 and found["played_again"] == 0
    assert len(found["went_on"]) == 1 and found["went_on"][0] >= 2
    assert found["most_traced"] <= 3  # the shapes: one compilation of each in a worker at most
    assert found["workers"] == workers + 1  # the killed one has a successor
    assert found["plain"] == 1 and found["identical"] is True
    assert found["videos"] == scenarios - 2 and found["left_over"] == []


def run(*arguments):
    script = Path(__file__).with_name("ray_batch.py")
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
    return json.loads(done.stdout[done.stdout.index("{\n") :])


@pytest.mark.slow
def test_three_workers_one_of_them_killed():
    check(run("--workers", 3, "--scenarios", 40), 3, 40)


@pytest.mark.slow
def test_two_workers_one_of_them_killed():
    check(run("--workers", 2, "--scenarios", 14), 2, 14)
