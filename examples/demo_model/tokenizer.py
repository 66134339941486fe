"""A byte-level BPE tokenizer of CLIP's kind, learnt from the world's captions."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from demo_model.sizes import TOKENS
from demo_model.world import LARGE_SUBJECTS, Subjects, captions_corpus
from syncos_jax.files import replacing

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


def train_tokenizer(folder: Path, merges: int = 256, subjects: Subjects = LARGE_SUBJECTS) -> int:
    """Write ``vocab.json``, ``merges.txt`` and their configuration; returns the vocabulary's size.

    All 256 bytes are tokens, inside and at the end of a word, so any prompt can be tokenised.
    """
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=2 * 256 + merges,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions_corpus(subjects=subjects), trainer)
    learnt = json.loads(tokenizer.to_str())["model"]["merges"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = letters + [letter + WORD_END for letter in letters]
    for left, right in learnt:
        if left + right not in tokens:
            tokens.append(left + right)
    tokens += [START, END]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": TOKENS,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
        "add_prefix_space": False,
    }
    write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in learnt), encoding="utf-8"
    )
    write_json(folder / "tokenizer_config.json", settings)
    return len(vocabulary)


def write_json(path: Path, value: object) -> None:
    """Write JSON aside and rename it into place."""
    with replacing(path) as part:
        part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
