"""Files of every layout with one tensor renamed, missing, doubled, transposed or of another type
are refused in one line, or read as what they say (`weight_mutations.py`)."""

import pytest
import weight_mutations

from syncos_jax.errors import InputError
from syncos_jax.weights_convert.weight_files import open_file


@pytest.mark.parametrize("layout", ["wan", "fp8_scaled", "gguf", "umt5", "lora_kohya", "lora_lokr"])
def test_ten_mutations(layout):
    outcomes, faults = weight_mutations.play(layout, 10, seed=1)
    assert faults == []
    assert outcomes["refused"] >= 3


@pytest.mark.slow
@pytest.mark.parametrize("layout", weight_mutations.LAYOUTS)
def test_a_thousand_mutations(layout):
    assert weight_mutations.play(layout, 1000)[1] == []


def test_float8_without_its_scale_is_not_taken_for_plain_float8(tmp_path):
    tensors = dict(weight_mutations.built("fp8_scaled"))
    del tensors["blocks.0.self_attn.q.scale_weight"]
    path = weight_mutations.safetensors_file(tensors, tmp_path / "a")
    with pytest.raises(InputError, match=r"self_attn\.q\.weight has float8_e4m3fn values without"):
        open_file(path)


def test_a_layer_without_the_alpha_that_others_have_is_said(tmp_path):
    tensors = dict(weight_mutations.built("lora_kohya"))
    del tensors["lora_unet_blocks_1_ffn_0.alpha"]
    path = weight_mutations.safetensors_file(tensors, tmp_path / "a")
    assert weight_mutations.read_lora(path, None)[1] == 1
