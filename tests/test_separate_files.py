"""A model from a file for each network, as ComfyUI's users have them."""

import json

import numpy as np
import pytest
import torch
import weight_cases as cases

from syncos_jax import load_model
from syncos_jax.errors import InputError
from syncos_jax.weights_convert.convert import convert

FRAMES, TIME = (1, 16, 2, 4, 4), 700.0


def relative(found, wanted):
    wanted = np.asarray(wanted)
    return float(np.abs(np.asarray(found) - wanted).max() / np.abs(wanted).max())


def check(model, channels=16, seed=0, name="transformer"):
    """The transformer computes what diffusers' does."""
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(1, channels, 2, 4, 4, generator=generator)
    text = torch.randn(1, 5, 32, generator=generator)
    with torch.no_grad():
        want = cases.transformer(seed, channels)(x, torch.tensor([TIME]), text).sample
    network = getattr(model, name)
    found = network(np.moveaxis(x.numpy(), 1, -1), np.asarray([TIME], np.float32), np.asarray(text))
    assert relative(np.moveaxis(np.asarray(found), -1, 1), want) < 1e-5


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """ComfyUI's models folder."""
    folder = tmp_path_factory.mktemp("comfy") / "models"
    own = cases.own_transformer(cases.transformer(), "model.diffusion_model.")
    cases.save(own, folder / "diffusion_models" / "wan2.1_t2v_1.3B_fp32.safetensors")
    text = cases.comfy_text(cases.text_encoder())
    text["spiece_model"] = torch.frombuffer(bytearray(cases.spiece()), dtype=torch.uint8)
    cases.save(text, folder / "text_encoders" / "umt5_xxl_fp32.safetensors")
    cases.save(cases.own_vae(cases.autoencoder()), folder / "vae" / "wan_2.1_vae.safetensors")
    lora = {"diffusion_model.blocks.0.self_attn.q.lora_down.weight": torch.zeros(2, 128)}
    cases.save(lora, folder / "loras" / "style.safetensors")
    return folder


def files(tree):
    return {
        "transformer": tree / "diffusion_models" / "wan2.1_t2v_1.3B_fp32.safetensors",
        "text_encoder": tree / "text_encoders" / "umt5_xxl_fp32.safetensors",
        "vae": tree / "vae" / "wan_2.1_vae.safetensors",
    }


@pytest.mark.parametrize("how", ["files", "tree"])
def test_three_files_are_a_model_with_the_packed_tokenizer(tree, tmp_path, how):
    if how == "files":
        convert(None, tmp_path / "m", files=files(tree))
    else:
        convert(tree, tmp_path / "m")
    model = load_model(str(tmp_path / "m"))
    check(model)
    ids, mask = model.tokenizer(["a cat sleeps", "rain"])
    assert ids[:, :4].tolist() == [[3, 4, 7, 1], [12, 1, 0, 0]]
    assert mask.sum(axis=1).tolist() == [4, 2]
    module = cases.text_encoder()
    with torch.no_grad():
        want = module(torch.from_numpy(ids).long(), torch.from_numpy(mask)).last_hidden_state
    text = np.asarray(model.encode_prompts(["a cat sleeps", "rain"])["text"])
    np.testing.assert_allclose(text[0, :4], want.numpy()[0, :4], rtol=0, atol=1e-5)
    assert not text[0, 4:].any()
    latents = np.random.default_rng(0).normal(size=(1, 2, 4, 4, 16)).astype(np.float32)
    with torch.no_grad():
        frames = cases.autoencoder().decode(torch.from_numpy(np.moveaxis(latents, -1, 1))).sample
    found = np.moveaxis(np.asarray(model.vae.decode(latents)), -1, 1)
    assert relative(found, frames) < 1e-5


def test_the_command(tree, tmp_path):
    from typer.testing import CliRunner

    from syncos_jax.cli.app import app

    options = [f"--{name.replace('_', '-')}={path}" for name, path in files(tree).items()]
    result = CliRunner().invoke(app, ["convert", *options, "--out", str(tmp_path / "m")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "m" / "tokenizer" / "tokenizer.json").is_file()
    del options[2]
    result = CliRunner().invoke(app, ["convert", *options, "--out", str(tmp_path / "n")])
    assert result.exit_code == 2 and not (tmp_path / "n").exists()
    assert "--vae: is missing" in result.output.replace("\n", "")


def test_what_is_not_clear_is_asked_for(tree, tmp_path):
    import shutil

    copy = tmp_path / "models"
    shutil.copytree(tree, copy)
    vae = copy / "vae" / "wan_2.1_vae.safetensors"
    shutil.copy(vae, vae.with_name("other.safetensors"))
    with pytest.raises(InputError, match="several files of a vae: vae/other.safetensors, .*vae="):
        convert(copy, tmp_path / "m")
    convert(copy, tmp_path / "m", files={"vae": vae})
    check(load_model(str(tmp_path / "m")))
    text = cases.comfy_text(cases.text_encoder())
    text["spiece_model"] = torch.zeros(99, dtype=torch.uint8)
    path = cases.save(text, copy / "text_encoders" / "umt5_xxl_fp32.safetensors")
    given = {**files(copy), "vae": vae}
    with pytest.raises(InputError, match=r"spiece_model\) cannot be read; .*tokenizer="):
        convert(None, tmp_path / "n", files=given)
    folder = cases.tokenizer_folder(tmp_path / "tokenizer")
    convert(None, tmp_path / "n", files=given, tokenizer=str(folder))
    with pytest.raises(InputError, match="holds no vae, but: UMT5 encoder"):
        convert(None, tmp_path / "o", files={**given, "vae": path})


def test_two_experts_are_told_apart_and_sampled_as_published(tree, tmp_path):
    for seed, name in enumerate(("wan2.2_t2v_high_noise_14B", "wan2.2_t2v_low_noise_14B")):
        tensors = cases.own_transformer(cases.transformer(seed))
        cases.save(tensors, tmp_path / "models" / "diffusion_models" / f"{name}.safetensors")
    rest = {name: path for name, path in files(tree).items() if name != "transformer"}
    convert(tmp_path / "models", tmp_path / "m", files=rest)
    model = load_model(str(tmp_path / "m"))
    check(model)
    check(model, seed=1, name="transformer_2")
    assert model.config.boundary == 0.875 and model.config.steps == 40
    assert (model.config.guidance, model.config.guidance_2) == (4.0, 3.0)
    assert model.config.schedule["shift"] == 12.0


def test_wan_22_ti2v_as_wan_publishes_it(tmp_path):
    """`wan/configs/wan_ti2v_5B.py` and `wan/modules/vae2_2.py` of Wan 2.2's repository."""
    folder = cases.own_folder(tmp_path / "Wan2.2-TI2V-5B", channels=48, vae22=True)
    convert(folder, tmp_path / "m")
    model = load_model(str(tmp_path / "m"))
    check(model, channels=48)
    config = model.config
    assert (config.height, config.width, config.fps) == (704, 1280, 24)
    assert model.geometry.frames(config.window) == 121
    assert (config.steps, config.guidance, config.schedule["shift"]) == (50, 5.0, 5.0)
    assert config.vae.latents_mean[:2] == (-0.2289, -0.0052)
    assert config.vae.latents_std[-1] == 0.7744
    z = np.random.default_rng(0).normal(size=(1, 2, 2, 2, 48)).astype(np.float32)
    with torch.no_grad():
        want = cases.autoencoder_22().decode(torch.from_numpy(np.moveaxis(z, -1, 1))).sample
    assert relative(np.moveaxis(np.asarray(model.vae.decode(z)), -1, 1), want) < 1e-5


def test_an_image_to_video_pair_has_its_own_defaults():
    """`wan/configs/wan_i2v_A14B.py`: shift 5, 40 steps, guidance 3.5 and 3.5, boundary .900."""
    from syncos_jax.models.wan.config import WanTransformerConfig, WanVAEConfig
    from syncos_jax.weights_convert.wan import published

    found = published(WanTransformerConfig(in_channels=36), WanVAEConfig(), two=True)
    assert found["schedule"]["shift"] == 5.0 and found["boundary"] == 0.9
    assert (found["steps"], found["guidance"], found["guidance_2"]) == (40, 3.5, 3.5)
    assert published(WanTransformerConfig(), WanVAEConfig(), two=False) == {}


def test_a_decoder_that_enlarges_is_refused(tmp_path):
    tensors = cases.own_vae(cases.autoencoder())
    width = tensors["decoder.head.2.weight"].shape[1:]
    tensors["decoder.head.2.weight"] = torch.zeros(12, *width)
    tensors["decoder.head.2.bias"] = torch.zeros(12)
    path = cases.save(tensors, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="decoder gives 12 channels, its encoder takes 3"):
        convert(path, tmp_path / "m", only="vae")


@pytest.mark.parametrize(
    ("content", "options", "seed"),
    [
        ({"generator_ema": ("model.", 0)}, {}, 0),
        (
            {"generator": ("model._fsdp_wrapped_module.", 0), "critic": ("", 1)},
            {"key": "generator"},
            0,
        ),
        ({"generator": ("model.", 0), "generator_ema": ("model.", 1)}, {"ema": True}, 1),
        ({"": ("module.", 0)}, {}, 0),
    ],
)
@pytest.mark.parametrize("format", [None, "wan"])
def test_sets_and_prefixes_of_trainers(tmp_path, content, options, seed, format):
    sets = {k: cases.own_transformer(cases.transformer(s), p) for k, (p, s) in content.items()}
    torch.save(sets.get("", sets), tmp_path / "model.pt")
    convert(tmp_path / "model.pt", tmp_path / "m", only="transformer", format=format, **options)
    check(load_model(str(tmp_path / "m")), seed=seed)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "holds several sets of weights: generator, generator_ema; .*key=generator"),
        ({"key": "teacher"}, "key: .* has no weights under that name .*, got .teacher"),
        ({"key": "generator"}, None),
        ({"ema": True}, None),
    ],
)
def test_sets_of_a_safetensors_file(tmp_path, options, said):
    tensors = cases.own_transformer(cases.transformer(0), "generator.")
    tensors |= cases.own_transformer(cases.transformer(1), "generator_ema.")
    path = cases.save(tensors, tmp_path / "a.safetensors")
    if said is not None:
        with pytest.raises(InputError, match=said):
            convert(path, tmp_path / "m", only="transformer", **options)
        return
    convert(path, tmp_path / "m", only="transformer", **options)
    check(load_model(str(tmp_path / "m")), seed=int("ema" in options))


def test_an_average_that_is_not_there_is_refused(tmp_path):
    path = cases.save(cases.own_transformer(cases.transformer()), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="has no averaged weights"):
        convert(path, tmp_path / "m", only="transformer", ema=True)


def test_a_comfy_file_in_the_place_of_diffusers(tmp_path, tree):
    """One file of any name and layout in ``transformer/`` of a folder in diffusers' layout."""
    folder = tmp_path / "transformer"
    cases.transformer().save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["_class_name"]
    for path in folder.glob("*.safetensors"):
        path.unlink()
    cases.save(cases.own_transformer(cases.transformer()), folder / "wan_any.safetensors")
    convert(folder, tmp_path / "m", only="transformer")
    check(load_model(str(tmp_path / "m")))
