"""The call_schedule: a whole sampling run, written down on the host as calls of numbers.

A *clip* is one prediction of the network: a window, what it is conditioned on, and the weight with
which the prediction enters. Guidance is linear in the predictions (``guidance`` times that of the
prompt and ``1 - guidance`` times that of the negative prompt), so a guided window is two samples,
or three where a perturbed network's prediction is subtracted, too. A
*update* is a set of samples that belong together: all windows of a step (stage 1), or those of one
optimiser step (stage 2). A *call* is one call of the network on a fixed number of samples; a update
takes as many calls as it needs. What a run costs is known from its call_schedule before it starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

MAX_SAMPLES_PER_CALL = 32
"""Samples of a call, at most, where the settings do not say."""
MIN_CALLS = 256
"""Calls that every call_schedule has room for on the devices."""
CALL_OVERHEAD = 0.5
"""What a call costs beside its samples, in samples: decides between few large and many small
calls."""


class NetworkCall(NamedTuple):
    """One call of the network; on a `CallSchedule` each array has the calls as an axis in front.

    ``b`` samples of a call. Places that a update leaves padding in its last call repeat its last
    clip,
    with weight 0.
    """

    index: Any
    """Place on the call_schedule, int32."""
    update: Any
    """UpdateStep that the call belongs to, int32."""
    first: Any
    """Whether it is the first call of its update, bool."""
    last: Any
    """Whether it is the last call of its update, bool."""
    windows: Any
    """Window of each clip, int32 ``[b]``."""
    cond_index: Any
    """What each clip is conditioned on, an index into the table of conditionings, int32 ``[b]``."""
    weights: Any
    """Weight of each clip's prediction in its window's, float32 ``[b]``."""


class Samples(NamedTuple):
    """The samples of a update: arrays ``[n]`` like those of a `NetworkCall`."""

    windows: np.ndarray
    cond_index: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class CallSummary:
    """What a run consists of, known before it starts.

    Attributes:
      calls: calls of the network.
      samples_per_call: samples of each.
      samples: predictions in all, not counting those that only fill a call.
      padding: the places of calls that are filled so.
      windows: windows predicted, each once however many samples it takes.
      steps: denoising steps.
      passes: passes over all windows.
      optimizer_steps: optimiser steps.
    """

    calls: int
    samples_per_call: int
    samples: int
    padding: int
    windows: int
    steps: int
    passes: int
    optimizer_steps: int

    def __str__(self) -> str:
        return (
            f"{self.calls} calls of the network on {self.samples_per_call} samples each: "
            f"{self.steps} "
            f"steps, {self.passes} passes over the video, {self.optimizer_steps} "
            f"optimiser steps ({self.windows} windows predicted by {self.samples} samples, "
            f"{self.padding} places unused)"
        )


@dataclass(frozen=True, eq=False)
class CallSchedule:
    """A sampling run.

    Attributes:
      calls: NumPy arrays, calls in front.
      used: which places of which calls hold a clip of their own, bool ``[calls, b]``.
      updates: a named tuple of NumPy arrays, updates in front: what happens before and after the
        calls of each update. It has at least ``step`` (int32), ``t`` (float32, for messages) and
        ``refine`` (bool).
      constants: other arrays that the method reads, or None.
    """

    calls: NetworkCall
    used: np.ndarray
    updates: Any
    constants: Any = None

    def __len__(self) -> int:
        return len(self.calls.index)

    @property
    def samples_per_call(self) -> int:
        """Places ``b`` of a call."""
        return self.calls.windows.shape[1]

    @cached_property
    def longest(self) -> int:
        """Samples of the longest update, more than which no call can use."""
        return int(np.bincount(self.calls.update, weights=self.used.sum(axis=1)).max())

    @property
    def structure(self) -> tuple:
        """What must be equal, beside the program, for two call_schedules to be played side by
        side: shapes,
        and which call belongs to which update."""
        shapes = tuple(array.shape for array in (*self.calls, *self.updates))
        return shapes, self.calls.update.tobytes(), self.used.sum(axis=1).tobytes()

    def padded(self) -> tuple[NetworkCall, Any]:
        """Calls and updates with spare ones behind them that are never played: call_schedules
        of different
        lengths then mostly have the same shapes, and one compiled program plays them."""
        return _padded(self.calls), _padded(self.updates)

    def describe(self) -> CallSummary:
        """Counts what the run consists of."""
        used = self.used
        refine = np.asarray(self.updates.refine)
        pairs = np.stack([np.repeat(self.calls.update, used.sum(axis=1)), self.calls.windows[used]])
        return CallSummary(
            calls=len(self),
            samples_per_call=self.samples_per_call,
            samples=int(used.sum()),
            padding=int((~used).sum()),
            windows=len(np.unique(pairs, axis=1).T),
            steps=int(self.updates.step.max()) + 1,
            passes=int((~refine).sum()),
            optimizer_steps=int(refine.sum()),
        )


def _padded(table: Any) -> Any:
    """The table with its last line repeated up to a multiple of `MIN_CALLS` or, of a long one, of
    an eighth to a quarter of it."""
    count = len(table[0])
    step = max(MIN_CALLS, 1 << max(0, count.bit_length() - 3))
    spare = -count % step
    return type(table)(
        *(np.pad(c, [(0, spare), *[(0, 0)] * (c.ndim - 1)], mode="edge") for c in table)
    )


def make_samples(
    windows: np.ndarray,
    cond_index: Sequence[np.ndarray],
    weights: Sequence[float],
) -> Samples:
    """The samples of a update.

    Args:
      windows: which windows, int32 ``[n]``, none twice.
      cond_index: conditioning of every window of the video with its prompt and, for guidance, with
        its negative prompt and with its prompt for a perturbed network: int32 ``[N]`` each.
      weights: of these predictions; they sum to 1. Where a weight is 0, or there is no such
        conditioning, there is no sample, and the prompt's has what is left of 1.
    """
    count = len(windows)
    kinds = [k for k in range(1, min(len(weights), len(cond_index))) if weights[k]]
    each = np.asarray([1.0 - sum(weights[k] for k in kinds), *(weights[k] for k in kinds)])
    index = np.stack([cond_index[k][windows] for k in (0, *kinds)], axis=1).ravel()
    return Samples(np.repeat(windows, len(each)), index, np.tile(each.astype(np.float32), count))


def choose_samples_per_call(updates: Sequence[int], most: int, num_shards: int = 1) -> int:
    """How many samples a call has, so that the run takes least.

    Args:
      updates: samples of each update.
      most: at most so many.
      num_shards: devices that share a call; they have equal num_shards.
    """
    sizes, counts = np.unique(np.asarray(updates), return_counts=True)
    top = -(-min(most, int(sizes.max())) // num_shards)
    share = np.arange(1, top + 1)
    calls = (-(-sizes[None] // (share * num_shards)[:, None]) * counts[None]).sum(axis=1)
    cost = calls * (share + CALL_OVERHEAD)
    return int(share[cost.argmin()]) * num_shards


def pack(updates: Sequence[Samples], samples_per_call: int) -> tuple[NetworkCall, np.ndarray]:
    """The calls of `updates`, with so many samples in each call, and `CallSchedule.used`."""
    b = samples_per_call
    parts: list[NetworkCall] = []
    used: list[np.ndarray] = []
    start = 0
    for number, samples in enumerate(updates):
        count = len(samples.windows)
        calls = -(-count // b)
        index = np.arange(start, start + calls, dtype=np.int32)
        spare = calls * b - count
        parts.append(
            NetworkCall(
                index=index,
                update=np.full(calls, number, np.int32),
                first=index == start,
                last=index == start + calls - 1,
                windows=np.pad(samples.windows, (0, spare), mode="edge").reshape(calls, b),
                cond_index=np.pad(samples.cond_index, (0, spare), mode="edge").reshape(calls, b),
                weights=np.pad(samples.weights, (0, spare)).reshape(calls, b),
            )
        )
        used.append((np.arange(calls * b) < count).reshape(calls, b))
        start += calls
    rows_of_all = NetworkCall(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return rows_of_all, np.concatenate(used)
