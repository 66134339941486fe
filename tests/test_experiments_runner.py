"""Running an experiment: stopped and gone on with, and the command around it."""

import dataclasses
import json

import jax.numpy as jnp
import pytest
import typer
from fakes import FakeConfig, FakeModel, FakeUNet
from PIL import Image
from typer.testing import CliRunner

import syncos_jax.pipeline.load
from experiment import runner
from experiment.methods import METHODS, Method
from experiment.runner import load, plan, run
from experiment.study import with_common
from experiment.suite import load_suite
from syncos_jax.cli import app, experiment
from syncos_jax.pipeline import Pipeline
from syncos_jax.sampling import SynCoS

QUICK = {"steps": 4, "iterations": 1, "t_min": 600}  # one step of the four is refined
NAMES = ("co_denoising", "fifo", "no_structure", "syncos")


class UNet(FakeUNet):
    """Also takes a timestep for each frame; counts how often it is traced."""

    traces = 0

    def __call__(self, x, t, text, *, fps=None):
        UNet.traces += 1
        assert fps is None and t.shape in (x.shape[:1], x.shape[:2])
        tint = text.mean(axis=1) @ self.weight[...]
        return 0.5 * x + tint[:, None, None, None, :]


class Model(FakeModel):
    def __init__(self):
        super().__init__()
        self.config = dataclasses.replace(FakeConfig(), height=64, width=64, window=8, stride=6)
        self.geometry = self.config.geometry()
        self.unet = UNet()


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline(Model())


@pytest.fixture(scope="module")
def tasks(pipeline):
    suite = load_suite()
    methods = with_common([METHODS[name] for name in NAMES], pipeline.model, **QUICK)
    return plan(pipeline, methods, [suite["open-00"], suite["colour-00"]], [0, 1])


@pytest.fixture(scope="module")
def finished(pipeline, tasks, tmp_path_factory):
    out = tmp_path_factory.mktemp("experiment")
    said, steps = [], []
    records = run(pipeline, tasks, out, say=said.append, progress=lambda *s: steps.append(s))
    return out, records, said, steps


def test_every_video_is_made_and_measured(tasks, finished):
    out, records, said, steps = finished
    assert len(tasks) == len(records) == 4 * 2 * 2
    assert (
        sum(path.suffix == ".json" for path in out.rglob("*"))
        == 16
        == len(set(map(str, (t.file for t in tasks))))
    )
    for task, record in zip(tasks, records, strict=True):
        assert (record["method"], record["scenario"], record["seed"]) == (
            task.method.name,
            task.case.id,
            task.seed,
        )
        assert record["measures"]["coherence"] is not None and record["failed"] is None
        assert len(record["report"]["world"]["events"]) == 4
    total = sum(task.clips for task in tasks)
    assert steps[-1] == (total, total) and [done for done, _ in steps] == sorted(
        d for d, _ in steps
    )
    assert len(said) == 16 and "left" in said[0] and "with compiling" in said[0]
    # What is there at any time is balanced: all methods of a scenario and seed, then the next.
    assert [task.method.name for task in tasks[:4]] == list(NAMES)


def test_what_a_video_costs(pipeline, tasks):
    """32 frames, windows of 8 every 6: 5 windows, guided: 10 clips. Of 4 steps 1 is refined."""
    found = {task.method.name: task.clips for task in tasks}
    assert found["co_denoising"] == 4 * 10
    assert found["syncos"] == found["no_structure"] == 4 * 10 + 10
    # A queue of 8 frames in windows that update 4: 2 windows in each of 32 iterations, after 8
    # steps of the first clip.
    assert found["fifo"] == 2 * (8 + 32 * 2)
    ablations = [METHODS[name] for name in ("no_t_min", "refinement_only")]
    chained = with_common([METHODS["chained"]], pipeline.model, steps=4)
    clip_by_clip = plan(pipeline, chained, [load_suite()["open-00"]], [0])
    assert [task.clips for task in clip_by_clip] == [4 * 10]
    one_seed = plan(
        pipeline, with_common(ablations, pipeline.model, steps=4), [load_suite()["open-00"]], [0]
    )
    assert [task.clips for task in one_seed] == [4 * 10 + 4 * 20 * 10, 4 * 20 * 10]
    for task in tasks:  # what is foretold is what is played
        request = pipeline.prepare(task.scenario, task.method.settings, task.seed)
        assert request.summary.samples == task.clips == request.call_schedule.used.sum()


def test_programs_are_shared(finished):
    _, records, _, _ = finished
    # Without structure it is the same sampler: three programs for four methods, each compiled once.
    assert [record["compiled"] for record in records] == [True, True, True, False] + [False] * 12
    assert UNet.traces == 3


def test_the_time_left():
    """Twelve clips at a second each, and another two seconds to compile."""
    cold = {"seconds": 7.0, "clips": 5, "compiled": True}
    warm = {"seconds": 5.0, "clips": 5, "compiled": False}
    assert runner._seconds_left([cold, warm], 12, 1) == pytest.approx(14)
    assert runner._seconds_left([cold], 10, 0) == pytest.approx(14)  # nothing better to go by yet


def test_going_on_makes_nothing_twice(pipeline, tasks, finished, monkeypatch):
    out, records, _, _ = finished
    monkeypatch.setattr(runner, "_make", lambda *_: pytest.fail("made again"))
    said = []
    assert run(pipeline, tasks, out, say=said.append) == records
    assert said == ["16 of 16 videos are there already"]


def test_a_run_that_is_killed_loses_one_video(pipeline, tasks, tmp_path, monkeypatch, finished):
    own, calls = runner._make, []

    def make(*arguments):
        calls.append(arguments[1])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return own(*arguments)

    monkeypatch.setattr(runner, "_make", make)
    with pytest.raises(KeyboardInterrupt):
        run(pipeline, tasks[:4], tmp_path)
    assert len(load(tmp_path, tasks)) == 2
    assert all(path.suffix == ".json" for path in tmp_path.rglob("*") if path.is_file())
    (tmp_path / tasks[0].file).write_text('{"key": ')  # a disk that was full
    records = run(pipeline, tasks[:4], tmp_path)
    assert calls[3:] == [tasks[0], tasks[2], tasks[3]]
    timing = ("seconds", "compiled")
    for record, other in zip(records, finished[1], strict=False):  # as without interruption
        assert {k: v for k, v in record.items() if k not in timing} == {
            k: v for k, v in other.items() if k not in timing
        }


def test_another_setting_seed_or_model_is_another_video(pipeline, tasks):
    suite = load_suite()
    method = tasks[-1].method
    few = Method("syncos", method.settings.replace(learning_rate=0.25))
    model = Model()
    model.unet.weight[...] = jnp.full((2, 4), 0.2)
    other = Pipeline(model)
    files = {
        plan(pipe, [of], [suite["open-00"]], [seed])[0].file
        for pipe, of, seed in (
            (pipeline, method, 0),
            (pipeline, method, 1),
            (pipeline, few, 0),
            (other, method, 0),
        )
    }
    assert len(files) == 4
    assert plan(pipeline, [method], [suite["open-00"]], [0])[0].file in {t.file for t in tasks}


def test_a_method_that_diverges_is_a_result(pipeline, tmp_path):
    wild = Method("wild", SynCoS(steps=4, iterations=2, learning_rate=3e38, t_min=0))
    tasks = plan(pipeline, [wild], [load_suite()["open-00"]], [0])
    (record,) = run(pipeline, tasks, tmp_path)
    assert record["measures"] is None and "NaN or Inf" in record["failed"]
    assert load(tmp_path, tasks) == [record]


# -- the command ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def fake_models(monkeypatch, tmp_path):
    monkeypatch.setattr(syncos_jax.pipeline.load, "load_model", lambda *_, **__: Model())
    monkeypatch.chdir(tmp_path)


def syncos(*arguments):
    result = CliRunner().invoke(app, ["experiment", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


COMMON = ("--scenarios", "open-00,size-00", "--methods", "co_denoising,syncos", "--seeds", 2)
SHORT = ("--steps", 4, "--iterations", 1)


def test_the_command(tmp_path, finished):
    result = syncos("--out", "runs/a", *COMMON, *SHORT, "--videos", "--no-cache")
    assert result.exit_code == 0, result.output
    out = tmp_path / "runs" / "a"
    results = json.loads((out / "results.json").read_text())
    command = "syncos experiment --out runs/a --methods co_denoising,syncos --scenarios"
    assert results["about"]["command"] == (
        f"{command} open-00,size-00 --seeds 2 --steps 4 --iterations 1"
    )
    assert results["videos"] == {"wanted": 8, "finished": 8}
    about = results["about"]
    assert about["device"]["platform"] == "cpu" and "jax" in about["versions"]
    assert (about["dtype"], about["steps"]) == ("float32", [4])
    assert set(results["methods"]) == {"co_denoising", "syncos"} and results["paper"]
    assert results["methods"]["syncos"]["measures"]["coherence"]["count"] == 4
    text = (out / "tables.md").read_text()
    for plot in ("methods.png", "similarity.png", "drift.png", "cost.png"):
        assert Image.open(out / plot).size > (300, 300) and f"({plot})" in text
    assert len(list(out.rglob("*.mp4"))) == 8
    assert result.stdout.split() == [
        f"runs/a/{name}"
        for name in (
            "tables.md",
            "results.json",
            "methods.png",
            "cost.png",
            "similarity.png",
            "drift.png",
        )
    ]
    again = syncos("--out", "runs/a", *COMMON, *SHORT, "--no-cache")
    assert again.exit_code == 0 and "8 of 8 videos are there already" in again.stderr


def test_more_seeds_for_some_methods(tmp_path):
    common = ("--scenarios", "open-00", "--methods", "co_denoising,syncos", *SHORT)
    seeds = ("--seeds", "1,co_denoising=3", "--pairs", "co_denoising:syncos")
    result = syncos("--out", "c", *common, *seeds, "--no-cache", "--no-plots")
    assert result.exit_code == 0, result.output
    assert "4 videos: 2 methods, 1 scenarios, 3 seeds" in result.stderr
    results = json.loads((tmp_path / "c" / "results.json").read_text())
    videos = {name: of["videos"] for name, of in results["methods"].items()}
    assert videos == {"co_denoising": 3, "syncos": 1}
    assert "--seeds 1,co_denoising=3 --pairs co_denoising:syncos" in results["about"]["command"]
    assert results["pairs"][0]["measures"]["coherence"]["count"] == 1
    # One seed is shared, and there is nothing to compare one with.
    assert results["methods"]["co_denoising"]["diversity_of_seeds"] is None
    assert all(c["difference"]["count"] == 1 for c in results["paper"] if c["difference"])


def test_a_dry_run_says_the_cost_and_writes_nothing(tmp_path):
    result = syncos("--out", "b", "--subset", "--dry-run", "--no-cache")
    assert result.exit_code == 0, result.output
    assert "132 videos: 11 methods, 6 scenarios, 2 seeds" in result.stderr
    assert "no_t_min" in result.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "synkos"], "no method 'synkos'; did you mean 'syncos'?"),
        (["--scenarios", "opne"], "no scenario 'opne'; did you mean 'open"),
        (["--subset", "--scenarios", "open"], "cannot be combined"),
        (["--settings", "mine.yaml"], "mine.yaml: syncos: is a built-in method"),
        (["--settings", "none.yaml"], "none.yaml: no such file"),
        (["--dial", "much"], "--dial: 'much' is not a list of numbers"),
        (["--dial", "2"], "--strength must be a number from 0 to 1, got 2.0"),
        (["--steps", 0, "--methods", "syncos"], "steps"),
        (["--seeds", 0], "seeds '0': '0' is not a positive integer"),
        (["--seeds", "2,synkos=4"], "'synkos' is none of the methods; did you mean 'syncos'?"),
        (["--seeds", "2,syncos"], "'' is not a positive integer"),
        (["--pairs", "syncos"], "'syncos' is not a pair of methods; give A:B,C:D"),
        (["--pairs", "syncos:syncos"], "'syncos:syncos' is not a pair of methods"),
        (["--pairs", "syncos:fivo"], "'fivo' is none of the methods; did you mean 'fifo'?"),
        (["--out", "mine.yaml", *COMMON], "mine.yaml: is not a folder"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message, tmp_path):
    (tmp_path / "mine.yaml").write_text("syncos: {name: syncos}\n")
    result = syncos("--out", "c", "--no-cache", *arguments)
    assert result.exit_code == 2 and message in result.stderr, result.output
    errors = [line for line in result.stderr.splitlines() if not line.startswith("load")]
    assert len(errors) == 1 and errors[0].startswith("error: ")


def test_an_installed_package_says_where_the_command_is(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "COMMAND", tmp_path / "command.py")
    lonely = typer.Typer()
    experiment.register(lonely)
    lonely.callback()(lambda: None)
    result = CliRunner().invoke(lonely, ["experiment", "--subset", "--out", "x"])
    assert result.exit_code == 2
    assert "clone of the repository" in result.stderr
