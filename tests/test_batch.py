"""Many videos: read, made once, gone on with after a kill; what is broken fails alone."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fakes import FakeModel
from typer.testing import CliRunner

import syncos_jax.pipeline.load
from syncos_jax.cli import app
from syncos_jax.errors import InputError
from syncos_jax.pipeline.checkpoint import Checkpoint
from syncos_jax.runs.items import read_items
from syncos_jax.runs.markers import Markers, read_status
from syncos_jax.runs.outputs import Outputs
from syncos_jax.sampling.failures import NonFiniteError

STORY = {
    "global": "a cat",
    "events": [{"prompt": "sleeps", "frames": 6}],
    "sampler": {"name": "co_denoising", "steps": 2},
}


def lines(*stories):
    text = "\n".join(s if isinstance(s, str) else json.dumps(s) for s in stories)
    Path("stories.jsonl").write_text(text + "\n")
    return "stories.jsonl"


@pytest.fixture(autouse=True)
def fake_models(monkeypatch, tmp_path):
    monkeypatch.setattr(syncos_jax.pipeline.load, "load_model", lambda *_, **__: FakeModel())
    monkeypatch.setenv("SYNCOS_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


def batch(*arguments):
    given = ["batch", *arguments, "--no-contact-sheet", "--no-cache"]
    result = CliRunner().invoke(app, [str(argument) for argument in given])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# -- reading ---------------------------------------------------------------------------------------


def test_a_line_a_scenario():
    items = read_items(lines({"name": "one", **STORY}, "", STORY, "{broken", {**STORY, "sede": 1}))
    assert [item.name for item in items] == ["one", "0003", "0004", "0005"]
    assert [item.source for item in items] == [f"stories.jsonl:{n}" for n in (1, 3, 4, 5)]
    assert items[0].take.scenario.global_prompt == "a cat" and items[1].error is None
    assert items[2].take is None and str(items[2].error).startswith("stories.jsonl:4: not readable")
    assert "sede: unknown key; did you mean 'seed'?" in str(items[3].error)


def test_a_video_for_each_seed():
    items = read_items(lines({"name": "one", **STORY}, "{"), seeds=[3, 5])
    assert [item.name for item in items] == ["one-seed3", "one-seed5", "0002"]
    assert [item.take.scenario.seed for item in items[:2]] == [3, 5]


def test_a_folder_of_files():
    folder = Path("stories")
    folder.mkdir()
    template = {**STORY, "variables": {"what": "cat"}, "global": "a {what}"}
    (folder / "b.yaml").write_text(yaml.safe_dump(template))
    (folder / "a.json").write_text(json.dumps(STORY))
    (folder / "two words.yml").write_text("events: [")
    (folder / "notes.txt").write_text("no scenario")
    items = read_items(folder)
    assert [item.name for item in items] == ["a", "b", "two-words"]
    assert items[1].take.scenario.global_prompt == "a cat"
    assert str(items[2].error).startswith("stories/two words.yml:1: not readable as YAML")


NAMES = ["../up", ".hidden", "a/b", "", 7, None, "x" * 101]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names_stay_in_the_folder(name):
    (item,) = read_items(lines({**STORY, "name": name}))
    if name is None:  # none is given
        assert item.name == "0001" and not item.error
    else:
        assert item.name == "0001" and "stories.jsonl:1: name must be up to 100" in str(item.error)


def test_a_name_that_stands_twice_fails_alone():
    items = read_items(lines({**STORY, "name": "a"}, {**STORY, "name": "a"}, STORY))
    assert [item.name for item in items] == ["a", "0002", "0003"]
    assert "the name 'a' is also that of stories.jsonl:1" in str(items[1].error)


def test_nothing_to_read():
    Path("empty").mkdir()
    Path("story.yaml").touch()
    for source, message in (
        ("empty", "has no .yaml, .yml, .json file"),
        ("story.yaml", "not a folder of scenario files, a .jsonl file or a .csv table"),
        ("none.jsonl", "none.jsonl: cannot be read: No such file"),
        (lines(""), "has no scenario"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            read_items(source)


def marker(name, folder="videos"):
    return Markers(Outputs(folder)).read(name)


def test_markers():
    markers = Markers(Outputs("out"))
    with pytest.raises(InputError, match="no batch here"):
        read_status(Outputs("out"))
    markers.describe(read_items(lines({"name": "a", **STORY}, {"name": "b", **STORY}, STORY)))
    markers.write("a", {"status": "done", "made": 1})
    markers.write("b", {"status": "failed", "error": "no"})
    markers.write("gone", {"status": "done"})  # no longer in the list
    session = {"started": "2026-01-01T00:00:00Z", "host": "h", "process": 1, "seconds": 2.0}
    markers.write_session({**session, "videos": 1, "sampler_busy": 0.5})
    markers.write_session({**session, "videos": 2, "sampler_busy": 1.0})  # later, the same one
    found = read_status(Outputs("out"))
    assert found.items == {"a": "done", "b": "failed", "0003": "pending"}
    assert found.summary == "1 done, 1 failed, 1 pending" and found.failed == {"b": "no"}
    assert found.total("videos") == 2 and found.sampler_busy == 1.0
    assert markers.read("a") == {"status": "done", "made": 1} and markers.read("c") == {}
    Path("out/manifest/items/a.json").write_text("{}")
    with pytest.raises(InputError, match="not the marker of an item"):
        read_status(Outputs("out"))
    Path("out/manifest/items/a.json").write_text("{")
    with pytest.raises(InputError, match="items/a.json: not readable as JSON; remove it"):
        read_status(Outputs("out"))


# -- making ----------------------------------------------------------------------------------------


def test_what_has_failed_and_what_is_missing(monkeypatch):
    source = lines({"name": "a", **STORY}, {"name": "b", **STORY, "seed": 13}, "{")
    from syncos_jax.pipeline import Pipeline

    start = Pipeline.start

    def unlucky(self, request, **rest):
        if request.seed == 13:
            raise NonFiniteError("the sampling diverged in row 3 of 9", 3, [0])
        return start(self, request, **rest)

    monkeypatch.setattr(Pipeline, "start", unlucky)
    result = batch(source, "--out", "videos")
    assert result.exit_code == 1
    assert "1 done, 2 failed, 0 pending" in result.stderr
    assert "error: b: the sampling diverged in row 3 of 9; lower the sampler's" in result.stderr
    assert "error: 0003: stories.jsonl:3: not readable as JSON" in result.stderr
    assert marker("a")["run"]["seed"] == 0 and marker("a")["frames"] == 6
    (session,) = Markers(Outputs("videos")).sessions()
    assert session["videos"] == 1 and session["videos_per_hour"] > 0
    assert session["frames_per_second"] > 0
    record = json.loads(Path("videos/a.json").read_text())
    assert record["template"]["file"] == "stories.jsonl" and record["files"]["video"] == "a.mp4"

    monkeypatch.setattr(Pipeline, "start", start)
    Path("videos/a.mp4").unlink()
    source = lines({"name": "a", **STORY}, {"name": "b", **STORY, "seed": 13}, STORY)
    result = batch(source, "--out", "videos")  # b failed while it was made: it would again
    assert result.exit_code == 1 and "2 done, 1 failed, 0 pending" in result.stderr
    result = batch(source, "--out", "videos", "--retry-failed")
    assert result.exit_code == 0 and "3 done, 0 failed, 0 pending" in result.stderr
    assert [marker(name)["made"] for name in ("a", "b", "0003")] == [2, 1, 1]
    assert list(Path("videos").glob(".*.run")) == []


def test_a_run_that_outlived_its_video_is_removed_next_time(monkeypatch):
    """As if the process was killed between the two."""
    source = lines({"name": "a", **STORY}, {"name": "b", **STORY, "seed": 1})
    with monkeypatch.context() as killed:
        killed.setattr(Checkpoint, "remove", Checkpoint.close)
        batch(source, "--out", "videos")
    assert list(Path("videos").glob(".*.run"))
    result = batch(source, "--out", "videos")
    assert result.exit_code == 0 and "0 of 2 videos to make" in result.stderr
    assert list(Path("videos").glob(".*.run")) == []


def test_halves_of_files_of_a_made_video_go_next_time():
    """A process that was killed at one leaves it; the next, a moment later, makes the video."""
    source = lines(STORY | {"name": "a"}, STORY | {"name": "b"})
    assert batch(source, "--out", "videos").exit_code == 0
    halves = [Path(f"videos/.a.abcd_123{suffix}") for suffix in (".mp4", ".json")]
    others = [Path("videos/.c.abcd_123.mp4"), Path("videos/.a.notes.mp4")]
    for path in (*halves, *others):
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    assert batch(source, "--out", "videos").exit_code == 0
    assert not any(path.exists() for path in halves) and all(path.exists() for path in others)


def test_other_settings_are_refused():
    source = lines({"name": "a", **STORY})
    assert batch(source, "--out", "videos").exit_code == 0
    result = batch(source, "--out", "videos")  # once more: there is nothing to do
    assert result.exit_code == 0 and "0 of 1 videos to make" in result.stderr
    result = batch(source, "--out", "videos", "--steps", 3)
    assert result.exit_code == 2
    assert (
        "videos/a.mp4: was made with other settings: sampler.steps was 2, is 3; pass --no-resume"
        in result.stderr
    )
    assert result.stderr.count("error:") == 1
    result = batch(source, "--out", "videos", "--steps", 3, "--no-resume")
    assert result.exit_code == 0 and marker("a")["made"] == 2


BAD = [
    (["--out", "no/videos"], "no does not exist"),
    (["--out", "stories.jsonl"], "is not a folder"),
    (["--out", "videos", "--format", "exe"], "--format: must be one of"),
    (["--out", "videos", "--seeds", "x"], "--seeds must be integers"),
    (["--out", "videos", "--devices", "none"], "--devices: must be a number"),
    (["--out", "videos", "--devices-per-video", "2"], "--devices-per-video needs --devices"),
    (["--out", "videos", "--checkpoint-every", "often"], "must be seconds such as 30"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_arguments_are_one_line(arguments, message):
    result = batch(lines(STORY), *arguments)
    assert result.exit_code == 2 and message in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


# -- killed ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def figures():
    script = Path(__file__).with_name("batch_kills.py")
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
    return json.loads(done.stdout)


def statuses(items):
    return [sum(i["status"] == s for i in items.values()) for s in ("done", "failed", "pending")]


def test_a_killed_batch_makes_what_is_missing(figures):
    assert figures["killed"]["code"] == -9
    done, failed, pending = statuses(figures["items_then"])
    assert done in (6, 7) and failed == 2 and pending == 18 - done  # one was perhaps being written
    again = figures["again"]
    assert again["code"] == 1 and "18 done, 2 failed, 0 pending" in again["said"]
    assert f"{pending} of 20 videos to make" in again["said"]
    assert re.search(r"resuming from call [24]  \(.*/\.cat1\d\.mp4\.run\)", again["said"])
    assert statuses(figures["items"]) == [18, 2, 0]
    made = [item["made"] for item in figures["items"].values() if item["status"] == "done"]
    assert made == [1] * 18 and figures["touched"] == [] and figures["left_over"] == []


def test_the_broken_ones_are_named(figures):
    errors = [line for line in figures["again"]["said"].splitlines() if line.startswith("error")]
    assert len(errors) == 2
    assert re.match(r"error: 0005: .*stories.jsonl:5: not readable as JSON", errors[0])
    assert re.match(r"error: blink: .*stories.jsonl:12: events: 3 frames", errors[1])


def test_one_compilation_for_each_shape(figures):
    """18 scenarios with one, two or three events are of two lengths, so of two shapes."""
    assert "18 of 20 videos to make, 2 shapes to compile" in figures["killed"]["said"]
    for start, shapes in (("killed", 1), ("again", 2), ("two", 2)):
        assert figures[start]["said"].count("traced") == shapes, start


def test_several_devices_make_several_videos_at_a_time(figures):
    """SIGTERM in the second pair; the two that are left over are a group with a free place."""
    assert figures["terminated"]["code"] == 75
    assert re.search(r"the same command resumes from call \d+\n", figures["terminated"]["said"])
    two = figures["two"]
    assert two["code"] == 1 and "2 at a time" in two["said"] and "resuming from call" in two["said"]
    assert statuses(figures["two_items"]) == [6, 1, 0] and figures["two_left_over"] == []
    assert sorted(figures["apart"]) == [f"cat{number:02}" for number in range(6)]
    assert max(figures["apart"].values()) <= 2  # of 255: as they were one at a time


def test_the_same_line_twice_is_harmless(figures):
    """Without shards, two processes make the same list; each video is whole, whoever made it."""
    assert set(figures["both"]) <= {1, 75} and 1 in figures["both"] and figures["both_equal"]
    assert statuses(figures["both_items"]) == [6, 1, 0]
