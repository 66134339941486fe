"""Fixed lists of timesteps or noise levels, as few-step models are distilled for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.sampling.sigmas import FIRST_FLOW_LEVEL, SigmaSchedule

Listed = Literal["timesteps", "sigmas"]

FLOW_SCALE = 1000.0
"""Timestep that a flow model is given at noise level 1."""


def checked_list(name: Listed, values: Sequence[float]) -> tuple[float, ...]:
    """`values` as floats, without the 0 that a list of sigmas may end with.

    Raises:
      InputError: unless they are numbers, fall, and end above 0 (timesteps: at 0 or above).
    """
    good = isinstance(values, list | tuple) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values
    )
    if not good:
        raise InputError(argument=name, expected="a list of numbers", value=values)
    listed = tuple(float(v) for v in values)
    if name == "sigmas" and listed and listed[-1] == 0:
        listed = listed[:-1]
    if not listed:
        raise InputError(argument=name, expected="a list of at least one step", value=values)
    for before, after in zip(listed, listed[1:], strict=False):
        if after >= before:
            raise InputError(
                f"must fall from step to step, but {after:g} follows {before:g}", argument=name
            )
    if listed[-1] < 0 or (name == "sigmas" and listed[-1] == 0):
        raise InputError(f"must end above 0, not at {listed[-1]:g}", argument=name)
    return listed


def listed_levels(
    signal: np.ndarray,
    noise: np.ndarray,
    *,
    flow: bool,
    timesteps: Sequence[float] = (),
    sigmas: Sequence[float] = (),
    final: tuple[float, float] = (1.0, 0.0),
) -> SigmaSchedule:
    """The levels of a run by its list.

    A flow's sigmas are its noise levels ``s``, its timesteps ``1000 s``; neither is shifted. The
    sigmas of a schedule made from betas are ``b / a``, and the network is given the timestep
    between the two nearest, by their logarithms, as diffusers' ``EulerDiscreteScheduler`` does.

    Args:
      signal: ``a_t`` of the training timesteps ``[T]``.
      noise: ``b_t`` of them.
      flow: whether it is a flow.
      timesteps: of `checked_list`; or
      sigmas: of `checked_list`.
      final: rates of where the last step goes.

    Raises:
      InputError: if the schedule has no such level.
    """
    if flow:
        listed = [t for t in timesteps if t > 0]  # at timestep 0 there is no noise to remove
        most = FLOW_SCALE if timesteps else 1.0
        given = np.asarray(listed or sigmas, np.float64)
        if given.size == 0 or given[0] > most:
            raise InputError(
                f"begins at {given[0] if given.size else 0:g}",
                argument="timesteps" if timesteps else "sigmas",
                expected=f"at most {most:g} for a flow model, and above 0",
            )
        single = (given / most).astype(np.float32)
        b = np.append(single.astype(np.float64), final[1])
        return SigmaSchedule((np.float32(FLOW_SCALE) * single).astype(np.float64), 1.0 - b, b)
    if timesteps:
        t = np.asarray(timesteps, np.float64)
        if t[0] > len(signal) - 1 or (t != np.round(t)).any():
            wrong = t[0] if t[0] > len(signal) - 1 else t[t != np.round(t)][0]
            raise InputError(
                argument="timesteps",
                value=float(wrong),
                expected=f"integers up to {len(signal) - 1} for this model",
            )
        index = t.astype(np.int64)
        return SigmaSchedule(
            t, np.append(signal[index], final[0]), np.append(noise[index], final[1])
        )
    with np.errstate(divide="ignore"):
        ratio = noise / signal
    level = np.asarray(sigmas, np.float64)
    if level[0] > ratio[-1] * 1.001:
        raise InputError(
            argument="sigmas",
            value=float(level[0]),
            expected=f"at most {ratio[-1]:.4g} for this model (noise over signal)",
        )
    t = np.interp(np.log(level), np.log(ratio), np.arange(len(ratio)))
    own = 1.0 / np.sqrt(level**2 + 1.0)
    return SigmaSchedule(t, np.append(own, final[0]), np.append(level * own, final[1]))


def with_some_signal(levels: SigmaSchedule) -> SigmaSchedule:
    """The same levels, of which a first without signal is moved to where UniPC's scheduler puts it:
    the logarithm of its signal-to-noise ratio has to be finite."""
    if levels.a[0] > 1.0 - FIRST_FLOW_LEVEL:
        return levels
    b = np.append(np.float64(np.float32(FIRST_FLOW_LEVEL)), levels.b[1:])
    return levels._replace(a=1.0 - b, b=b)
