"""Files as other programs publish them: all networks in one, other endings, one of several shards,
8-bit integers of LightX2V, kijai's scaled float8, a LoRA in torch's own format."""

import numpy as np
import pytest
import torch
import weight_cases as cases

from syncos_jax import load_model
from syncos_jax.errors import InputError
from syncos_jax.models.weights import leaves
from syncos_jax.weights_convert.convert import convert
from syncos_jax.weights_convert.recognise import describe, describe_file
from syncos_jax.weights_convert.weight_files import open_file

LAYER = "blocks.0.self_attn.q"


@pytest.fixture(scope="module")
def own():
    return cases.own_transformer(cases.transformer())


def test_all_networks_in_one_file(own, tmp_path):
    """As the all-in-one checkpoints of ComfyUI have them."""
    text = cases.comfy_text(cases.text_encoder())
    packed = torch.frombuffer(bytearray(cases.spiece()), dtype=torch.uint8)
    vae = cases.own_vae(cases.autoencoder())
    tensors = {
        **{f"model.diffusion_model.{name}": value for name, value in own.items()},
        **{f"text_encoders.umt5xxl.transformer.{name}": value for name, value in text.items()},
        "text_encoders.umt5xxl.spiece_model": packed,
        **{f"vae.{name}": value for name, value in vae.items()},
    }
    path = cases.save(tensors, tmp_path / "wan-aio.safetensors")
    result = convert(path, tmp_path / "m")
    assert set(result.parameters) == {"transformer", "text_encoder", "vae"}
    assert not [w for w in result.warnings if "skipped" in w]
    model = load_model(tmp_path / "m")
    kernel = leaves(model.transformer)["blocks.0.attn1.to_q.kernel"]
    np.testing.assert_array_equal(kernel, own[f"{LAYER}.weight"].numpy().T)
    assert model.tokenizer(["cat"])[0][0, 1] == 1
    assert "with its tokenizer" in describe_file(path)


def test_other_endings(own, tmp_path):
    path = cases.save(own, tmp_path / "wan.sft")
    assert convert(path, tmp_path / "m", only="transformer").parameters["transformer"] > 0
    assert [name for name, _ in describe(tmp_path)] == ["wan.sft"]


def test_one_of_several_shards_is_named(own, tmp_path):
    path = cases.save(own, tmp_path / "diffusion_pytorch_model-00001-of-00006.safetensors")
    with pytest.raises(InputError, match="is one of several files of a network; give their folder"):
        convert(path, tmp_path / "m", only="transformer")


def test_int8_with_a_scale_of_each_channel(own, tmp_path):
    """LightX2V's: scales in bfloat16, ``[O, 1]``."""
    weight = own[f"{LAYER}.weight"]
    scale = (weight.abs().amax(1, keepdim=True) / 127).bfloat16()
    values = (weight / scale.float()).round().clamp(-127, 127).to(torch.int8)
    tensors = {**own, f"{LAYER}.weight": values, f"{LAYER}.weight_scale": scale}
    convert(cases.save(tensors, tmp_path / "a.safetensors"), tmp_path / "m", only="transformer")
    found = leaves(load_model(tmp_path / "m").transformer)["blocks.0.attn1.to_q.kernel"]
    np.testing.assert_array_equal(found, (values.float() * scale.float()).numpy().T)


def test_kijais_scaled_float8(own, tmp_path):
    """Scales of one value, marks of two, scales of what enters a layer."""
    tensors = cases.scaled(own)
    tensors = {
        key: value.reshape(1) if key.endswith("scale_weight") else value
        for key, value in tensors.items()
    }
    tensors["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    tensors[f"{LAYER}.scale_input"] = torch.ones(1)
    prefixed = {f"model.diffusion_model.{key}": value for key, value in tensors.items()}
    path = cases.save(prefixed, tmp_path / "a.safetensors")
    found = np.asarray(open_file(path)[f"model.diffusion_model.{LAYER}.weight"])
    want = tensors[f"{LAYER}.weight"].float() * tensors[f"{LAYER}.scale_weight"]
    np.testing.assert_array_equal(found, want.numpy())
    assert convert(path, tmp_path / "m", only="transformer").parameters["transformer"] > 0


def test_a_lora_in_torchs_own_format(own, tmp_path):
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(4, 128, generator=generator), torch.randn(128, 4, generator=generator)
    lora = {f"{LAYER}.lora_down.weight": down, f"{LAYER}.lora_up.weight": up}
    torch.save({"state_dict": lora, "epoch": 3}, tmp_path / "lora.pt")
    path = cases.save(own, tmp_path / "a.safetensors")
    given = [f"{tmp_path / 'lora.pt'}:0.5"]
    convert(path, tmp_path / "m", only="transformer", lora=given)
    found = leaves(load_model(tmp_path / "m").transformer)["blocks.0.attn1.to_q.kernel"]
    want = own[f"{LAYER}.weight"] + 0.5 * up @ down
    np.testing.assert_allclose(found, want.numpy().T, rtol=0, atol=1e-6)


def test_a_lora_without_layers_and_one_of_rank_zero_are_refused(own, tmp_path):
    path = cases.save(own, tmp_path / "a.safetensors")
    empty = cases.save({"other": torch.zeros(1)}, tmp_path / "empty.safetensors")
    zero = {f"{LAYER}.lora_down.weight": torch.zeros(0, 128)}
    zero[f"{LAYER}.lora_up.weight"] = torch.zeros(128, 0)
    none = cases.save(zero, tmp_path / "zero.safetensors")
    for lora in (empty, none):
        with pytest.raises(InputError) as caught:
            convert(path, tmp_path / "m", only="transformer", lora=[str(lora)])
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()
