"""How a LoRA is named: ``[NETWORK=]FILE[:STRENGTH]``."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

from syncos_jax.errors import InputError

NETWORKS = (
    *("unet", "transformer", "transformer_2", "connectors", "vae", "text_encoder"),
    "image_encoder",
)
"""Networks that a LoRA may be given for."""


@dataclasses.dataclass(frozen=True)
class LoraFile:
    """A LoRA as it is given on the command line, in scenarios and in Python.

    Attributes:
        file: its path.
        strength: factor of its change; 0 changes nothing.
        network: the network that it is for; "" for those that it has layers of.
    """

    file: str
    strength: float = 1.0
    network: str = ""

    @classmethod
    def parse(cls, given: str | os.PathLike[str] | LoraFile) -> LoraFile:
        """Reads ``[NETWORK=]FILE[:STRENGTH]``; what follows a colon and is no number belongs to
        the file's name.

        Raises:
            InputError: no file, or a strength that is not finite.
        """
        if isinstance(given, LoraFile):
            return given
        text = os.fspath(given)
        network, _, file = text.partition("=")
        if network not in NETWORKS:
            network, file = "", text
        strength = 1.0
        name, colon, number = file.rpartition(":")
        if colon:
            try:
                file, strength = name, float(number)
            except ValueError:
                pass
        if not file or not math.isfinite(strength):
            what = "the strength must be a finite number" if file else "names no file"
            raise InputError(what, argument="lora", value=text, expected="FILE or FILE:STRENGTH")
        return cls(file, strength, network)

    def __str__(self) -> str:
        network = f"{self.network}=" if self.network else ""
        return f"{network}{self.file}:{self.strength:g}"

    def within(self, folder: Path) -> LoraFile:
        """The same with a relative path taken from `folder`."""
        return dataclasses.replace(self, file=str(folder / self.file))

    def same(self, other: LoraFile) -> bool:
        """Whether both name the same file, strength and network."""
        own, others = Path(self.file).absolute(), Path(other.file).absolute()
        return own == others and (self.strength, self.network) == (other.strength, other.network)


def check_lora(lora: LoraFile) -> Path:
    """The file of a LoRA; InputError where there is none."""
    path = Path(lora.file)
    if not path.is_file():
        raise InputError(
            "no such file", argument="lora", value=lora.file, expected="FILE or FILE:STRENGTH"
        )
    return path
