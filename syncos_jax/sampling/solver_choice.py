"""Which solver a run uses, its timesteps, and its coefficients."""

from __future__ import annotations

import numpy as np

from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.schedule import NoiseSchedule, Steps
from syncos_jax.sampling.solvers import Coefficients, Solver, coefficients


def resolve_solver(schedule: NoiseSchedule, settings: SamplerConfig) -> Solver:
    """The settings' solver, else the model's own; DDIM where eta is set or only the refinement
    runs."""
    if not settings.co_denoise or (settings.solver is None and settings.eta > 0):
        return Solver("ddim")
    if settings.solver in (None, schedule.solver.name):
        return schedule.solver
    return Solver(settings.solver)  # type: ignore[arg-type]


def timesteps_for(schedule: NoiseSchedule, settings: SamplerConfig) -> Steps:
    """The timesteps of a run with resolved settings."""
    assert settings.steps is not None
    solver = resolve_solver(schedule, settings)
    if solver.name == "ddim":
        return schedule.steps(settings.steps, eta=settings.eta)
    return schedule.solver_steps(solver, settings.steps)


def solver_coefficients(solver: Solver, steps: Steps, renoised: np.ndarray) -> Coefficients | None:
    """The solver's coefficients; None where DDIM's rates suffice. After a `renoised` step (one that
    resumes with noise that no prediction implies) the solver restarts its history."""
    if solver.name in ("ddim", "euler"):
        return None
    a, b = np.append(steps.a, steps.a_next[-1]), np.append(steps.b, steps.b_next[-1])
    return coefficients(solver, a, b, restart=np.append(False, renoised[:-1]))
