"""Which solver a run has, at which timesteps it calls the network, and how it goes on from each."""

from __future__ import annotations

import numpy as np

from syncos_jax.sampling.schedule import NoiseSchedule, Steps
from syncos_jax.sampling.settings import Settings
from syncos_jax.sampling.solvers import Coefficients, Solver, coefficients


def solver_of(schedule: NoiseSchedule, settings: Settings) -> Solver:
    """The solver of a run: the settings', else the model's own. (Where eta or the refinement alone
    decide how to go on, DDIM.)"""
    if not settings.co_denoise or (settings.solver is None and settings.eta > 0):
        return Solver("ddim")
    if settings.solver in (None, schedule.solver.name):
        return schedule.solver
    return Solver(settings.solver)  # type: ignore[arg-type]


def steps_of(schedule: NoiseSchedule, settings: Settings) -> Steps:
    """The timesteps of a run."""
    assert settings.steps is not None
    solver = solver_of(schedule, settings)
    if solver.name == "ddim":
        return schedule.steps(settings.steps, eta=settings.eta)
    return schedule.steps_of(solver, settings.steps)


def table_of(solver: Solver, steps: Steps, renoised: np.ndarray) -> Coefficients | None:
    """The solver's coefficients; None for what DDIM's rates say. After a step that is `renoised`
    (it goes on with noise that no prediction implies) the solver looks back at none before."""
    if solver.name in ("ddim", "euler"):
        return None
    a, b = np.append(steps.a, steps.a_next[-1]), np.append(steps.b, steps.b_next[-1])
    return coefficients(solver, a, b, restart=np.append(False, renoised[:-1]))
