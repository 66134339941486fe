"""LoRAs merged when a model is loaded: on the command line, in scenarios, in Python."""

import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from syncos_jax import Pipeline, Scenario
from syncos_jax.cli.app import app
from syncos_jax.errors import InputError
from syncos_jax.models.weights import leaves
from syncos_jax.runs.metadata import describe
from syncos_jax.scenario.lora_files import LoraFile

LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
STORY = {
    "global": "a red ball on a green meadow",
    "events": [{"prompt": "it rolls to the left", "frames": 16}],
    "sampler": {"name": "co_denoising", "steps": 1},
}


def write_lora(path, layer=LAYER, rank=2, size=64):
    rng = np.random.default_rng(3)
    tensors = {f"unet.{layer}.lora_A.weight": rng.normal(size=(rank, size)).astype(np.float32)}
    tensors[f"unet.{layer}.lora_B.weight"] = rng.normal(size=(size, rank)).astype(np.float32)
    save_file(tensors, path)
    return path, (tensors[f"unet.{layer}.lora_B.weight"] @ tensors[f"unet.{layer}.lora_A.weight"]).T


def weights(pipeline):
    return {path: np.asarray(leaf) for path, leaf in leaves(pipeline.model.unet).items()}


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    return write_lora(tmp_path_factory.mktemp("lora") / "style.safetensors")


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline.from_pretrained("demo")


def run(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a.safetensors", LoraFile("a.safetensors")),
        ("a.safetensors:0.5", LoraFile("a.safetensors", 0.5)),
        ("transformer_2=x/a.safetensors:-1", LoraFile("x/a.safetensors", -1.0, "transformer_2")),
        ("a=b.safetensors", LoraFile("a=b.safetensors")),
        ("dir:x/a.pt", LoraFile("dir:x/a.pt")),
    ],
)
def test_how_a_lora_is_named(text, read):
    assert LoraFile.parse(text) == read
    assert LoraFile.parse(str(read)) == read


@pytest.mark.parametrize("text", ["", ":0.5", "a:nan", "unet="])
def test_what_names_no_lora(text):
    with pytest.raises(InputError):
        LoraFile.parse(text)


def test_set_lora_changes_the_layer_and_nothing_else_and_back(pipeline, lora):
    path, change = lora
    before, known = weights(pipeline), pipeline.model.weights_sha256
    pipeline.set_lora([f"{path}:0.5", f"unet={path}:0.25"])
    after = weights(pipeline)
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert changed == [f"{LAYER}.kernel"]
    np.testing.assert_allclose(after[changed[0]], before[changed[0]] + 0.75 * change, atol=1e-6)
    assert pipeline.model.weights_sha256 != known
    assert [one.changes for one in pipeline.model.loras] == [{"unet": 1}, {"unet": 1}]
    pipeline.set_lora([])
    assert all(np.array_equal(before[name], value) for name, value in weights(pipeline).items())
    assert pipeline.model.weights_sha256 == known and pipeline.model.loras == ()


def test_a_lora_that_does_not_fit_leaves_the_pipeline_as_it_is(pipeline, tmp_path):
    other, _ = write_lora(tmp_path / "other.safetensors", "down_blocks.9.attn1.to_q")
    model = pipeline.model
    with pytest.raises(InputError, match=r"unknown down_blocks\.9") as caught:
        pipeline.set_lora([other])
    assert pipeline.model is model and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        pipeline.set_lora([str(tmp_path / "none.safetensors")])
    with pytest.raises(InputError, match="from_pretrained"):
        Pipeline(model).set_lora([])


def test_a_request_states_the_loras_of_its_model_and_takes_no_others(pipeline, lora):
    scenario = Scenario.from_dict(STORY)
    named = Scenario.from_dict({**STORY, "lora": [str(lora[0])]})
    with pytest.raises(InputError, match="other LoRAs than the model was loaded with"):
        pipeline.prepare(named)
    pipeline.set_lora([f"{lora[0]}:1"])
    try:
        assert pipeline.prepare(named).scenario.lora == (f"{lora[0]}:1",)
        assert pipeline.prepare(scenario).scenario.lora == (f"{lora[0]}:1",)
        with pytest.raises(InputError, match="other LoRAs"):
            pipeline.prepare(Scenario.from_dict({**STORY, "lora": [f"{lora[0]}:0.5"]}))
    finally:
        pipeline.set_lora([])


def test_paths_in_a_scenario_are_taken_from_its_folder(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({**STORY, "lora": ["unet=a.safetensors:0.5"]}))
    read = Scenario.from_file(tmp_path / "s.json")
    assert read.lora == (f"unet={tmp_path / 'a.safetensors'}:0.5",)
    with pytest.raises(InputError, match="lora"):
        Scenario.from_dict({**STORY, "lora": ["a:inf"]})


def test_metadata_names_the_loras_with_their_hashes(pipeline, lora):
    path, _ = lora
    pipeline.set_lora([f"unet={path}:0.5"])
    try:
        request = pipeline.prepare(Scenario.from_dict(STORY))
        record = describe(request, np.zeros((16, *request.frame_shape), np.float32))
    finally:
        pipeline.set_lora([])
    (held,) = record["model"]["lora"]
    assert held["file"] == str(path) and held["network"] == "unet" and held["strength"] == 0.5
    assert held["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["scenario"]["lora"] == [f"unet={path}:0.5"]


@pytest.mark.slow
def test_generate_records_the_lora_and_makes_the_video_again(lora, tmp_path):
    path, _ = lora
    (tmp_path / "s.json").write_text(json.dumps(STORY))
    out = tmp_path / "v.mp4"
    result = run("generate", tmp_path / "s.json", "--lora", f"{path}:0.5", "--out", out, "-q")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "v.json").read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (held,) = record["model"]["lora"]
    assert held["sha256"] == digest and held["strength"] == 0.5 and held["changes"] == {"unet": 1}
    assert record["scenario"]["lora"] == [f"{path}:0.5"]
    result = run("generate", "--from", tmp_path / "v.json", "--out", tmp_path / "w.mp4", "-q")
    assert result.exit_code == 0, result.output
    again = json.loads((tmp_path / "w.json").read_text())
    assert again["made_from"]["identical"] is True
    result = run("generate", "--from", tmp_path / "v.json", "--lora", path, "--out", out)
    assert result.exit_code == 2 and "omit" in result.output


@pytest.mark.slow
def test_plan_names_the_lora(lora, tmp_path):
    path, _ = lora
    (tmp_path / "s.json").write_text(json.dumps({**STORY, "lora": [str(path)]}))
    result = run("plan", tmp_path / "s.json")
    assert f"LoRA: {path}, strength 1, changes 1 weights of unet" in result.output


def test_errors_are_one_line(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps(STORY))
    result = run("plan", tmp_path / "s.json", "--lora", tmp_path / "none.safetensors")
    assert result.exit_code == 2 and result.output.count("\n") == 1, result.output
    assert "--lora" in result.output and "no such file" in result.output


def rows(folder, path):
    found = [{**STORY, "name": "a", "lora": [str(path)]}, {**STORY, "name": "b"}]
    (folder / "s.jsonl").write_text("\n".join(map(json.dumps, found)))
    return folder / "s.jsonl"


def test_scenarios_with_different_loras_are_no_batch(lora, tmp_path):
    result = run("batch", rows(tmp_path, lora[0]), "--out", tmp_path / "o")
    assert result.exit_code == 2 and "different LoRAs" in result.output


@pytest.mark.slow
def test_a_batch_merges_one_set_of_loras(lora, tmp_path):
    path, _ = lora
    rows(tmp_path, path)
    result = run("batch", tmp_path / "s.jsonl", "--out", tmp_path / "o", "--lora", f"{path}:0.5")
    assert result.exit_code == 0, result.output
    for name in "ab":
        (record,) = [*(tmp_path / "o").glob(f"{name}.json")]
        assert json.loads(record.read_text())["model"]["lora"][0]["strength"] == 0.5
