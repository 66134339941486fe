"""How often the state of a run is saved."""

from __future__ import annotations

from dataclasses import dataclass

from syncos_jax.errors import InputError

MAX_SAVE_OVERHEAD = 0.02
"""Fraction of the time that a run may wait for its own checkpoints: after one that took a second,
the next comes 50 seconds later at the earliest."""


@dataclass(frozen=True)
class SaveInterval:
    """How often the state is saved.

    Attributes:
      seconds: about this often; less often if saving would take more than 2 % of the time.
      calls: instead, after this many network calls. The run is then played call by call.
    """

    seconds: float = 30.0
    calls: int | None = None

    def __post_init__(self) -> None:
        if not self.seconds >= 0 or (self.calls is not None and self.calls < 1):
            raise InputError(
                argument="checkpoint_every", expected="0 or more seconds, or 1 or more calls"
            )


def parse_save_interval(text: str) -> SaveInterval:
    """``"30"`` or ``"30s"``: seconds; ``"100calls"``: network calls. Raises InputError."""
    word = text.strip().lower().replace("rows", "calls")  # the name of earlier releases
    try:
        if word.endswith("calls"):
            return SaveInterval(calls=int(word.removesuffix("calls")))
        return SaveInterval(seconds=float(word.removesuffix("s")))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            argument="checkpoint_every",
            value=text,
            expected="seconds such as 30, or network calls such as 100calls",
        ) from None
