"""The call schedule: a whole sampling run as tables of numbers, made on the host.

A *sample* is one prediction of the network: a window, its conditioning, and the weight of the
prediction. Guidance is linear in the predictions (``guidance`` times the prompt's plus
``1 - guidance`` times the negative prompt's), so a guided window is two samples, or three where a
perturbed network's prediction is subtracted, too. An *update step* is a set of samples that belong
together: all windows of a pass (stage 1), or those of one optimiser step (stage 2). A *network
call* predicts a fixed number of samples; an update step takes as many calls as it needs. The call
schedule gives a run's cost before it starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

MAX_SAMPLES_PER_CALL = 32
"""Maximum number of samples of a call where the settings give none."""
MIN_CALLS = 256
"""Calls that every call schedule has room for on the devices."""
CALL_OVERHEAD = 0.5
"""Fixed cost of a call, in samples: decides between few large and many small calls."""


class NetworkCall(NamedTuple):
    """One call of the network on ``b`` samples; in a `CallSchedule` each array has a leading axis
    of calls.

    Empty slots of an update step's last call repeat its last sample with weight 0.
    """

    index: Any
    """Position in the call schedule, int32."""
    update: Any
    """Update step that the call belongs to, int32."""
    first: Any
    """Whether it is the first call of its update step, bool."""
    last: Any
    """Whether it is the last call of its update step, bool."""
    windows: Any
    """Window of each sample, int32 ``[b]``."""
    cond_index: Any
    """Row of the conditioning table of each sample, int32 ``[b]``."""
    weights: Any
    """Weight of each sample's prediction in its window's, float32 ``[b]``."""
    prompted: Any
    """Whether it is the sample of a window's prompt in the network itself, bool ``[b]``."""


class Samples(NamedTuple):
    """The samples of an update step: arrays ``[n]`` like those of a `NetworkCall`."""

    windows: np.ndarray
    cond_index: np.ndarray
    weights: np.ndarray
    prompted: np.ndarray


@dataclass(frozen=True)
class CallSummary:
    """The cost of a run, known before it starts.

    Attributes:
      calls: network calls.
      samples_per_call: slots of each.
      samples: predictions in all, without padding.
      padding: empty slots.
      windows: windows predicted, each counted once however many samples it takes.
      steps: denoising steps.
      passes: passes over all windows.
      optimizer_steps: optimiser steps of the refinement.
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
            f"{self.calls} network calls of {self.samples_per_call} samples: {self.steps} steps, "
            f"{self.passes} passes over the video, {self.optimizer_steps} optimiser steps "
            f"({self.windows} windows, {self.samples} samples, {self.padding} empty slots)"
        )


@dataclass(frozen=True, eq=False)
class CallSchedule:
    """A sampling run.

    Attributes:
      calls: NumPy arrays with a leading axis of calls.
      used: which slots of which calls hold a sample of their own, bool ``[calls, b]``.
      updates: a named tuple of NumPy arrays with a leading axis of update steps: what happens
        before and after the calls of each. It has at least ``step`` (int32), ``t`` (float32, for
        messages) and ``refine`` (bool).
      start: signal and noise rate of the first timestep.
      constants: other arrays that the method reads, or None.
    """

    calls: NetworkCall
    used: np.ndarray
    updates: Any
    start: tuple[float, float]
    constants: Any = None

    def __len__(self) -> int:
        return len(self.calls.index)

    @property
    def samples_per_call(self) -> int:
        """Slots ``b`` of a call."""
        return self.calls.windows.shape[1]

    @cached_property
    def max_samples(self) -> int:
        """Samples of the largest update step: no call can use more slots."""
        return int(np.bincount(self.calls.update, weights=self.used.sum(axis=1)).max())

    @property
    def structure(self) -> tuple:
        """What must be equal, besides the program, for two schedules to run side by side: shapes,
        and which call belongs to which update step."""
        shapes = tuple(array.shape for array in (*self.calls, *self.updates))
        return shapes, self.calls.update.tobytes(), self.used.sum(axis=1).tobytes()

    def padded(self) -> tuple[NetworkCall, Any]:
        """Calls and update steps, followed by spare ones that never run: schedules of different
        lengths then mostly have equal shapes and share one compiled program."""
        return _padded(self.calls), _padded(self.updates)

    def describe(self) -> CallSummary:
        """The cost of the run."""
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
    """The table with its last line repeated up to a multiple of `MIN_CALLS` or, for a long one, of
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
    """The samples of an update step.

    Args:
      windows: distinct windows, int32 ``[n]``.
      cond_index: row of the conditioning table for every window of the video, of its prompt and,
        for guidance, of its negative prompt and of its prompt for a perturbed network: int32
        ``[N]`` each.
      weights: of these predictions; they sum to 1. Where a weight is 0, or there is no such
        conditioning, there is no sample, and the prompt's has what is left of 1.
    """
    count = len(windows)
    kinds = [k for k in range(1, min(len(weights), len(cond_index))) if weights[k]]
    each = np.asarray([1.0 - sum(weights[k] for k in kinds), *(weights[k] for k in kinds)])
    index = np.stack([cond_index[k][windows] for k in (0, *kinds)], axis=1).ravel()
    first = np.eye(1, len(each), dtype=bool)[0]
    own = np.tile(each.astype(np.float32), count)
    return Samples(np.repeat(windows, len(each)), index, own, np.tile(first, count))


def choose_samples_per_call(updates: Sequence[int], most: int, num_shards: int = 1) -> int:
    """The number of samples per call that makes the run cheapest.

    Args:
      updates: samples of each update step.
      most: upper limit.
      num_shards: devices that split a call into equal shares.
    """
    sizes, counts = np.unique(np.asarray(updates), return_counts=True)
    top = -(-min(most, int(sizes.max())) // num_shards)
    share = np.arange(1, top + 1)
    calls = (-(-sizes[None] // (share * num_shards)[:, None]) * counts[None]).sum(axis=1)
    cost = calls * (share + CALL_OVERHEAD)
    return int(share[cost.argmin()]) * num_shards


def pack(updates: Sequence[Samples], samples_per_call: int) -> tuple[NetworkCall, np.ndarray]:
    """The network calls of update steps with `samples_per_call` slots, and `CallSchedule.used`."""
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
                prompted=np.pad(samples.prompted, (0, spare)).reshape(calls, b),
            )
        )
        used.append((np.arange(calls * b) < count).reshape(calls, b))
        start += calls
    together = NetworkCall(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return together, np.concatenate(used)
