"""Prompts to token ids, through the tokenizer files that came with a model."""

import html
import logging
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from syncos_jax.errors import InputError

logger = logging.getLogger(__name__)

OPENCLIP_PAD = 0


def _straightened() -> dict[int, str | None]:
    """What ftfy, which OpenCLIP runs over every prompt, makes of single characters."""
    table: dict[int, str | None] = {}
    for code in (*range(0xFF01, 0xFF5F), 0x3000, *range(0xFB00, 0xFB07)):  # full width, ligatures
        table[code] = unicodedata.normalize("NFKC", chr(code))
    table |= dict.fromkeys(map(ord, "‘’‚‛ʼ"), "'")
    table |= dict.fromkeys(map(ord, "“”„‟"), '"')
    # Control characters go; those that are white space stay.
    table |= {c: None for c in (*range(0x20), 0x7F, 0xFEFF) if not chr(c).isspace()}
    return table


_STRAIGHTENED = _straightened()


def openclip_clean(prompt: str) -> str:
    """A prompt as OpenCLIP cleans it: straight quotes, HTML entities resolved, single spaces.

    Of ftfy's repairs, those of text that was decoded in a wrong encoding are not made.
    """
    text = unicodedata.normalize("NFC", prompt.translate(_STRAIGHTENED))
    return " ".join(html.unescape(html.unescape(text)).split())


class PromptTokenizer:
    """A CLIP tokenizer that pads every prompt to the text encoder's length.

    Args:
        folder: tokenizer files (``vocab.json`` and ``merges.txt``, or ``tokenizer.json``).
        tokens: length ``S``.
        openclip: clean prompts with `openclip_clean` and pad with 0, as OpenCLIP does. Default:
            pad as the files say (OpenAI's CLIP: with the end token).

    Raises:
        InputError: no tokenizer files, or files that cannot be read.
    """

    def __init__(self, folder: Path, tokens: int, *, openclip: bool = False):
        from transformers import CLIPTokenizer  # imports slowly

        if not any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json")):
            raise InputError(
                f"{folder}: no tokenizer here (vocab.json with merges.txt, or tokenizer.json)"
            )
        try:
            self._tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # the tokenizers library raises Exception itself
            raise InputError(f"{folder}: unreadable tokenizer files: {error}") from error
        self.tokens = tokens
        self.openclip = openclip
        self.pad = OPENCLIP_PAD if openclip else self._tokenizer.pad_token_id
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
            text = openclip_clean(prompt) if self.openclip else prompt
            ids = self._tokenizer(text, truncation=False, verbose=False)["input_ids"]
            if len(ids) > self.tokens:
                lost = self._tokenizer.decode(ids[self.tokens - 1 : -1])
                logger.warning("prompt cut to %d tokens, without %r", self.tokens, lost)
                ids = [*ids[: self.tokens - 1], self.end]
            row[: len(ids)] = ids
        return out
