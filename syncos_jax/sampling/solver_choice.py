"""Which solver a run uses, its timesteps, and its coefficients."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.schedule import NoiseSchedule, Steps
from syncos_jax.sampling.sigmas import FlowRule, SigmaSpacing, Spacing
from syncos_jax.sampling.solvers import Coefficients, Solver, coefficients

_FLOW_SPACINGS = tuple(rule for rule in get_args(FlowRule) if rule != "list")


def resolve_solver(schedule: NoiseSchedule, settings: SamplerConfig) -> Solver:
    """The settings' solver, else the model's own; DDIM where eta is set or only the refinement
    runs."""
    if not settings.co_denoise or (settings.solver is None and settings.eta > 0):
        return Solver("ddim")
    if settings.solver in (None, schedule.solver.name):
        return schedule.solver
    return Solver(settings.solver)  # type: ignore[arg-type]


def timesteps_for(schedule: NoiseSchedule, settings: SamplerConfig) -> Steps:
    """The timesteps of a run with resolved settings.

    Raises:
      InputError: if the settings name a list, spacing, shift or solver that the model has not.
    """
    assert settings.steps is not None
    schedule = with_settings(schedule, settings)
    solver = resolve_solver(schedule, settings)
    flow = schedule.flow_shift is not None
    if solver.name == "lcm" and flow:
        raise InputError(
            "is of schedules made from betas",
            argument="solver",
            value="lcm",
            remedy="for a flow model use renoise",
        )
    if solver.name == "ddim":
        return schedule.steps(settings.steps, eta=settings.eta)
    if solver.name in ("renoise", "lcm"):
        steps = dataclasses.replace(schedule, final_timestep=None).steps(settings.steps)
        return steps._replace(start=float(steps.b[0]) if flow else 1.0)
    return schedule.solver_steps(solver, settings.steps)


def with_settings(schedule: NoiseSchedule, settings: SamplerConfig) -> NoiseSchedule:
    """The schedule with the list, spacing or shift of the settings, if they have any.

    Raises:
      InputError: if the schedule has not such.
    """
    changes: dict[str, Any] = {}
    if settings.timesteps or settings.sigmas:
        changes = {"timesteps": settings.timesteps or (), "sigmas": settings.sigmas or ()}
    if settings.spacing is not None or settings.shift is not None:
        changes = {"timesteps": (), "sigmas": ()}
        of_kind = _of_betas if schedule.flow_shift is None else _of_flow
        changes |= of_kind(schedule, settings)
    return dataclasses.replace(schedule, **changes) if changes else schedule


def _of_flow(schedule: NoiseSchedule, settings: SamplerConfig) -> dict[str, Any]:
    others = {k: v for k, v in schedule.flow_settings.items() if k != "sigmas"}
    if others.get("rule") == "list":
        others["rule"] = "even"
    changes: dict[str, Any] = {}
    if settings.spacing is not None:
        if settings.spacing not in _FLOW_SPACINGS:
            raise _unknown_spacing(settings, "a flow model", _FLOW_SPACINGS)
        others["rule"] = settings.spacing
    if settings.shift is not None:
        others = {k: v for k, v in others.items() if k not in ("dynamic", "shift")}
        changes["flow_shift"] = settings.shift
    return {**changes, "flow_settings": others}


def _of_betas(schedule: NoiseSchedule, settings: SamplerConfig) -> dict[str, Any]:
    if settings.shift is not None:
        raise InputError(
            "is of flow models, and this model is none",
            argument="shift",
            value=settings.shift,
            remedy="leave it out",
        )
    solver = resolve_solver(schedule, settings)
    spacings = get_args(Spacing if solver.name in ("ddim", "renoise", "lcm") else SigmaSpacing)
    if settings.spacing not in spacings:
        raise _unknown_spacing(settings, f"solver {solver.name}", spacings)
    changes: dict[str, Any] = {"spacing": settings.spacing}
    if solver.name == "euler":  # as its published scheduler spaces them
        changes["solver"] = solver
        own = schedule.beta_settings if schedule.solver.name == "euler" else {"rule": "euler"}
        changes["beta_settings"] = {**own, "spacing": settings.spacing}
    elif schedule.beta_settings:
        changes["beta_settings"] = {**schedule.beta_settings, "spacing": settings.spacing}
    return changes


def _unknown_spacing(settings: SamplerConfig, of: str, known: tuple[str, ...]) -> InputError:
    return InputError(
        argument="spacing", value=settings.spacing, expected=f"one of {', '.join(known)} for {of}"
    )


def solver_coefficients(solver: Solver, steps: Steps, renoised: np.ndarray) -> Coefficients | None:
    """The solver's coefficients; None where DDIM's rates suffice. After a `renoised` step (one that
    resumes with noise that no prediction implies) the solver restarts its history."""
    if solver.name in ("ddim", "euler"):
        return None
    a, b = np.append(steps.a, steps.a_next[-1]), np.append(steps.b, steps.b_next[-1])
    restart = np.append(False, renoised[:-1])
    return coefficients(solver, a, b, restart=restart, t=steps.t)
