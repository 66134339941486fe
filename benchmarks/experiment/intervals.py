"""Means with intervals, and which of two methods is the better one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 9999


@dataclass(frozen=True)
class Estimate:
    """A mean and its bootstrap interval.

    Attributes:
        mean: of the values.
        low, high: ends of the 95 % interval; None for fewer than two values.
        count: of values.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "count": self.count}


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean with its percentile bootstrap interval; None without values.

    The unit that is drawn again is the video, that is one scenario with one seed. The interval
    speaks of other seeds and of other scenarios of these kinds together. With few videos
    percentile intervals are too narrow; the count is shown next to them.
    """
    array = np.asarray(values, np.float64)
    if not len(array):
        return None
    mean = float(array.mean())
    if len(array) == 1:
        return Estimate(mean, None, None, 1)
    if np.ptp(array) == 0:
        return Estimate(mean, mean, mean, len(array))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            (array,),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=LEVEL,
            method="percentile",
            random_state=np.random.default_rng(0),
        ).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high), len(array))


def difference(
    first: Mapping[Any, float | None], second: Mapping[Any, float | None]
) -> Estimate | None:
    """First minus second over the videos (scenario and seed) that both have a value for.

    Pairs, because the scenario decides far more than the method does.
    """
    values = [
        a - b for key, a in first.items() if a is not None and (b := second.get(key)) is not None
    ]
    return estimate(values)


def share_of_gain(
    base: Mapping[Any, float | None],
    own: Mapping[Any, float | None],
    full: Mapping[Any, float | None],
) -> Estimate | None:
    """What share of the mean gain of ``full`` over ``base`` is that of ``own``.

    Over the videos that all three have a value for, which are drawn again together; None for fewer
    than `FEWEST`, or where ``full`` gains nothing. Without an interval where the gain of ``full``
    is not clear of 0.
    """
    rows = [(a, b, c) for key, a in base.items() for b, c in [(own.get(key), full.get(key))]]
    known = [row for row in rows if None not in row]
    if len(known) < FEWEST:
        return None
    table = np.asarray(known, np.float64)
    drawn = np.random.default_rng(0).integers(len(table), size=(RESAMPLES, len(table)))
    means = np.concatenate([table.mean(axis=0)[None], table[drawn].mean(axis=1)])
    gain = means[:, 2] - means[:, 0]
    if gain[0] <= 0:
        return None
    there = gain > 0
    shares = (means[there, 1] - means[there, 0]) / gain[there]
    if (~there).mean() > (1 - LEVEL) / 2:  # the whole may be nothing: a share of it has no bounds
        return Estimate(float(shares[0]), None, None, len(table))
    low, high = np.percentile(shares[1:], [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Estimate(float(shares[0]), float(low), float(high), len(table))


HOLDS, FAILS, OPEN = "holds", "does not hold", "within the interval"
FEW, NOTHING = "too few videos", "not measured"
FEWEST = 6
"""Least number of pairs of videos for a verdict: the interval of two values is these two values."""


def verdict(paper: float, ours: Estimate | None) -> str:
    """Whether our difference has the sign of the paper's.

    Args:
        paper: the paper's difference, not 0.
        ours: the same difference of ours.

    Returns:
        ``"holds"`` or ``"does not hold"`` where the interval leaves 0 out, ``"within the
        interval"`` where it does not, ``"too few videos"`` for fewer than `FEWEST` pairs, ``"not
        measured"`` for none.
    """
    if ours is None:
        return NOTHING
    if ours.low is None or ours.high is None or ours.count < FEWEST:
        return FEW
    if ours.low <= 0 <= ours.high:
        return OPEN
    return HOLDS if (ours.mean > 0) == (paper > 0) else FAILS
