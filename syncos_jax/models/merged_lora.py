"""What became of a LoRA that was merged when a model was loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from syncos_jax.scenario.lora_files import LoraFile


@dataclass(frozen=True)
class MergedLora:
    """A LoRA that was merged into the weights of a loaded model.

    Attributes:
        file: as it was given.
        sha256: of the file.
        changes: how many weights it changed, by network.
    """

    file: LoraFile
    sha256: str
    changes: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for metadata files."""
        return {
            "file": self.file.file,
            "strength": self.file.strength,
            "network": self.file.network or None,
            "sha256": self.sha256,
            "changes": dict(self.changes),
        }
