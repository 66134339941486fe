"""Settings of the samplers: which stages run, for how long, with which numbers.

Every sampler is another tape for the same scan (`tape`, `scan`).
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from syncos_jax.errors import InputError
from syncos_jax.sampling.noise import MAX_STEPS


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all samplers have in common.

    Attributes:
      steps: denoising steps.
      guidance: scale of classifier-free guidance, ``uncond + guidance * (cond - uncond)``; read
        only where a negative conditioning is given.
      batch: windows in one call of the network; memory goes with it, the result does not.
        None for all. Rounds of few windows get a smaller call of their own (`Tape.few`).
    """

    name: ClassVar[str]
    co_denoises: ClassVar[bool]
    """Whether stages 1 and 3 run: predict and fuse every window, resume at the next timestep."""

    steps: int = 50
    guidance: float = 7.5
    batch: int | None = None

    def __post_init__(self) -> None:
        self._integer("steps", least=1, most=MAX_STEPS)
        self._number("guidance")
        self._integer("batch", least=1, optional=True)

    def _integer(
        self, field: str, *, least: int, most: int = 2**31 - 1, optional: bool = False
    ) -> None:
        value = getattr(self, field)
        if optional and value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            upto = "or more" if most == 2**31 - 1 else f"to {most}"
            none = ", or None" if optional else ""
            raise self._error(field, f"a whole number, {least} {upto}{none}")

    def _number(self, field: str, *, least: float = -math.inf, most: float = math.inf) -> None:
        value = getattr(self, field)
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not math.isfinite(value) or not least <= value <= most:
            lower = f", {least:g} or more" if math.isfinite(least) else ""
            upper = f", at most {most:g}" if math.isfinite(most) else ""
            raise self._error(field, f"a number{lower}{upper}")
        object.__setattr__(self, field, float(value))

    def _flag(self, field: str) -> None:
        if not isinstance(getattr(self, field), bool):
            raise self._error(field, "true or false")

    def _error(self, field: str, expected: str) -> InputError:
        value = getattr(self, field)
        return InputError(f"sampler {self.name}: {field} must be {expected}; got {value!r}")


@dataclass(frozen=True, kw_only=True)
class TapeSettings(Settings):
    """What samplers have in common that are written down as a tape (`syncos_jax.sampling.tape`).

    Outside the interval of timesteps in which guidance is applied the network is called on the
    prompts alone, which is half the work (Kynkäänniemi et al., arXiv 2404.07724). So it is
    everywhere where `guidance` is 1.

    Attributes:
      guidance_t_min, guidance_t_max: guidance is applied at timesteps from the one to the other, in
        units of the schedule; None for no upper end.
    """

    guidance_t_min: float = 0.0
    guidance_t_max: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("guidance_t_min", least=0.0)
        if self.guidance_t_max is not None:
            self._number("guidance_t_max", least=self.guidance_t_min)

    def guides(self, t: float) -> bool:
        """Whether guidance is applied at timestep `t`."""
        below = self.guidance_t_max is None or t <= self.guidance_t_max
        return self.guidance != 1.0 and self.guidance_t_min <= t and below

    def refines(self, t: float) -> bool:
        """Whether stage 2, the coupled refinement, runs at timestep `t`."""
        return False


@dataclass(frozen=True, kw_only=True)
class CoDenoising(TapeSettings):
    """Temporal co-denoising alone (Gen-L-Video, Wang et al., arXiv 2305.18264).

    Every step predicts all windows, fuses them, and goes on with the noise that DDIM implies.
    Over a video of exactly one window this is plain DDIM.

    Attributes:
      eta: 0 for deterministic DDIM, up to 1 for ancestral sampling.
    """

    name: ClassVar[str] = "co_denoising"
    co_denoises: ClassVar[bool] = True

    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("eta", least=0.0, most=1.0)


@dataclass(frozen=True, kw_only=True)
class Refinement(TapeSettings):
    """What samplers with a coupled refinement (stage 2) have in common.

    Attributes:
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

    iterations: int = 20
    learning_rate: float = 0.5
    weight_decay: float = 1e-4
    windows_per_step: int | float | None = None
    grounded_timestep: bool = True
    fixed_noise: bool = True
    guided_refinement: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._integer("iterations", least=1, most=2**16 - 1)
        self._number("learning_rate", least=0.0)
        self._number("weight_decay", least=0.0)
        share = self.windows_per_step
        if not (isinstance(share, float) and 0 < share < 1):
            self._integer("windows_per_step", least=1, optional=True)
        self._flag("grounded_timestep")
        self._flag("fixed_noise")
        self._flag("guided_refinement")

    def windows_of_step(self, count: int) -> int:
        """Windows ``B`` of one optimiser step where there are `count` in all."""
        if self.windows_per_step is None:
            return count
        if self.windows_per_step < 1:
            return math.ceil(self.windows_per_step * count)
        return min(int(self.windows_per_step), count)


DIAL_DEFAULT = 1.0
"""`SynCoS.dial`'s strength where none is given."""
_DIALLED = {"iterations": 1, "learning_rate": 1.0, "windows_per_step": 0.35}


def _dialled(strength: object) -> dict[str, Any]:
    """The settings that `SynCoS.dial` decides."""
    good = isinstance(strength, int | float) and not isinstance(strength, bool)
    if not good or not 0.0 <= strength <= 1.0:  # type: ignore[operator]
        raise InputError(f"sampler syncos: strength must be a number from 0 to 1; got {strength!r}")
    return {"t_min": 1000.0 - 400.0 * float(strength), **_DIALLED}  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class SynCoS(Refinement):
    """Synchronized coupled sampling (Kim et al., arXiv 2503.08605): stages 1, 2 and 3.

    Attributes:
      eta: as in `CoDenoising`; the published method has 0.
      t_min: the refinement runs at timesteps above this one, in units of the schedule
        (0 .. 999; for flow models 1000 times the noise level). 0 (ablation): at all of them.
    """

    name: ClassVar[str] = "syncos"
    co_denoises: ClassVar[bool] = True

    eta: float = 0.0
    t_min: float = 850.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("eta", least=0.0, most=1.0)
        self._number("t_min", least=0.0)

    def refines(self, t: float) -> bool:
        return t > self.t_min

    @classmethod
    def paper(cls, backbone: Literal["cogvideox", "open_sora_plan"] = "cogvideox") -> SynCoS:
        """The published settings: 50 steps, eta 0, and of the published ranges (t_min 800 to 900,
        learning rate 0.5 to 1, 20 to 50 iterations) the middle of the first and the low end of the
        others. Guidance is 6 for CogVideoX (with stride 4) and 7.5 for Open-Sora Plan (stride 6).
        """
        guidance = {"cogvideox": 6.0, "open_sora_plan": 7.5}
        if backbone not in guidance:
            raise InputError(
                f"SynCoS.paper: unknown backbone {backbone!r}; one of {', '.join(guidance)}"
            )
        return cls(
            steps=50,
            guidance=guidance[backbone],
            eta=0.0,
            t_min=850,
            iterations=20,
            learning_rate=0.5,
        )

    @classmethod
    def dial(cls, strength: float = DIAL_DEFAULT, **others: Any) -> SynCoS:
        """How much synchronisation, as one number; cheap at any of them.

        It sets how long the refinement runs, from the noisiest timestep down to
        ``t_min = 1000 - 400 strength``. Each of these steps takes one optimiser step of a large
        rate on a third of the windows; the published settings take many of a smaller rate on all
        windows, at few early steps. At 1 that is about 1.15 times the network calls of
        co-denoising; README, "How much synchronisation", has the measured curve.

        Args:
          strength: 0 (co-denoising, no more) to 1 (full synchronisation).
          **others: settings that it does not decide: ``steps``, ``guidance``, ``batch``, ``eta``.

        Raises:
          InputError: if `strength` is not in 0 .. 1.
        """
        return cls(**_dialled(strength), **others)

    @classmethod
    def fast(cls, **others: Any) -> SynCoS:
        """`dial` at its default."""
        return cls.dial(**others)


@dataclass(frozen=True, kw_only=True)
class RefinementOnly(Refinement):
    """Stage 2 alone (Collaborative Score Distillation, Kim et al., arXiv 2307.04787).

    The clean latent starts as the initial Gaussian draw and is refined at every timestep.
    """

    name: ClassVar[str] = "refinement_only"
    co_denoises: ClassVar[bool] = False

    def refines(self, t: float) -> bool:
        return True


STRENGTH = "strength"
"""The key of `SynCoS.dial`'s argument in a scenario file."""

SAMPLERS: dict[str, type[TapeSettings]] = {c.name: c for c in (SynCoS, CoDenoising, RefinementOnly)}
"""The samplers by the name they have in scenario files."""


def settings_from_dict(values: Mapping[str, Any]) -> Settings:
    """Reads settings as a scenario file holds them: ``{"name": "syncos", "steps": 50, ...}``.

    Of SynCoS, ``strength`` (0 to 1) may stand in place of the settings that `SynCoS.dial` decides.

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
    name = values["name"]
    if not isinstance(name, str) or name not in SAMPLERS:
        raise InputError(f"sampler: unknown name {name!r}{_hint(name, list(SAMPLERS))}")
    known = [field.name for field in dataclasses.fields(SAMPLERS[name])]
    dials = name == SynCoS.name
    if dials and STRENGTH in values:
        values = dict(values)
        dialled = _dialled(values.pop(STRENGTH))
        twice = [key for key in values if key in dialled]
        if twice:
            raise InputError(
                f"sampler {name}: strength decides {', '.join(dialled)}; leave out strength or "
                f"{twice[0]}"
            )
        values |= dialled
    for key in values:
        if key != "name" and key not in known:
            known += [STRENGTH] * dials
            raise InputError(f"sampler {name}: unknown key {key!r}{_hint(key, known)}")
    return SAMPLERS[name](**{key: value for key, value in values.items() if key != "name"})


def settings_to_dict(settings: Settings) -> dict[str, Any]:
    """The inverse of `settings_from_dict`, with every value written out."""
    return {"name": settings.name, **dataclasses.asdict(settings)}


def without_dial(values: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """`values` of a scenario file without those that `changed` takes the place of: a strength
    replaces all that it decides, and any of that replaces a strength."""
    decided = _dialled(0.0)
    gone: set[str] = set()
    if STRENGTH in changed:
        gone = set(decided)
    elif any(key in decided for key in changed):
        gone = {STRENGTH}
    return {key: value for key, value in values.items() if key not in gone}


def _hint(word: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(word), known, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{meant}; known: {', '.join(known)}"
