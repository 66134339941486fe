#!/usr/bin/env bash
# transformers 5.x: T5TokenizerFast.from_pretrained rebuilds the tokenizer and drops the normaliser
# that tokenizer.json names (here: lower case), so the same file gives other token ids than with the
# tokenizers library, without a warning.
set -euo pipefail
cd "$(mktemp -d)"; python3 -m venv v; v/bin/pip -q install "transformers==${VERSION:-5.24.0}"
v/bin/python - <<'P'
from tokenizers import Tokenizer, models, normalizers
from transformers import T5TokenizerFast

vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("a", -1.0)]
tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
tokenizer.normalizer = normalizers.Lowercase()
tokenizer.save("tokenizer.json")
direct = Tokenizer.from_file("tokenizer.json").encode("A").tokens
read = T5TokenizerFast.from_pretrained(".", extra_ids=0)
print("tokenizers:", direct, "| transformers:", read.tokenize("A"))
assert direct == ["a"] and "a" not in read.tokenize("A")
P
