"""Prompts to token ids and mask for T5 and UMT5, through the tokenizer that came with a model."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.models.tokenizer import openclip_clean

logger = logging.getLogger(__name__)

PAD, END = "<pad>", "</s>"


class T5Tokenizer:
    """Pads every prompt to one length, and says which of the tokens are the prompt's.

    Args:
        folder: with ``tokenizer.json``, or whatever else transformers reads (``spiece.model``
            needs its packages).
        tokens: length ``S``.
        clean: resolve HTML entities, straighten quotes and squeeze white space first, as Wan does.

    Raises:
        InputError: no tokenizer files, or files that cannot be read.
    """

    def __init__(self, folder: Path, tokens: int, *, clean: bool = True):
        try:
            self._tokenizer, pad, end = _read(folder)
        except InputError:
            raise
        except Exception as error:  # the tokenizers library raises Exception itself
            raise InputError(f"{folder}: unreadable tokenizer files: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        ids = {token: self._tokenizer.token_to_id(token) for token in (pad, end)}
        missing = [token for token, number in ids.items() if number is None]
        if missing:
            raise InputError(
                f"{folder}: is not T5's tokenizer: it has no {' and no '.join(missing)}"
            )
        self.pad, self.end = ids[pad], ids[end]
        self.tokens, self.clean = tokens, clean

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self._tokenizer.get_vocab_size()

    def __call__(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask, each ``[n, S]`` int32: words, end, padding; 1 for words and end.

        A prompt that is too long loses its end, with a warning that quotes what is lost.
        """
        ids = np.full((len(prompts), self.tokens), self.pad, np.int32)
        mask = np.zeros_like(ids)
        for row, on, prompt in zip(ids, mask, prompts, strict=True):
            text = openclip_clean(prompt) if self.clean else prompt
            found = self._tokenizer.encode(text).ids
            if not found or found[-1] != self.end:
                found = [*found, self.end]
            if len(found) > self.tokens:
                lost = self._tokenizer.decode(found[self.tokens - 1 : -1])
                logger.warning("prompt cut to %d tokens, without %r", self.tokens, lost)
                found = [*found[: self.tokens - 1], self.end]
            row[: len(found)], on[: len(found)] = found, 1
        return ids, mask


def _read(folder: Path) -> tuple[Any, str, str]:
    """The tokenizer, its padding and its end token."""
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        tokens = [
            settings.get(name, usual) for name, usual in (("pad_token", PAD), ("eos_token", END))
        ]
        pad, end = (token["content"] if isinstance(token, dict) else token for token in tokens)
        return Tokenizer.from_file(str(folder / "tokenizer.json")), pad, end
    if not any((folder / name).is_file() for name in ("spiece.model", "sentencepiece.bpe.model")):
        raise InputError("no tokenizer.json there", place=folder)
    try:
        from transformers import AutoTokenizer  # imports slowly
    except ImportError:
        raise InputError(
            "a tokenizer without tokenizer.json needs transformers",
            place=folder,
            remedy="pip install 'syncos-jax[convert]'",
        ) from None

    read = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return read.backend_tokenizer, read.pad_token, read.eos_token
