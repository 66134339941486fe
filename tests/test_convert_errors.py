"""What ``syncos convert`` refuses: one line, exit code 2, nothing left behind."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import DATA, save_ckpt, save_safetensors, syncos, weights

from syncos_jax.pipeline.load import load_model

CONFIG = DATA / "openclip_text_tiny.json"
OPTIONS = ("--config", CONFIG, "--only", "text_encoder")
PREFIX = "cond_stage_model.model."


@pytest.fixture
def state():
    """The smallest network of the fixtures."""
    return weights("openclip_text_tiny")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(source, *messages, options=OPTIONS, out="out"):
    before = sorted(str(path) for path in Path().rglob("*"))
    result = syncos("convert", source, "--out", out, *options)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and result.stderr.splitlines()[-1] == lines[0]
    for message in messages:
        assert message in lines[0], lines[0]
    assert sorted(str(path) for path in Path().rglob("*")) == before
    return lines[0]


@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors"])
def test_truncated(state, name):
    save = save_ckpt if name.endswith("ckpt") else save_safetensors
    size = save(Path(name), state).stat().st_size
    os.truncate(name, size * 2 // 3)
    refused(name, f"{name}: ", "truncated")


def test_missing_extra_misshaped_and_double_tensors_are_all_named(state):
    state["cond_stage_model.model.ln_final.weights"] = np.zeros(3, np.float32)
    state["stray"] = np.zeros(3, np.float32)
    del state[f"{PREFIX}transformer.resblocks.1.attn.in_proj_weight"]
    key = f"{PREFIX}transformer.resblocks.0.mlp.c_fc.weight"
    state[key] = state[key][:-1]
    refused(
        save_ckpt("a.ckpt", state),
        "4 tensors do not fit the network",
        "unknown stray",
        "unknown ln_final.weights",
        "misshaped transformer.resblocks.0.mlp.c_fc.weight: (255, 64)",
        "missing transformer.resblocks.1.attn.in_proj_weight",
    )


def test_missing_tensor(state):
    del state[f"{PREFIX}ln_final.bias"]
    refused(save_ckpt("a.ckpt", state), "1 tensor does not fit", "missing ln_final.bias")


def test_extra_tensor(state):
    state[f"{PREFIX}visual.proj"] = np.zeros((2, 2), np.float32)
    refused(save_ckpt("a.ckpt", state), "1 tensor does not fit", "unknown visual.proj")


def test_wrong_shape(state):
    key = f"{PREFIX}positional_embedding"
    state[key] = state[key].T
    refused(
        save_ckpt("a.ckpt", state),
        "misshaped positional_embedding: (64, 77), that is (64, 77) in our layout, the network has "
        "(77, 64)",
    )


def test_other_sizes_than_configured(state):
    message = refused(save_ckpt("a.ckpt", state), options=("--only", "text_encoder"))
    assert "misshaped token_embedding.weight: (512, 64)" in message
    assert message.endswith("VideoCrafter2's published sizes were assumed; pass --config FILE")


def test_nan_is_a_warning_with_the_name(state):
    state[f"{PREFIX}ln_final.bias"][3] = np.nan
    result = syncos("convert", save_ckpt("a.ckpt", state), "--out", "out", *OPTIONS)
    assert result.exit_code == 0, result.output
    warning = "warning: text_encoder: 1 of 64 values are NaN or infinite in ln_final.bias"
    assert warning in result.stderr.splitlines()
    bias = load_model("out").text_encoder.final_layer_norm.bias
    assert np.isnan(bias[...]).sum() == 1


def test_what_overflows_in_another_type_is_a_warning(state):
    state[f"{PREFIX}ln_final.bias"][:2] = 1e6
    source = save_ckpt("a.ckpt", state)
    result = syncos("convert", source, "--out", "out", *OPTIONS, "--dtype", "float16")
    assert result.exit_code == 0
    assert "2 of 64 values are NaN or infinite in ln_final.bias" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 and nothing", "damaged or truncated"),
        (b"\x89PNG\r\n\x1a\n", "neither a safetensors file nor a torch checkpoint"),
        (b"", "is empty"),
    ],
)
def test_wrong_format(content, message):
    Path("a.ckpt").write_bytes(content)
    refused("a.ckpt", "a.ckpt: ", message)


def test_a_pickle_that_would_run_code():
    class Evil:
        def __reduce__(self):
            return os.system, ("touch executed",)

    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Evil()}, "a.ckpt")
    refused("a.ckpt", "refused, because its pickle names posix.system, which could run code")
    assert not Path("executed").exists()


def test_formats_that_are_forced(state):
    source = save_ckpt("a.ckpt", state)
    refused(source, "is a file; give the folder", options=("--format", "diffusers"))
    Path("folder").mkdir()
    refused("folder", "folder/unet/config.json: missing", options=("--format", "diffusers"))
    refused("folder", "neither a folder of diffusers'", options=())
    refused("none.ckpt", "none.ckpt: no such file or folder")
    refused("folder/none", "and the hub could not give it", options=())


def test_networks_that_are_not_there(state):
    source = save_ckpt("a.ckpt", state)
    refused(source, "holds only text_encoder, no tensors of unet, vae", options=())
    refused(source, "has no tensors of the vae, but of text_encoder", options=("--only", "vae"))
    bare = {key.removeprefix(PREFIX): value for key, value in state.items()}
    refused(save_ckpt("b.ckpt", bare), "no tensor name starts with", "--only unet", options=())


def test_a_file_without_prefixes(state):
    bare = {key.removeprefix(PREFIX): value for key, value in state.items()}
    result = syncos("convert", save_safetensors("b.safetensors", bare), "--out", "out", *OPTIONS)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("text", ["unet_config: [", "a: 1", "{}"])
def test_bad_configurations(state, text):
    Path("c.yaml").write_text(text)
    refused(save_ckpt("a.ckpt", state), options=("--config", "c.yaml", "--only", "text_encoder"))
    missing = ("--config", "none.yaml", "--only", "text_encoder")
    refused("a.ckpt", "none.yaml: no such file", options=missing)


def test_a_folder_that_is_there_is_kept(state):
    source = save_ckpt("a.ckpt", state)
    Path("out").mkdir()
    Path("out/mine.txt").write_text("precious")
    refused(source, "--out: exists and is not empty, got 'out'; pass --force to replace it")
    refused("a.ckpt", "--out: exists and is not a folder, got 'a.ckpt'", out="a.ckpt")
    os.truncate("a.ckpt", 5000)
    refused(source, "damaged or truncated", options=(*OPTIONS, "--force"))
    assert Path("out/mine.txt").read_text() == "precious"
    result = syncos("convert", save_ckpt("a.ckpt", state), "--out", "out", *OPTIONS, "--force")
    assert result.exit_code == 0 and not Path("out/mine.txt").exists()
    assert sorted(path.name for path in Path().iterdir()) == ["a.ckpt", "out"]


def test_an_empty_folder_and_new_parents(state):
    source = save_ckpt("a.ckpt", state)
    Path("out").mkdir()
    assert syncos("convert", source, "--out", "out", *OPTIONS).exit_code == 0
    assert syncos("convert", source, "--out", "new/models/text", *OPTIONS).exit_code == 0
    assert sorted(p.name for p in Path("new/models").iterdir()) == ["text"]
    del state[f"{PREFIX}ln_final.bias"]
    refused(save_ckpt("a.ckpt", state), "missing", out="other/new/text")


def test_an_unwritable_folder(state, monkeypatch):
    def denied(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", "locked")

    source = save_ckpt("a.ckpt", state)
    with monkeypatch.context() as patched:
        patched.setattr("tempfile.mkdtemp", denied)
        refused(source, "cannot write locked/out: Permission denied", out="locked/out")
    refused(source, "cannot write a.ckpt/out: ", out="a.ckpt/out")
    refused(source, "cannot write /proc/out: ", out="/proc/out")


def test_no_space_is_found_before_the_work(state, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
    refused(save_ckpt("a.ckpt", state), "needs 0.00 GiB, only 0.00 are free")


def test_a_disk_that_gets_full(state, monkeypatch):
    def full(*_args, **_kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing x: No space left on device [a=b]")

    monkeypatch.setattr("orbax.checkpoint.Checkpointer.save", full)
    refused(save_ckpt("a.ckpt", state), "No space left on device")


COMMAND = [sys.executable, "-c", "from syncos_jax.cli import main; main()", "convert", "a.ckpt"]
COMMAND += ["--out", "out", *map(str, OPTIONS)]


def test_a_real_limit_on_what_can_be_written(state):
    """No file may grow over 100 kB: the weights cannot be written, in a process of its own."""

    save_ckpt("a.ckpt", state)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    command = [COMMAND[0], "-c", limit + COMMAND[2], *COMMAND[3:]]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2, run.stderr
    assert run.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in run.stderr
    assert "File too large" in run.stderr.splitlines()[-1]
    assert sorted(path.name for path in Path().iterdir()) == ["a.ckpt"]


SLOW = """
import sys, time
from syncos_jax.models import saved
from syncos_jax.models.unet_clip.config import ModelConfig
def write(*_):
    print("writing", flush=True)
    time.sleep(60)
saved.write_network = write
from syncos_jax.cli import main
main()
"""


def test_ctrl_c_leaves_nothing(state):
    save_ckpt("a.ckpt", state)
    command = [COMMAND[0], "-c", SLOW, *COMMAND[3:]]
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite that a shell runs in the background has SIGINT ignored, and so its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert run.stdout.readline() == "writing\n"
    begin = time.perf_counter()
    run.send_signal(signal.SIGINT)
    errors = run.communicate(timeout=60)[1]
    assert run.returncode == 130 and time.perf_counter() - begin < 20, errors
    assert "Traceback" not in errors
    assert sorted(path.name for path in Path().iterdir()) == ["a.ckpt"]


def test_damaged_models_are_refused_when_loaded(state):
    assert syncos("convert", save_ckpt("a.ckpt", state), "--out", "out", *OPTIONS).exit_code == 0
    path = Path("out/config.json")
    whole = path.read_text()
    values = json.loads(whole)

    def refused_info(message):
        result = syncos("info", "out")
        assert result.exit_code == 2 and message in result.stderr, result.stderr
        assert result.stderr.count("\n") == 1

    path.write_text(whole[:100])
    refused_info("not readable as JSON")
    path.write_text(json.dumps({**values, "version": 99}))
    refused_info("has version 99, but this package reads 1")
    path.write_text(json.dumps({**values, "format": "other"}))
    refused_info("not the config.json of a converted model")
    path.write_text(json.dumps({**values, "wings": 2}))
    refused_info("unknown wings")
    path.write_text(json.dumps({**values, "text": {**values["text"], "layers": 3}}))
    refused_info("missing layers.2.layer_norm1.bias")
    path.write_text(json.dumps({**values, "text": {**values["text"], "inner": 128}}))
    refused_info("misshaped layers.0.mlp.fc1.kernel: (64, 256), expected (64, 128)")
    path.write_text(whole)
    assert syncos("info", "out").exit_code == 0
    for data in Path("out/text_encoder").rglob("*"):
        if data.is_file() and data.parent.name == "d":
            data.write_bytes(data.read_bytes()[:100])
    refused_info("not a readable Orbax checkpoint")
    shutil.rmtree("out/text_encoder")
    refused_info("has no weights of its text_encoder")


def test_a_part_that_was_not_converted_is_said(state):
    syncos("convert", save_ckpt("a.ckpt", state), "--out", "out", *OPTIONS)
    model = load_model("out")
    assert not hasattr(model, "unet") and hasattr(model, "text_encoder")
    result = syncos("info", "out", "--verbose")
    rows = [line.split()[0] for line in result.stdout.splitlines()]
    assert result.exit_code == 0 and {"text_encoder", "total"} <= set(rows)
    assert not {"unet", "vae"} & set(rows)
    shown = [line.split() for line in syncos("info", "out").stdout.splitlines()]
    assert ["networks", "text_encoder"] in shown
    Path("story.yaml").write_text("global: a\nevents: [{prompt: b, seconds: 9}]\n")
    result = syncos("generate", "story.yaml", "--model", "out", "--out", "a.mp4")
    assert result.exit_code == 2
    assert "has no unet: it was converted with only its text_encoder" in result.stderr


def test_names_of_the_networks():
    from syncos_jax.models.unet_clip.config import ModelConfig

    assert ModelConfig.networks == ("unet", "vae", "text_encoder")
