"""Weights in 8 bits and fewer: fp8 with and without scales, GGUF, and LoRAs merged into them."""

import gguf
import ml_dtypes
import numpy as np
import pytest
import torch
import weight_cases as cases
from safetensors.torch import save_file

from syncos_jax import load_model
from syncos_jax.errors import InputError
from syncos_jax.models.weights import leaves
from syncos_jax.weights_convert.convert import convert
from syncos_jax.weights_convert.weight_files import open_file

F8 = torch.float8_e4m3fn
LAYER = "blocks.0.self_attn.q"
OURS = "blocks.0.attn1.to_q.kernel"


@pytest.fixture(scope="module")
def own():
    return cases.own_transformer(cases.transformer())


def converted(path, out, **options):
    convert(path, out, only="transformer", **options)
    return leaves(load_model(str(out)).transformer)


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("name", ["scale_weight", "weight_scale"])
def test_scaled_fp8_is_torchs_product_bit_for_bit(own, tmp_path, name, channels):
    tensors = cases.scaled(own, name, channels)
    found = converted(cases.save(tensors, tmp_path / "a.safetensors"), tmp_path / "m")
    want = tensors[f"{LAYER}.weight"].float() * tensors[f"{LAYER}.{name}"]
    np.testing.assert_array_equal(found[OURS], want.numpy().T)
    assert not np.array_equal(found[OURS], own[f"{LAYER}.weight"].numpy().T)


def test_a_scale_of_a_row_vector_and_formats_that_are_said(own, tmp_path):
    tensors = cases.scaled(own, "weight_scale", channels=True)
    key = f"{LAYER}.weight_scale"
    tensors[key] = tensors[key].reshape(-1)
    said = b'{"format": "float8_e4m3fn"}'
    tensors[f"{LAYER}.comfy_quant"] = torch.frombuffer(bytearray(said), dtype=torch.uint8)
    path = cases.save(tensors, tmp_path / "a.safetensors")
    values = np.asarray(open_file(path)[f"{LAYER}.weight"])
    want = tensors[f"{LAYER}.weight"].float() * tensors[key][:, None]
    np.testing.assert_array_equal(values, want.numpy())
    said = b'{"format": "nvfp4"}'
    tensors[f"{LAYER}.comfy_quant"] = torch.frombuffer(bytearray(said), dtype=torch.uint8)
    with pytest.raises(InputError, match="quantised as nvfp4, which is not supported"):
        open_file(cases.save(tensors, tmp_path / "b.safetensors"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{LAYER}.weight"), "which is missing"),
        (lambda t: t.update({f"{LAYER}.scale_weight": torch.ones(3)}), "one per output channel"),
        (lambda t: t.update({f"{LAYER}.scale_weight": torch.ones(1, dtype=torch.int32)}), "int32"),
        (lambda t: t.update({f"{LAYER}.scale_weight": torch.ones(1).to(F8)}), "float8_e4m3fn"),
        (lambda t: t.update({f"{LAYER}.weight": t[f"{LAYER}.weight"].float()}), "other than 1"),
        (lambda t: t.update({f"{LAYER}.weight": t[f"{LAYER}.weight"] != 0}), "bool"),
    ],
)
def test_scales_that_do_not_fit_are_refused(own, tmp_path, change, said):
    tensors = cases.scaled(own)
    change(tensors)
    with pytest.raises(InputError, match=said):
        open_file(cases.save(tensors, tmp_path / "a.safetensors"))


def test_a_lora_merged_into_fp8_is_kept_in_bfloat16(own, tmp_path):
    plain = {k: v.to(F8) if v.ndim == 2 and "blocks." in k else v for k, v in own.items()}
    path = cases.save(plain, tmp_path / "fp8.safetensors")
    rng = np.random.default_rng(0)
    base = plain[f"{LAYER}.weight"].float().numpy()
    down, up = (rng.normal(size=s).astype(np.float32) for s in ((4, 128), (128, 4)))
    up *= 0.02 * np.linalg.norm(base) / np.linalg.norm(up @ down)
    lora = {
        f"diffusion_model.{LAYER}.lora_down.weight": torch.from_numpy(down),
        f"diffusion_model.{LAYER}.lora_up.weight": torch.from_numpy(up),
    }
    save_file(lora, tmp_path / "lora.safetensors")
    given = [str(tmp_path / "lora.safetensors")]
    want = base + up @ down
    found = np.asarray(converted(path, tmp_path / "m", lora=given)[OURS], np.float32).T
    np.testing.assert_array_equal(found, want.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert np.mean(found == base) < 0.2
    exact = converted(path, tmp_path / "n", lora=given, dtype="float32")[OURS]
    np.testing.assert_allclose(np.asarray(exact).T, want, rtol=0, atol=1e-6)


def write_gguf(path, tensors, kinds):
    writer = gguf.GGUFWriter(str(path), "wan")
    for name, tensor in tensors.items():
        array, kind = tensor.float().numpy(), kinds.get(name, gguf.GGMLQuantizationType.F32)
        if kind.name in ("F32", "F16"):
            writer.add_tensor(name, array.astype(np.float32 if kind.name == "F32" else np.float16))
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_gguf_is_the_packages_dequantisation_bit_for_bit(own, tmp_path, kind):
    kind = gguf.GGMLQuantizationType[kind]
    big = {k: kind for k, v in own.items() if v.ndim == 2 and "blocks." in k}
    path = write_gguf(tmp_path / "a.gguf", own, big)
    found = converted(path, tmp_path / "m", dtype="float32")
    values = gguf.quants.quantize(own[f"{LAYER}.weight"].numpy(), kind)
    want = gguf.quants.dequantize(values, kind)
    np.testing.assert_array_equal(found[OURS], np.asarray(want, np.float32).T)


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K", "Q6_K", "Q2_K", "Q3_K", "IQ4_XS"])
def test_blocks_that_python_cannot_write(tmp_path, kind):
    """K-quants from raw bytes: the package reads them and cannot make them."""
    kind = gguf.GGMLQuantizationType[kind]
    _, size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(0)
    data = rng.integers(0, 100, (4, 2 * size), dtype=np.uint8)
    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "wan")
    writer.add_tensor("a", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensor = open_file(tmp_path / "a.gguf")["a"]
    assert tensor.shape == (4, 512) and tensor.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(tensor), gguf.quants.dequantize(data, kind))


def test_a_text_encoder_of_llama_cpp_with_its_vocabulary(tmp_path):
    import json

    module = cases.text_encoder()
    names = {
        "shared.": "token_embd.",
        "encoder.final_layer_norm.": "enc.output_norm.",
        "encoder.block.": "enc.blk.",
        ".layer.0.SelfAttention.relative_attention_bias.": ".attn_rel_b.",
        ".layer.0.SelfAttention.": ".attn_",
        ".layer.0.layer_norm.": ".attn_norm.",
        ".layer.1.layer_norm.": ".ffn_norm.",
        ".layer.1.DenseReluDense.wi_0.": ".ffn_gate.",
        ".layer.1.DenseReluDense.wi_1.": ".ffn_up.",
        ".layer.1.DenseReluDense.wo.": ".ffn_down.",
    }
    writer = gguf.GGUFWriter(str(tmp_path / "umt5.gguf"), "t5encoder")
    writer.add_token_list(["<pad>", "</s>", "<unk>", "▁cat"])
    writer.add_token_scores([0.0, 0.0, 0.0, -1.0])
    writer.add_token_types([3, 3, 2, 1])
    for key, value in cases.comfy_text(module).items():
        for theirs, llamas in names.items():
            key = key.replace(theirs, llamas)
        writer.add_tensor(key, value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    convert(tmp_path / "umt5.gguf", tmp_path / "m", only="text_encoder")
    model = load_model(str(tmp_path / "m"))
    ids, mask = model.tokenizer(["cat dog"])
    assert ids[0, :4].tolist() == [3, 2, 1, 0]
    with torch.no_grad():
        want = module(torch.from_numpy(ids).long(), torch.from_numpy(mask)).last_hidden_state
    found = np.asarray(model.text_encoder(ids, mask))[:, :3]
    np.testing.assert_allclose(found, want.numpy()[:, :3], rtol=0, atol=1e-5)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["family"] == "wan"


def test_damaged_gguf_files_are_refused_in_one_line(own, tmp_path):
    path = write_gguf(tmp_path / "a.gguf", {f"{LAYER}.weight": own[f"{LAYER}.weight"]}, {})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    cuts = [whole[:n] for n in rng.integers(5, len(whole), 40)]
    for cut in cuts:
        path.write_bytes(cut)
        with pytest.raises(InputError) as caught:
            open_file(path)
        assert "\n" not in str(caught.value)
