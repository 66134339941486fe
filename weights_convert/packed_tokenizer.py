"""T5 tokenizers packed into files of weights: a SentencePiece model that ComfyUI stores as a
tensor, or the vocabulary in the header of a GGUF file. Written out as a ``tokenizer.json``."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from syncos_jax.errors import Argument, InputError

UNKNOWN, CONTROL, BYTE = 2, 3, 6
"""Kinds of pieces in SentencePiece's format and in GGUF."""
_REMEDY = ("pass the tokenizer's folder: ", Argument("tokenizer", "DIR"))
Piece = tuple[str, float, int]


def from_spiece(data: bytes, where: str | Path) -> str:
    """The ``tokenizer.json`` of a SentencePiece Unigram model.

    Args:
        data: the model's protocol buffer (``spiece.model``).
        where: names it in errors.

    Raises:
        InputError: no such model.
    """
    pieces: list[Piece] = []
    charsmap = b""
    try:
        for field, value in _fields(data):
            if field == 1:
                parts = dict(_fields(value))
                (score,) = struct.unpack("<f", parts.get(2, b"\0\0\0\0"))
                pieces.append((parts[1].decode("utf-8"), score, int(parts.get(3, 1))))
            elif field == 3:
                charsmap = dict(_fields(value)).get(2, b"")
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, IndexError) as error:
        raise InputError(
            "the tokenizer inside (spiece_model) cannot be read",
            place=where,
            remedy=_REMEDY,
        ) from error
    return _tokenizer_json(pieces, charsmap, where)


def from_gguf(metadata: Mapping[str, Any], where: str | Path) -> str:
    """The ``tokenizer.json`` of the vocabulary in a GGUF file's header; errors as `from_spiece`."""
    name = "tokenizer.ggml."
    try:
        pieces = list(
            zip(
                map(str, metadata[f"{name}tokens"]),
                map(float, metadata[f"{name}scores"]),
                map(int, metadata[f"{name}token_type"]),
                strict=True,
            )
        )
        charsmap = bytes(metadata.get(f"{name}precompiled_charsmap", ()))
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"the tokenizer inside cannot be read: {error}",
            place=where,
            remedy=_REMEDY,
        ) from error
    return _tokenizer_json(pieces, charsmap, where)


def write(text: str, folder: Path) -> None:
    """Writes ``tokenizer.json`` and its settings into the new `folder`."""
    folder.mkdir()
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    settings = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _tokenizer_json(pieces: list[Piece], charsmap: bytes, where: str | Path) -> str:
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    ids = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    unknown = next((i for i, (_, _, kind) in enumerate(pieces) if kind == UNKNOWN), None)
    if unknown is None or "</s>" not in ids or "<pad>" not in ids:
        raise InputError(
            "the tokenizer inside is not T5's: it has no <pad>, </s> or <unk>",
            place=where,
            remedy=_REMEDY,
        )
    byte_fallback = any(kind == BYTE for _, _, kind in pieces)
    vocabulary = [(piece, score) for piece, score, _ in pieces]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unknown, byte_fallback))
    if charsmap:
        try:
            tokenizer.normalizer = normalizers.Precompiled(charsmap)
        except Exception as error:  # the library raises Exception itself
            raise InputError(
                f"the tokenizer inside cannot be read: {error}", place=where
            ) from error
    spaces = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaces])
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", ids["</s>"])]
    )
    control = [piece for piece, _, kind in pieces if kind in (CONTROL, UNKNOWN)]
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in control])
    return str(tokenizer.to_str())


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Fields of a protocol buffer: number and value, bytes or an integer."""
    view, at = memoryview(data), 0
    while at < len(view):
        tag, at = _varint(view, at)
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(view, at)
            yield field, value
            continue
        if kind == 2:
            size, at = _varint(view, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if field == 0 or at + size > len(view):
            raise ValueError("ends within a field")
        yield field, bytes(view[at : at + size])
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 64 bits")


def packed_bytes(tensor: Any) -> bytes:
    """The bytes of a ``spiece_model`` tensor."""
    return np.asarray(tensor, np.uint8).tobytes()
