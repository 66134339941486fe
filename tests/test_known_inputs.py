"""Videos that begin with a picture, extend a clip or do an event again, on the demo model."""

import dataclasses
import json
import wave

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from syncos_jax import CoDenoising, Pipeline, Scenario, SynCoS
from syncos_jax.cli.app import app
from syncos_jax.errors import InputError
from syncos_jax.media.sound import RATE, Soundtrack
from syncos_jax.media.video import Video, load_video
from syncos_jax.models.family import Geometry, Model
from syncos_jax.pipeline.known_frames import known_frames
from syncos_jax.pipeline.known_inputs import read_inputs

STORY = {
    "global": "a ball on a green meadow",
    "events": [
        {"prompt": "the ball rolls to the left", "frames": 8},
        {"prompt": "the ball grows", "frames": 8},
    ],
}
SHORT = CoDenoising(steps=2)


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline.from_pretrained("demo")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """start.png, end.png and clip.mkv (16 frames, lossless)."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for name, colour in (("start", (220, 30, 30)), ("end", (30, 30, 220))):
        picture = np.full((64, 64, 3), (40, 140, 40), np.uint8)
        picture[20:44, 20:44] = colour
        Image.fromarray(picture).save(folder / f"{name}.png")
    frames = rng.integers(60, 200, (16, 8, 8, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    with wave.open(str(folder / "tone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((8000 * np.sin(np.arange(8000))).astype("<i2").tobytes())  # 1 s
    sound = Soundtrack(str(folder / "tone.wav"))
    Video(frames, 8.0, sound=sound).save(folder / "clip.mkv", crf=0)
    return folder


def story(files, **inputs):
    made = {**STORY, **inputs}
    text = json.dumps(made).replace("FILES", str(files))
    return Scenario.from_dict(json.loads(text))


def latents_and_known(pipeline, scenario, sampler=SHORT):
    request = pipeline.prepare(scenario, sampler, 0)
    known = known_frames(
        request.known, pipeline.model, request.layout.frames, (16, 16), pipeline.placement
    )
    return np.asarray(pipeline.latents(request)), known, request


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"image": "FILES/start.png"}, [0]),
        ({"image": "FILES/start.png", "end_image": "FILES/end.png"}, [0, 15]),
        ({"end_image": "FILES/end.png"}, [15]),
        pytest.param({"extend": "FILES/clip.mkv"}, [0, 1, 2, 3], marks=pytest.mark.slow),
        ({"redo": {"video": "FILES/clip.mkv", "events": [2]}}, list(range(8))),
        ({"redo": {"video": "FILES/clip.mkv", "events": [1]}}, list(range(8, 16))),
    ],
)
def test_known_frames_come_out_unchanged(pipeline, files, inputs, expected):
    latents, known, _ = latents_and_known(pipeline, story(files, **inputs))
    assert np.flatnonzero(known.mask).tolist() == expected
    assert np.array_equal(latents[known.mask], known.latents[known.mask])
    assert np.isfinite(latents).all()


def test_an_event_can_begin_with_a_picture(pipeline, files):
    events = [STORY["events"][0], {**STORY["events"][1], "image": "FILES/end.png"}]
    _, known, request = latents_and_known(pipeline, story(files, events=events))
    assert np.flatnonzero(known.mask).tolist() == [8]
    assert request.known.files[0].role == "event 2 image"


def test_first_frame_is_the_decoded_encoding_of_the_picture(pipeline, files):
    scenario = story(files, image="FILES/start.png")
    video = pipeline(scenario, sampler=SynCoS(steps=3, refine_steps=1, iterations=2), seed=0)
    picture = np.asarray(Image.open(files / "start.png"))
    encoded = pipeline.model.encode_frames(picture[None], pipeline.placement)
    decoded = pipeline.decode(encoded)[0]
    assert np.abs(video.frames[0].astype(int) - decoded).max() <= 2
    assert decoded[32, 32].argmax() == 0 and decoded[4, 4].argmax() == 1  # red on green, as it is


def test_extending_writes_the_clip_and_what_follows(pipeline, files, tmp_path):
    scenario = story(files, extend="FILES/clip.mkv")
    request = pipeline.prepare(scenario, SHORT, 0)
    assert (request.frames, request.sampled, request.layout.frames) == (32, 20, 20)
    assert [row["start"] for row in request.events] == [16, 24]
    assert [(row["prompt"], row["stop"]) for row in request.spans][0] == ("", 16)
    assert request.prompts.events.tolist() == [0, 0, 1, 1]  # middles at 4, 8, 12, 16, less 4
    given, sound = request.files
    assert (given.start, given.stop) == (0, 16) and given.note.endswith("its last 4 frames")
    video = pipeline(scenario, sampler=SHORT, seed=0)
    clip = load_video(files / "clip.mkv")
    np.testing.assert_array_equal(video.frames[:16], clip.frames)
    assert video.events[0] == (0, "(clip.mkv)") and len(video) == 32
    plan = pipeline.plan(request)
    assert plan.seconds == 4 and [w.start for w in plan.windows] == [12, 16, 20, 24]
    # Its sound is kept: one second of the clip's two, then silence.
    assert (sound.role, sound.note) == ("audio", "2.0 s, then silence up to 4 s")
    video.save(tmp_path / "longer.mkv")
    heard = np.concatenate(list(Soundtrack(str(tmp_path / "longer.mkv")).samples(4)), axis=1)
    assert np.flatnonzero(np.abs(heard[0]) > 0.1)[-1] / RATE == pytest.approx(1, abs=0.05)
    alone = pipeline.prepare(story(files, extend="FILES/clip.mkv", join=False), SHORT, 0)
    assert (alone.frames, alone.sampled) == (16, 20)
    assert [(f.role, f.start, f.stop) for f in alone.files] == [("extend", -4, 0)]
    assert alone.sound is None and alone.spans == alone.events
    np.testing.assert_array_equal(
        pipeline.video(alone, np.zeros((20, 64, 64, 3), np.uint8)).frames, 0
    )


def test_making_an_event_again_keeps_the_other_frames(pipeline, files):
    again = story(files, redo={"video": "FILES/clip.mkv", "events": [2]})
    video = pipeline(again, sampler=SHORT, seed=0)
    clip = load_video(files / "clip.mkv")
    np.testing.assert_array_equal(video.frames[:8], clip.frames[:8])
    assert np.abs(video.frames[8:].astype(int) - clip.frames[8:]).max() > 20
    assert video.sound == Soundtrack(str(files / "clip.mkv"), in_sync=True)
    music = story(files, audio="FILES/tone.wav", loop_audio=True)
    assert pipeline.prepare(music, SHORT, 0).files[0].note == "1.0 s, repeated up to 2 s"


def test_clips_of_another_rate_and_folders(pipeline, files, tmp_path):
    """A clip of 24 frames per second gives every third frame; a folder has the video's own rate."""
    frames = np.repeat(np.arange(30, 78, dtype=np.uint8), 64 * 64 * 3).reshape(48, 64, 64, 3)
    Video(frames, 24.0).save(tmp_path / "film.mkv", crf=0)
    request = pipeline.prepare(story(files, extend=str(tmp_path / "film.mkv")), SHORT, 0)
    assert request.before == 16 and "24 to 8 fps" in request.files[0].note
    shown = request.known.before[:, 32, 32, 0].astype(int)
    assert np.abs(shown - np.arange(30, 78, 3)).max() <= 2
    Video(frames[:12], 8.0).save(tmp_path / "folder")
    request = pipeline.prepare(story(files, extend=str(tmp_path / "folder")), SHORT, 0)
    np.testing.assert_array_equal(request.known.before, frames[:12])


@pytest.mark.slow
def test_the_picture_changes_the_rest_of_the_video(pipeline, files):
    with_picture, *_ = latents_and_known(pipeline, story(files, image="FILES/start.png"))
    without = np.asarray(pipeline.latents(story(files), SHORT, 0))
    assert np.abs(with_picture[1:] - without[1:]).max() > 0.1


def test_pictures_are_part_of_the_run(pipeline, files, tmp_path):
    scenario = story(files, image="FILES/start.png")
    request = pipeline.prepare(scenario, SHORT, 0)
    other = pipeline.prepare(story(files, image="FILES/end.png"), SHORT, 0)
    (known,) = request.fingerprint["known"]
    assert (known["role"], known["start"], known["stop"]) == ("image", 0, 1)
    assert known != other.fingerprint["known"][0]
    assert request.program == other.program  # the picture is an argument of the program
    assert request.program != pipeline.prepare(story(files), SHORT, 0).program


def test_paths_are_relative_to_the_scenario_file(files):
    (files / "story.json").write_text(json.dumps({**STORY, "image": "start.png"}))
    read = Scenario.from_file(files / "story.json")
    assert read.image == str(files / "start.png")


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"image": "FILES/none.png"}, "no such file"),
        ({"image": "FILES/clip.mkv"}, "not a picture"),
        ({"extend": "FILES/start.png", "image": "FILES/start.png"}, "keep one of them"),
        ({"extend": "FILES/none.mp4"}, "no such file"),
        ({"redo": {"video": "FILES/clip.mkv", "events": [3]}}, "from 1 to 2"),
        ({"redo": {"video": "FILES/clip.mkv", "events": []}}, "events"),
        ({"redo": {"video": "FILES/clip.mkv", "events": [2]}, "end_image": "FILES/end.png"}, None),
        ({"fit": "stretch"}, "cover"),
        ({"audio": "FILES/start.png"}, "has no sound in it"),
        ({"audio": "FILES/none.wav"}, "no such file"),
    ],
)
def test_what_cannot_be_honoured_is_refused(pipeline, files, inputs, expected):
    if expected is None:  # the last event is made again, so its end may be given
        pipeline.prepare(story(files, **inputs), SHORT, 0)
        return
    with pytest.raises(InputError, match=expected) as error:
        pipeline.prepare(story(files, **inputs), SHORT, 0)
    assert "\n" not in str(error.value).strip()


def test_a_video_of_another_length_is_refused(pipeline, files):
    events = [{**STORY["events"][0], "frames": 12}, STORY["events"][1]]
    again = {"video": "FILES/clip.mkv", "events": [1]}
    with pytest.raises(InputError, match="16 frames, but the scenario's events have 20"):
        pipeline.prepare(story(files, events=events, redo=again), SHORT, 0)


class Temporal(Model):
    """A family of two causal frames a latent, which encodes to the mean of each latent's frames."""

    family, name, known_rule, known_reference = "temporal", "temporal", "timestep", True
    geometry = Geometry(
        window=4,
        stride=2,
        channels=3,
        cell=8,
        height=16,
        width=16,
        fps=8.0,
        temporal=2,
        causal=True,
    )

    def encode_frames(self, frames, placement):
        assert self.geometry.frames(self.geometry.latents(len(frames))) == len(frames)
        starts = [0, *range(1, len(frames), 2)]
        return np.stack(
            [
                frames[start : 1 if start == 0 else start + 2, ::8, ::8].mean(axis=0)
                for start in starts
            ]
        ).astype(np.float32)


def test_several_frames_of_one_latent(pipeline, files):
    """A latent is known where all its frames are, or one of them is a picture, which fills it."""
    scenario = story(
        files,
        events=[{**event, "frames": 4} for event in STORY["events"]],
        image="FILES/start.png",
        end_image="FILES/end.png",
    )
    model = Temporal()
    inputs = read_inputs(model, scenario, 8, 16, 16)
    known = known_frames(inputs, model, model.geometry.latents(8), (2, 2), pipeline.placement)
    assert known.rule == "reference"
    alone = dataclasses.replace(inputs, rule="timestep")
    assert known_frames(alone, model, 5, (2, 2), pipeline.placement).rule == "timestep"
    assert known.mask.tolist() == [True, False, False, False, True]
    end = np.asarray(Image.open(files / "end.png").resize((16, 16), Image.Resampling.LANCZOS))
    assert np.abs(known.latents[-1] - end[::8, ::8]).max() < 1e-3
    cut = dataclasses.replace(inputs, given=np.arange(8) < 4, held=np.zeros(8, bool))
    mask = known_frames(cut, model, 5, (2, 2), pipeline.placement).mask
    assert mask.tolist() == [True, True, False, False, False]


PROMPT = "generate --global a-ball --prompt rolls|grows --seconds 1 --sampler co_denoising".split()


@pytest.mark.slow
def test_generate(files, tmp_path):
    """With --image and --redo, as a user calls it."""
    run = CliRunner().invoke
    first = [*PROMPT, "--steps", "1", "--image", str(files / "start.png")]
    made = run(app, [*first, "--out", str(tmp_path / "a.mkv")])
    assert made.exit_code == 0, made.output
    (given,) = json.loads((tmp_path / "a.json").read_text())["inputs"]
    assert (given["role"], given["start"], given["note"]) == ("image", 0, "64×64 to 64×64")
    again = [*PROMPT, "--steps", "1", "--redo", f"{tmp_path / 'a.mkv'}:2"]
    made = run(app, [*again, "--out", str(tmp_path / "b.mkv"), "--scale", "1"])
    assert made.exit_code == 0, made.output
    assert json.loads((tmp_path / "b.json").read_text())["inputs"][0]["role"] == "redo"


def test_plan_and_refusals(files, tmp_path):
    run = CliRunner().invoke
    first = [*PROMPT, "--steps", "1", "--image", str(files / "start.png")]
    planned = run(app, ["plan", *first[1:]])
    assert planned.exit_code == 0, planned.output
    assert f"image: {files / 'start.png'}, frame 0, 64×64 to 64×64" in planned.output
    music = ["--audio", str(files / "tone.wav")]
    planned = run(app, ["plan", *first[1:], *music])
    assert "audio: " in planned.output and "1.0 s, then silence up to 2 s" in planned.output
    for wrong in (
        ["--redo", "a.mkv"],
        ["--image", "none.png"],
        ["--fit", "stretch"],
        ["--audio", "none.mp3"],
        ["--loop-audio"],
        ["--no-join"],
    ):
        refused = run(app, [*PROMPT, *wrong, "--out", str(tmp_path / "c.mp4")])
        assert refused.exit_code == 2, refused.output
        assert not (tmp_path / "c.mp4").exists()
        assert refused.output.count("\n") == 1
    refused = run(app, [*PROMPT, *music, "--out", str(tmp_path / "c.gif")])
    assert refused.exit_code == 2 and "have no sound" in refused.output
