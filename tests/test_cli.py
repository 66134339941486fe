"""The command line: what it writes, what it says, and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fakes import FakeModel
from PIL import Image
from typer.testing import CliRunner

import syncos_jax.pipeline.load
from syncos_jax import __version__
from syncos_jax.cli import app
from syncos_jax.errors import InputError
from syncos_jax.media.video import load_video

STORY = {
    "global": "a cat",
    "events": [{"prompt": "sleeps", "seconds": 1}, {"prompt": "wakes", "seconds": 1.5}],
    "sampler": {"name": "co_denoising"},
}
EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.yaml"))


@pytest.fixture(autouse=True)
def fake_models(monkeypatch, tmp_path):
    def load_model(name, *_, **__):
        if name != "fake":
            raise InputError(f"no model {name!r}: neither a built-in name nor a folder")
        return FakeModel()

    monkeypatch.setattr(syncos_jax.pipeline.load, "load_model", load_model, raising=False)
    monkeypatch.setenv("SYNCOS_CACHE", str(tmp_path.parent / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("story.yaml").write_text(yaml.safe_dump(STORY))


def syncos(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def generate(*arguments):
    return syncos("generate", "story.yaml", "--model", "fake", *arguments)


def test_generate():
    result = generate("--out", "a.mp4", "--scale", 2)
    assert result.exit_code == 0, result.output
    video = load_video("a.mp4")
    assert video.frames.shape == (10, 32, 48, 3) and video.fps == 4
    assert Image.open("a.png").format == "PNG"
    assert "a.mp4: 10 frames of 48×32, 2.5 s at 4 fps" in result.stdout
    for phase in ("load", "compile", "sample", "decode", "write", "total"):
        assert re.search(rf"^{phase} +\d+\.\d s", result.stderr, re.MULTILINE), result.stderr
    assert "10 frames in 4 windows of 4, 2 events, co_denoising, 4 steps" in result.stderr


def test_skipped_samples_are_reported():
    story = STORY | {"sampler": {"name": "co_denoising", "steps": 8, "reuse": 1e6}}
    Path("story.yaml").write_text(yaml.safe_dump(story))
    result = generate("--out", "a.mp4")
    assert result.exit_code == 0, result.output
    # All passes but the first two and the last: five of eight, with equal numbers of samples.
    skipped, samples = map(
        int, re.search(r"(\d+) of (\d+) samples skipped", result.stderr).groups()
    )
    assert skipped * 8 == samples * 5
    assert json.loads(Path("a.json").read_text())["sampler"]["reuse"] == 1e6


@pytest.mark.parametrize("own", ["syncos", "flowlong"])
def test_compare_with(own):
    """The same story with another sampler and the same noise, and a contact sheet of both."""
    more = ["--strength", 1] if own == "syncos" else []
    result = generate("--sampler", own, *more, "--compare-with", "co_denoising", "--out", "a.mp4")
    assert result.exit_code == 0, result.output
    assert generate("--sampler", "co_denoising", "--out", "alone.mp4").exit_code == 0
    first, other, alone = (
        json.loads(Path(f"{name}.json").read_text())["latents"]["sha256"]
        for name in ("a", "a-co_denoising", "alone")
    )
    assert other == alone != first
    assert f"a-compared.png: {own} next to co-denoising" in result.stdout
    one, both = (Image.open(f"{name}.png").size for name in ("a", "a-compared"))
    assert both[0] > one[0] and both[1] == one[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare-with", "co_denoising"], "is the video's own sampler"),
        (["--beside", "nothing"], "unknown name 'nothing'"),
        (["--from", "a.json", "--beside", "fifo"], "--from generates a video again"),
    ],
)
def test_comparisons_that_are_refused(arguments, message):
    scenario = [] if "--from" in arguments else ["story.yaml"]
    result = syncos("generate", *scenario, "--model", "fake", *arguments)
    assert result.exit_code == 2 and message in result.stderr
    assert [path.name for path in Path().iterdir()] == ["story.yaml"]


def test_options_take_precedence_over_the_scenario():
    assert generate("--out", "a.mp4", "--no-contact-sheet").exit_code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["a.json", "a.mp4", "story.yaml"]
    first = load_video("a.mp4")
    assert min(first.frames.shape[1:3]) == 256  # small videos grow by default
    generate("--out", "b.mp4", "--seed", 9, "--steps", 2, "--guidance", 1, "--batch", 3)
    assert (load_video("b.mp4").frames != first.frames).any()
    result = generate("--out", "c.mp4", "--sampler", "refinement_only", "--steps", 2)
    assert "refinement_only, 2 steps" in result.stderr


BAD = [
    (["--out", "no/a.mp4"], "no/a.mp4: cannot write the file: no does not exist"),
    (["--out", "."], "is a folder"),
    (["--out", "a.avi"], "must end in .mp4"),
    (["--model", "sora"], "no model 'sora'"),
    (["--sampler", "syncoz"], "did you mean 'syncos'"),
    (["--steps", "0"], "--steps must be an integer"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_arguments_are_one_line(arguments, message):
    result = generate(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["story.yaml"]


BAD_STORIES = [
    ({**STORY, "events": []}, "story.yaml: events: has 0 entries"),
    ({**STORY, "sede": 1}, "story.yaml: sede: unknown key; did you mean 'seed'?"),
    (
        {**STORY, "events": [{"prompt": "x", "frames": 3}]},
        "3 frames in all, but the model",
    ),
]


@pytest.mark.parametrize(("story", "message"), BAD_STORIES)
def test_bad_scenarios_end_with_one_line(story, message):
    Path("story.yaml").write_text(yaml.safe_dump(story))
    result = generate("--out", "a.mp4")
    assert result.exit_code == 2 and "Traceback" not in result.output
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("error: ") and message in lines[-1]
    assert sum(line.startswith("error") for line in lines) == 1
    assert [path.name for path in Path().iterdir()] == ["story.yaml"]


def test_no_scenario():
    result = syncos("generate", "none.yaml", "--model", "fake")
    assert result.exit_code == 2 and result.stderr == "error: none.yaml: no such file\n"


def test_a_full_disk_is_one_line(monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device", "a.mp4")

    monkeypatch.setattr("syncos_jax.media.video.Video.save", full)
    result = generate("--out", "a.mp4")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "error: a.mp4: No space left on device"
    assert "the run can be resumed with decoding" in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == [".a.mp4.run", "story.yaml"]


def test_out_of_memory_says_what_to_do(monkeypatch):
    def greedy(*_args, **_kwargs):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    monkeypatch.setattr("syncos_jax.pipeline.pipeline.Pipeline.start", greedy)
    result = generate("--out", "a.mp4")
    assert result.exit_code == 1
    assert "error: out of memory on the device" in result.stderr.splitlines()[-1]


def test_info():
    result = syncos("info", "fake")
    assert result.exit_code == 0
    for said in ("4 frames, 1 s at 4", "24×16 pixels", "predicts epsilon", "265 parameters"):
        assert said in result.stdout
    assert len(result.stdout.splitlines()) <= 8
    verbose = syncos("info", "fake", "--verbose").stdout
    assert "8 parameters" in verbose and re.search(r"clips seen\s+7", verbose)
    assert syncos("info", "sora").exit_code == 2


def test_help_teaches():
    assert "syncos generate" in syncos("--help").stdout
    text = syncos("generate", "--help").stdout
    assert "examples/red_ball.yaml" in text and "events:" in text
    for name in ("--negative TEXT", "--frames N", "--size WxH", "--fps X", "-q, --quiet"):
        assert name in text
    assert "--beside" not in text and "--windows-per-call N|auto" in text
    assert text.isascii() and max(map(len, text.splitlines())) < 100
    plan = syncos("plan", "--help").stdout
    assert "--guidance X" in plan and "--batch" not in plan and "--windows-per-call N" in plan
    batch = syncos("batch", "--help").stdout
    assert "--devices-per-video N" in batch and "\nCommands:\n  status" in batch
    assert "--token" not in syncos("studio", "--help").stdout
    assert syncos("--version").stdout == f"syncos {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "--num-inference-steps", "3"], "unknown option --num-inference-steps; did "
         "you mean --steps?"),
        (["generate", "--guidance_scale=3"], "did you mean --guidance?"),
        (["generate", "--stpes", "3"], "did you mean --steps?"),
        (["generate", "--xyz"], "unknown option --xyz; see root generate --help"),
        (["generate", "--seed", "x"], "--seed: "),
        (["batch", "stories"], "--out is missing; see root batch"),
        (["evaluate"], "VIDEO|DIR is missing"),
        (["nonsense"], "no such command 'nonsense'"),
        (["generate", "--prompts"], "option '--prompts' requires an argument"),
    ],
)  # fmt: skip
def test_usage_errors_look_like_all_others(arguments, said):
    result = syncos(*arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith(f"error: {said}") or f"; {said}" in result.stderr
    assert result.stderr.count("\n") == 1


def test_video_options():
    plan = ["plan", "story.yaml", "--model", "fake", "--json"]
    own = json.loads(syncos(*plan).stdout)
    other = json.loads(
        syncos(*plan, "--frames", 20, "--size", "32x24", "--fps", 8, "--negative", "no").stdout
    )
    assert own["frames"] == 10 and other["frames"] == 20
    assert (other["width"], other["height"], other["fps"]) == (32, 24, 8)
    lengths = [[e["stop"] - e["start"] for e in each["events"]] for each in (own, other)]
    assert lengths[1] == [2 * length for length in lengths[0]]
    assert {event["negative"] for event in other["events"]} == {"no"}
    result = syncos(*plan, "--frames", 1)
    assert result.exit_code == 2 and result.stderr.startswith("error: --frames: too few")


def test_quiet():
    result = generate("--quiet", "--out", "a.mp4")
    assert result.exit_code == 0 and result.output == "" and Path("a.mp4").exists()


def test_help_does_not_wait_for_jax():
    code = "import syncos_jax.cli, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid(path):
    from syncos_jax.scenario import Scenario

    scenario = Scenario.from_file(path)
    assert len(scenario.events) >= 4 and scenario.total_frames(8) >= 32


def test_there_are_examples():
    assert len(EXAMPLES) >= 4


INTERRUPTED = """
import sys, time
sys.path.insert(0, sys.argv.pop(1))
import jax, jax.numpy as jnp
import syncos_jax.pipeline.load
from fakes import FakeModel, FakeUNet

class Slow(FakeUNet):
    def __call__(self, x, t, text, *, fps=None):
        jax.debug.callback(lambda _: time.sleep(0.5), t[0], ordered=True)
        return super().__call__(x, t, text)

def load_model(name, *_, **__):
    model = FakeModel()
    model.unet = Slow()
    return model

syncos_jax.pipeline.load.load_model = load_model
from syncos_jax.cli import main
main()
"""


def test_ctrl_c_ends_at_once_and_leaves_nothing():
    command = [sys.executable, "-c", INTERRUPTED, str(Path(__file__).parent), "generate"]
    command += ["story.yaml", "--model", "fake", "--out", "a.mp4", "--steps", "500"]
    run = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        # A suite that a shell runs in the background has SIGINT ignored, and so its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    said = ""
    while "compile" not in said:  # from here on the main thread waits for the compiled program
        line = run.stderr.readline()
        assert line, said
        said += line
    run.send_signal(signal.SIGINT)
    rest = run.communicate(timeout=240)[1]  # the program itself would take longer
    assert run.returncode == 130
    assert rest.splitlines()[-1] == "error: interrupted; no partial files are left"
    assert "Traceback" not in rest
    assert [path.name for path in Path().iterdir()] == ["story.yaml"]


@pytest.mark.parametrize("command", [["plan", str(EXAMPLES[0])], ["--help"]])
def test_terminals_without_unicode(command):
    """And without a home directory or a named user."""
    code = "from syncos_jax.cli import main; main()"
    environment = {"PATH": os.environ["PATH"], "PYTHONIOENCODING": "ascii", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", code, *command],
        env=environment,
        capture_output=True,
        cwd=EXAMPLES[0].parent.parent,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.decode("ascii").count("\n") > 10
