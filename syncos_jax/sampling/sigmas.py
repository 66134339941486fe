"""Noise levels of a run, as the published schedulers of multistep solvers and of flows choose them.

They differ in rounding and in what they count, and a converted model is sampled as its own
scheduler would: the rules here are those of diffusers' ``UniPCMultistepScheduler``,
``DPMSolverMultistepScheduler``, ``EulerDiscreteScheduler`` and ``FlowMatchEulerDiscreteScheduler``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from syncos_jax.errors import InputError

FlowRule = Literal["unipc", "dpm++", "euler", "even", "list"]
SigmaSpacing = Literal["linspace", "leading", "trailing"]
Spacing = Literal["leading", "every", "trailing", "linspace", "lcm"]
BetaRule = Literal["multistep", "euler"]
Sigmas = Literal["karras", "exponential"]

FIRST_FLOW_LEVEL = 1.0 - 1e-6
"""UniPC's first level of a flow: at 1 there is no signal, and its logarithm is infinite."""
LEAST_SIGNAL = 2.0**-12
"""What multistep solvers take for the signal rate of a level without signal (2^-24 in variance)."""


class SigmaSchedule(NamedTuple):
    """The levels of one run, from high to low noise; float64."""

    t: np.ndarray
    """Timestep given to the network at each step, ``[S]``."""
    a: np.ndarray
    """Signal rates, of the steps and of where the last one goes, ``[S + 1]``."""
    b: np.ndarray
    """Noise rates, ``[S + 1]``."""
    start: float = 1.0
    """Standard deviation of the latent before the first step."""


def flow_sigmas(
    steps: int,
    *,
    rule: FlowRule = "unipc",
    shift: float = 1.0,
    dynamic: float | None = None,
    dynamic_kind: Literal["exponential", "linear"] = "exponential",
    terminal: float | None = None,
    end_clean: bool = True,
    train_steps: int = 1000,
    sigmas: tuple[float, ...] = (),
) -> SigmaSchedule:
    """SigmaSchedule of a flow model: ``a = 1 - s``, ``b = s``, ``s <- shift s / (1 + (shift -
    1) s)``.

    Rule ``"unipc"`` spreads ``s`` over ``1 .. 1/T`` and leaves the last one out; ``"dpm++"``
    over ``1 - 1/T .. 0`` likewise; ``"euler"`` over ``1 .. (1/T, shifted)`` with both ends, and
    shifts that. The first two give the network whole timesteps (``T s`` cut), Euler ``T s``, as
    ``"even"``, over ``1 .. 1/n`` with both ends (LTX-2), and ``"list"``: `sigmas` as they are or,
    for another number of steps, values in between.

    Args:
      steps: how many.
      rule: whose.
      shift: of the time; 3 for Wan at 480p, 5 at 720p.
      dynamic: ``mu`` of the shift by resolution, in place of `shift`.
      dynamic_kind: whether the shift is ``exp(mu)`` or ``mu``; rule "dpm++" has only the former.
      terminal: stretch the levels so that the last one is this.
      end_clean: whether the last step goes to the clean latent; else it stays at the last level
        ("unipc" only).
      train_steps: ``T``.
      sigmas: of rule "list", falling, without the last one, which is 0.

    Raises:
      InputError: if an argument is out of range.
    """
    if rule not in get_args(FlowRule):
        raise InputError(f"flow_sigmas: unknown rule {rule!r}; one of {get_args(FlowRule)}")
    if not 1 <= steps <= train_steps:
        raise InputError(f"flow_sigmas: {steps} steps are out of range; 1 to {train_steps}")
    if not shift > 0:
        raise InputError(f"flow_sigmas: shift must be > 0, got {shift}")
    if rule != "unipc" and not end_clean:
        raise InputError(f"flow_sigmas: rule {rule!r} ends at the clean latent only")
    if rule == "dpm++" and (terminal is not None or dynamic_kind != "exponential"):
        raise InputError("flow_sigmas: rule 'dpm++' has no terminal level and no linear shift")
    if dynamic is not None:
        shift = float(np.exp(dynamic)) if dynamic_kind == "exponential" else float(dynamic)

    def shifted(s: np.ndarray) -> np.ndarray:
        return shift * s / (1.0 + (shift - 1.0) * s)

    if rule == "unipc":
        s = shifted(np.linspace(1.0, 1.0 / train_steps, steps + 1)[:-1])
    elif rule == "dpm++":
        s = np.flip(shifted(1.0 - np.linspace(1.0, 1.0 / train_steps, steps + 1)))[:-1]
    elif rule == "even":
        s = shifted(np.linspace(1.0, 1.0 / steps, steps))
    elif rule == "list":
        given = np.asarray([*sigmas, 0.0], np.float64)
        if len(given) < 2 or not 0.0 < given[0] <= 1.0 or (np.diff(given) >= 0.0).any():
            raise InputError(f"flow_sigmas: sigmas must fall from at most 1 to above 0: {sigmas}")
        s = np.interp(np.arange(steps) * (len(sigmas) / steps), np.arange(len(given)), given)
    else:
        last = 1.0 / train_steps
        if dynamic is None:  # kept in float32, and shifted a second time below
            last = float(np.float32(shift * last / (1.0 + (shift - 1.0) * last)))
        s = shifted(np.linspace(1.0, last, steps))
    if terminal is not None and s[-1] < 1.0:
        s = 1.0 - (1.0 - s) * (1.0 - terminal) / (1.0 - s[-1])
    if rule == "unipc" and abs(s[0] - 1.0) < 1e-6:
        s[0] = FIRST_FLOW_LEVEL
    single = s.astype(np.float32).astype(np.float64)  # the schedulers keep them so
    t = (
        np.trunc(train_steps * s)
        if rule in ("unipc", "dpm++")
        else np.float32(train_steps) * s.astype(np.float32)
    )
    final = 0.0 if end_clean else single[-1]
    b = np.append(single, final)
    return SigmaSchedule(np.asarray(t, np.float64), 1.0 - b, b)


def beta_sigmas(
    signal: ArrayLike,
    noise: ArrayLike,
    steps: int,
    *,
    spacing: SigmaSpacing = "linspace",
    offset: int = 0,
    end_clean: bool = True,
    rule: BetaRule = "multistep",
    sigmas: Sigmas | None = None,
) -> SigmaSchedule:
    """SigmaSchedule of a schedule made from betas.

    Rule ``"multistep"`` leaves out the timestep that DDIM's rules have last, as its step is the one
    to the end: ``"linspace"`` takes n of n + 1 timesteps over ``0 .. T-1``, ``"leading"`` each
    ``T // (n + 1)``-th; ``"trailing"`` is DDIM's. Rule ``"euler"`` takes n over ``0 .. T-1``, which
    need not be whole, and ``"leading"`` each ``T // n``-th.

    Args:
      signal: ``a_t`` of the training timesteps ``[T]``.
      noise: ``b_t`` of them.
      steps: how many.
      spacing: the rule.
      offset: added to ``"leading"`` timesteps.
      end_clean: whether the last step goes to the clean latent, or to timestep 0.
      rule: whose.
      sigmas: levels that do not follow the timesteps, but the ratio ``b / a``: ``"karras"`` (Karras
        et al., arXiv 2206.00364, eq. 5, rho 7) or ``"exponential"`` (evenly in its logarithm). The
        network is then given the timesteps nearest to them; for Euler's rule those in between.

    Raises:
      InputError: if an argument is out of range.
    """
    a, b = np.asarray(signal, np.float64), np.asarray(noise, np.float64)
    total = len(a)
    for value, known in ((spacing, SigmaSpacing), (rule, BetaRule), (sigmas, Sigmas)):
        if value is not None and value not in get_args(known):
            raise InputError(f"beta_sigmas: unknown {value!r}; one of {', '.join(get_args(known))}")
    if not 1 <= steps < total:
        raise InputError(f"beta_sigmas: {steps} steps are out of range; 1 to {total - 1}")
    t = _multistep_timesteps(total, steps, spacing, offset)
    if rule == "euler":
        t = _euler_timesteps(total, steps, spacing, offset)
    if (t < 0).any() or (t > total - 1).any():
        raise InputError(f"beta_sigmas: offset {offset} leads outside 0..{total - 1}")
    a = np.where(a == 0, LEAST_SIGNAL, a)
    last = (1.0, 0.0) if end_clean else (a[0], b[0])
    if sigmas is None and rule == "multistep":
        index = t.astype(np.int64)
        return SigmaSchedule(t, np.append(a[index], last[0]), np.append(b[index], last[1]))
    of_t = b / a
    level = np.interp(t, np.arange(total), of_t)
    if sigmas is not None:
        ends = (level[0], level[-1]) if rule == "euler" else (of_t[-1], of_t[0])
        level = _spread(*ends, steps, sigmas)
        t = np.interp(np.log(level), np.log(of_t), np.arange(total))
        if rule == "multistep":
            t = np.round(t)
    own = 1.0 / np.sqrt(level**2 + 1.0)
    start = 1.0
    if rule == "euler" and not end_clean:  # whose latents are not scaled by the signal rate
        last = (1.0, of_t[0])
    if rule == "euler" and spacing != "leading":  # as large as the noise alone
        start = float((level * own)[0])
    return SigmaSchedule(t, np.append(own, last[0]), np.append(level * own, last[1]), start)


def _multistep_timesteps(total: int, steps: int, spacing: str, offset: int) -> np.ndarray:
    if spacing == "linspace":
        return np.round(np.linspace(0, total - 1, steps + 1))[::-1][:-1]
    if spacing == "leading":
        t = (np.arange(steps + 1) * (total // (steps + 1)))[::-1][:-1] + offset
        return t.astype(np.float64)
    return np.round(np.arange(total, 0, -total / steps))[:steps] - 1.0


def _euler_timesteps(total: int, steps: int, spacing: str, offset: int) -> np.ndarray:
    if spacing == "linspace":
        return np.linspace(0, total - 1, steps)[::-1]
    if spacing == "leading":
        return (np.arange(steps) * (total // steps))[::-1].astype(np.float64) + offset
    return np.round(np.arange(total, 0, -total / steps))[:steps] - 1.0


def _spread(high: float, low: float, steps: int, sigmas: Sigmas) -> np.ndarray:
    """``b / a`` from `high` to `low`."""
    if sigmas == "exponential":
        return np.exp(np.linspace(np.log(high), np.log(low), steps))
    rho = 7.0
    ramp = np.linspace(0.0, 1.0, steps)
    return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
