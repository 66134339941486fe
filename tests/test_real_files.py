"""Weights as people save them: wrappings, prefixes, copies, things beside them, folders near."""

import argparse
import datetime
import enum
import json
import os
import pathlib
import types

import numpy as np
import pytest
import torch

from syncos_jax.errors import InputError
from syncos_jax.pipeline.load import load_model
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.weights_convert import lvdm
from syncos_jax.weights_convert.diffusers_config import clip_defaults, schedule_settings
from syncos_jax.weights_convert.meant import how_to_convert
from syncos_jax.weights_convert.sources import open_source
from syncos_jax.weights_convert.state_dict import Choice, unwrapped
from syncos_jax.weights_convert.weight_files import open_file

NAMES = ("conv_in.weight", "conv_in.bias", "mid_block.resnets.0.conv1.weight")


def known(name):
    return name in NAMES


def state(prefix="", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {prefix + name: torch.randn(2, 3, generator=generator) for name in NAMES}


def read(path, content, **choice):
    torch.save(content, path)
    chosen = Choice(**choice)
    return unwrapped(open_file(path, chosen), known, str(path), chosen)[0]


def is_state(found, seed=0):
    assert set(found) == set(NAMES)
    for name, tensor in state(seed=seed).items():
        np.testing.assert_array_equal(np.asarray(found[name]), tensor.numpy())


PREFIXES = ["module.", "_orig_mod.", "unet.", "model.", "module._orig_mod.", "pipe.unet.module."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_of_all_names_is_taken_off(tmp_path, prefix):
    is_state(read(tmp_path / "a.bin", state(prefix)))


def test_wrappers_within_names(tmp_path):
    content = {k.replace("mid_block.", "mid_block._orig_mod."): v for k, v in state().items()}
    is_state(read(tmp_path / "a.bin", content))


KEYS = ["model", "state_dict", "model_state_dict", "net", "weights", "unet", "module"]


@pytest.mark.parametrize("key", KEYS)
def test_the_only_set_of_weights_is_found_under_any_key(tmp_path, key):
    moments = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}
    content = {key: state("module."), "optimizer": moments, "step": 3, "rng_state": torch.ones(4)}
    is_state(read(tmp_path / "a.pt", content))


def test_of_a_model_and_its_average_the_user_says_which(tmp_path):
    content = {"model": state(), "ema_state_dict": state(seed=1), "epoch": 2}
    with pytest.raises(InputError, match=r"model \(3 tensors\), ema_state_dict .* `key=model`$"):
        read(tmp_path / "a.pt", content)
    is_state(read(tmp_path / "a.pt", content, key="model"))
    is_state(read(tmp_path / "a.pt", content, key="ema_state_dict"), seed=1)
    is_state(read(tmp_path / "a.pt", content, averaged=True), seed=1)


def test_of_two_prefixes_the_user_says_which(tmp_path):
    content = {**state("online."), **state("ema_model.", seed=1)}
    with pytest.raises(InputError, match="under online, ema_model; .* `key=online`"):
        read(tmp_path / "a.pt", content)
    is_state(read(tmp_path / "a.pt", content, key="online"))
    is_state(read(tmp_path / "a.pt", content, averaged=True), seed=1)


def test_a_network_out_of_a_whole_pipeline(tmp_path):
    content = {**state("unet."), "vae.encoder.conv_in.weight": torch.zeros(3)}
    is_state(read(tmp_path / "a.pt", content, network="unet"))
    nested = {"unet": state(), "vae": {"encoder.conv_in.weight": torch.zeros(3)}}
    is_state(read(tmp_path / "a.pt", nested, network="unet"))


class Colour(enum.Enum):
    RED = "red"


class Settings:
    def __init__(self):
        self.rate, self.kind = 1e-4, torch.float16


HARMLESS = {
    "arguments": argparse.Namespace(lr=1e-4),
    "path": pathlib.PurePosixPath("/data"),
    "dtype": torch.float16,
    "date": datetime.datetime(2023, 1, 1, tzinfo=datetime.UTC),
    "span": datetime.timedelta(seconds=3),
    "settings of one's own": Settings(),
    "a class": Settings,
    "a function": np.mean,
    "numpy": np.float64(3.5),
    "array": np.arange(3),
    "namespace": types.SimpleNamespace(a=1),
    "device": torch.device("cpu"),
    "complex": 1j,
}


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_things_beside_the_weights(tmp_path, name, zipped):
    content = {"state_dict": state(), "beside": HARMLESS[name]}
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped)
    is_state(open_file(tmp_path / "a.ckpt"))


class Called:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.mkdir, os.system, exec, __import__, np.load, np.mean])
def test_what_a_pickle_would_call_is_refused(tmp_path, monkeypatch, function):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state(), "beside": Called(function, "made")}, "a.ckpt")
    with pytest.raises(InputError, match="which could run code"):
        open_file(tmp_path / "a.ckpt")
    assert os.listdir() == ["a.ckpt"]


def test_a_lora_is_named_with_the_remedy(tmp_path):
    content = {"to_q.base_layer.weight": torch.zeros(2)}
    content |= {"to_q.lora_A.default.weight": torch.ones(2)}
    with pytest.raises(InputError, match=r"LoRA that is not merged .*to_q.*fuse_lora"):
        read(tmp_path / "a.pt", {**state(), **content})
    with pytest.raises(InputError, match="is a LoRA, a change to a network"):
        read(tmp_path / "a.pt", {"unet.to_q.lora_A.weight": torch.ones(2)})


def test_averaged_copies_of_lvdm(tmp_path):
    unet = "model.diffusion_model."
    content = {f"{unet}time_embed.0.weight": torch.zeros(2)}
    content |= {"model_ema.diffusion_modeltime_embed0weight": torch.ones(2)}
    content |= {"model_ema.decay": torch.zeros(()), "model_ema.num_updates": torch.zeros(())}
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": content}, path)
    left = lvdm.open_checkpoint(path, [], Choice(network="unet"), "a")
    assert not left.problems and "1 averaged weights" in left.warnings[0]
    taken = lvdm.open_checkpoint(path, [], Choice(network="unet", averaged=True), "a")
    assert np.asarray(left.parts["unet"].tensors["time_embed.0.weight"]).tolist() == [0, 0]
    assert np.asarray(taken.parts["unet"].tensors["time_embed.0.weight"]).tolist() == [1, 1]


def opened(path, **choice):
    return open_source(str(path), None, [], Choice(**choice), name="a")


def test_files_of_modelscope_are_named(tmp_path):
    (tmp_path / "configuration.json").write_text("{}")
    for name in ("text2video_pytorch_model.pth", "VQGAN_autoencoder.pth"):
        torch.save(state(), tmp_path / name)
    for path in (tmp_path, tmp_path / "text2video_pytorch_model.pth"):
        with pytest.raises(InputError, match="give damo-vilab/text-to-video-ms-1.7b"):
            opened(path)


@pytest.fixture
def pipeline_folder():
    from importlib.resources import files

    return pathlib.Path(str(files("syncos_jax"))) / "demo" / "model"


def test_folders_above_and_below(tmp_path, pipeline_folder):
    cache = tmp_path / "models--owner--name"
    (cache / "snapshots").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc\n")
    (cache / "snapshots" / "abc").symlink_to(pipeline_folder)
    (cache / "snapshots" / "older").symlink_to(pipeline_folder)
    assert opened(cache).warnings[0] == f"took {cache}/snapshots/abc"
    with pytest.raises(InputError, match="several models: abc, older; give one"):
        opened(cache / "snapshots")
    (tmp_path / "zip").mkdir()
    (tmp_path / "zip" / "inner").symlink_to(pipeline_folder)
    assert opened(tmp_path / "zip").warnings[0].endswith("zip/inner")
    assert opened(pipeline_folder / "model_index.json").config.name == "demo"
    unet = pipeline_folder / "unet"
    for path in (unet, unet / "diffusion_pytorch_model.safetensors"):
        with pytest.raises(InputError, match=r"model for the whole model, or .*`only=unet`"):
            opened(path)
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="is an archive; unpack it"):
        opened(tmp_path / "a.zip")


def test_a_source_given_as_a_model(tmp_path):
    assert "owner/name: no such folder" in how_to_convert("owner/name")
    path = tmp_path / "a.ckpt"
    path.touch()
    with pytest.raises(InputError, match="is a checkpoint, convert it first"):
        load_model(path)
    with pytest.raises(InputError, match="convert it first"):
        load_model("owner/name")


def test_size_and_length_of_clips(tmp_path):
    from syncos_jax.models.unet_clip.vae import VAEConfig

    vae = VAEConfig(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4)
    sizes, said = clip_defaults({"sample_size": [40, 72]}, vae, ["mine"])
    assert sizes == {"height": 320, "width": 576} and "window=N" in said[0]
    assert clip_defaults({"sample_size": 32}, vae, [])[0] == {"height": 256, "width": 256}
    known = clip_defaults({"sample_size": 32}, vae, ["cerspense/zeroscope_v2_576w"])[0]
    assert known == {"window": 24, "stride": 6, "height": 320, "width": 576}
    with pytest.raises(InputError, match="sample_size is"):
        clip_defaults({"sample_size": "32"}, vae, [])


DDIM = {"_class_name": "DDIMScheduler", "clip_sample": False}


def test_schedulers():
    assert schedule_settings(DDIM)[1] == []
    settings, said = schedule_settings({"_class_name": "HeunDiscreteScheduler"})
    assert "HeunDiscreteScheduler" in said[0] and "DDIM" in said[0]
    assert len(NoiseSchedule.from_betas(**settings).steps(30).t) == 30
    for change, message in [
        ({"clip_sample": True}, "clip_sample is True"),
        ({"thresholding": True}, "thresholding is True"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "flow-matching"),
        ({"_class_name": "LCMScheduler"}, "distilled"),
        ({"_class_name": "NewScheduler"}, "NewScheduler cannot be sampled"),
        ({"prediction_type": "flow_prediction"}, "prediction_type"),
        ({"rescale_betas_zero_snr": True}, "zero terminal SNR"),
        ({"beta_start": "x"}, "beta_start is 'x'"),
        ({"num_train_timesteps": 0}, "scheduler_config.json"),
    ]:
        with pytest.raises(InputError, match=message):
            schedule_settings({**DDIM, **change})
    with pytest.raises(InputError, match="clip_sample is True"):
        schedule_settings(json.loads('{"_class_name": "DDIMScheduler"}'))
