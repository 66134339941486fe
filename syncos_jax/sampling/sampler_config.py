"""Settings of the samplers: which stages run, for how long, with which numbers.

One frozen dataclass, `SamplerConfig`, describes them all; `SynCoS`, `CoDenoising`,
`RefinementOnly`,
`FlowLong`, `FreeNoise` and `FIFO` make it by name, with the fields that each has. Every sampler is
another call_schedule for the same scan (`syncos_jax.sampling.call_schedule`,
`syncos_jax.sampling.loop`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from syncos_jax.errors import InputError
from syncos_jax.sampling.noise import MAX_STEPS
from syncos_jax.sampling.solvers import SolverName

STEPS, GUIDANCE = 50, 7.5
"""What `None` stands for where there is no model to ask."""

ENDS = ("t_min", "refine_steps", "refine_snr")
"""The fields of `Refinement` that say where it ends; one of them at most is given."""


def _error(field: str, expected: str, value: object, name: str = "") -> InputError:
    sampler = f"sampler {name}" if name else "sampler"
    return InputError(f"{sampler}: {field} must be {expected}; got {value!r}")


class _Checked:
    """What the dataclasses below share: fields checked in `__post_init__`."""

    def _integer(self, field: str, *, least: int = 1, most: int = 2**31 - 1) -> None:
        value = getattr(self, field)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            upto = "or more" if most == 2**31 - 1 else f"to {most}"
            raise _error(field, f"a whole number, {least} {upto}", value)

    def _number(self, field: str, *, least: float = -math.inf, most: float = math.inf) -> None:
        value = getattr(self, field)
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not math.isfinite(value) or not least <= value <= most:
            lower = f", {least:g} or more" if math.isfinite(least) else ""
            upper = f", at most {most:g}" if math.isfinite(most) else ""
            raise _error(field, f"a number{lower}{upper}", value)
        object.__setattr__(self, field, float(value))

    def _flags(self, *names: str) -> None:
        for field in names:
            if not isinstance(getattr(self, field), bool):
                raise _error(field, "true or false", getattr(self, field))


@dataclass(frozen=True, kw_only=True)
class Refinement(_Checked):
    """Stage 2, the coupled refinement of all windows at a timestep.

    Where it ends is given by one of `t_min`, `refine_steps` and `refine_snr`; with none of them it
    runs at every timestep.

    Attributes:
      t_min: it runs at timesteps above this one, in units of the schedule (0 .. 999; for flow
        models 1000 times the noise level).
      refine_steps: it runs at this many steps, from the noisiest one.
      refine_snr: it runs where the signal-to-noise ratio ``a_t^2 / b_t^2`` is below this.
      iterations: optimiser steps at a timestep.
      learning_rate: of AdamW, on the clean latent.
      weight_decay: of AdamW; the default is that of optax.
      windows_per_step: windows ``B`` drawn for one optimiser step: a whole number, or the share of
        all windows, between 0 and 1 (rounded up). None, or more than there are, for all of them.
      grounded_timestep: refine at the very timestep of the step. False (ablation): each iteration
        draws a timestep of its own.
      fixed_noise: one baseline noise for a whole step. False (ablation): each iteration draws
        anew, and the last noise drawn is the one to resume with.
      guided_refinement: whether the refinement's predictions are guided. False: they are of the
        prompts alone, at half the work.
    """

    t_min: float | None = None
    refine_steps: int | None = None
    refine_snr: float | None = None
    iterations: int = 20
    learning_rate: float = 0.5
    weight_decay: float = 1e-4
    windows_per_step: int | float | None = None
    grounded_timestep: bool = True
    fixed_noise: bool = True
    guided_refinement: bool = True

    def __post_init__(self) -> None:
        given = [name for name in ENDS if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(
                f"sampler: {given[0]} and {given[1]} both say where the refinement ends; give one"
            )
        if self.t_min is not None:
            self._number("t_min", least=0.0)
        if self.refine_steps is not None:
            self._integer("refine_steps", least=0)
        if self.refine_snr is not None:
            self._number("refine_snr", least=0.0)
        self._integer("iterations", most=2**16 - 1)
        self._number("learning_rate", least=0.0)
        self._number("weight_decay", least=0.0)
        share = self.windows_per_step
        if share is not None and not (isinstance(share, float) and 0 < share < 1):
            self._integer("windows_per_step")
        self._flags("grounded_timestep", "fixed_noise", "guided_refinement")

    def windows_of_step(self, count: int) -> int:
        """Windows ``B`` of one optimiser step where there are `count` in all."""
        if self.windows_per_step is None:
            return count
        if self.windows_per_step < 1:
            return math.ceil(self.windows_per_step * count)
        return min(int(self.windows_per_step), count)

    def runs_at(self, step: int, t: float, a: float, b: float) -> bool:
        """Whether it runs at denoising step `step` (from 0): timestep `t`, rates `a` and `b`."""
        if self.t_min is not None:
            return t > self.t_min
        if self.refine_steps is not None:
            return step < self.refine_steps
        return self.refine_snr is None or a**2 < self.refine_snr * b**2


@dataclass(frozen=True, kw_only=True)
class SamplerConfig(_Checked):
    """A sampler. Make one with `SynCoS`, `CoDenoising`, `RefinementOnly`, `FlowLong`, `FreeNoise`
    or `FIFO`.

    Attributes:
      steps: denoising steps; None for the model's own (50 where there is no model). For `FIFO` the
        length of the queue, rounded to a multiple of the frames that a window updates.
      guidance: scale of classifier-free guidance, ``uncond + guidance * (cond - uncond)``; read
        only where a negative conditioning is given; None for the model's own (7.5).
      guidance_t_min, guidance_t_max: guidance is applied at timesteps from the one to the other, in
        units of the schedule; None for no upper end. Elsewhere the network is called on the prompts
        alone, which is half the work (Kynkäänniemi et al., arXiv 2404.07724).
      batch: windows in one call of the network, at most (twice as many samples with guidance);
      memory
        goes with it, the result does not. None: chosen so that few places of a call stay empty.
      eta: 0 for deterministic DDIM, up to 1 for ancestral sampling.
      solver: how a step goes from one timestep to the next: "ddim", "euler", "dpm++" (2M), "unipc"
        or "sde-dpm++"; None for the model's own. A refined step resumes with the baseline noise
        whatever the solver, and the step after it looks back at none before.
      reuse: how far the noise that the predictions imply may be foretold to change, as a share of
        it, for a pass to keep what was predicted before without calling the network
        (`syncos_jax.sampling.step_cache`); 0.05 to 0.3 or so. None: every pass is computed. Steps
        that
        are refined, the two after them and the last are computed in any case.
      co_denoise: whether stages 1 and 3 run: predict and fuse every window, resume at the next
        timestep.
      refinement: stage 2, or None.
      fresh_noise_t_min: steps at timesteps above this one resume with noise drawn for them,
        ``x' = a' x0 + b' z``, in place of the baseline noise or the solver's (FlowLong,
        arXiv 2605.20910); in units of the schedule. None: no step does.
      shuffled_noise: the initial noise of a video beyond its first clip is that of the clip, each
        stride's frames in an order of their own (FreeNoise, Qiu et al., arXiv 2310.15169,
        section 3.2). False: all frames' noise is drawn.
      lookahead: None for windows that share a timestep. Else diagonal denoising (FIFO, Kim et al.,
        arXiv 2405.11473): True, each window updates its noisier half and sees the cleaner half as
        context; False, each window updates all of its frames.
    """

    steps: int | None = None
    guidance: float | None = None
    guidance_t_min: float = 0.0
    guidance_t_max: float | None = None
    batch: int | None = None
    eta: float = 0.0
    solver: str | None = None
    reuse: float | None = None
    co_denoise: bool = True
    refinement: Refinement | None = None
    fresh_noise_t_min: float | None = None
    shuffled_noise: bool = False
    lookahead: bool | None = None

    def __post_init__(self) -> None:
        if self.steps is not None:
            self._integer("steps", most=MAX_STEPS)
        if self.guidance is not None:
            self._number("guidance")
        if self.batch is not None:
            self._integer("batch")
        self._number("guidance_t_min", least=0.0)
        if self.guidance_t_max is not None:
            self._number("guidance_t_max", least=self.guidance_t_min)
        self._number("eta", least=0.0, most=1.0)
        if self.solver is not None and self.solver not in get_args(SolverName):
            raise _error("solver", f"one of {', '.join(get_args(SolverName))}", self.solver)
        if self.eta > 0 and self.solver not in (None, "ddim"):
            raise InputError(f"sampler: eta is of ddim; with solver {self.solver} it must be 0")
        if self.fresh_noise_t_min is not None:
            self._number("fresh_noise_t_min", least=0.0)
        if self.reuse is not None:
            self._number("reuse", least=0.0)
        self._flags("co_denoise", "shuffled_noise")
        if self.lookahead is not None:
            self._flags("lookahead")
        self._check_noise()

    def _check_noise(self) -> None:
        """Where the noise comes from is decided once."""
        fresh, shuffled = self.fresh_noise_t_min is not None, self.shuffled_noise
        alone = self.lookahead is not None or not self.co_denoise
        if (fresh or shuffled) and alone:
            raise InputError(
                f"sampler {self.name}: fresh_noise_t_min and shuffled_noise are of samplers that "
                f"co-denoise windows at one timestep"
            )
        if self.reuse is not None and (alone or self.eta > 0 or self.solver == "sde-dpm++"):
            raise InputError(
                f"sampler {self.name}: reuse is of steps that add no noise: eta 0 and a solver "
                "that adds none"
            )
        if shuffled and (fresh or self.refinement is not None):
            raise InputError("sampler freenoise: shuffled_noise goes with no other noise")

    @property
    def name(self) -> str:
        """What scenario files call it."""
        if self.lookahead is not None:
            return "fifo"
        if self.refinement is not None:
            return "syncos" if self.co_denoise else "refinement_only"
        if self.shuffled_noise:
            return "freenoise"
        return "co_denoising" if self.fresh_noise_t_min is None else "flowlong"

    def draws_fresh(self, t: float) -> bool:
        """Whether a step at timestep `t` resumes with noise drawn for it."""
        return self.fresh_noise_t_min is not None and t > self.fresh_noise_t_min

    def guides(self, t: float) -> bool:
        """Whether guidance is applied at timestep `t`."""
        below = self.guidance_t_max is None or t <= self.guidance_t_max
        return self.guidance != 1.0 and self.guidance_t_min <= t and below

    def resolved(self, steps: int = STEPS, guidance: float = GUIDANCE) -> SamplerConfig:
        """With `steps` and `guidance` where these are None."""
        return dataclasses.replace(
            self,
            steps=steps if self.steps is None else self.steps,
            guidance=guidance if self.guidance is None else self.guidance,
        )

    def replace(self, **changes: Any) -> SamplerConfig:
        """With other values of the fields, those of the refinement among them."""
        return sampler_from_dict(merge_sampler_dict(sampler_to_dict(self), changes))


_SHARED = ("steps", "guidance", "guidance_t_min", "guidance_t_max", "batch")
_REFINEMENT = tuple(field.name for field in fields(Refinement))
_WITHOUT_ENDS = tuple(name for name in _REFINEMENT if name not in ENDS)

SAMPLERS: dict[str, tuple[str, ...]] = {
    "syncos": (*_SHARED, "eta", "solver", "reuse", "fresh_noise_t_min", *_REFINEMENT),
    "co_denoising": (*_SHARED, "eta", "solver", "reuse"),
    "refinement_only": (*_SHARED, *_WITHOUT_ENDS),
    "flowlong": (*_SHARED, "eta", "solver", "reuse", "fresh_noise_t_min"),
    "freenoise": (*_SHARED, "eta", "solver", "reuse"),
    "fifo": ("steps", "guidance", "batch", "eta", "lookahead"),
}
"""The samplers by the name they have in scenario files, and the fields that each has."""
FRESH_NOISE_T_MIN = 600.0
"""Where FlowLong turns from fresh noise to the ODE."""

_DEFAULTS: dict[str, dict[str, Any]] = {
    "syncos": {},
    "co_denoising": {},
    "refinement_only": {"co_denoise": False},
    "flowlong": {"fresh_noise_t_min": FRESH_NOISE_T_MIN},
    "freenoise": {"shuffled_noise": True},
    "fifo": {"eta": 1.0, "lookahead": True},
}
STRENGTH = "strength"
"""The key of `SynCoS.at_strength`'s argument in a scenario file."""
T_MIN = 850.0
"""Where the refinement of SynCoS ends as published (800 to 900)."""


def make_sampler(name: str, values: Mapping[str, Any]) -> SamplerConfig:
    """The settings of the sampler `name` with `values` of its fields."""
    unknown = [key for key in values if key not in SAMPLERS[name]]
    if unknown:
        raise InputError(f"sampler {name}: unknown key {unknown[0]!r}{_hint(unknown[0], name)}")
    given = {**_DEFAULTS[name], **values}
    own = {key: given.pop(key) for key in list(given) if key in _REFINEMENT}
    if name == "syncos" and all(own.get(key) is None for key in ENDS):
        own["t_min"] = T_MIN
    for key, meant in (("lookahead", "true or false"), ("fresh_noise_t_min", "a number")):
        if key in _DEFAULTS[name] and given[key] is None:
            raise _error(key, meant, None, name)
    try:
        refinement = Refinement(**own) if name in ("syncos", "refinement_only") else None
        return SamplerConfig(refinement=refinement, **given)
    except InputError as error:
        raise InputError(str(error).replace("sampler:", f"sampler {name}:", 1)) from None


def strength_settings(strength: object) -> dict[str, Any]:
    """The settings that `SynCoS.at_strength` decides; InputError where it is not in 0 .. 1."""
    good = isinstance(strength, int | float) and not isinstance(strength, bool)
    if not good or not 0.0 <= strength <= 1.0:  # type: ignore[operator]
        raise InputError(f"sampler syncos: strength must be a number from 0 to 1; got {strength!r}")
    t_min = 1000.0 - 400.0 * float(strength)  # type: ignore[arg-type]
    return {"t_min": t_min, "iterations": 1, "learning_rate": 1.0, "windows_per_step": 0.35}


def sampler_from_dict(values: Mapping[str, Any]) -> SamplerConfig:
    """Reads settings as a scenario file holds them: ``{"name": "syncos", "steps": 50, ...}``.

    Of SynCoS, ``strength`` (0 to 1) may stand in place of the settings that
    `SynCoS.at_strength` decides.

    Raises:
      InputError: on a missing or unknown name, an unknown key, a bad value, or a strength beside
        what it decides.
    """
    if not isinstance(values, Mapping):
        raise InputError(
            f"sampler: expected settings such as {{name: syncos, steps: 50}}, got {values!r}"
        )
    if "name" not in values:
        raise InputError(f"sampler: name is missing; one of {', '.join(SAMPLERS)}")
    values = dict(values)
    name = values.pop("name")
    if not isinstance(name, str) or name not in SAMPLERS:
        raise InputError(f"sampler: unknown name {name!r}{_hint(name)}")
    if name == "syncos" and STRENGTH in values:
        decided = strength_settings(values.pop(STRENGTH))
        twice = [key for key in values if key in decided]
        if twice:
            raise InputError(
                f"sampler {name}: strength decides {', '.join(decided)}; leave out strength or "
                f"{twice[0]}"
            )
        values |= decided
    return make_sampler(name, values)


def sampler_to_dict(settings: SamplerConfig) -> dict[str, Any]:
    """The inverse of `sampler_from_dict`, with every value written out."""
    values = dataclasses.asdict(settings)
    values |= values.pop("refinement") or {}
    return {"name": settings.name} | {key: values[key] for key in SAMPLERS[settings.name]}


def merge_sampler_dict(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` of a scenario file with `changes`. A strength replaces all that it decides, any of
    that replaces a strength, and of the three ends of the refinement one replaces the others (of
    a strength's settings the end alone)."""
    decided = strength_settings(0.0)
    gone: set[str] = set()
    if STRENGTH in values and changes.keys() & (set(ENDS) - decided.keys()):
        values = {**values, **strength_settings(values[STRENGTH])}
        gone = {STRENGTH}
    if STRENGTH in changes:
        gone = {*decided, *ENDS}
    elif any(key in decided for key in changes):
        gone |= {STRENGTH}
    if any(changes.get(key) is not None for key in ENDS):
        gone |= set(ENDS)
    return {key: value for key, value in values.items() if key not in gone} | dict(changes)


def _hint(word: object, name: str | None = None) -> str:
    import difflib

    known = list(SAMPLERS) if name is None else list(SAMPLERS[name])
    if name == "syncos":
        known.append("strength")
    close = difflib.get_close_matches(str(word), known, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{meant}; known: {', '.join(known)}"
