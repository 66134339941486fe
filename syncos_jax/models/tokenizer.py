"""Prompts to token ids, through the tokenizer files that came with a model."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from syncos_jax.errors import InputError

logger = logging.getLogger(__name__)


class PromptTokenizer:
    """A CLIP tokenizer that pads every prompt to the text encoder's length.

    Args:
        folder: tokenizer files (``vocab.json`` and ``merges.txt``, or ``tokenizer.json``).
        tokens: length ``S``.
        pad: the padding token's id; default: what the files say (OpenCLIP pads with 0, OpenAI's
            CLIP with the end token).

    Raises:
        InputError: no tokenizer files, or files that cannot be read.
    """

    def __init__(self, folder: Path, tokens: int, pad: int | None = None):
        from transformers import CLIPTokenizer  # imports slowly

        if not any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json")):
            raise InputError(
                f"{folder}: no tokenizer here (vocab.json with merges.txt, or tokenizer.json)"
            )
        try:
            self._tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{folder}: unreadable tokenizer files: {error}") from error
        self.tokens = tokens
        self.pad = self._tokenizer.pad_token_id if pad is None else pad
        self.end = self._tokenizer.eos_token_id

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return len(self._tokenizer)

    def __call__(self, prompts: Sequence[str]) -> np.ndarray:
        """Token ids ``[n, S]`` int32: start, words, end, padding.

        A prompt that is too long loses its end, with a warning that quotes what is lost.
        """
        out = np.full((len(prompts), self.tokens), self.pad, np.int32)
        for row, prompt in zip(out, prompts, strict=True):
            ids = self._tokenizer(prompt, truncation=False, verbose=False)["input_ids"]
            if len(ids) > self.tokens:
                lost = self._tokenizer.decode(ids[self.tokens - 1 : -1])
                logger.warning("prompt cut to %d tokens, without %r", self.tokens, lost)
                ids = [*ids[: self.tokens - 1], self.end]
            row[: len(ids)] = ids
        return out
