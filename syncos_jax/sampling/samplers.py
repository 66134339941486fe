"""The samplers: `SynCoS`, `CoDenoising`, `RefinementOnly`, `FlowLong`, `FreeNoise`, `Chained` and
`FIFO`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from syncos_jax.errors import InputError
from syncos_jax.sampling.sampler_config import (
    Refinement,
    SamplerConfig,
    check_flags,
    check_integer,
    check_number,
    sampler,
)

FULL_STRENGTH = 1.0
ENDS = ("t_min", "refine_steps", "refine_snr")
"""The fields of `SynCoS` that set where the refinement ends; at most one is passed."""
T_MIN = 850.0
"""Where the refinement of SynCoS ends as published (800 to 900)."""
FRESH_NOISE_T_MIN = 600.0
"""Where FlowLong turns from fresh noise to the ODE."""


@dataclass(frozen=True, kw_only=True, repr=False)
class _GuidedInInterval(SamplerConfig):
    """Samplers whose windows share a timestep.

    Attributes:
      guidance_t_min, guidance_t_max: guidance applies at timesteps in this interval, in units of
        the schedule (0 .. 999; None: no upper end). Outside it the network is called on the prompts
        alone, which halves the FLOPs (Kynkäänniemi et al., arXiv 2404.07724).
      timesteps: the timesteps of the steps, falling, in units of the schedule (for flow models 1000
        times the noise level); for few-step models, which are distilled for a fixed list. None: the
        model's own.
      sigmas: the same as noise levels: of flow models, and otherwise noise over signal. A last 0
        may be written or omitted. Neither list is shifted.
      spacing: how timesteps are chosen without a list: "trailing", "leading", "every", "linspace"
        or "lcm"; for flow models "even", "euler", "unipc" or "dpm++" (the rules of these solvers'
        published schedulers). None: the model's own.
      shift: of the timesteps of flow models, in place of the model's own.
    """

    guidance_t_min: float = 0.0
    guidance_t_max: float | None = None
    timesteps: tuple[float, ...] | None = None
    sigmas: tuple[float, ...] | None = None
    spacing: str | None = None
    shift: float | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class _CoDenoises(_GuidedInInterval):
    """Samplers that predict and fuse all windows at every step.

    Attributes:
      eta: 0 for deterministic DDIM, up to 1 for ancestral sampling (Song et al., arXiv 2010.02502).
      eta_t_max: steps at timesteps above this one take eta 0: with `shuffled_noise` they decide
        what all windows show, and the noise of the others ends the repetition of the first clip's
        motion. None: no upper end.
      solver: "ddim", "euler", "dpm++" (2M), "unipc" or "sde-dpm++"; of few-step models "renoise"
        (the clean latent, then fresh noise at the next level) or "lcm"; None: the model's own. A
        refined step resumes with the baseline noise whatever the solver, and the step after it
        restarts the solver's history.
      shared_noise: steps that add noise, and refinements with fixed noise, all take the noise that
        the video starts from, in place of new noise each.
      shuffled_noise: share, 0 to 1, of the variance of the noise a video starts from that later
        frames have from the first clip's noise, each stride of frames in a new order (FreeNoise,
        Qiu et al., arXiv 2310.15169, section 3.2), so that distant windows start alike.
      reuse: predicted relative change of the noise below which a pass reuses the previous
        prediction and skips the network (`syncos_jax.sampling.step_cache`); 0.05 to 0.3 is typical.
        None: nothing is skipped. Refined steps, the two after them and the last are never skipped.
    """

    eta: float = 0.0
    eta_t_max: float | None = None
    solver: str | None = None
    shared_noise: bool = False
    shuffled_noise: float = 0.0
    reuse: float | None = None

    def __post_init__(self) -> None:
        check_flags(self, "shared_noise")
        check_number(self, "shuffled_noise", least=0.0, most=1.0)
        if self.eta_t_max is not None:
            check_number(self, "eta_t_max", least=0.0)
        super().__post_init__()


@sampler
@dataclass(frozen=True, kw_only=True, repr=False)
class CoDenoising(_CoDenoises):
    """Temporal co-denoising alone (Gen-L-Video, Wang et al., arXiv 2305.18264).

    Every step predicts all windows, fuses their clean latents, and resumes with the noise that DDIM
    implies. For a video of exactly one window this is plain DDIM.
    """

    name: ClassVar[str] = "co_denoising"


@sampler
@dataclass(frozen=True, kw_only=True, repr=False)
class SynCoS(Refinement, _CoDenoises):
    """Synchronized coupled sampling (Kim et al., arXiv 2503.08605): stages 1, 2 and 3.

    ``SynCoS()`` has the published settings; ``SynCoS(strength=0.5)`` sets how strongly windows are
    synchronised by one number, at little cost.

    Attributes:
      strength: 0 (plain co-denoising) to 1 (full synchronisation); sets ``t_min``, ``iterations``,
        ``learning_rate`` and ``windows_per_step``, which are then not passed. The refinement runs
        down to ``t_min = 1000 - 400 strength``, with one optimiser step of a large rate on a third
        of the windows per timestep: at 1 about 1.15 times the network calls of co-denoising
        (docs/synchronisation.md).
      t_min: the refinement runs at timesteps above this one, in units of the schedule (0 .. 999;
        for flow models 1000 times the noise level). 850 unless this, `refine_steps`, `refine_snr`
        or `strength` is passed.
      refine_steps: the refinement runs at this many steps, from the noisiest one.
      refine_snr: the refinement runs where the signal-to-noise ratio ``a_t^2 / b_t^2`` is below
        this.
      fresh_noise_t_min: steps at timesteps above this one resume with fresh noise (`FlowLong`).
    """

    name: ClassVar[str] = "syncos"

    strength: float | None = field(default=None, compare=False)
    t_min: float | None = None
    refine_steps: int | None = None
    refine_snr: float | None = None
    fresh_noise_t_min: float | None = None

    def __post_init__(self) -> None:
        if self.strength is not None:
            self._apply_strength()
        given = [name for name in ENDS if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(
                f"{given[0]} and {given[1]} both set where the refinement ends",
                remedy="pass one of them",
            )
        if not given:
            object.__setattr__(self, "t_min", T_MIN)
        if self.t_min is not None:
            check_number(self, "t_min", least=0.0)
        if self.refine_steps is not None:
            check_integer(self, "refine_steps", least=0)
        if self.refine_snr is not None:
            check_number(self, "refine_snr", least=0.0)
        if self.fresh_noise_t_min is not None:
            check_number(self, "fresh_noise_t_min", least=0.0)
        self.check_refinement()
        super().__post_init__()

    def _apply_strength(self) -> None:
        decided = strength_settings(self.strength)
        passed: frozenset[str] = self._passed  # type: ignore[attr-defined]
        twice = [
            key
            for key, value in decided.items()
            if key in passed and getattr(self, key) not in (None, value)
        ]
        if twice:
            raise InputError(
                f"strength sets {', '.join(decided)}", remedy=f"omit strength or {twice[0]}"
            )
        check_number(self, "strength")
        for key, value in decided.items():
            object.__setattr__(self, key, value)

    @property
    def derived(self) -> frozenset[str]:
        """Fields whose values follow from others."""
        if self.strength is not None:
            return frozenset(strength_settings(self.strength))
        return frozenset({"t_min"} if self.t_min == T_MIN else ())

    def runs_at(self, step: int, t: float, a: float, b: float) -> bool:
        """Whether denoising step `step` (from 0) is refined: timestep `t`, rates `a` and `b`."""
        if self.t_min is not None:
            return t > self.t_min
        if self.refine_steps is not None:
            return step < self.refine_steps
        return self.refine_snr is None or a**2 < self.refine_snr * b**2

    def replace(self, **changes: Any) -> SynCoS:
        """A copy with other values of some fields; one end of the refinement replaces another, and
        what `strength` sets replaces `strength`."""
        if changes.get("strength") is not None:
            changes = {**dict.fromkeys(ENDS), **strength_settings(changes["strength"]), **changes}
        if "strength" not in changes and changes.keys() & strength_settings(0.0).keys():
            changes = {"strength": None, **changes}
        if changes.get("strength") is None and any(changes.get(name) is not None for name in ENDS):
            changes = {**dict.fromkeys(ENDS), "strength": None, **changes}
        return super().replace(**changes)

    @classmethod
    def paper(cls, backbone: Literal["cogvideox", "open_sora_plan"] = "cogvideox") -> SynCoS:
        """The published settings: 50 steps, eta 0, and of the published ranges (t_min 800 to 900,
        learning rate 0.5 to 1, 20 to 50 iterations) the middle of the first and the low end of the
        others. Guidance is 6 for CogVideoX (with stride 4) and 7.5 for Open-Sora Plan (stride 6).

        Raises:
          InputError: on another backbone.
        """
        guidance = {"cogvideox": 6.0, "open_sora_plan": 7.5}
        if backbone not in guidance:
            raise InputError(
                argument="backbone", expected=f"one of {', '.join(guidance)}", value=backbone
            )
        return cls(steps=50, guidance=guidance[backbone])

    @classmethod
    def at_strength(cls, strength: float = FULL_STRENGTH, **others: Any) -> SynCoS:
        """Deprecated: ``SynCoS(strength=...)``."""
        return cls(strength=strength, **others)

    dial = at_strength
    fast = at_strength


@sampler
@dataclass(frozen=True, kw_only=True, repr=False)
class RefinementOnly(Refinement, _GuidedInInterval):
    """Stage 2 alone (Collaborative Score Distillation, Kim et al., arXiv 2307.04787).

    The clean latent starts as the initial Gaussian draw and is refined at every timestep.
    """

    name: ClassVar[str] = "refinement_only"
    co_denoise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.check_refinement()
        super().__post_init__()


@sampler
@dataclass(frozen=True, kw_only=True, repr=False)
class FlowLong(_CoDenoises):
    """Co-denoising with fresh noise at high noise levels (FlowLong, Park et al., arXiv 2605.20910).

    Every step predicts all windows and fuses their clean latents. At timesteps above
    ``fresh_noise_t_min`` it resumes with fresh noise, ``x' = a' x0 + b' z``, which frees the
    windows
    of the noise they started from; below, with the noise that DDIM (or the ODE solver) implies. It
    costs the same as co-denoising.

    Attributes:
      fresh_noise_t_min: in units of the schedule. The default is our choice, measured in
        docs/synchronisation.md; the authors' value is not published.
    """

    name: ClassVar[str] = "flowlong"

    fresh_noise_t_min: float = FRESH_NOISE_T_MIN

    def __post_init__(self) -> None:
        check_number(self, "fresh_noise_t_min", least=0.0)
        super().__post_init__()


@sampler
@dataclass(frozen=True, kw_only=True, repr=False)
class FreeNoise(_CoDenoises):
    """Co-denoising from shuffled noise (FreeNoise, Qiu et al., arXiv 2310.15169, section 3.2).

    (The authors fuse windows within the network's temporal attention; here they are fused as clean
    latents, for any network.)
    """

    name: ClassVar[str] = "freenoise"

    shuffled_noise: float = 1.0


@sampler
@dataclass(frozen=True, kw_only=True, repr=False)
class Chained(_GuidedInInterval):
    """Clips one after the other, each from the last frames of the one before.

    As video extension does: nothing that comes later changes a clip. A clip starts where its window
    does and keeps the frames that it shares with the clip before; the stride sets how many. Costs
    what co-denoising does; the memory of the network does not grow with the video.

    Attributes:
      eta: 0 for deterministic DDIM, up to 1 for ancestral sampling (Song et al., arXiv 2010.02502).
      solver: as of `CoDenoising`.
    """

    name: ClassVar[str] = "chained"
    chained: ClassVar[bool] = True

    eta: float = 0.0
    solver: str | None = None


@sampler
@dataclass(frozen=True, kw_only=True, repr=False)
class FIFO(SamplerConfig):
    """Diagonal denoising (FIFO-Diffusion, Kim et al., arXiv 2405.11473).

    A queue holds consecutive frames, the first almost clean, the last pure noise, each at a
    timestep of its own.

    Attributes:
      steps: length of the queue, rounded to a multiple of the frames that a window updates.
      eta: 1 is the authors' default.
      lookahead: True: each window updates its noisier half and sees the cleaner half as context;
        False: it updates all of its frames.
    """

    name: ClassVar[str] = "fifo"

    eta: float = 1.0
    lookahead: bool = True

    def __post_init__(self) -> None:
        check_flags(self, "lookahead")
        super().__post_init__()


SAMPLERS: dict[str, type[SamplerConfig]] = {
    kind.name: kind
    for kind in (SynCoS, CoDenoising, RefinementOnly, FlowLong, FreeNoise, Chained, FIFO)
}
"""The samplers by their names in scenario files."""


def strength_settings(strength: object) -> dict[str, Any]:
    """The settings that ``SynCoS(strength=...)`` sets.

    Raises:
      InputError: if it is not a number from 0 to 1.
    """
    good = isinstance(strength, int | float) and not isinstance(strength, bool)
    if not good or not 0.0 <= strength <= 1.0:  # type: ignore[operator]
        raise InputError(argument="strength", expected="a number from 0 to 1", value=strength)
    t_min = 1000.0 - 400.0 * float(strength)  # type: ignore[arg-type]
    return {"t_min": t_min, "iterations": 1, "learning_rate": 1.0, "windows_per_step": 0.35}
