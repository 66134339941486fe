"""What files are recognised to be, before any reader is chosen."""

import pytest
import torch
import weight_cases as cases
from safetensors.torch import save_file

from syncos_jax.errors import InputError
from syncos_jax.weights_convert import layouts
from syncos_jax.weights_convert.convert import convert
from syncos_jax.weights_convert.recognise import describe, describe_file


@pytest.mark.parametrize("layout", layouts.LAYOUTS, ids=lambda layout: layout.key)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "generator.model."])
def test_every_row_is_found_behind_any_prefix(layout, prefix):
    if layout.names[0].endswith("*") and prefix:
        pytest.skip("a pickle of its own")
    names = {prefix + name.rstrip("*"): None for name in layout.names}
    found = layouts.matches(names | {f"{prefix}other.weight": None})
    assert found[0].layout.family == layout.family and found[0].layout.network == layout.network
    assert found[0].prefix == prefix
    assert bool(found[0].layout.refused) == bool(layout.refused)


def test_rows_without_a_name_do_not_match():
    for layout in layouts.LAYOUTS:
        for missing in layout.names:
            names = {name for name in layout.names if name != missing}
            found = layouts.matches(dict.fromkeys(names))
            assert layout not in [match.layout for match in found]


FILES = {
    "wan": (cases.own_transformer, cases.transformer, "Wan transformer (Wan's own layout)"),
    "vae": (cases.own_vae, cases.autoencoder, "Wan 2.1 autoencoder (Wan's own layout)"),
    "vae22": (cases.own_vae_22, cases.autoencoder_22, "Wan 2.2 autoencoder (Wan's own layout)"),
    "comfy": (cases.comfy_text, cases.text_encoder, "UMT5 encoder (transformers' layout)"),
    "text": (cases.own_text, cases.text_encoder, "UMT5 encoder (Wan's own layout)"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_described_in_one_line(tmp_path, name):
    rename, build, what = FILES[name]
    tensors = rename(build())
    path = cases.save(tensors, tmp_path / "a.safetensors", torch.bfloat16)
    count = sum(tensor.numel() for tensor in tensors.values())
    size = f"{len(tensors)} tensors, {count:,} values, bfloat16"
    assert describe(path) == [("a.safetensors", f"{what}; {size}")]


def test_precision_tool_and_loras(tmp_path):
    own = cases.own_transformer(cases.transformer())
    path = cases.save(cases.scaled(own), tmp_path / "a.safetensors")
    assert "float8_e4m3fn with scales" in describe_file(path)
    lora = {"lora_unet_blocks_0_self_attn_q.lora_down.weight": torch.zeros(2, 2)}
    save_file(lora, tmp_path / "l.safetensors", metadata={"ss_network_dim": "2"})
    said = describe_file(tmp_path / "l.safetensors")
    assert said.startswith("LoRA for Wan (musubi-tuner); 1 tensors")
    assert "written by kohya sd-scripts or musubi-tuner" in said


def test_a_folder_is_described_file_by_file(tmp_path):
    cases.save(cases.comfy_text(cases.text_encoder()), tmp_path / "text_encoders" / "a.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"<html>")
    rows = dict(describe(tmp_path))
    assert rows["text_encoders/a.safetensors"].startswith("UMT5 encoder")
    assert "is a web page" in rows["broken.safetensors"]
    with pytest.raises(InputError, match="no files of weights"):
        describe(tmp_path / "text_encoders" / "none")


def test_what_is_unknown_names_twenty_tensors_and_no_reader_is_reached(tmp_path):
    tensors = {f"strange.{i}.weight": torch.zeros(2) for i in range(30)}
    path = cases.save(tensors, tmp_path / "a.safetensors")
    for options in ({}, {"only": "transformer"}, {"only": "unet"}):
        with pytest.raises(InputError) as caught:
            convert(path, tmp_path / "m", **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(
        InputError, match="not recognised: 30 tensors, 60 values: strange"
    ) as caught:
        convert(path, tmp_path / "m")
    assert str(caught.value).count("strange.") == 20 and "and 10 more" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("double_blocks.0.img_attn.qkv.weight",), "FLUX or HunyuanVideo transformer"),
        (("head.modulation", "vace_blocks.0.norm3.weight"), "conditioned on videos"),
        (("x.lora_A.weight", "x.lora_B.weight"), "is a LoRA"),
        (("x.lora_A.weight", "x.base_layer.weight"), "a LoRA that is not merged"),
        (("down_blocks.0.motion_modules.0.proj_in.weight",), "motion module; convert Stable"),
    ],
)
def test_what_is_known_and_not_taken(tmp_path, names, said):
    path = cases.save({name: torch.zeros(2) for name in names}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=said):
        convert(path, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_info_prints_what_a_file_is(tmp_path):
    from typer.testing import CliRunner

    from syncos_jax.cli.app import app

    path = cases.save(cases.own_vae(cases.autoencoder()), tmp_path / "wan_2.1_vae.safetensors")
    result = CliRunner().invoke(app, ["info", str(path)])
    assert result.exit_code == 0 and "wan_2.1_vae.safetensors: Wan 2.1 autoencoder" in result.output
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    result = CliRunner().invoke(app, ["info", str(tmp_path / "x.gguf")])
    assert result.exit_code == 2 and "damaged or truncated GGUF file" in result.output
