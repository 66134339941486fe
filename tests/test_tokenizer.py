"""The tokenizer that reads our own folders is transformers', token for token."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncos_jax.errors import InputError
from syncos_jax.models import tokenizer as module
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.pipeline.load import model_folder

DEMO = model_folder("demo") / "tokenizer"
PLAIN = module._plain(DEMO)
FULL = module._any(DEMO)

HARD = [
    "",
    "  A red  Ball\n on a\tgreen meadow!! ",
    "it's 1234 o'clock, isn't it?",
    "naïve café, e\u0301 and é; ﬁ ½ 東京 🙂",
    "<|startoftext|> inside <|endoftext|>x",
    "</w> !\"#$%&'()",
    "\x00\x07\u200b\ufeff",
]


@pytest.mark.parametrize("text", HARD)
def test_hard_texts(text):
    assert PLAIN[0].encode(text).ids == FULL[0].encode(text).ids


@given(st.text(max_size=60))
def test_any_text(text):
    assert PLAIN[0].encode(text).ids == FULL[0].encode(text).ids


def test_numbers_agree():
    assert PLAIN[1:] == FULL[1:]
    assert PLAIN[0].get_vocab_size() == FULL[0].get_vocab_size()
    assert PromptTokenizer(DEMO, 24).vocabulary == FULL[0].get_vocab_size()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("special_tokens_map.json", {"pad_token": "!"}),
        ("added_tokens.json", {"<new>": 762}),
        ("tokenizer_config.json", {"pad_token": "!"}),
        ("tokenizer_config.json", {"added_tokens_decoder": {}}),
    ],
)
def test_folders_with_special_tokens_of_their_own_are_left_to_transformers(tmp_path, name, content):
    for file in ("vocab.json", "merges.txt"):
        (tmp_path / file).write_bytes((DEMO / file).read_bytes())
    assert module._plain(tmp_path) is not None
    (tmp_path / name).write_text(json.dumps(content))
    assert module._plain(tmp_path) is None


def test_reading_our_own_folder_does_not_import_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # an import would fail
    ids = PromptTokenizer(DEMO, 24)(["a red ball"])
    assert ids.shape == (1, 24) and ids[0, 0] == PLAIN[0].token_to_id(module.START)


def test_unreadable_files(tmp_path):
    (tmp_path / "vocab.json").write_text("{")
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(InputError, match="unreadable tokenizer files"):
        PromptTokenizer(tmp_path, 24)
    with pytest.raises(InputError, match="no tokenizer here"):
        PromptTokenizer(tmp_path / "no", 24)
