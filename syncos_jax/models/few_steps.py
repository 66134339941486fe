"""Few-step models: how distilled weights are meant to be sampled, and by what names they are known.

A model's configuration holds it as ``few_steps``, the fields of `FewSteps` that are set.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from syncos_jax.models.from_mapping import from_mapping
from syncos_jax.sampling.samplers import CoDenoising
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.solver_choice import timesteps_for, with_settings
from syncos_jax.sampling.solvers import Solver

_SHIFTED_5 = (1.0, 0.9375, 0.8333333, 0.625)
"""Four even steps of shift 5: ``5 u / (1 + 4 u)`` at 1, 3/4, 1/2, 1/4."""


@dataclasses.dataclass(frozen=True)
class FewSteps:
    """How distilled weights are sampled.

    Attributes:
        name: of the weights, for people.
        steps: denoising steps.
        guidance: scale of guidance; at 1 there is none, and no negative prompt.
        solver: its name; empty for the model's own.
        timesteps, sigmas, spacing, shift: as of the samplers (`syncos_jax.sampling.samplers`).
        most: most steps that still suit the weights; 0 for `steps`.
        note: what else to know.
    """

    name: str
    steps: int
    guidance: float = 1.0
    solver: str = ""
    timesteps: tuple[float, ...] = ()
    sigmas: tuple[float, ...] = ()
    spacing: str | None = None
    shift: float | None = None
    most: int = 0
    note: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> FewSteps | None:
        """From a configuration; None where it is empty.

        Raises:
            InputError: unknown entries, or steps of no use.
        """
        if not values:
            return None
        found = from_mapping(cls, values, "few_steps")
        found.settings()  # or an error
        return found

    def to_dict(self) -> dict[str, Any]:
        """The fields that are set, in plain values."""
        fields = dataclasses.fields(self)
        return {f.name: v for f in fields if (v := getattr(self, f.name)) not in ("", (), None, 0)}

    def settings(self) -> CoDenoising:
        """As settings of a sampler."""
        return CoDenoising(
            steps=self.steps,
            guidance=self.guidance,
            solver=self.solver or None,
            timesteps=self.timesteps or None,
            sigmas=self.sigmas or None,
            spacing=self.spacing,
            shift=self.shift,
        )

    def schedule(self, schedule: NoiseSchedule) -> NoiseSchedule:
        """The model's schedule, with these steps and this solver as its own.

        Raises:
            InputError: the schedule has no such steps.
        """
        settings = self.settings()
        timesteps_for(schedule, settings)  # or an error
        schedule = with_settings(schedule, settings)
        if self.solver and self.solver != schedule.solver.name:
            schedule = dataclasses.replace(schedule, solver=Solver(self.solver))  # type: ignore[arg-type]
        return schedule

    def warnings(self, steps: int, guidance: float) -> Iterator[str]:
        """What to say of a run of so many steps with such guidance."""
        if guidance > max(1.0, self.guidance):
            yield (
                f"guidance {guidance:g}: {self.name} was distilled for guidance {self.guidance:g}; "
                "more costs twice the calls and oversaturates"
            )
        if steps > max(self.steps, self.most):
            yield (
                f"{steps} steps: {self.name} was distilled for {self.steps}; more cost time and "
                "gain nothing"
            )

    def __str__(self) -> str:
        levels = ""
        if self.timesteps:
            levels = " at timesteps " + ", ".join(f"{t:g}" for t in self.timesteps)
        elif self.sigmas:
            levels = " at sigmas " + ", ".join(f"{s:g}" for s in self.sigmas)
        else:
            levels = f", spacing {self.spacing}" if self.spacing else ""
            levels += f", shift {self.shift:g}" if self.shift else ""
        solver = f", solver {self.solver}" if self.solver else ""
        guided = "no guidance" if self.guidance == 1 else f"guidance {self.guidance:g}"
        note = f"; {self.note}" if self.note else ""
        return f"{self.name}: {self.steps} steps{levels}{solver}, {guided}{note}"


def configured(schedule: NoiseSchedule, values: Mapping[str, Any]) -> NoiseSchedule:
    """A configuration's schedule with its ``few_steps``."""
    few = FewSteps.of(values)
    return schedule if few is None else few.schedule(schedule)


_CAUSAL = "trained with causal attention, but every frame of a clip sees all others here"

KNOWN: tuple[tuple[str, str, FewSteps], ...] = (
    (
        "wan",
        r"lightx2v.*4[-_ ]?step|lightx2v.*step[-_]?distill|wan2\.?2[-_]lightning"
        r"|wan2\.?[12].*4[-_ ]?steps[-_]lora",
        FewSteps("lightx2v, 4 steps", 4, solver="euler", sigmas=_SHIFTED_5),
    ),
    (
        "wan",
        r"fastwan|causvid.*bidirectional|wan.*dmd.*3[-_ ]?step",
        FewSteps("FastWan (DMD)", 3, solver="renoise", timesteps=(1000.0, 757.0, 522.0)),
    ),
    (
        "wan",
        r"causvid.*lora|lora.*causvid",
        FewSteps("CausVid LoRA", 8, shift=8.0, most=12, note="4 to 12 steps, strength 0.3 to 1"),
    ),
    (
        "wan",
        r"causvid",
        FewSteps("CausVid", 3, solver="renoise", timesteps=(1000.0, 757.0, 522.0), note=_CAUSAL),
    ),
    (
        "wan",
        r"self[-_]?forcing",
        FewSteps("Self-Forcing", 4, solver="renoise", sigmas=_SHIFTED_5, note=_CAUSAL),
    ),
    (
        "wan",
        r"turbo[-_]?(wan|diffusion)",
        FewSteps(
            "TurboWan (rCM)",
            4,
            solver="renoise",
            sigmas=(0.987654, 0.933781, 0.852895, 0.608979),
            note="trained with sparse-linear attention; plain attention is untested",
        ),
    ),
    (
        "animatediff",
        r"animate[-_]?lcm",
        FewSteps("AnimateLCM", 6, guidance=2.0, solver="lcm", spacing="lcm", most=8),
    ),
    (
        "animatediff",
        r"lcm[-_]?lora",
        FewSteps("LCM-LoRA", 4, guidance=1.0, solver="lcm", spacing="lcm", most=8),
    ),
)
"""Family, names (a regular expression, case does not count), and how such weights are sampled."""


def recognised(family: str, names: Iterable[str]) -> FewSteps | None:
    """The few-step weights that files or folders of these names hold; None for others.

    Of a path the last two parts count; names may also stand in a file's metadata.
    """
    words = [" ".join(PurePath(name).parts[-2:]) for name in names if name]
    for of_family, pattern, found in KNOWN:
        if of_family == family and any(re.search(pattern, w, re.IGNORECASE) for w in words):
            return found
    return None


def with_recognised(config: Any, names: Iterable[str]) -> tuple[Any, FewSteps | None]:
    """A configuration completed with how weights of these names are sampled, and what they are.

    One that says so already stays as it is.
    """
    if not hasattr(config, "few_steps") or config.few_steps:
        return config, None
    found = recognised(config.family, names)
    if found is None:
        return config, None
    changes: dict[str, Any] = {
        "steps": found.steps,
        "guidance": found.guidance,
        "few_steps": found.to_dict(),
    }
    if getattr(config, "guidance_2", None) is not None:
        changes["guidance_2"] = None
    return dataclasses.replace(config, **changes), found
