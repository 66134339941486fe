"""A CLIP tokenizer's files for a model whose checkpoint carries none."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
from pathlib import Path

from syncos_jax.errors import Argument, InputError

NAMES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
)
BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"
HUB_SOURCE = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""The text tower of VideoCrafter2, which comes with its tokenizer."""

START, END = "<|startoftext|>", "<|endoftext|>"

_MERGES = 49152 - 256 - 2
"""Lines of the file that CLIP uses; it has more."""


def find(tokenizer: str | None) -> Path:
    """The files to use: a folder, or OpenCLIP's own BPE file.

    Args:
        tokenizer: what the user gave: a folder, a BPE file, a hub id, or None for an installed
            open_clip, else the hub.

    Raises:
        InputError: none to be had; says what to do.
    """
    if tokenizer is not None:
        path = Path(tokenizer)
        if path.is_file() and path.name.endswith(".gz"):
            return path
        if path.is_dir():
            inner = path / "tokenizer"  # a whole pipeline's folder does as well
            folder = inner if inner.is_dir() else path
            if any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json")):
                return folder
            raise InputError(f"{path}: no tokenizer here (vocab.json, merges.txt)")
        return _from_hub(
            tokenizer,
            InputError("no such folder or file", argument="tokenizer", value=tokenizer),
        )
    installed = _of_open_clip()
    if installed is not None:
        return installed
    return _from_hub(
        HUB_SOURCE,
        InputError(
            "the checkpoint has no tokenizer and open_clip is not installed",
            remedy=(
                "pass ",
                Argument("tokenizer", "DIR"),
                " with CLIP's vocab.json and merges.txt, or pip install open_clip_torch",
            ),
        ),
    )


def write(source: Path, folder: Path, *, openclip: bool) -> None:
    """Writes a tokenizer's files into the new `folder`.

    Args:
        source: a folder with such files, or the BPE file.
        folder: to make.
        openclip: take vocabulary and merges alone. Folders made for transformers may declare "!"
            (id 0) to be the padding token, and then "!" in a prompt is not the word that it is in
            OpenCLIP.

    Raises:
        InputError: unreadable files, or other ones than expected.
    """
    folder.mkdir()
    if source.is_file():
        _write_plain(folder, *_read_bpe(source))
    elif openclip:
        _write_plain(folder, *_read_folder(source))
    else:
        for name in NAMES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)


def _read_bpe(path: Path) -> tuple[dict[str, int], list[str]]:
    """Vocabulary and merges of CLIP's original BPE file."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            merges = file.read().split("\n")[1 : _MERGES + 1]
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a BPE vocabulary: {error}") from error
    if len(merges) != _MERGES or not all(len(merge.split()) == 2 for merge in merges):
        raise InputError(f"{path}: is not CLIP's BPE vocabulary of {_MERGES} merges")
    letters = _byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters)]
    words += ["".join(merge.split()) for merge in merges]
    return {word: i for i, word in enumerate([*words, START, END])}, merges


def _read_folder(folder: Path) -> tuple[dict[str, int], list[str]]:
    """Vocabulary and merges of a folder's ``vocab.json`` and ``merges.txt``, or its
    ``tokenizer.json``."""
    try:
        if (folder / "vocab.json").is_file():
            vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            merges = [line for line in merges if line and not line.startswith("#version")]
        else:
            model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
            vocabulary = model["vocab"]
            merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: unreadable tokenizer files: {error}") from error
    if START not in vocabulary or END not in vocabulary:
        raise InputError(f"{folder}: is not CLIP's tokenizer: it has no {START} and {END}")
    return vocabulary, merges


def _write_plain(folder: Path, vocabulary: dict[str, int], merges: list[str]) -> None:
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
        "model_max_length": 77,
    }
    texts = {
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n",
        "tokenizer_config.json": json.dumps(settings, indent=1),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _byte_letters() -> list[str]:
    """A printable letter for each of the 256 bytes, in the vocabulary's order: bytes that print
    stand for themselves and come first (as in GPT-2)."""
    printing = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    return [chr(byte) for byte in printing] + [chr(256 + i) for i in range(len(others))]


def _of_open_clip() -> Path | None:
    """The file within an installed open_clip, which is not imported."""
    spec = importlib.util.find_spec("open_clip")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / BPE_FILE).is_file():
            return Path(place) / BPE_FILE
    return None


def _from_hub(source: str, otherwise: InputError) -> Path:
    from syncos_jax.weights_convert import hub

    if not hub.is_id(source):
        raise otherwise
    try:
        return hub.tokenizer(source, NAMES)
    except InputError as error:
        raise InputError(
            f"{otherwise.what} ({error})",
            argument=otherwise.argument,
            value=otherwise.value,
            remedy=otherwise.remedy,
        ) from error
