"""Token ids of VideoCrafter2's text encoder, against those of the original code."""

import json
import logging

import numpy as np
import pytest
from checkpoints import DATA, config_file, convert, save_ckpt, syncos, weights

from syncos_jax.errors import InputError
from syncos_jax.models.tokenizer import PromptTokenizer, openclip_clean
from syncos_jax.pipeline.load import load_model
from syncos_jax.weights_convert import hub, tokenizer_files

CASES = json.loads((DATA / "openclip_tokens.json").read_text())
EXCERPT = DATA / "openclip_vocabulary"
"""Of OpenCLIP's true vocabulary and merges, with their true numbers, what CASES need."""


def ids_agree(folder):
    tokenizer = PromptTokenizer(folder, 77, openclip=True)
    for case in CASES:
        np.testing.assert_array_equal(tokenizer([case["prompt"]])[0], case["ids"], case["prompt"])


def test_token_ids(tmp_path):
    tokenizer_files.write(EXCERPT, tmp_path / "t", openclip=True)
    ids_agree(tmp_path / "t")


def test_folders_that_declare_another_padding_token(tmp_path):
    """As those of Stable Diffusion 2: with "!" declared special, it would not be a word."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("vocab.json", "merges.txt"):
        (source / name).write_bytes((EXCERPT / name).read_bytes())
    (source / "special_tokens_map.json").write_text(json.dumps({"pad_token": "!"}))
    tokenizer_files.write(source, tmp_path / "t", openclip=True)
    ids_agree(tmp_path / "t")


def test_a_tokenizer_json_alone(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    merges = (EXCERPT / "merges.txt").read_text().splitlines()[1:]
    model = {"vocab": json.loads((EXCERPT / "vocab.json").read_text())}
    for form in (merges, [merge.split() for merge in merges]):
        text = json.dumps({"model": {**model, "merges": form}})
        (source / "tokenizer.json").write_text(text)
        tokenizer_files.write(source, tmp_path / f"t{len(form[0])}", openclip=True)
        ids_agree(tmp_path / f"t{len(form[0])}")


def test_the_installed_open_clip(tmp_path):
    file = tokenizer_files._of_open_clip()
    if file is None:
        pytest.skip("open_clip is not installed (it needs torchvision)")
    assert tokenizer_files.find(None) == file
    tokenizer_files.write(file, tmp_path / "t", openclip=True)
    ids_agree(tmp_path / "t")
    assert PromptTokenizer(tmp_path / "t", 77).vocabulary == 49408


def test_open_clip_is_found_without_being_imported(tmp_path, monkeypatch):
    package = tmp_path / "open_clip"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / tokenizer_files.BPE_FILE).write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    assert tokenizer_files.find(None) == package / tokenizer_files.BPE_FILE
    with pytest.raises(InputError, match="is not CLIP's BPE vocabulary|cannot be read as a BPE"):
        tokenizer_files.write(package / tokenizer_files.BPE_FILE, tmp_path / "t", openclip=True)


def test_byte_letters():
    letters = tokenizer_files._byte_letters()
    vocabulary = json.loads((EXCERPT / "vocab.json").read_text())
    assert len(set(letters)) == 256
    assert [vocabulary[letter] for letter in letters] == list(range(256))
    assert [vocabulary[letter + "</w>"] for letter in letters] == list(range(256, 512))


def test_cleaning():
    assert openclip_clean("  “A”  b\tc &amp;amp; d ｅ ﬁ \x07") == '"A" b c & d e fi'


def test_long_prompts_keep_their_end_token(caplog):
    tokenizer = PromptTokenizer(EXCERPT, 8, openclip=True)
    with caplog.at_level(logging.WARNING):
        ids = tokenizer(["word " * 20])[0]
    assert ids[-1] == 49407 and "prompt cut to 8 tokens" in caplog.text


@pytest.fixture
def source(tmp_path):
    """The fixtures' three networks in one checkpoint, with UNet and text encoder made to fit."""
    state = {}
    for name in ("vc2_tiny_a", "vc2_vae_tiny", "openclip_text_tiny"):
        state |= weights(name)
    for key, value in state.items():  # 24 text features of 64: any numbers do here
        if "attn2.to_k" in key or "attn2.to_v" in key:
            if value.shape[1] == 24:
                state[key] = np.resize(value, (value.shape[0], 64))
    config = config_file(
        tmp_path / "config.json", "vc2_tiny_a", "vc2_vae_tiny", "openclip_text_tiny"
    )
    values = json.loads(config.read_text())
    values["unet_config"]["context_dim"] = 64
    config.write_text(json.dumps(values))
    return save_ckpt(tmp_path / "model.ckpt", state), ("--config", config)


def small_tokenizer(folder, size):
    """Bytes and the two ends: 514 tokens, of which the encoder of the fixtures knows 512."""
    letters = tokenizer_files._byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters)][: size - 2]
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


@pytest.mark.slow
def test_a_whole_checkpoint_with_its_tokenizer(source, tmp_path):
    checkpoint, options = source
    folder = small_tokenizer(tmp_path / "tokenizer", 512)
    convert(checkpoint, tmp_path / "out", *options, "--tokenizer", folder)
    model = load_model(tmp_path / "out")
    assert model.config.openclip_tokens and model.tokenizer.pad == 0
    assert model.tokenizer([""]).tolist() == [[510, 511] + [0] * 75]
    assert model.config.latent_scale == 0.18215 and model.unet.config.fps_embedding


def refused(checkpoint, out, *options):
    result = syncos("convert", checkpoint, "--out", out, *options)
    assert result.exit_code == 2 and not out.exists()
    return result.stderr.splitlines()[-1]


def test_tokenizers_that_are_refused(source, tmp_path, monkeypatch):
    checkpoint, options = source
    out = tmp_path / "out"
    monkeypatch.setattr(tokenizer_files, "_of_open_clip", lambda: None)
    offline = InputError("offline")

    def unreachable(*_):
        raise offline

    monkeypatch.setattr(hub, "_names", unreachable)
    said = refused(checkpoint, out, *options)
    assert (
        "the checkpoint has no tokenizer and open_clip is not installed (offline); pass --tokenizer"
        in said
    )
    checkpoint = save_ckpt(tmp_path / "text.ckpt", weights("openclip_text_tiny"))
    options = (*options, "--only", "text_encoder", "--tokenizer")
    said = refused(checkpoint, out, *options, tmp_path / "none")
    assert "no such folder or file" in said
    assert "no tokenizer here" in refused(checkpoint, out, *options, tmp_path)
    large = small_tokenizer(tmp_path / "large", 514)
    said = refused(checkpoint, out, *options, large)
    assert "the tokenizer has 514 tokens, the text encoder only 512" in said
    (large / "vocab.json").write_text("{}")
    assert "is not CLIP's tokenizer" in refused(checkpoint, out, *options, large)
    (large / "vocab.json").write_text("{")
    assert "unreadable tokenizer files" in refused(checkpoint, out, *options, large)


def test_a_tokenizer_from_the_hub(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "_names", lambda _: ["tokenizer/vocab.json", "tokenizer/merges.txt"])
    monkeypatch.setattr(hub, "_get", lambda _, names: asked.extend(names) or tmp_path)
    assert tokenizer_files.find("a/b") == tmp_path / "tokenizer"
    assert asked == ["tokenizer/vocab.json", "tokenizer/merges.txt"]
