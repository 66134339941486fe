"""Small things in the files that people have: the negative prompt that Wan publishes, JSON with a
byte-order mark, long values, a tokenizer that lacks a file."""

import shutil
from importlib.resources import files

import pytest
from diffusers.pipelines.wan.pipeline_wan import prompt_clean

from syncos_jax.errors import InputError
from syncos_jax.models.tokenizer import openclip_clean
from syncos_jax.weights_convert.convert import convert
from syncos_jax.weights_convert.diffusers_config import read_json, require

NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)


@pytest.mark.parametrize("text", [NEGATIVE, "line\nbreak\ttab  two", "a &amp;quot;stage&quot;"])
def test_prompts_are_cleaned_as_diffusers_does(text):
    assert openclip_clean(text) == prompt_clean(text)


def test_json_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "config.json").write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_json(tmp_path / "config.json") == {"a": 1}


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(InputError) as caught:
        require({"trained_betas": [0.1] * 1000}, "scheduler_config.json", trained_betas=None)
    assert len(str(caught.value)) < 200 and "trained_betas is [0.1" in str(caught.value)


def test_a_tokenizer_without_merges_is_named_by_its_own_path(tmp_path):
    shutil.copytree(str(files("syncos_jax") / "demo" / "model"), tmp_path / "demo")
    (tmp_path / "demo" / "tokenizer" / "merges.txt").unlink()
    with pytest.raises(InputError) as caught:
        convert(tmp_path / "demo", tmp_path / "out", only="text_encoder")
    said = str(caught.value)
    assert str(tmp_path / "demo" / "tokenizer") in said and ".tmp" not in said
    assert not (tmp_path / "out").exists()
