"""The named rules for the variances of the forward steps, and for which timesteps a run takes."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.sampling.sigmas import Spacing

BetaKind = Literal["scaled_linear", "linear", "squaredcos"]

LCM_STEPS = 50
"""Timesteps at which latent consistency models are distilled."""


def named_betas(kind: str, start: float, end: float, count: int) -> np.ndarray:
    """Variances of `count` forward steps; see `NoiseSchedule.from_betas`."""
    if kind not in get_args(BetaKind):
        known = ", ".join(get_args(BetaKind))
        raise InputError(f"NoiseSchedule: unknown betas {kind!r}; one of {known}")
    if kind == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, count) ** 2
    if kind == "linear":
        return np.linspace(start, end, count)
    edge = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1.0 - edge[1:] / edge[:-1], 0.999)


def spaced_timesteps(total: int, n: int, spacing: Spacing, offset: int) -> np.ndarray:
    """Falling timesteps of a run of `n` steps, of `total`; see `NoiseSchedule.steps`."""
    t: np.ndarray
    if spacing in ("leading", "every"):
        end = n * (total // n) if spacing == "leading" else total
        t = np.arange(0, end, total // n)[::-1] + offset
        t = t[t < total]
    elif spacing == "lcm":
        if n > LCM_STEPS:
            raise InputError(f"steps: {n} is out of range; spacing 'lcm' has {LCM_STEPS}")
        trained = (np.arange(1, LCM_STEPS + 1) * (total // LCM_STEPS) - 1)[::-1]
        t = trained[np.floor(np.arange(n) * (LCM_STEPS / n)).astype(np.int64)]
    elif spacing == "trailing":
        t = np.round(total - np.arange(n) * (total / n)) - 1
    else:
        t = np.round(np.linspace(0, total - 1, n))[::-1]
    return t.astype(np.float64)
