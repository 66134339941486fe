"""The base class of the samplers' settings, and how their fields are checked.

The samplers themselves are in `syncos_jax.sampling.samplers`; each is another call schedule for the
same loop (`syncos_jax.sampling.call_schedule`, `syncos_jax.sampling.loop`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, get_args

from syncos_jax.errors import InputError
from syncos_jax.sampling.fixed_levels import checked_list
from syncos_jax.sampling.noise import MAX_STEPS
from syncos_jax.sampling.sigmas import FlowRule, Spacing
from syncos_jax.sampling.solvers import STOCHASTIC, SolverName

STEPS, GUIDANCE = 50, 7.5
"""Used for settings that are None where there is no model to ask."""

SPACINGS = tuple(
    dict.fromkeys((*get_args(Spacing), *(r for r in get_args(FlowRule) if r != "list")))
)
"""What `spacing` may be, of schedules made from betas and of flows."""

MAX_INTEGER = 2**31 - 1
BOUNDARY_SCALE = 1000.0
"""Timestep at a share of 1."""
ALIASES = {"batch": "windows_per_call"}
"""Former names of fields, still accepted."""


def current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with former names of fields replaced by their current ones."""
    return {ALIASES.get(name, name): value for name, value in values.items()}


_Config = TypeVar("_Config", bound=type)


def sampler(cls: _Config) -> _Config:
    """Class decorator over ``@dataclass``: accepts former names of fields, and remembers which
    fields were passed."""
    init = cls.__init__  # type: ignore[misc]

    @functools.wraps(init)
    def __init__(self: Any, **values: Any) -> None:
        values = current_names(values)
        object.__setattr__(self, "_passed", frozenset(values))
        init(self, **values)

    cls.__init__ = __init__  # type: ignore[misc]
    return cls


@dataclass(frozen=True, kw_only=True, repr=False)
class SamplerConfig:
    """Base class of the samplers' settings: `SynCoS`, `CoDenoising`, `RefinementOnly`, `FlowLong`,
    `FreeNoise`, `Chained` and `FIFO`. Immutable and hashable.

    Attributes:
      steps: denoising steps; None: the model's own (50 without a model).
      guidance: scale of classifier-free guidance, ``uncond + guidance * (cond - uncond)`` (Ho and
        Salimans, arXiv 2207.12598); used only where a negative conditioning is passed. None: the
        model's own (7.5).
      perturbed_guidance: scale of guidance away from the network with the self-attention of one
        block switched off, ``+ scale * (cond - perturbed)`` (spatio-temporal skip guidance, Hyung
        et al., arXiv 2411.18664); 0: none; None: the model's own. Only for models that have it.
      guidance_2: guidance below `boundary`, where the second of two networks predicts (Wan 2.2
        A14B); None: `guidance` where that is passed, else the model's own.
      boundary: share of the timesteps below which the second network predicts, 0 to 1; None: the
        model's own. Only for models of two networks.
      guidance_rescale: from 0 to 1, how far guided clean latents of a window get the standard
        deviation of the unguided ones (Lin et al., arXiv 2305.08891, section 3.4). None: the
        model's own.
      windows_per_call: maximum number of windows in one call of the network (two samples each with
        guidance, one more with perturbed guidance). Memory grows with it; the result does not
        depend on it. None: chosen to leave few slots of a call empty.

    Raises:
      InputError: if a value is out of range or contradicts another.
      TypeError: for the base class itself, which is abstract.
    """

    name: ClassVar[str] = ""
    """The sampler's name in scenario files."""

    steps: int | None = None
    guidance: float | None = None
    perturbed_guidance: float | None = None
    guidance_2: float | None = None
    boundary: float | None = None
    guidance_rescale: float | None = None
    windows_per_call: int | None = None

    if not TYPE_CHECKING:  # what samplers without such a field have
        guidance_t_min = 0.0
        guidance_t_max = None
        eta = 0.0
        eta_t_max = None
        solver = None
        timesteps = None
        sigmas = None
        spacing = None
        shift = None
        shared_noise = False
        shuffled_noise = 0.0
        reuse = None
        fresh_noise_t_min = None
        lookahead = None
    else:

        @property
        def guidance_t_min(self) -> float:
            return 0.0

        @property
        def guidance_t_max(self) -> float | None: ...
        @property
        def eta(self) -> float:
            return 0.0

        @property
        def eta_t_max(self) -> float | None: ...
        @property
        def solver(self) -> str | None: ...
        @property
        def timesteps(self) -> tuple[float, ...] | None: ...
        @property
        def sigmas(self) -> tuple[float, ...] | None: ...
        @property
        def spacing(self) -> str | None: ...
        @property
        def shift(self) -> float | None: ...
        @property
        def shared_noise(self) -> bool:
            return False

        @property
        def shuffled_noise(self) -> float:
            return 0.0

        @property
        def reuse(self) -> float | None: ...
        @property
        def fresh_noise_t_min(self) -> float | None: ...
        @property
        def lookahead(self) -> bool | None: ...

    chained: ClassVar[bool] = False
    """Whether clips are made one after the other."""
    co_denoise: ClassVar[bool] = True
    """Whether stages 1 and 3 run: predict and fuse every window, resume at the next timestep."""

    def __post_init__(self) -> None:
        if type(self) is SamplerConfig:
            raise TypeError("SamplerConfig is abstract; use SynCoS or another sampler")
        if self.steps is not None:
            check_integer(self, "steps", most=MAX_STEPS)
        if self.guidance is not None:
            check_number(self, "guidance")
        if self.perturbed_guidance is not None:
            check_number(self, "perturbed_guidance")
        if self.guidance_2 is not None:
            check_number(self, "guidance_2")
        if self.boundary is not None:
            check_number(self, "boundary", least=0.0, most=1.0)
        if self.guidance_rescale is not None:
            check_number(self, "guidance_rescale", least=0.0, most=1.0)
        if self.windows_per_call is not None:
            check_integer(self, "windows_per_call")
        check_number(self, "eta", least=0.0, most=1.0)
        if self.solver is not None and self.solver not in get_args(SolverName):
            raise _error("solver", f"one of {', '.join(get_args(SolverName))}", self.solver)
        if self.eta > 0 and self.solver not in (None, "ddim"):
            raise InputError(
                argument="eta", expected=f"0 with solver {self.solver}", value=self.eta
            )
        if self.reuse is not None:
            check_number(self, "reuse", least=0.0)
            if self.eta > 0 or self.solver in STOCHASTIC:
                raise InputError(
                    "needs steps that add no noise",
                    argument="reuse",
                    remedy="set eta to 0 and use a deterministic solver",
                )
        self._check_levels()
        check_number(self, "guidance_t_min", least=0.0)
        if self.guidance_t_max is not None:
            check_number(self, "guidance_t_max", least=self.guidance_t_min)

    def _check_levels(self) -> None:
        """InputError unless timesteps, sigmas, spacing and shift are good, and go together."""
        for name in ("timesteps", "sigmas"):
            values = getattr(self, name)
            if values is None:
                continue
            listed = checked_list(name, values)  # type: ignore[arg-type]
            object.__setattr__(self, name, listed)
            for other in ("sigmas", "spacing", "shift"):
                if other != name and getattr(self, other) is not None:
                    raise InputError(
                        f"{name} and {other} both set the steps", remedy=f"omit {other}"
                    )
            if self.steps not in (None, len(listed)):
                raise InputError(
                    f"{name} lists {len(listed)} steps, and steps is {self.steps}",
                    remedy=f"omit steps or {name}",
                )
        if self.spacing is not None and self.spacing not in SPACINGS:
            raise _error("spacing", f"one of {', '.join(SPACINGS)}", self.spacing)
        if self.shift is not None:
            check_number(self, "shift", least=1e-3)

    @property
    def derived(self) -> frozenset[str]:
        """Fields whose values follow from others."""
        return frozenset()

    def __repr__(self) -> str:
        """The fields that differ from their defaults."""
        shown = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default and field.name not in self.derived
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    @property
    def refinement(self) -> Refinement | None:
        """The settings of stage 2; None for samplers without it."""
        return self if isinstance(self, Refinement) else None

    def draws_fresh(self, t: float) -> bool:
        """Whether a step at timestep `t` resumes with fresh noise."""
        return self.fresh_noise_t_min is not None and t > self.fresh_noise_t_min

    @property
    def rescales(self) -> float:
        """`guidance_rescale` where there is guidance, else 0."""
        guided = self.guidance != 1.0 or self.guidance_2 not in (None, 1.0)
        guided = guided or bool(self.perturbed_guidance)
        return (self.guidance_rescale or 0.0) if guided else 0.0

    def sample_weights(self, t: float) -> tuple[float, float, float]:
        """Weights at timestep `t` of the predictions for the prompt, for the negative prompt and
        for the prompt in the perturbed network; they sum to 1."""
        below = self.guidance_t_max is None or t <= self.guidance_t_max
        if not (self.guidance_t_min <= t and below):
            return 1.0, 0.0, 0.0
        guidance = 1.0 if self.guidance is None else self.guidance
        if self.guidance_2 is not None and t < BOUNDARY_SCALE * (self.boundary or 0.0):
            guidance = self.guidance_2
        perturbed = self.perturbed_guidance or 0.0
        return guidance + perturbed, 1.0 - guidance, -perturbed

    def resolved(
        self,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        perturbed_guidance: float | None = None,
        guidance_2: float | None = None,
        boundary: float | None = None,
        guidance_rescale: float | None = None,
    ) -> Self:
        """With these values in place of None (as many steps as a list of theirs has); `guidance_2`
        only where `guidance` is None, too."""
        perturbed, second = self.perturbed_guidance, self.guidance_2
        rescale = self.guidance_rescale
        if second is None and self.guidance is None:
            second = guidance_2
        listed = self.timesteps or self.sigmas
        steps = steps if listed is None else len(listed)
        return dataclasses.replace(
            self,
            guidance_2=second,
            boundary=boundary if self.boundary is None else self.boundary,
            steps=steps if self.steps is None else self.steps,
            guidance=guidance if self.guidance is None else self.guidance,
            perturbed_guidance=perturbed_guidance if perturbed is None else perturbed,
            guidance_rescale=guidance_rescale if rescale is None else rescale,
        )

    def replace(self, **changes: Any) -> Self:
        """A copy with other values of some fields.

        Raises:
          InputError: if a value is out of range or contradicts another.
        """
        return dataclasses.replace(self, **current_names(changes))


@dataclass(frozen=True, kw_only=True, repr=False)
class Refinement:
    """Stage 2, the coupled refinement of all windows at a timestep; base of `SynCoS` and
    `RefinementOnly`.

    Attributes:
      iterations: optimiser steps per timestep.
      learning_rate: of AdamW, on the clean latent.
      weight_decay: of AdamW.
      windows_per_step: windows ``B`` drawn for one optimiser step: an integer, or a fraction of all
        windows between 0 and 1 (rounded up). None, or more than there are: all.
      grounded_timestep: refine at the step's own timestep. False (ablation): each iteration draws a
        timestep.
      fixed_noise: one baseline noise per step. False (ablation): each iteration draws new noise,
        and the step resumes with the last.
      guided_refinement: whether the refinement's predictions are guided. False halves its FLOPs.
    """

    iterations: int = 20
    learning_rate: float = 0.5
    weight_decay: float = 1e-4
    windows_per_step: int | float | None = None
    grounded_timestep: bool = True
    fixed_noise: bool = True
    guided_refinement: bool = True

    def check_refinement(self) -> None:
        """InputError where a field is out of range."""
        check_integer(self, "iterations", most=2**16 - 1)
        check_number(self, "learning_rate", least=0.0)
        check_number(self, "weight_decay", least=0.0)
        share = self.windows_per_step
        if share is not None and not (isinstance(share, float) and 0 < share < 1):
            check_integer(self, "windows_per_step")
        check_flags(self, "grounded_timestep", "fixed_noise", "guided_refinement")

    def windows_of_step(self, count: int) -> int:
        """Windows ``B`` of one optimiser step, out of `count`."""
        if self.windows_per_step is None:
            return count
        if self.windows_per_step < 1:
            return math.ceil(self.windows_per_step * count)
        return min(int(self.windows_per_step), count)

    def runs_at(self, step: int, t: float, a: float, b: float) -> bool:
        """Whether denoising step `step` (from 0) is refined: timestep `t`, rates `a` and `b`."""
        return True


def _error(field: str, expected: str, value: object) -> InputError:
    return InputError(argument=field, expected=expected, value=value)


def check_integer(config: Any, field: str, *, least: int = 1, most: int = MAX_INTEGER) -> None:
    """InputError unless the field is an integer in the range."""
    value = getattr(config, field)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        upto = "or more" if most == MAX_INTEGER else f"to {most}"
        raise _error(field, f"an integer, {least} {upto}", value)


def check_number(
    config: Any, field: str, *, least: float = -math.inf, most: float = math.inf
) -> None:
    """InputError unless the field is a finite number in the range; makes a field a float."""
    value = getattr(config, field)
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or not least <= value <= most:
        lower = f", {least:g} or more" if math.isfinite(least) else ""
        upper = f", at most {most:g}" if math.isfinite(most) else ""
        raise _error(field, f"a number{lower}{upper}", value)
    if any(own.name == field for own in dataclasses.fields(config)):
        object.__setattr__(config, field, float(value))


def check_flags(config: Any, *fields: str) -> None:
    """InputError unless the fields are booleans."""
    for field in fields:
        if not isinstance(getattr(config, field), bool):
            raise _error(field, "true or false", getattr(config, field))
