"""`docs/accepted.md` tells no more than tests show: each row on weights names the tests that hold
it, and the recogniser's tables are those of the page."""

import ast
import re
from pathlib import Path

import pytest

from syncos_jax.weights_convert import layouts, lora_layers, lora_names, quantised

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "accepted.md").read_text(encoding="utf-8")

HELD = {
    "VideoCrafter's `model.ckpt`": "test_convert_fixtures:a_model_with_all_networks_from_one_file "
    "test_convert_files:torch test_convert_files:pickle_protocols test_convert_files:safetensors",
    "a folder of diffusers'": "test_convert_diffusers:pipeline test_convert_files:shards "
    "test_convert_diffusers:float16_sharded_bin_files "
    "test_convert_diffusers:a_folder_of_diffusers_loads_without_conversion",
    "an id on the hub": "test_convert_diffusers:hub test_real_files:folders_above_and_below",
    "several models in a folder": "test_real_files:folders_above_and_below "
    "test_real_weights:a_folder_without_weights_says_what_lies_there",
    "any prefix before": "test_real_files:a_prefix_of_all_names_is_taken_off "
    "test_real_files:wrappers_within_names "
    "test_layouts:every_row_is_found_behind_any_prefix",
    "weights under `model`": "test_real_files:the_only_set_of_weights_is_found_under_any_key",
    "weights and their average": "test_real_files:of_a_model_and_its_average_the_user_says_which",
    "`model_ema.*`": "test_real_files:averaged_copies_of_lvdm",
    "arguments, paths": "test_real_files:things_beside_the_weights",
    "a pickle that calls": "test_convert_files:a_pickle_that_would_run_code_is_refused",
    "a file for each network": "test_separate_files:the_command "
    "test_separate_files:what_is_not_clear_is_asked_for",
    "text encoders of ComfyUI": "test_separate_files:"
    "three_files_are_a_model_with_the_packed_tokenizer",
    "Wan's autoencoders": "test_wan_convert:the_original_vae "
    "test_separate_files:wan_22_ti2v_as_wan_publishes_it",
    "Stable Diffusion 1.5": "test_animatediff_files:the_networks_are_those_of_the_file",
    "AnimateDiff-Lightning": "test_animatediff_files:lightning_is_sampled_as_recommended",
    "`--lora": "test_lora_spellings:every_spelling_merges_the_same "
    "test_lora_spellings:loha_and_lokr test_lora_spellings:peft_itself_agrees "
    "test_lora_spellings:differences_of_weights_biases_and_modulations "
    "test_quantised_files:a_lora_merged_into_fp8_is_kept_in_bfloat16",
    "the same at every run": "test_lora_runs:generate_records_the_lora_and_makes_the_video_again "
    "test_lora_runs:set_lora_changes_the_layer_and_nothing_else_and_back "
    "test_lora_spellings:merging_at_load_is_merging_at_conversion",
    "layers of an image-to-video": "test_lora_spellings:an_image_to_video_lora_merges_what_fits",
    "DoRA": "test_lora_spellings:other_kinds_are_named_and_refused "
    "test_real_files:a_lora_is_named_with_the_remedy",
    "ModelScope's original": "test_real_files:files_of_modelscope_are_named",
    "float8, float16": "test_real_weights:float8 test_convert_diffusers:dtype_on_disk",
    "float8 with scales": "test_quantised_files:scaled_fp8_is_torchs_product_bit_for_bit",
    "GGUF": "test_quantised_files:gguf_is_the_packages_dequantisation_bit_for_bit "
    "test_quantised_files:blocks_that_python_cannot_write "
    "test_quantised_files:a_text_encoder_of_llama_cpp_with_its_vocabulary",
    "other quantised weights": "test_real_weights:quantised_weights_are_refused_as_such",
    "a file of weights within": "test_real_weights:the_file_that_was_given_is_read",
    "the only file of weights": "test_separate_files:a_comfy_file_in_the_place_of_diffusers "
    "test_real_weights:shards_without_their_index",
    "`model_best.pth.tar`": "test_real_weights:checkpoints_of_trainers",
    "distributed checkpoints": "test_real_weights:checkpoints_of_trainers",
    "whole modules": "test_real_weights:what_is_no_state_dict_is_named "
    "test_real_weights:a_program_of_torchscript_is_named "
    "test_real_weights:archives_that_were_packed_again",
    "Git LFS": "test_real_weights:what_is_no_checkpoint_is_called_what_it_is",
    "networks of other models": "test_layouts:what_is_known_and_not_taken test_layouts:"
    "what_is_unknown_names_twenty_tensors_and_no_reader_is_reached",
    "more or fewer tensors": "test_convert_errors:"
    "missing_extra_misshaped_and_double_tensors_are_all_named",
}
"""Beginnings of rows -> tests, as FILE:NAME without ``test_``."""


def rows():
    table = PAGE.split("## Weights")[1].split("\n## ")[0]
    found = re.findall(r"^\| (.+?) \| (.+) \|$", table, re.MULTILINE)
    return [row for row in found if row[0] != "input"]


def test_every_row_is_held_by_tests_and_every_entry_is_a_row():
    starts = {start: [r for r in rows() if r[0].startswith(start)] for start in HELD}
    assert {start for start, held in starts.items() if len(held) != 1} == set()
    held = {row for found in starts.values() for row in found}
    assert [row[0] for row in rows() if row not in held] == []


@pytest.mark.parametrize("start", HELD)
def test_the_tests_exist(start):
    for one in HELD[start].split():
        file, name = one.split(":")
        tree = ast.parse((ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8"))
        assert f"test_{name}" in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, one


def test_spellings_and_kinds_of_loras_are_those_of_the_tables():
    text = " ".join(f"{a} {b}" for a, b in rows())
    for tool in {tool for _, tool in lora_names.SPELLINGS} - {"unknown trainer", "LyCORIS"}:
        for name in re.split(r" or | and |'", tool):
            if name not in ("", " attention processors", "s attention processors"):
                assert name.strip() in text, name
    for kind in {kind for kind in lora_layers.REFUSED.values() if " " not in kind}:
        assert re.search(rf"\b{kind}\b", text), kind
    for part in {part for _, part in lora_layers.PARTS if part.startswith("diff")}:
        assert f"`{part}`" in text, part
    for name in quantised.SCALES:
        assert f"`{name}`" in text


def test_families_that_convert_are_named():
    """Every layout that converts belongs to a family that the page, or its reader, names."""
    from syncos_jax.cli.convert import convert

    said = (PAGE + (convert.__doc__ or "")).lower()
    words = {"unet_clip": "videocrafter", "t5": "t5", "ltx": "ltx"}
    for layout in layouts.LAYOUTS:
        if not layout.refused:
            assert words.get(layout.family, layout.family) in said, layout.key
