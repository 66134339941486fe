"""The tokenizer of a model that is converted: given, found next to it or packed in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from syncos_jax.errors import Argument, InputError, Phrase
from syncos_jax.models import saved
from syncos_jax.models.family import family_named
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.weights_convert import packed_tokenizer, tokenizer_files
from syncos_jax.weights_convert.checkpoint import Checkpoint, Part


def find_tokenizer(
    opened: Checkpoint, given: str | None, only: str | None, warnings: list[str]
) -> Path | str | None:
    """The tokenizer's source, a path or the text of a ``tokenizer.json``, where the model needs
    one; a text encoder alone may go without."""
    if "text_encoder" not in opened.parts:
        return None
    if given is None and opened.tokenizer is None:
        try:
            packed = _packed_tokenizer(opened.parts["text_encoder"])
        except InputError as error:
            if only is None:
                raise
            what = ": ".join([*error.place, str(error.what)])
            warnings.append(Phrase(f"{what}; pass ", Argument("tokenizer", "DIR")))
            packed = None
        if packed is not None:
            return packed
    if given is None and (opened.tokenizer is not None or only is not None):
        return opened.tokenizer
    if given is None and not isinstance(opened.config, ModelConfig):
        raise InputError(
            "the checkpoint has no tokenizer",
            remedy=("pass a folder with its tokenizer.json as ", Argument("tokenizer")),
        )
    return tokenizer_files.find(given)


def _packed_tokenizer(part: Part) -> str | None:
    """The tokenizer that lies in the text encoder's file; None where there is none."""
    if "spiece_model" in part.tensors:
        data = packed_tokenizer.packed_bytes(part.tensors["spiece_model"])
        return packed_tokenizer.from_spiece(data, part.where)
    if "tokenizer.ggml.tokens" in part.metadata:
        return packed_tokenizer.from_gguf(part.metadata, part.where)
    return None


def _check_tokenizer(folder: Path, config: Any) -> None:
    model: Any = family_named(config.family).from_networks(
        config, {"text_encoder": None}, folder.parent
    )
    tokenizer = model.tokenizer
    if tokenizer.vocabulary > config.text.vocabulary:
        raise InputError(
            f"the tokenizer has {tokenizer.vocabulary} tokens, the text encoder only "
            f"{config.text.vocabulary}; give the one that the model was trained with"
        )


def write_tokenizer(found: Path | str, folder: Path, config: Any) -> None:
    """Writes the tokenizer (as `find_tokenizer` returns it) of a model into its `folder`.

    Raises:
        InputError: it cannot be read, or has more tokens than the text encoder.
    """
    if isinstance(found, str):
        packed_tokenizer.write(found, folder / saved.TOKENIZER)
    else:
        has = [(found / name).is_file() for name in ("vocab.json", "merges.txt", "tokenizer.json")]
        if has == [True, False, False]:
            raise InputError("has vocab.json without merges.txt", place=found)
        openclip = getattr(config, "openclip_tokens", False)
        tokenizer_files.write(found, folder / saved.TOKENIZER, openclip=openclip)
    _check_tokenizer(folder / saved.TOKENIZER, config)
