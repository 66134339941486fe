"""Prompts to token ids and mask for text encoders that are decoder language models."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from syncos_jax.errors import InputError

logger = logging.getLogger(__name__)


class DecoderTokenizer:
    """Pads every prompt on the left to one length; a beginning token comes first.

    Args:
        folder: with ``tokenizer.json``.
        tokens: length ``S``.

    Raises:
        InputError: no tokenizer files, or files that cannot be read.
    """

    def __init__(self, folder: Path, tokens: int):
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise InputError(f"{folder}: no tokenizer.json there")
        try:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(path))
            settings = folder / "tokenizer_config.json"
            given = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
        except Exception as error:  # the tokenizers library raises Exception itself
            raise InputError(f"{folder}: unreadable tokenizer files: {error}") from error
        self._tokenizer.no_padding()
        self.tokens = tokens
        end = self._id(given.get("eos_token"), "<eos>")
        pad = self._id(given.get("pad_token"), "<pad>")
        if pad is None and end is None:
            raise InputError(f"{folder}: the tokenizer has no padding token and no end token")
        self.pad: int = pad if pad is not None else end  # type: ignore[assignment]
        self.start = self._id(given.get("bos_token"), "<bos>")
        self._adds_start = bool(given.get("add_bos_token", True))

    def _id(self, token: Any, usual: str) -> int | None:
        name = token.get("content") if isinstance(token, dict) else token
        found: int | None = self._tokenizer.token_to_id(name or usual)
        return found

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        size: int = self._tokenizer.get_vocab_size()
        return size

    def __call__(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask, each ``[n, S]`` int32: padding, start, words; 0 for padding.

        A prompt that is too long loses its end, with a warning that quotes what is lost.
        """
        ids = np.full((len(prompts), self.tokens), self.pad, np.int32)
        mask = np.zeros_like(ids)
        for row, on, prompt in zip(ids, mask, prompts, strict=True):
            found = self._tokenizer.encode(str(prompt).strip()).ids
            if self._adds_start and self.start is not None and found[:1] != [self.start]:
                found = [self.start, *found]
            if len(found) > self.tokens:
                lost = self._tokenizer.decode(found[self.tokens :])
                logger.warning("prompt cut to %d tokens, without %r", self.tokens, lost)
                found = found[: self.tokens]
            if found:
                row[-len(found) :], on[-len(found) :] = found, 1
        return ids, mask
