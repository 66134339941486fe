"""Runs from pictures, clips and sounds: in batches, on Ray, stopped and resumed, with a model of a
few numbers."""

import json
import wave
from pathlib import Path

import jax
import numpy as np
import pytest
from fakes import FakeModel
from PIL import Image
from test_ray import RayInProcess
from typer.testing import CliRunner

import syncos_jax.pipeline.load
from syncos_jax import Pipeline, Scenario
from syncos_jax.cli import app
from syncos_jax.media.sound import Soundtrack
from syncos_jax.media.video import Video, load_video
from syncos_jax.runs import on_ray
from syncos_jax.sampling import SynCoS

STORY = {
    "global": "a cat",
    "events": [{"prompt": "sleeps", "frames": 6}, {"prompt": "eats", "frames": 6}],
    "image": "start.png",
    "end_image": "end.png",
}
SAMPLER = SynCoS(steps=3, t_min=400, iterations=2, learning_rate=0.1)
TABLE = """name,global,prompt,frames,image,end_image,extend,redo,audio,fit
picture,a cat,sleeps | eats,6,start.png,end.png,,,tone.wav,contain
extended,a cat,eats,6,,,clip.mkv,,,
changed,a cat,sleeps | eats,6,,,,clip.mkv:2,,
broken,a cat,sleeps,6,text.png,,,,,
"""


class Timed(FakeModel):
    """With a timestep for each frame."""

    def __init__(self):
        super().__init__()
        self.known_rule, self.known_reference = "timestep", True


@pytest.fixture(autouse=True)
def files(monkeypatch, tmp_path):
    """In the folder ``given``: two pictures, a clip of 12 frames, a tone, a table."""
    monkeypatch.setattr(syncos_jax.pipeline.load, "load_model", lambda *_, **__: Timed())
    monkeypatch.setenv("SYNCOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    given = tmp_path / "given"
    given.mkdir()
    rng = np.random.default_rng(0)
    for name in ("start", "end"):
        Image.fromarray(rng.integers(0, 255, (32, 24, 3)).astype(np.uint8)).save(
            given / f"{name}.png"
        )
    (given / "text.png").write_text("hello")
    with wave.open(str(given / "tone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((8000 * np.sin(np.arange(8000))).astype("<i2").tobytes())
    frames = rng.integers(60, 200, (12, 2, 3, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    sound = Soundtrack(str(given / "tone.wav"))
    Video(frames, 4.0, sound=sound).save(given / "clip.mkv", crf=0)
    (given / "table.csv").write_text(TABLE)
    return given


def story(files, **changes):
    return Scenario.from_dict({**STORY, **changes}).relative_to(files)


def batch(*more):
    given = ["batch", "given/table.csv", "--out", "videos", "--steps", "2", "--format", "mkv"]
    result = CliRunner().invoke(app, [*given, "--no-cache", *more])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def metadata(name):
    return json.loads(Path(f"videos/{name}.json").read_text())


@pytest.mark.parametrize("ray", [False, True])
def test_a_batch_from_a_table(files, monkeypatch, ray):
    monkeypatch.setattr(on_ray, "connect", lambda address: RayInProcess())
    result = batch(*(["--ray"] if ray else []))
    assert result.exit_code == 1 and "3 done, 1 failed, 0 pending" in result.stderr, result.stderr
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "text.png: not a picture" in error
    inputs = {name: metadata(name)["inputs"] for name in ("picture", "extended", "changed")}
    assert [i["role"] for i in inputs["picture"]] == ["image", "end_image", "audio"]
    assert inputs["picture"][0]["note"] == "24×32 to 24×16, with black bars"
    assert [i["role"] for i in inputs["extended"]] == ["extend", "audio"]
    clip = load_video(files / "clip.mkv").frames
    given = [Path("videos") / f"{name}.mkv" for name in ("extended", "changed")]
    scale = metadata("extended")["video"]["scale"]
    longer, changed = (load_video(path).frames[:, ::scale, ::scale] for path in given)
    assert (len(longer), len(changed)) == (18, 12)
    for made, kept in ((longer, 12), (changed, 6)):  # as far as H.264 goes
        assert np.abs(made[:kept].astype(int) - clip[:kept]).mean() < 4
    assert metadata("extended")["video"]["frames"] == 18
    spans = [(e["index"], e["start"], e["stop"]) for e in metadata("extended")["events"]]
    assert spans == [(-1, 0, 12), (0, 12, 18)]
    # Made once: the same table again makes nothing; a picture that changed makes its video again.
    assert "0 of 4 videos to make" in batch().stderr
    Image.new("RGB", (24, 32)).save(files / "start.png")
    result = batch()
    assert result.exit_code == 2 and "known" in result.stderr, result.stderr


def test_stopped_and_resumed_it_is_the_same(files, tmp_path):
    pipeline = Pipeline(Timed())
    request = pipeline.prepare(story(files), SAMPLER)
    assert request.known.rule == "reference"
    whole = np.asarray(pipeline.latents(request))
    parts = pipeline.start(request)
    parts.advance(parts.num_calls // 2)
    other = pipeline.start(request)
    other.restore(parts.samples_done, jax.tree.map(np.asarray, parts.carry))
    other.advance()
    np.testing.assert_array_equal(other.latents(), whole)

    class Stop(Exception):
        pass

    def stop(done, total):
        if done >= total // 2:
            raise Stop

    with pytest.raises(Stop):
        pipeline.latents(request, progress=stop, checkpoint=tmp_path / "run")
    resumed = pipeline.latents(request, checkpoint=tmp_path / "run")
    np.testing.assert_array_equal(resumed, whole)


def test_the_reference_can_be_turned_off(files):
    pipeline = Pipeline(Timed())
    rules = [
        pipeline.prepare(story(files, **given), SAMPLER).known.rule
        for given in ({}, {"reference": True}, {"reference": False})
    ]
    assert rules == ["reference", "reference", "timestep"]
    with pytest.raises(ValueError, match="no timestep for each frame"):
        Pipeline(FakeModel()).prepare(story(files, reference=True))


def test_arguments_in_python(files):
    pipeline = Pipeline(FakeModel())
    video = pipeline(
        "a cat",
        ["sleeps", "eats"],
        seconds=2,
        sampler=SAMPLER,
        image=files / "start.png",
        audio=str(files / "tone.wav"),
        loop_audio=True,
    )
    assert len(video) == 16 and video.sound == Soundtrack(str(files / "tone.wav"), loop=True)
    with pytest.raises(ValueError, match="unknown argument 'imgae'; did you mean 'image'?"):
        pipeline("a cat", ["sleeps"], imgae="start.png")


def test_again_from_the_metadata_file(files):
    given = ["--image", "given/start.png", "--audio", "given/tone.wav", "--steps", "2"]
    prompt = ["--prompt", "sleeps | eats", "--global", "a cat", "--seconds", "2"]
    run = CliRunner().invoke
    made = run(app, ["generate", *prompt, *given, "--out", "a.mp4"])
    assert made.exit_code == 0, made.output
    again = run(app, ["generate", "--from", "a.json", "--out", "b.mp4"])
    assert again.exit_code == 0 and "bit-identical" in again.stderr, again.output
    Image.new("RGB", (24, 32)).save(files / "start.png")
    refused = run(app, ["generate", "--from", "a.json", "--out", "c.mp4"])
    assert refused.exit_code == 2
    assert "given/start.png: not the file that the video was made with" in refused.stderr
    record = json.loads(Path("a.json").read_text())
    record["scenario"]["events"] = []
    Path("a.json").write_text(json.dumps(record))
    wrong = run(app, ["generate", "--from", "a.json", "--out", "c.mp4"])
    assert "error: a.json: scenario.events: has 0 entries" in wrong.stderr
