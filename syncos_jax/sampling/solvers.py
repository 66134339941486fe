"""Solvers as tables of coefficients: how a step goes from one noise level to the next.

Every solver here is one linear combination per step,

    x_next = x * cx[i] + x0 * c0[i, 0] + (x0 of the step before) * c0[i, 1] + ... + eps * noise[i],

of the latent that the network was given, the clean latent that its prediction stands for and those
of earlier steps. What a run has to carry from step to step beside ``x`` are therefore the last
``Coefficients.history`` clean latents, newest first:

===============  ==================================================================
solver           clean latents of earlier steps in the carry
===============  ==================================================================
ddim, euler      none
renoise, lcm     none
dpm++, sde-dpm++ ``order - 1``: 1 for 2M
unipc            ``order``: 2 for order 2 (``order - 1`` if the corrector is off)
===============  ==================================================================

UniPC's corrector starts again from the latent of the step before. But predictor and corrector
begin with the same terms, so the corrected latent is the predicted one plus differences of clean
latents, and the latent of the step before need not be kept (see `_unipc`).

All is computed on the host in float64 from the rates ``a`` (signal) and ``b`` (noise) alone, for
any rates: with ``lambda = log(a / b)``, ``exp(-h)`` is ``(a/b) / (a'/b')``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from syncos_jax.errors import InputError

SolverName = Literal["ddim", "euler", "dpm++", "sde-dpm++", "unipc", "renoise", "lcm"]
Variant = Literal["midpoint", "heun", "bh1", "bh2"]

_VARIANTS: dict[str, tuple[Variant, ...]] = {
    "dpm++": ("midpoint", "heun"),
    "sde-dpm++": ("midpoint",),
    "unipc": ("bh2", "bh1"),
}
_ONE_STEP = ("ddim", "euler", "renoise", "lcm")
"""Solvers of order 1."""
STOCHASTIC = ("sde-dpm++", "renoise", "lcm")
"""Solvers that add fresh noise."""
LCM_SCALE, LCM_DATA = 10.0, 0.5
"""``timestep_scaling`` and ``sigma_data`` of latent consistency models."""
_FEW_STEPS = 15
"""Below this many steps DPM-Solver++ lowers its order towards the end."""


@dataclass(frozen=True)
class Solver:
    """Which solver, and how.

    Attributes:
      name: ``"ddim"`` (eta 0, Song et al., arXiv 2010.02502), ``"euler"`` (its equal for flows),
        ``"dpm++"`` (multistep DPM-Solver++, Lu et al., arXiv 2211.01095), ``"sde-dpm++"`` (its
        stochastic form, CogVideoX's own), ``"unipc"`` (Zhao et al., arXiv 2302.04867); of few-step
        models ``"renoise"`` (the clean latent, then fresh noise at the next level: distribution
        matching distillation, Yin et al., arXiv 2405.14867, section 4.5) and ``"lcm"`` (the same
        with the boundary condition of latent consistency models, Luo et al., arXiv 2310.04378).
      order: 1 to 3 of the multistep solvers (2 at most of sde-dpm++); the others have order 1.
      variant: of DPM-Solver++ of order 2, ``"midpoint"`` or ``"heun"``; of UniPC, ``"bh1"`` or
        ``"bh2"``; None for the first of each.
      lower_order_final: lower the order at the end: UniPC to 1 at the last step, DPM-Solver++ too
        in runs of fewer than 15 steps.
      euler_at_final: DPM-Solver++'s last step has order 1 in any case. (It has where it goes to
        the clean latent, as all orders are the same there.)
      corrector: whether UniPC corrects.
      uncorrected: steps after which UniPC does not correct (diffusers' ``disable_corrector``).

    Raises:
      InputError: on an unknown name or variant, or an order out of range.
    """

    name: SolverName = "ddim"
    order: int = 2
    variant: Variant | None = None
    lower_order_final: bool = True
    euler_at_final: bool = False
    corrector: bool = True
    uncorrected: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in get_args(SolverName):
            known = ", ".join(get_args(SolverName))
            raise InputError(f"Solver: unknown name {self.name!r}; one of {known}")
        most = {"sde-dpm++": 2}.get(self.name, 3)
        if not 1 <= self.order <= most:
            raise InputError(f"Solver: {self.name} has orders 1 to {most}, not {self.order}")
        variants = _VARIANTS.get(self.name, ())
        if self.variant is not None and self.variant not in variants:
            raise InputError(
                f"Solver: {self.name} has no variant {self.variant!r}; "
                f"{'one of ' + ', '.join(variants) if variants else 'it has none'}"
            )

    @property
    def history(self) -> int:
        """Clean latents of earlier steps that a step reads."""
        if self.name in _ONE_STEP:
            return 0
        return self.order if self.name == "unipc" and self.corrector else self.order - 1

    @property
    def stochastic(self) -> bool:
        """Whether steps add fresh noise."""
        return self.name in STOCHASTIC


class Coefficients(NamedTuple):
    """The steps of one run; float64."""

    x: np.ndarray
    """Of the latent that the network was given, ``[S]``."""
    x0: np.ndarray
    """Of the clean latents, this step's first, then the earlier ones', ``[S, 1 + history]``."""
    noise: np.ndarray
    """Of fresh standard normal noise, ``[S]``; zeros unless the solver is stochastic."""

    @property
    def history(self) -> int:
        """Clean latents of earlier steps to carry."""
        return self.x0.shape[1] - 1


def coefficients(
    solver: Solver,
    a: ArrayLike,
    b: ArrayLike,
    *,
    restart: ArrayLike | None = None,
    t: ArrayLike | None = None,
) -> Coefficients:
    """The table of a run.

    Args:
      solver: the solver.
      a: signal rates ``[S + 1]``: of the S steps, and where the last one goes.
      b: noise rates ``[S + 1]``; all but the last above 0.
      restart: ``[S]`` bool; True at steps that must not look at earlier ones, because the latent
        was not made by the solver's own last step (after a refined step of SynCoS, which resumes
        with the baseline noise, say). A step after one without signal (``a = 0``) restarts too.
      t: timesteps ``[S]``, which solver lcm reads.

    Raises:
      InputError: on rates that do not fit, or a run that the solver cannot end.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise InputError(f"coefficients: a {a.shape} and b {b.shape} must have the same length > 1")
    if (a < 0).any() or (b[:-1] <= 0).any() or b[-1] < 0 or (a[1:] <= 0).any():
        raise InputError(
            "coefficients: rates must be >= 0, only the first signal rate and the last noise rate 0"
        )
    steps = len(a) - 1
    if solver.name in ("renoise", "lcm"):
        return _renoising(solver, a, b, t)
    fresh = np.zeros(steps, bool) if restart is None else np.array(restart, bool)
    if fresh.shape != (steps,):
        raise InputError(f"coefficients: restart has shape {fresh.shape}, expected ({steps},)")
    fresh[0] = True
    fresh[1:] |= a[:-2] == 0
    orders = _orders(solver, fresh, ends_clean=b[-1] == 0)
    with np.errstate(divide="ignore"):
        log_snr = np.log(a) - np.log(b)
    table = np.zeros((steps, 2 + solver.history))
    for i, order in enumerate(orders):
        if solver.name == "unipc":
            corrected = solver.corrector and not fresh[i] and i - 1 not in solver.uncorrected
            previous = orders[i - 1] if corrected else None
            row = _unipc(i, order, previous, a, b, log_snr, solver.variant or "bh2")
        elif solver.stochastic:
            row = _stochastic(i, order, a, b, log_snr)
        else:
            row = _dpm(i, order, a, b, log_snr, solver.variant or "midpoint")
        table[i, : len(row)] = row
    added = np.zeros(steps)
    if solver.stochastic:
        shrink = (b[1:] / b[:-1]) * (a[:-1] / a[1:])  # exp(-h)
        added = b[1:] * np.sqrt(np.maximum(1.0 - shrink**2, 0.0))
    return Coefficients(table[:, 0], table[:, 1:], added)


def _renoising(solver: Solver, a: np.ndarray, b: np.ndarray, t: ArrayLike | None) -> Coefficients:
    """The clean latent, and fresh noise at the next level; solver lcm's is ``c_out x0 + c_skip x``
    (arXiv 2310.04378, section 3.1)."""
    out, skip = np.ones(len(a) - 1), np.zeros(len(a) - 1)
    if solver.name == "lcm":
        if t is None:
            raise InputError("coefficients: solver lcm needs the timesteps")
        scaled = np.asarray(t, np.float64) * LCM_SCALE
        skip = LCM_DATA**2 / (scaled**2 + LCM_DATA**2)
        out = scaled / np.sqrt(scaled**2 + LCM_DATA**2)
    return Coefficients(a[1:] * skip, (a[1:] * out)[:, None], b[1:])


def _orders(solver: Solver, fresh: np.ndarray, *, ends_clean: bool) -> list[int]:
    """The order of each step: as far as there are earlier ones, and lowered at the end."""
    steps, most = len(fresh), 1 if solver.name in _ONE_STEP else solver.order
    few = solver.lower_order_final and steps < _FEW_STEPS
    orders: list[int] = []
    earlier = 0
    for i, starts in enumerate(fresh):
        earlier = 0 if starts else earlier + 1
        order, left = min(most, earlier + 1), steps - i
        if solver.name == "unipc":
            order = min(order, left) if solver.lower_order_final else order
            if left == 1 and order > 1 and ends_clean:
                raise InputError(
                    "coefficients: UniPC cannot go to the clean latent at an order above 1; "
                    "use lower_order_final"
                )
        elif left == 1 and (ends_clean or solver.euler_at_final or few):
            order = 1
        elif left == 2 and few:
            order = min(order, 2)
        orders.append(order)
    return orders


def _first(i: int, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Coefficients of ``x`` and ``x0`` at order 1: DDIM, and for flows Euler."""
    ratio = b[i + 1] / b[i]
    return ratio, a[i + 1] - a[i] * ratio


def _dpm(
    i: int, order: int, a: np.ndarray, b: np.ndarray, log_snr: np.ndarray, variant: str
) -> list[float]:
    """DPM-Solver++ with clean latents ``m0, m1, m2`` (arXiv 2211.01095, algorithm 2)."""
    x_coef, phi = _first(i, a, b)  # phi = a' (1 - exp(-h))
    if order == 1:
        return [x_coef, phi]
    h = log_snr[i + 1] - log_snr[i]
    inverse = h / (log_snr[i] - log_snr[i - 1])  # 1 / r0
    first = a[i + 1] * (1.0 - phi / (a[i + 1] * h))  # a' ((exp(-h) - 1) / h + 1)
    if order == 2:
        slope = (0.5 * phi if variant == "midpoint" else first) * inverse  # D1 = (m0 - m1) / r0
        return [x_coef, phi + slope, -slope]
    inverse_1 = h / (log_snr[i - 1] - log_snr[i - 2])  # 1 / r1
    r0, r1 = 1.0 / inverse, 1.0 / inverse_1
    # D1_0 = (m0 - m1) / r0 and D1_1 = (m1 - m2) / r1, over (m0, m1, m2)
    d10 = np.array([1.0, -1.0, 0.0]) * inverse
    d11 = np.array([0.0, 1.0, -1.0]) * inverse_1
    d1 = d10 + r0 / (r0 + r1) * (d10 - d11)
    d2 = (d10 - d11) / (r0 + r1)
    second = a[i + 1] * ((h - phi / a[i + 1]) / h**2 - 0.5)  # a' ((exp(-h) - 1 + h) / h^2 - 1/2)
    return [x_coef, *(np.array([phi, 0.0, 0.0]) + first * d1 - second * d2)]


def _stochastic(
    i: int, order: int, a: np.ndarray, b: np.ndarray, log_snr: np.ndarray
) -> list[float]:
    """SDE-DPM-Solver++ of order 1 or 2 (arXiv 2211.01095, appendix; midpoint)."""
    shrink = (b[i + 1] / b[i]) * (a[i] / a[i + 1])  # exp(-h)
    x_coef, phi = b[i + 1] / b[i] * shrink, a[i + 1] * (1.0 - shrink**2)
    if order == 1:
        return [x_coef, phi]
    slope = 0.5 * phi * (log_snr[i + 1] - log_snr[i]) / (log_snr[i] - log_snr[i - 1])
    return [x_coef, phi + slope, -slope]


def _unipc(
    i: int,
    order: int,
    previous: int | None,
    a: np.ndarray,
    b: np.ndarray,
    log_snr: np.ndarray,
    variant: str,
) -> list[float]:
    """UniC at the step's own level, then UniP to the next (arXiv 2302.04867, algorithms 5 and 6).

    With ``m_k`` the clean latent of ``k`` steps ago, both are of the form ``(b/b_s) x_s + phi m -
    a B(h) sum(rho_k D_k)`` with ``D_k = (m_k - m) / r_k``. From level ``i - 1`` to ``i`` the
    predictor's result is the network's input ``x``, so the corrector's is ``x`` and the difference
    of the two sums.

    Args:
      order: of this step.
      previous: of the step before, which is corrected; None for no corrector.
    """
    row = np.zeros(2 + max(order - 1, previous or 0))  # over x, m_0, m_1, ...
    row[0] = 1.0
    if previous is not None:
        at = log_snr[i - 1], log_snr[i]
        ratios = [(log_snr[i - 1 - k] - at[0]) / (at[1] - at[0]) for k in range(1, previous)]
        scale, predicted, corrected = _unified(at[1] - at[0], ratios, variant)
        change = np.zeros_like(row)
        for k, ratio in enumerate(ratios, 1):  # D_k is of m_{k+1} against m_1
            weight = (corrected[k - 1] - predicted[k - 1]) / ratio
            change[1 + k + 1] += weight
            change[2] -= weight
        change[1] += corrected[-1]  # D_t = m_0 - m_1
        change[2] -= corrected[-1]
        row -= a[i] * scale * change
    x_coef, phi = _first(i, a, b)
    row *= x_coef
    row[1] += phi
    if order > 1:
        h = log_snr[i + 1] - log_snr[i]
        ratios = [(log_snr[i - k] - log_snr[i]) / h for k in range(1, order)]
        scale, predicted, _ = _unified(h, ratios, variant)
        for k, ratio in enumerate(ratios, 1):
            weight = a[i + 1] * scale * predicted[k - 1] / ratio
            row[1 + k] -= weight
            row[1] += weight
    return list(row)


def _unified(h: float, ratios: list[float], variant: str) -> tuple[float, np.ndarray, np.ndarray]:
    """``B(h)`` and the weights of UniP and UniC of order ``len(ratios) + 1``.

    They solve ``R rho = phi / B`` (arXiv 2302.04867, eqs. 5 to 7), except those of UniP-2 and
    UniC-1, which are 1/2.
    """
    order = len(ratios) + 1
    scale = -h if variant == "bh1" else float(np.expm1(-h))
    nodes = np.array([*ratios, 1.0])
    matrix = np.stack([nodes**k for k in range(order)])
    phi, right = np.expm1(-h) / -h - 1.0, []
    for k in range(1, order + 1):
        right.append(phi * factorial(k) / scale)
        phi = phi / -h - 1.0 / factorial(k + 1)
    rhs = np.array(right)
    predicted = np.zeros(0)
    if order == 2:
        predicted = np.array([0.5])
    elif order > 2:
        predicted = np.linalg.solve(matrix[:-1, :-1], rhs[:-1])
    corrected = np.array([0.5]) if order == 1 else np.linalg.solve(matrix, rhs)
    return scale, predicted, corrected
