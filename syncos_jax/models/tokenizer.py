"""Prompts to token ids, through the tokenizer files that came with a model."""

import html
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from syncos_jax.errors import InputError

logger = logging.getLogger(__name__)

OPENCLIP_PAD = 0
START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
_MORE_FILES = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json")
# What CLIP takes for a word (Radford et al., arXiv 2103.00020, and its published tokenizer).
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def openclip_clean(prompt: str) -> str:
    """A prompt as OpenCLIP and diffusers clean it: ftfy's repairs (quotes, widths, ligatures, text
    decoded in a wrong encoding), HTML entities resolved, single spaces.
    """
    import ftfy  # needed by models that clean prompts

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split())


def _plain(folder: Path) -> tuple[Any, int, int] | None:
    """The tokenizer of a folder that holds CLIP's vocabulary and merges with CLIP's special tokens,
    which our own folders do, with its padding and end tokens; None for any other folder.

    The same as `_any` gives, but without importing transformers, which takes longer than loading
    the demo model.
    """
    if any((folder / name).is_file() for name in _MORE_FILES):
        return None
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    usual = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    if "added_tokens_decoder" in settings or any(
        settings.get(name, token) != token for name, token in usual.items()
    ):
        return None
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    tokenizer = Tokenizer(models.BPE.from_file(*files, unk_token=END, end_of_word_suffix=WORD_END))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (START, END)])
    vocabulary = tokenizer.get_vocab()
    start, end = vocabulary[START], vocabulary[END]
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, end), (START, start), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer, end, end


def _any(folder: Path) -> tuple[Any, int, int]:
    """As `_plain`, for whatever transformers reads."""
    try:
        from transformers import CLIPTokenizer  # imports slowly
    except ImportError:
        raise InputError(
            "a tokenizer without CLIP's usual special tokens needs transformers",
            place=folder,
            remedy="pip install 'syncos-jax[convert]'",
        ) from None

    read = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    return read.backend_tokenizer, read.pad_token_id, read.eos_token_id


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
        if not any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json")):
            raise InputError(
                f"{folder}: no tokenizer here (vocab.json with merges.txt, or tokenizer.json)"
            )
        try:
            self._tokenizer, pad, self.end = _plain(folder) or _any(folder)
        except InputError:
            raise
        except Exception as error:  # the tokenizers library raises Exception itself
            raise InputError(f"{folder}: unreadable tokenizer files: {error}") from error
        self.tokens = tokens
        self.openclip = openclip
        self.pad = OPENCLIP_PAD if openclip else pad

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self._tokenizer.get_vocab_size()

    def __call__(self, prompts: Sequence[str]) -> np.ndarray:
        """Token ids ``[n, S]`` int32: start, words, end, padding.

        A prompt that is too long loses its end, with a warning that quotes what is lost; one of a
        scenario, "global, local", loses the end of its global part.

        Raises:
            InputError: two prompts that differ are the same once they are cut.
        """
        out = np.full((len(prompts), self.tokens), self.pad, np.int32)
        cut: dict[bytes, str] = {}
        for row, prompt in zip(out, prompts, strict=True):
            ids, lost = self._fitted(prompt)
            row[: len(ids)] = ids
            if not lost:
                continue
            logger.warning("prompt cut to %d tokens, without %r", self.tokens, lost)
            other = cut.setdefault(row.tobytes(), prompt)
            if other != prompt:
                raise InputError(
                    f"the text encoder reads {self.tokens} tokens, and within these two prompts "
                    f"are the same: {_end(other)!r} and {_end(prompt)!r}; shorten them"
                )
        return out

    def _fitted(self, prompt: str) -> tuple[list[int], str]:
        """Token ids of a prompt, as many as there may be, and the text that was left out."""
        ids = self._ids(prompt)
        if len(ids) <= self.tokens:
            return ids, ""
        local = getattr(prompt, "local", None)
        if local is not None:
            behind = self._ids(f", {local}")[1:-1]  # without start and end
            room = self.tokens - 2 - len(behind)
            shared = self._ids(prompt.shared)[1:-1]  # type: ignore[attr-defined]
            if room >= 1:
                kept = [ids[0], *shared[:room], *behind, self.end]
                return kept, self._text(shared[room:])
            ids = self._ids(local)  # alone it takes all there is
            kept, lost = ids[: self.tokens - 1], ids[self.tokens - 1 : -1]
            if len(ids) <= self.tokens:
                return ids, prompt.shared  # type: ignore[attr-defined]
            return [*kept, self.end], f"{prompt.shared}, and {self._text(lost)}"  # type: ignore[attr-defined]
        return [*ids[: self.tokens - 1], self.end], self._text(ids[self.tokens - 1 : -1])

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(openclip_clean(text) if self.openclip else str(text)).ids

    def _text(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids).replace(WORD_END, " ").strip()


def _end(text: str) -> str:
    return text if len(text) <= 80 else f"...{text[-77:]}"
