"""Settings of the samplers: which stages run, for how long, with which numbers.

Every sampler is another tape for the same player (`syncos_jax.tape`, `syncos_jax.player`).
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from syncos_jax.errors import InputError
from syncos_jax.noise import MAX_STEPS


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all samplers have in common.

    Attributes:
      steps: denoising steps.
      guidance: scale of classifier-free guidance, ``uncond + guidance * (cond - uncond)``; read
        only where a negative conditioning is given.
      batch: windows in one call of the network; memory goes with it, the result does not.
        None for as many as a round of the sampler has.
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

    def refines(self, t: float) -> bool:
        """Whether stage 2, the coupled refinement, runs at timestep `t`."""
        return False

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
class CoDenoising(Settings):
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
class Refinement(Settings):
    """What samplers with a coupled refinement (stage 2) have in common.

    Attributes:
      iterations: optimiser steps at a timestep.
      learning_rate: of AdamW, on the clean latent.
      weight_decay: of AdamW; the default is that of optax.
      windows_per_step: windows ``B`` drawn for one optimiser step; None, or more than there are,
        for all of them.
      grounded_timestep: refine at the very timestep of the step. False (ablation): each iteration
        draws a timestep of its own.
      fixed_noise: one baseline noise for a whole step. False (ablation): each iteration draws
        anew, and the last noise drawn is the one to resume with.
    """

    iterations: int = 20
    learning_rate: float = 0.5
    weight_decay: float = 1e-4
    windows_per_step: int | None = None
    grounded_timestep: bool = True
    fixed_noise: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._integer("iterations", least=1, most=2**16 - 1)
        self._number("learning_rate", least=0.0)
        self._number("weight_decay", least=0.0)
        self._integer("windows_per_step", least=1, optional=True)
        self._flag("grounded_timestep")
        self._flag("fixed_noise")


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


@dataclass(frozen=True, kw_only=True)
class RefinementOnly(Refinement):
    """Stage 2 alone (Collaborative Score Distillation, Kim et al., arXiv 2307.04787).

    The clean latent starts as the initial Gaussian draw and is refined at every timestep.
    """

    name: ClassVar[str] = "refinement_only"
    co_denoises: ClassVar[bool] = False

    def refines(self, t: float) -> bool:
        return True


SAMPLERS: dict[str, type[Settings]] = {c.name: c for c in (SynCoS, CoDenoising, RefinementOnly)}
"""The samplers by the name they have in scenario files."""


def settings_from_dict(values: Mapping[str, Any]) -> Settings:
    """Reads settings as a scenario file holds them: ``{"name": "syncos", "steps": 50, ...}``.

    Raises:
      InputError: on a missing or unknown name, an unknown key, or a bad value.
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
    for key in values:
        if key != "name" and key not in known:
            raise InputError(f"sampler {name}: unknown key {key!r}{_hint(key, known)}")
    return SAMPLERS[name](**{key: value for key, value in values.items() if key != "name"})


def settings_to_dict(settings: Settings) -> dict[str, Any]:
    """The inverse of `settings_from_dict`, with every value written out."""
    return {"name": settings.name, **dataclasses.asdict(settings)}


def _hint(word: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(word), known, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{meant}; known: {', '.join(known)}"
