"""The tape: a whole sampling run, written down on the host as rows of numbers.

A *clip* is one prediction of the network: a window, what it is conditioned on, and the weight with
which the prediction enters. Guidance is linear in the predictions (``guidance`` times that of the
prompt and ``1 - guidance`` times that of the negative prompt), so a guided window is two clips. A
*round* is a set of clips that belong together: all windows of a step (stage 1), or those of one
optimiser step (stage 2). A *row* is one call of the network on a fixed number of clips; a round
takes as many rows as it needs. What a run costs is known from its tape before it starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

MOST_CLIPS = 32
"""Clips of a call, at most, where the settings do not say."""
LEAST_ROWS = 256
"""Rows that every tape has room for on the devices."""
CALL_OVERHEAD = 0.5
"""What a call costs beside its clips, in clips: decides between few large and many small calls."""


class Row(NamedTuple):
    """One call of the network; on a `Tape` each array has the rows as an axis in front.

    ``b`` clips of a call. Places that a round leaves empty in its last row repeat its last clip,
    with weight 0.
    """

    index: Any
    """Place on the tape, int32."""
    round: Any
    """Round that the row belongs to, int32."""
    first: Any
    """Whether it is the first row of its round, bool."""
    last: Any
    """Whether it is the last row of its round, bool."""
    windows: Any
    """Window of each clip, int32 ``[b]``."""
    texts: Any
    """What each clip is conditioned on, an index into the table of conditionings, int32 ``[b]``."""
    weights: Any
    """Weight of each clip's prediction in its window's, float32 ``[b]``."""


class Clips(NamedTuple):
    """The clips of a round: arrays ``[n]`` like those of a `Row`."""

    windows: np.ndarray
    texts: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class TapeSummary:
    """What a run consists of, known before it starts.

    Attributes:
      rows: calls of the network.
      clips_per_call: clips of each.
      clips: predictions in all, not counting those that only fill a call.
      empty: the places of calls that are filled so.
      windows: windows predicted, each once however many clips it takes.
      steps: denoising steps.
      co_denoising_rounds: passes over all windows.
      refinement_rounds: optimiser steps.
    """

    rows: int
    clips_per_call: int
    clips: int
    empty: int
    windows: int
    steps: int
    co_denoising_rounds: int
    refinement_rounds: int

    def __str__(self) -> str:
        return (
            f"{self.rows} calls of the network on {self.clips_per_call} clips each: {self.steps} "
            f"steps, {self.co_denoising_rounds} passes over the video, {self.refinement_rounds} "
            f"optimiser steps ({self.windows} windows predicted by {self.clips} clips, "
            f"{self.empty} places unused)"
        )


@dataclass(frozen=True, eq=False)
class Tape:
    """A sampling run.

    Attributes:
      rows: NumPy arrays, rows in front.
      used: which places of which rows hold a clip of their own, bool ``[rows, b]``.
      rounds: a named tuple of NumPy arrays, rounds in front: what happens before and after the
        calls of each round. It has at least ``step`` (int32), ``t`` (float32, for messages) and
        ``refine`` (bool).
      constants: other arrays that the method reads, or None.
    """

    rows: Row
    used: np.ndarray
    rounds: Any
    constants: Any = None

    def __len__(self) -> int:
        return len(self.rows.index)

    @property
    def clips_per_call(self) -> int:
        """Places ``b`` of a call."""
        return self.rows.windows.shape[1]

    @cached_property
    def longest(self) -> int:
        """Clips of the longest round, more than which no call can use."""
        return int(np.bincount(self.rows.round, weights=self.used.sum(axis=1)).max())

    @property
    def structure(self) -> tuple:
        """What must be equal, beside the program, for two tapes to be played side by side: shapes,
        and which row belongs to which round."""
        shapes = tuple(array.shape for array in (*self.rows, *self.rounds))
        return shapes, self.rows.round.tobytes(), self.used.sum(axis=1).tobytes()

    def padded(self) -> tuple[Row, Any]:
        """Rows and rounds with spare ones behind them that are never played: tapes of different
        lengths then mostly have the same shapes, and one compiled program plays them."""
        return _padded(self.rows), _padded(self.rounds)

    def describe(self) -> TapeSummary:
        """Counts what the run consists of."""
        used = self.used
        refine = np.asarray(self.rounds.refine)
        pairs = np.stack([np.repeat(self.rows.round, used.sum(axis=1)), self.rows.windows[used]])
        return TapeSummary(
            rows=len(self),
            clips_per_call=self.clips_per_call,
            clips=int(used.sum()),
            empty=int((~used).sum()),
            windows=len(np.unique(pairs, axis=1).T),
            steps=int(self.rounds.step.max()) + 1,
            co_denoising_rounds=int((~refine).sum()),
            refinement_rounds=int(refine.sum()),
        )


def _padded(table: Any) -> Any:
    """The table with its last line repeated up to a multiple of `LEAST_ROWS` or, of a long one, of
    an eighth to a quarter of it."""
    count = len(table[0])
    step = max(LEAST_ROWS, 1 << max(0, count.bit_length() - 3))
    spare = -count % step
    return type(table)(
        *(np.pad(c, [(0, spare), *[(0, 0)] * (c.ndim - 1)], mode="edge") for c in table)
    )


def clips_of(
    windows: np.ndarray,
    texts: Sequence[np.ndarray],
    guidance: float | None,
) -> Clips:
    """The clips of a round.

    Args:
      windows: which windows, int32 ``[n]``, none twice.
      texts: conditioning of every window of the video with its prompt, and with its negative one
        (left out where there is none): int32 ``[N]`` each.
      guidance: scale; None for no guidance.
    """
    if guidance is None or len(texts) < 2:
        return Clips(windows, texts[0][windows], np.ones(len(windows), np.float32))
    both = np.stack([texts[0][windows], texts[1][windows]], axis=1).ravel()
    weights = np.tile(np.asarray([guidance, 1.0 - guidance], np.float32), len(windows))
    return Clips(np.repeat(windows, 2), both, weights)


def choose_clips_per_call(rounds: Sequence[int], most: int, shares: int = 1) -> int:
    """How many clips a call has, so that the run takes least.

    Args:
      rounds: clips of each round.
      most: at most so many.
      shares: devices that share a call; they have equal shares.
    """
    sizes, counts = np.unique(np.asarray(rounds), return_counts=True)
    top = -(-min(most, int(sizes.max())) // shares)
    share = np.arange(1, top + 1)
    calls = (-(-sizes[None] // (share * shares)[:, None]) * counts[None]).sum(axis=1)
    cost = calls * (share + CALL_OVERHEAD)
    return int(share[cost.argmin()]) * shares


def pack(rounds: Sequence[Clips], clips_per_call: int) -> tuple[Row, np.ndarray]:
    """The rows of `rounds`, with so many clips in each call, and `Tape.used`."""
    b = clips_per_call
    parts: list[Row] = []
    used: list[np.ndarray] = []
    start = 0
    for number, clips in enumerate(rounds):
        count = len(clips.windows)
        rows = -(-count // b)
        index = np.arange(start, start + rows, dtype=np.int32)
        spare = rows * b - count
        parts.append(
            Row(
                index=index,
                round=np.full(rows, number, np.int32),
                first=index == start,
                last=index == start + rows - 1,
                windows=np.pad(clips.windows, (0, spare), mode="edge").reshape(rows, b),
                texts=np.pad(clips.texts, (0, spare), mode="edge").reshape(rows, b),
                weights=np.pad(clips.weights, (0, spare)).reshape(rows, b),
            )
        )
        used.append((np.arange(rows * b) < count).reshape(rows, b))
        start += rows
    rows_of_all = Row(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return rows_of_all, np.concatenate(used)
