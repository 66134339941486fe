"""Noise schedules: timesteps, signal and noise rates, and what the network predicts.

A noisy latent is ``x_t = a_t x0 + b_t eps``. The sampler knows only the signal rate ``a``, the
noise rate ``b`` and, through `syncos_jax.sampling.prediction`, the type of the prediction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from syncos_jax.errors import InputError
from syncos_jax.sampling.betas import BetaKind, named_betas, spaced_timesteps
from syncos_jax.sampling.fixed_levels import (
    FLOW_SCALE,
    checked_list,
    listed_levels,
    with_some_signal,
)
from syncos_jax.sampling.prediction import Prediction, encode
from syncos_jax.sampling.sigmas import SigmaSchedule, Spacing, beta_sigmas, flow_sigmas
from syncos_jax.sampling.solvers import Solver


class Steps(NamedTuple):
    """The steps of one sampling run, from high to low noise; float64 arrays ``[S]``."""

    t: np.ndarray
    """Timestep given to the network."""
    a: np.ndarray
    """Signal rate at `t`."""
    b: np.ndarray
    """Noise rate at `t`, > 0."""
    a_next: np.ndarray
    """Signal rate after the step."""
    b_next: np.ndarray
    """Noise rate after the step."""
    sigma: np.ndarray
    """Rate of the fresh noise within `b_next`; 0 where ``eta = 0``."""
    start: float = 1.0
    """Standard deviation of the latent before the first step."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """Signal and noise rates over the training timesteps, and how to walk through them.

    Make one with `from_betas` or `flow`.

    Attributes:
      signal: ``a_t`` for ``t = 0 .. T-1``, float64 ``[T]``.
      noise: ``b_t`` for ``t = 0 .. T-1``, float64 ``[T]``.
      prediction: what the network predicts: ``"epsilon"`` (the noise), ``"x0"`` (the clean
        latent), ``"v"`` = ``a eps - b x0``, or ``"flow"`` = ``eps - x0``.
      spacing: which timesteps `steps` takes; see there.
      offset: added to ``"leading"`` and ``"every"`` timesteps.
      final_timestep: where the last step goes: None to ``x0`` itself, or a timestep (0 in
        VideoCrafter2 and Stable Diffusion), whose small noise then stays in the result.
      flow_shift: for flow models, the time shift; None for all others.
      solver: the model's own, where the settings name none.
      flow_settings: for flow models, further arguments of `flow_sigmas` where a multistep solver or
        Euler's walks the schedule.
      beta_settings: for all others, arguments of `beta_sigmas` where such a solver walks it; empty
        for `spacing`, `offset` and `final_timestep` as they are.
      timesteps: the fixed steps of a few-step model, falling; a run of as many steps takes them,
        any other follows `spacing` or the solver's rule.
      sigmas: the same as noise levels (`syncos_jax.sampling.fixed_levels.listed_levels`).

    Raises:
      InputError: if rates are not finite, differ in length, or do not suit the other fields.
    """

    signal: np.ndarray
    noise: np.ndarray
    prediction: Prediction = "epsilon"
    spacing: Spacing = "leading"
    offset: int = 1
    final_timestep: int | None = None
    flow_shift: float | None = None
    solver: Solver = Solver("ddim")
    flow_settings: Mapping[str, Any] = field(default_factory=dict)
    beta_settings: Mapping[str, Any] = field(default_factory=dict)
    timesteps: tuple[float, ...] = ()
    sigmas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        a, b = np.asarray(self.signal, np.float64), np.asarray(self.noise, np.float64)
        object.__setattr__(self, "signal", a)
        object.__setattr__(self, "noise", b)
        _one_of("prediction", self.prediction, get_args(Prediction))
        _one_of("spacing", self.spacing, get_args(Spacing))
        if a.ndim != 1 or a.shape != b.shape or len(a) < 1:
            raise InputError(
                f"NoiseSchedule: signal {a.shape} and noise {b.shape} must be of one length"
            )
        if not (np.isfinite(a).all() and np.isfinite(b).all()) or (a < 0).any() or (b < 0).any():
            raise InputError("NoiseSchedule: signal and noise rates must be finite and >= 0")
        if self.prediction == "epsilon" and (a == 0).any():
            raise InputError(
                "NoiseSchedule: with no signal at the last timestep (zero terminal SNR) the clean "
                "latent cannot be found from predicted noise; use prediction='v' or 'x0'"
            )
        if not 0 <= self.offset < len(a):
            raise InputError(f"NoiseSchedule: offset {self.offset} is outside 0..{len(a) - 1}")
        final = self.final_timestep
        if final is not None and not 0 <= final < len(a):
            raise InputError(
                f"NoiseSchedule: final_timestep {final} is outside 0..{len(a) - 1}; "
                "give one of these, or None to end at the clean latent"
            )
        if self.timesteps and self.sigmas:
            raise InputError("NoiseSchedule: give timesteps or sigmas, not both")
        for name in ("timesteps", "sigmas"):
            if getattr(self, name):
                object.__setattr__(self, name, checked_list(name, getattr(self, name)))
                self._listed(len(getattr(self, name)))  # or an error

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What it is, in plain values; of the rates ``[T]``, the SHA-256."""
        rates = hashlib.sha256(self.signal.tobytes() + self.noise.tobytes()).hexdigest()
        others = asdict(self)
        del others["signal"], others["noise"]
        others = {k: v for k, v in others.items() if k not in ("timesteps", "sigmas") or v}
        plain: dict[str, Any] = json.loads(
            json.dumps(others, default=lambda v: np.asarray(v).tolist())
        )
        return {"rates_sha256": rates, **plain}

    @property
    def train_steps(self) -> int:
        """Number of training timesteps ``T``."""
        return len(self.signal)

    def __repr__(self) -> str:
        changed = [f"prediction={self.prediction!r}", f"train_steps={self.train_steps}"]
        for name in ("spacing", "offset", "final_timestep", "flow_shift", "solver"):
            value = getattr(self, name)
            if value != type(self).__dataclass_fields__[name].default:
                changed.append(f"{name}={value!r}")
        return f"NoiseSchedule({', '.join(changed)})"

    @classmethod
    def from_betas(
        cls,
        betas: ArrayLike | BetaKind = "scaled_linear",
        *,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        train_steps: int = 1000,
        prediction: Prediction = "epsilon",
        signal_scale: ArrayLike | None = None,
        spacing: Spacing = "leading",
        offset: int = 1,
        final_timestep: int | None = None,
        zero_terminal_snr: bool = False,
        snr_shift: float = 1.0,
    ) -> NoiseSchedule:
        """A variance-preserving schedule: ``a = sqrt(ac) * scale``, ``b = sqrt(1 - ac)``.

        Args:
          betas: variances of the forward steps ``[T]``, or the name of a rule: ``"scaled_linear"``
            (linear in the square root: Stable Diffusion, VideoCrafter), ``"linear"`` (DDPM), or
            ``"squaredcos"`` (Nichol and Dhariwal, arXiv 2102.09672, eq. 17).
          beta_start: first variance of the two linear rules.
          beta_end: last variance of the two linear rules.
          train_steps: ``T``, where `betas` is a name.
          prediction: see `NoiseSchedule`.
          signal_scale: multiplies the signal rate, ``[T]`` or longer (VideoCrafter2 keeps 1400
            entries and uses 1000).
          spacing: see `steps`.
          offset: see `steps`.
          final_timestep: see `NoiseSchedule`.
          zero_terminal_snr: rescale so that the last timestep holds no signal
            (Lin et al., arXiv 2305.08891, algorithm 1).
          snr_shift: divides the signal-to-noise ratio of all timesteps, before that rescaling; 3 in
            CogVideoX.

        Raises:
          InputError: on an unknown name or variances outside [0, 1).
        """
        if isinstance(betas, str):
            betas = named_betas(betas, beta_start, beta_end, train_steps)
        betas = np.asarray(betas, np.float64)
        if betas.ndim != 1 or len(betas) < 1 or (betas < 0).any() or (betas >= 1).any():
            raise InputError("from_betas: betas must be a list of numbers in [0, 1)")
        if not snr_shift > 0:
            raise InputError(f"from_betas: snr_shift must be > 0, got {snr_shift}")
        kept = np.cumprod(1.0 - betas)
        root = np.sqrt(kept / (snr_shift + (1.0 - snr_shift) * kept))
        if zero_terminal_snr:
            root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        scale = np.ones_like(root) if signal_scale is None else np.asarray(signal_scale, np.float64)
        if scale.ndim != 1 or len(scale) < len(root):
            raise InputError(
                f"from_betas: signal_scale has shape {scale.shape}; it needs one entry for each of "
                f"the {len(root)} timesteps"
            )
        return cls(
            signal=root * scale[: len(root)],
            noise=np.sqrt(1.0 - root**2),
            prediction=prediction,
            spacing=spacing,
            offset=offset,
            final_timestep=final_timestep,
        )

    @classmethod
    def flow(cls, *, shift: float = 1.0, prediction: Prediction = "flow") -> NoiseSchedule:
        """Rectified flow: ``a = 1 - s``, ``b = s``, timestep ``1000 s``, ``s`` from 1 towards 0.

        The sigmas of `steps` are ``s = shift u / (1 + (shift - 1) u)`` for ``u = 1 - i/n``
        (Esser et al., arXiv 2403.03206, eq. 23); the last step goes to the clean latent.

        Raises:
          InputError: if `shift` is not above 0.
        """
        if not shift > 0:
            raise InputError(f"NoiseSchedule.flow: shift must be > 0, got {shift}")
        level = np.arange(FLOW_SCALE) / FLOW_SCALE
        return cls(signal=1.0 - level, noise=level, prediction=prediction, flow_shift=float(shift))

    def rates(self, t: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """``(a_t, b_t)``, float64, on the host; `t` is whole except for flow models."""
        t = np.asarray(t)
        if self.flow_shift is not None:
            return 1.0 - t / FLOW_SCALE, t / FLOW_SCALE
        t = t.astype(np.int64)
        return self.signal[t], self.noise[t]

    def steps(self, n: int, *, eta: float = 0.0) -> Steps:
        """The timesteps of a run of `n` steps, with their rates.

        Spacing ``"leading"`` takes `n` timesteps at distances of ``T // n`` from 0 plus `offset`,
        as diffusers does. ``"every"`` takes each ``T // n``-th timestep there is, as latent
        diffusion and VideoCrafter2 do: where `n` does not divide ``T`` these can be *more* than
        `n`. (One that the offset moves past the end, where those fail, is left out.)
        ``"trailing"`` ends each of `n` equal parts (the first step is ``T - 1``); ``"linspace"``
        spreads `n` evenly over ``0 .. T-1``. ``"lcm"`` takes `n` of the 50 timesteps at which
        latent consistency models are distilled, as ``LCMScheduler`` does. Flow schedules follow
        `flow`.

        ``sigma`` (DDIM, Song et al., arXiv 2010.02502, eq. 16) comes from the noise rates alone
        where the schedule was made from betas, that is with ``1 - b^2`` for their cumulative
        product whatever scales the signal, as in VideoCrafter2.

        Args:
          n: how many steps.
          eta: 0 for deterministic DDIM, 1 for ancestral sampling.

        Raises:
          InputError: if `n` or `eta` is out of range, or a timestep holds no noise.
        """
        most = self.train_steps
        if not 1 <= n <= most:
            raise InputError(f"steps: {n} is out of range; choose 1 to {most}")
        if not 0.0 <= eta <= 1.0:
            raise InputError(f"steps: eta must be between 0 and 1, got {eta}")
        listed, final = self._listed(n), self._final()
        t = self._timesteps(n) if listed is None else listed.t
        a, b = self.rates(t) if listed is None else (listed.a[:-1], listed.b[:-1])
        a_next, b_next = np.append(a[1:], final[0]), np.append(b[1:], final[1])
        if (b <= 0).any():
            raise InputError(
                f"steps: timestep {t[b <= 0][0]:g} holds no noise, so there is nothing to predict; "
                "use spacing='leading' with offset=1, or 'trailing'"
            )
        if self.flow_shift is not None:
            # Posterior of x_t' given x_t and x0, for any rates: what of b_t is new since t'.
            fresh = b**2 - (a / a_next) ** 2 * b_next**2
        else:
            # The same where a^2 = 1 - b^2, written with b alone.
            fresh = 1.0 - (1.0 - b**2) / (1.0 - b_next**2)
        sigma = eta * b_next / b * np.sqrt(np.maximum(fresh, 0.0))
        return Steps(t=t, a=a, b=b, a_next=a_next, b_next=b_next, sigma=sigma)

    def _final(self) -> tuple[float, float]:
        """Rates of where the last step goes."""
        if self.final_timestep is None:
            return 1.0, 0.0
        a, b = self.rates(self.final_timestep)
        return float(a), float(b)

    def _listed(self, n: int) -> SigmaSchedule | None:
        """The fixed levels, where there are as many as `n`."""
        if n != len(self.timesteps or self.sigmas):
            return None
        return listed_levels(
            self.signal,
            self.noise,
            flow=self.flow_shift is not None,
            timesteps=self.timesteps,
            sigmas=self.sigmas,
            final=self._final(),
        )

    def solver_steps(self, solver: Solver, n: int) -> Steps:
        """The timesteps of a run of `n` steps of a solver.

        A model whose own solver is one of the published multistep ones, or Euler's, is walked as
        their schedulers do, each by its own rule (`syncos_jax.sampling.sigmas`); any other solver
        of any other model takes the timesteps of `steps`.

        Raises:
          InputError: if `n` is out of range.
        """
        by_rule = {"dpm++", "unipc"}
        if self.flow_shift is not None:
            by_rule |= {"euler"}
        elif self.beta_settings:
            by_rule |= {"euler", "sde-dpm++"}
        listed = self._listed(n)
        if listed is None and not {self.solver.name, solver.name} <= by_rule:
            return self.steps(n)
        sigmas: SigmaSchedule
        if listed is not None:
            sigmas = listed if self.flow_shift is None else with_some_signal(listed)
            if solver.name == "euler":
                scaled = self.flow_shift is None and self.spacing not in ("leading", "every")
                sigmas = listed._replace(start=float(listed.b[0]) if scaled else 1.0)
        elif self.flow_shift is not None:
            sigmas = self._flow_sigmas(n, solver.name)
        else:
            settings = {
                "spacing": "leading" if self.spacing == "every" else self.spacing,
                "offset": self.offset,
                "end_clean": self.final_timestep is None,
                **self.beta_settings,
            }
            sigmas = beta_sigmas(self.signal, self.noise, n, **settings)
        return Steps(
            t=sigmas.t,
            a=sigmas.a[:-1],
            b=sigmas.b[:-1],
            a_next=sigmas.a[1:],
            b_next=sigmas.b[1:],
            sigma=np.zeros(n),
            start=sigmas.start if solver.name == "euler" else 1.0,
        )

    def _flow_sigmas(self, n: int, solver: str) -> SigmaSchedule:
        """The levels of a flow: by the model's own rule, or by the solver's."""
        rule = solver if self.flow_settings.get("rule") is None else self.flow_settings["rule"]
        return flow_sigmas(n, **{"shift": self.flow_shift, **self.flow_settings, "rule": rule})

    def _timesteps(self, n: int) -> np.ndarray:
        total = self.train_steps
        if self.flow_settings.get("rule") is not None:
            return self._flow_sigmas(n, "").t
        if self.flow_shift is not None:
            u = 1.0 - np.arange(n) / n
            return FLOW_SCALE * self.flow_shift * u / (1.0 + (self.flow_shift - 1.0) * u)
        return spaced_timesteps(total, n, self.spacing, self.offset)

    def draw_timestep(self, rng: np.random.Generator) -> float:
        """A timestep drawn by `rng` from the middle 96 % of the training range, as in score
        distillation (Poole et al., arXiv 2209.14988, section 3)."""
        return float(rng.integers(self.train_steps // 50, self.train_steps * 49 // 50 + 1))

    def add_noise(self, x0: jax.Array, eps: jax.Array, t: jax.Array) -> jax.Array:
        """``x_t = a_t x0 + b_t eps``.

        Args:
          x0: clean latents, float ``[B, ...]``.
          eps: noise, shaped like `x0`.
          t: int timesteps ``[B]``.
        """
        a, b = self._rates_like(x0, t)
        return a * x0 + b * eps

    def target(self, x0: jax.Array, eps: jax.Array, t: jax.Array) -> jax.Array:
        """What the network should predict for ``add_noise(x0, eps, t)``; arguments as there."""
        a, b = self._rates_like(x0, t)
        return encode(self.prediction, x0, eps, a, b)

    def _rates_like(self, x: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        shape = (*t.shape, *(1,) * (x.ndim - t.ndim))
        a = jnp.asarray(self.signal, jnp.float32)[t].reshape(shape).astype(x.dtype)
        b = jnp.asarray(self.noise, jnp.float32)[t].reshape(shape).astype(x.dtype)
        return a, b


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"NoiseSchedule: unknown {what} {value!r}; one of {', '.join(known)}")
