"""What a source of weights is, whatever its format: configuration, tensors, tables, tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncos_jax.weights_convert.stored import AnyTensor
from syncos_jax.weights_convert.table import AnyTable


@dataclasses.dataclass(frozen=True)
class Part:
    """One network's tensors.

    Attributes:
        where: names them in errors.
        tensors: by the name that the table knows.
        table: where they go.
        names: tables of other checkpoints of the network, whose names a LoRA's layers may have.
        metadata: of the file.
    """

    where: str
    tensors: Mapping[str, AnyTensor]
    table: AnyTable
    names: tuple[AnyTable, ...] = ()
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """An opened source: nothing of its weights has been read yet.

    Attributes:
        config: of the model, the `Model.config_class` of its family.
        parts: its networks, ``unet``, ``vae``, ``text_encoder`` or some of them.
        tokenizer: folder with the tokenizer's files, where the source has one.
        warnings: what the user should know.
        problems: tensors that belong to no network.
        hint: what may be wrong where the tensors do not fit.
        assumed: what nothing in the source says, and was assumed of the length of its clips.
    """

    config: Any
    parts: Mapping[str, Part]
    tokenizer: Path | None = None
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    hint: str = ""
    assumed: tuple[str, ...] = ()
