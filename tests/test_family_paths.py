"""LTX-2 and Open-Sora Plan as their users meet them: bench, plan, batch, Ray and studio, with tiny
networks of random weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from studio_thread import serving
from test_hardware import missing
from tiny_families import story, write
from typer.testing import CliRunner

from syncos_jax import CoDenoising
from syncos_jax.bench.work import Case, vae_work
from syncos_jax.cli.app import app
from syncos_jax.media.video import load_video
from syncos_jax.pipeline.load import load_model

FAMILIES = ("ltx", "open_sora_plan")
pytestmark = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def folder(family, tmp_path, monkeypatch):
    """The model as ``model``, a scenario of 16 frames, and two of them for a batch."""
    write(tmp_path / "model", family)
    short = story("co_denoising")
    (tmp_path / "story.yaml").write_text(json.dumps(short))
    (tmp_path / "stories.jsonl").write_text(
        "\n".join([json.dumps({"name": n, **short}) for n in "ab"])
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNCOS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def syncos(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result


def test_decoding_is_measured_in_the_middle_of_a_video(family, folder):
    """The decoder of these looks ahead: it is given its place in the video and its own state."""
    case = Case(load_model(folder / "model"), 9, 2, (True,), CoDenoising(steps=2))
    work, geometry = vae_work(case), case.model.geometry
    program = work.lower().compile()
    pieces = [np.asarray(work.call(program)) for _ in range(2)]
    for piece in pieces:  # the state of the second is that of the first
        assert piece.shape == (geometry.temporal, geometry.height, geometry.width, 3)
        assert piece.std() > 0
    assert work.flops > 0


def test_a_plan(family, folder):
    windows, each = (4, 3) if family == "ltx" else (4, 2)
    said = syncos("plan", "story.yaml", "--model", "model").stdout
    assert f"4 network calls of {windows * each} samples" in said
    assert "FLOP per call" in said and "memory" in said


@pytest.mark.slow
def test_bench(family, folder):
    syncos(
        "bench",
        "--model",
        "model",
        "--frames",
        "9",
        "--steps",
        "2",
        "--repeat",
        "1",
        "--json",
        "b.json",
    )
    found = json.loads((folder / "b.json").read_text())
    assert {entry["what"] for entry in found["measurements"]} == {
        "unet",
        "vae",
        "text",
        "call",
        "video",
    }


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--ray", "--workers", "1")], ids=["plain", "ray"])
def test_a_batch(family, folder, options):
    if options:
        pytest.importorskip("ray")
    command = [sys.executable, "-c", "from syncos_jax.cli import main; main()", "batch"]
    command += ["stories.jsonl", "--model", "model", "--out", "videos", *options]
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in "ab":
        assert len(load_video(folder / "videos" / f"{name}.mp4").frames) == 16


@pytest.mark.slow
def test_the_studio(family, folder, monkeypatch):
    monkeypatch.setattr("studio_thread.patch", lambda row_seconds: None)  # the model itself
    with serving(folder / "studio", model=str(folder / "model")) as served:
        served.until_loaded()
        assert served.client.get("/v1/model").json()["name"] == f"tiny-{family.replace('_', '-')}"
        made = served.make(scenario=story("syncos"), takes=1)
        done = served.until(made["id"], "completed", "failed")
    assert done["status"] == "completed", done["error"]


@pytest.mark.slow
@pytest.mark.skipif(missing("libtpu"), reason="needs the TPU's compiler")
def test_a_plan_for_a_tpu(family, folder):
    said = syncos("plan", "story.yaml", "--model", "model", "--on", "v5e:8").stdout
    assert "fits" in said


@pytest.mark.slow
@pytest.mark.skipif(missing("jax_cuda12_plugin"), reason="needs the compiler for NVIDIA's GPUs")
def test_a_plan_for_gpus(family, folder):
    said = syncos("plan", "story.yaml", "--model", "model", "--on", "h100:8").stdout
    assert "fits" in said
