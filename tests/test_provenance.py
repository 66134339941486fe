"""What is recorded about a video, and the same video made again from it."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from fakes import FakeModel
from flax import nnx
from PIL import Image
from typer.testing import CliRunner

import syncos_jax.pipeline.load
from syncos_jax.cli import app
from syncos_jax.errors import InputError
from syncos_jax.runs import metadata as provenance
from syncos_jax.scenario import Scenario

STORY = {
    "variables": {"who": "a cat", "place": ["beach", "street"]},
    "global": "{who} on a {place}",
    "negative": "secret words",
    "events": [{"prompt": "sleeps", "seconds": 1}, {"prompt": "wakes", "seconds": 1.5}],
    "sampler": {"name": "co_denoising", "steps": 3},
    "seed": 4,
}


def other_weights():
    model = FakeModel()
    model.unet.weight = nnx.Param(jnp.full((2, 4), 0.3))
    return model


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path, tmp_path_factory):
    monkeypatch.setattr(
        syncos_jax.pipeline.load, "load_model", lambda *_, **__: FakeModel(), raising=False
    )
    monkeypatch.setenv("SYNCOS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("story.yaml").write_text(yaml.safe_dump(STORY))


def generate(*arguments):
    result = CliRunner().invoke(app, ["generate", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def read(path):
    return json.loads(Path(path).read_text())


def test_the_record_and_the_same_video_again():
    options = ["--set", "place=beach,street", "--takes", 2, "--label", "generated", "--scale", 8]
    made = generate("story.yaml", *options, "--latents", "l.npy")
    assert made.exit_code == 0, made.output
    names = ["out-beach-seed4", "out-beach-seed5", "out-street-seed4", "out-street-seed5"]
    expected = {f"{name}.{suffix}" for name in names for suffix in ("mp4", "png", "json")}
    expected |= {f"l{name.removeprefix('out')}.npy" for name in names}
    assert {path.name for path in Path().iterdir()} == expected | {"story.yaml"}

    record = read("out-street-seed5.json")
    latents = np.load("l-street-seed5.npy")
    assert latents.dtype == np.float32 and list(latents.shape) == record["latents"]["shape"]
    assert provenance.latents_sha256(latents) == record["latents"]["sha256"]
    story = Scenario.from_dict(record["scenario"])
    assert story.global_prompt == "a cat on a street" and story.seed == record["seed"] == 5
    assert provenance.scenario_sha256(story) == record["scenario_sha256"]
    assert record["take"]["varies"] == {"place": "street", "seed": 5}
    assert record["take"] | {"varies": 0} == {"group": "out", "index": 3, "count": 4, "varies": 0}
    assert record["template"]["values"] == {"who": "a cat", "place": "street"}
    assert [(e["start"], e["stop"], e["stop_seconds"]) for e in record["events"]] == [
        (0, 4, 1.0),
        (4, 10, 2.5),
    ]
    assert record["sampler"] == {
        "name": "co_denoising",
        "steps": 3,
        "guidance": 2.0,
        "windows_per_call": None,
        "guidance_t_min": 0.0,
        "guidance_t_max": None,
        "perturbed_guidance": None,
        "guidance_2": None,
        "boundary": None,
        "shift": None,
        "timesteps": None,
        "sigmas": None,
        "spacing": None,
        "shared_noise": False,
        "shuffled_noise": 0.0,
        "eta_t_max": None,
        "guidance_rescale": None,
        "eta": 0.0,
        "solver": None,
        "reuse": None,
    }
    assert record["video"]["width"] == 24 * 8 and record["video"]["label"] == "generated"
    assert {"load", "compile", "sample", "decode", "write"} == set(record["timings"])
    one, other = read("out-street-seed4.json"), read("out-beach-seed5.json")
    assert len({r["latents"]["sha256"] for r in (one, other, record)}) == 3

    said = provenance.read_provenance("out-street-seed5.mp4")
    assert said["generated"] is True and said["seed"] == 5
    assert said["model"]["weights_sha256"] == record["model"]["weights_sha256"]
    assert said["scenario_sha256"] == record["scenario_sha256"]
    assert "secret" not in json.dumps(said) and "street" not in json.dumps(said)

    again = generate("--from", "out-street-seed5.json", "--latents", "again.npy")
    assert again.exit_code == 0, again.output
    assert "bit-identical to those of out-street-seed5.json" in again.stderr
    np.testing.assert_array_equal(np.load("again.npy"), latents)
    new = read("out-street-seed5-again.json")
    assert new["made_from"] == {"file": "out-street-seed5.json", "identical": True}
    for key in ("scenario", "sampler", "latents", "template", "cost", "layout"):
        assert new[key] == record[key], key
    assert new["video"] == record["video"]

    record["latents"]["sha256"] = "0" * 64
    record["versions"]["jax"] = "0.1"
    provenance.write_metadata("old.json", record)
    result = generate("--from", "old.json", "--out", "new.webm")
    assert result.exit_code == 0
    warning = next(line for line in result.stderr.splitlines() if line.startswith("warning"))
    assert "the latents differ from those of old.json" in warning and "jax 0.1, here" in warning
    assert read("new.json")["made_from"]["identical"] is False
    assert provenance.read_provenance("new.webm")["latents_sha256"] == new["latents"]["sha256"]


def write_record(**changes):
    record = {
        "format": provenance.METADATA.name,
        "version": 1,
        "scenario": {"global": "g", "events": [{"prompt": "x", "seconds": 1}]},
        "sampler": {"name": "co_denoising", "steps": 3},
        "seed": 1,
        "model": {"id": "demo", "weights_sha256": "0" * 64, "dtype": "float32"},
        "latents": {"sha256": "0" * 64},
        "versions": {},
        "device": {},
        "video": {},
        "files": {"video": "a.mp4"},
    }
    Path("a.json").write_text(json.dumps({**record, **changes}))


BAD_RECORDS = [
    ({"format": "x"}, "a.json: not the metadata file of a video"),
    ({"version": 2}, "a.json: has version 2, but this package reads 1"),
    ({"sampler": {"name": "nope"}}, "a.json: sampler: unknown name 'nope'; known: syncos, "),
    (
        {"sampler": {"name": "syncos", "steps": 0}},
        "a.json: sampler.steps must be an integer, 1 to 32767, got 0",
    ),
    ({"scenario": {"events": []}}, "a.json: scenario.events: has 0 entries"),
    ({"seed": -1}, "a.json: seed must be an integer from 0, got -1"),
    ({"latents": {}}, "a.json: latents.sha256 must be text, got None"),
    ({"device": 3}, "a.json: device must be a mapping, got 3"),
    ({"video": {"scale": "x"}}, "a.json: video.scale must be an integer, 1 to 64, got 'x'"),
    ({"video": {"label": 3}}, "a.json: video.label must be text or null, got 3"),
    ({}, "a.json: made with weights 000000000000..., but the model 'demo' has"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_RECORDS)
def test_bad_records_are_one_line(changes, message):
    write_record(**changes)
    result = generate("--from", "a.json")
    assert result.exit_code == 2 and message in result.stderr.splitlines()[-1], result.output
    assert "Traceback" not in result.output
    assert {path.name for path in Path().iterdir()} == {"a.json", "story.yaml"}


OWN = "--from generates a video again with its own settings; omit the scenario, --set, --prompt"
SEEDS = "--seeds must be integers from 0 to 4294967295, such as 0,1,2 or 0-4 (at most 1000), got "
BAD_OPTIONS = [
    (["story.yaml", "--from", "a.json"], OWN),
    (["--from", "a.json", "--steps", 3], OWN),
    (
        ["--from", "a.json", "--out", "a.mp4"],
        "--out: a.mp4 would replace a.json, the metadata file that is read; choose another name",
    ),
    (["story.json", "--out", "story.mp4"], "story.json: the metadata file of story.mp4 goes here"),
    (["story.yaml", "--prompt", "x"], "SCENARIO and --prompt cannot be combined"),
    ([], "nothing to generate: pass a scenario file, --prompts or --prompt"),
    (["story.yaml", "--takes", 2, "--seeds", "1,2"], "--seeds and --takes cannot be combined"),
    (["story.yaml", "--seed", 2, "--seeds", "1,2"], "--seed and --seeds cannot be combined"),
    (["story.yaml", "--seeds", "1,x"], SEEDS + "'x'"),
    (["story.yaml", "--seeds", "5-2"], SEEDS + "'5-2'"),
    (["story.yaml", "--global", "x"], "--global needs --prompt or --prompts"),
    (["--prompt", "x", "--set", "a=b"], "--set needs a scenario file"),
    (
        ["story.yaml", "--set", "colour=red"],
        "story.yaml: unknown variable 'colour'; known are place, who\n",
    ),
    (["story.yaml", "--label", "生"], "label: '生' cannot be drawn"),
    (["story.yaml", "--latents", "l.txt"], "the file of latents must end in .npy or .npz"),
    (["story.yaml", "--takes", 2, "--latents", "no/l.npy"], "no/l-seed4.npy: cannot write"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options_are_one_line(options, message):
    write_record()
    Path("story.json").write_text(json.dumps(STORY))
    result = generate(*options)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert {path.name for path in Path().iterdir()} == {"a.json", "story.yaml", "story.json"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "x" * 200], "--label: too long for a video 384 pixels wide, got 'xxx"),
        (["--label", "x" * 200], "xxx'; shorten it, or enlarge the video with --scale"),
        (["--out", "a.gif", "--set", "who=a dog"], "a.gif: a GIF plays at most 50 frames"),
    ],
)
def test_what_cannot_be_written_is_known_before_the_work(options, message):
    Path("story.yaml").write_text(yaml.safe_dump({**STORY, "fps": 60}))
    result = generate("story.yaml", *options)
    assert result.exit_code == 2 and message in result.stderr.splitlines()[-1]
    assert "compile" not in result.stderr


def test_the_hash_knows_every_weight():
    from syncos_jax.models.identity import hash_weights

    first, again = FakeModel().weights_sha256, FakeModel().weights_sha256
    assert first == again and len(first) == 64
    assert other_weights().weights_sha256 != first
    values = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(2)}
    renamed = {"a": jnp.zeros((2, 3)), "c": jnp.zeros(2)}
    turned = {"a": jnp.zeros((3, 2)), "b": jnp.zeros(2)}
    narrow = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(2, jnp.bfloat16)}
    hashes = [hash_weights(v) for v in (values, renamed, turned, narrow)]
    assert len(set(hashes)) == 4


def test_a_video_of_somebody_else(tmp_path):
    from test_video import moving

    from syncos_jax.media.video import Video

    path = Video(moving(), 8).save(tmp_path / "a.mp4", comment="holiday")
    assert provenance.read_provenance(path) is None
    with pytest.raises(InputError, match="cannot be read as a video"):
        provenance.read_provenance(tmp_path / "none.mp4")


def test_prompts_make_a_video_with_npz_latents():
    options = ["--out", "f", "--latents", "l.npz", "--preview", "p.png", "--preview-every", 1]
    result = generate("--prompt", "a | b", "--seconds", 0.5, *options)
    assert result.exit_code == 0, result.output
    assert Image.open("p.png").format == "PNG"
    assert len(list(Path("f").glob("*.png"))) == 4
    record = read("f.json")
    assert record["scenario"]["structured"] is False
    assert [event["text"] for event in record["events"]] == ["a", "b"]
    with np.load("l.npz") as file:
        assert provenance.latents_sha256(file["latents"]) == record["latents"]["sha256"]
        assert json.loads(str(file["comment"])) == provenance.read_provenance("f")
