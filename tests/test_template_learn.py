"""Templates that learn: simulated teams with known preferences, and the command on real files."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from syncos_jax.cli.app import app
from syncos_jax.media.video import Video
from syncos_jax.studio.learn import Decision, learn, learned_template
from syncos_jax.studio.review.approvals import add_entry, file_sha256

STRENGTHS, PLACES, STEPS = (0.0, 0.5, 1.0), ("meadow", "beach"), (25, 50)


def team(rng, count, effects):
    """Decisions of a team that approves by chance, with log odds `effects` of values."""
    made = []
    for _ in range(count):
        factors = {
            "place": PLACES[rng.integers(2)],
            "sampler.strength": STRENGTHS[rng.integers(3)],
            "sampler.steps": STEPS[rng.integers(2)],
        }
        odds = sum(effects.get(item, 0.0) for item in factors.items())
        approved = rng.random() < 1 / (1 + np.exp(-odds))
        made.append(Decision(Path("x.mp4"), bool(approved), factors, {}))
    return made


def proposals(count, effects, teams=60):
    rng = np.random.default_rng(count)
    return [learn(team(rng, count, effects)).proposals for _ in range(teams)]


@pytest.mark.parametrize("count", [50, 150, 500])
def test_nothing_is_proposed_where_nothing_matters(count):
    found = proposals(count, {})
    assert np.mean([bool(p) for p in found]) <= 0.1  # 5 % and what 60 teams vary


@pytest.mark.parametrize(("count", "effect"), [(50, 3.4), (150, 1.8), (500, 1.0)])
def test_the_better_value_is_found(count, effect):
    """Effects of 10 to 3 times the odds, by the number of decisions."""
    effects = {("place", "beach"): effect, ("place", "meadow"): -effect / 2}
    found = proposals(count, effects)
    assert np.mean([p.get("place") == "beach" for p in found]) >= 0.9
    assert not any(p.get("place") == "meadow" for p in found)


def test_what_only_comes_along_is_not_credited():
    """Beach is nearly always made with the better strength, and matters nothing itself."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(400):
        good = rng.random() < 0.5
        place = PLACES[int(good) if rng.random() < 0.85 else 1 - int(good)]
        factors = {"place": place, "sampler.strength": 1.0 if good else 0.0}
        approved = rng.random() < (0.85 if good else 0.2)
        made.append(Decision(Path("x.mp4"), bool(approved), factors, {}))
    assert learn(made).proposals == {"sampler.strength": 1.0}


def test_trials_prefer_what_is_better_and_still_explore():
    rng = np.random.default_rng(1)
    lessons = learn(team(rng, 60, {("place", "beach"): 3.0}), trials=12)
    assert len(lessons.trials) == len({json.dumps(trial) for trial in lessons.trials}) >= 4
    assert lessons.trials[0]["place"] == "beach"
    assert len({trial["sampler.strength"] for trial in lessons.trials}) > 1


def test_learned_template_takes_variables_and_settings():
    rng = np.random.default_rng(2)
    effects = {("place", "beach"): 3.0, ("sampler.steps", 50): 3.0}
    lessons = learn(team(rng, 400, effects))
    data = {
        "variables": {"place": {"default": "meadow", "allowed": ["meadow", "beach"]}},
        "global": "a ball on a {place}",
        "sampler": "syncos",
    }
    made = learned_template(data, lessons)
    assert made["variables"]["place"] == {"default": "beach", "allowed": ["meadow", "beach"]}
    assert made["sampler"] == {"name": "syncos", "steps": 50}
    assert data["sampler"] == "syncos"


@pytest.fixture
def folder(tmp_path):
    """Twelve decided videos: beach approved, meadow rejected; one made again since."""
    videos = tmp_path / "videos"
    videos.mkdir()
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    for number in range(12):
        place = PLACES[number % 2]
        path = videos / f"take{number}.mp4"
        Video(frames + number, 8.0).save(path)
        metadata = {
            "format": "syncos_jax.video",
            "version": 1,
            "template": {"file": "story.yaml", "values": {"place": place}},
            "sampler": {"name": "syncos", "steps": 25},
            "scenario": {"global": "a ball", "events": [{"prompt": "rolls", "frames": 2}]},
            "title": f"a ball on a {place}",
            "events": [{"index": 0, "prompt": "rolls", "start": 0, "stop": 2}],
            "seed": number,
            "video": {"fps": 8.0},
            "model": {"id": "demo", "weights_sha256": "0"},
            "latents": {"sha256": "0"},
            "versions": {},
            "device": {},
            "files": {},
        }
        path.with_suffix(".json").write_text(json.dumps(metadata))
        action = "approve" if place == "beach" else "reject"
        add_entry(path, action, by="Ada", sha256=file_sha256(path))
    Video(frames + 99, 8.0).save(videos / "take0.mp4")
    return videos


def test_command(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    run = CliRunner().invoke
    shown = run(app, ["template", "learn", str(folder)])
    assert shown.exit_code == 0, shown.output
    assert "6 of 11 decided videos approved" in shown.output  # take0 is undecided again
    assert "6 of 6" in shown.output and "0 of 5" in shown.output
    source = tmp_path / "story.yaml"
    source.write_text("variables: {place: meadow}\nglobal: a ball on a {place}\nevents: [rolls]\n")
    made = run(
        app,
        ["template", "learn", str(folder), "--template", str(source)]
        + ["--out", str(tmp_path / "new.yaml"), "--export", str(tmp_path / "set")],
    )
    assert made.exit_code == 0, made.output
    assert "beach" in (tmp_path / "new.yaml").read_text()
    lines = (tmp_path / "set" / "captions.jsonl").read_text().splitlines()
    assert len(lines) == 6
    assert json.loads(lines[0])["global"] == "a ball on a beach"
    assert (tmp_path / "set" / json.loads(lines[0])["file"]).exists()
    again = run(app, ["template", "learn", str(folder), "--export", str(tmp_path / "set")])
    assert again.exit_code == 2 and "is not empty" in again.output


def test_command_says_what_is_missing(tmp_path):
    run = CliRunner().invoke
    assert run(app, ["template", "learn", str(tmp_path / "none")]).exit_code == 2
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    Video(frames, 8.0).save(tmp_path / "a.mp4")
    undecided = run(app, ["template", "learn", str(tmp_path)])
    assert undecided.exit_code == 2
    assert "no decided videos" in undecided.output
