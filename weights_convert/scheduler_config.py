"""diffusers' ``scheduler_config.json`` of flow models, multistep solvers and Euler, as settings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.sigmas import LEAST_SIGNAL
from syncos_jax.sampling.solvers import Solver

WHERE = "scheduler/scheduler_config.json"
FLOW_SCHEDULERS = (
    "UniPCMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
)
"""Classes of which a flow can be sampled."""

BETA_SOLVERS = (
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "EulerDiscreteScheduler",
)
"""Classes of which a model with betas is sampled as they do; DDIM is handled separately."""

_SPREAD = {"use_karras_sigmas": "karras", "use_exponential_sigmas": "exponential"}
_NEVER = (
    *("use_beta_sigmas", "use_lu_lambdas", "use_dynamic_shifting", "invert_sigmas"),
    *("thresholding", "stochastic_sampling", "solver_p", "variance_type"),
)
_NEVER_TOO = ("sigma_min", "sigma_max")
_OFF = (*_SPREAD, *_NEVER)


def solver(config: Mapping[str, Any], refused: tuple[str, ...] = _OFF) -> Solver:
    """The solver that a scheduler is.

    Args:
        config: the file's entries.
        refused: entries that must not be set.

    Raises:
        InputError: it is none that there is here, or has a setting that changes the result and is
            not there either; named.
    """
    name = config.get("_class_name")
    _refuse(config, refused)
    if name in ("DDIMScheduler", "CogVideoXDDIMScheduler"):
        return Solver("ddim")
    if name == "CogVideoXDPMScheduler":
        return Solver("sde-dpm++")
    if name in ("FlowMatchEulerDiscreteScheduler", "EulerDiscreteScheduler"):
        return Solver("euler")
    if name == "UniPCMultistepScheduler":
        _require(config, predict_x0=True)
        kind = config.get("solver_type", "bh2")
        return Solver(
            "unipc",
            order=config.get("solver_order", 2),
            # diffusers takes the names of other solvers' variants for bh2.
            variant="bh1" if kind == "bh1" else "bh2",
            lower_order_final=config.get("lower_order_final", True),
            uncorrected=tuple(config.get("disable_corrector") or ()),
        )
    if name == "DPMSolverMultistepScheduler":
        _require(config, algorithm_type=("dpmsolver++", "sde-dpmsolver++", "deis"))
        kind = config.get("solver_type", "midpoint")
        stochastic = config.get("algorithm_type") == "sde-dpmsolver++"
        return Solver(
            "sde-dpm++" if stochastic else "dpm++",
            order=config.get("solver_order", 2),
            variant="heun" if kind == "heun" else "midpoint",
            lower_order_final=config.get("lower_order_final", True),
            euler_at_final=config.get("euler_at_final", False),
        )
    raise InputError(f"{WHERE}: a {name} cannot be converted")


def solver_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """`solver` as plain values, for JSON."""
    return dataclasses.asdict(solver(config))


def flow_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `syncos_jax.sampling.sigmas.flow_sigmas` from a scheduler of a flow model.

    Raises:
        InputError: it is of no flow model, or has settings that are not there.
    """
    name = config.get("_class_name")
    if name not in FLOW_SCHEDULERS:
        raise InputError(
            f"{WHERE}: a {name} is not of a flow model; one of {', '.join(FLOW_SCHEDULERS)} is"
        )
    _refuse(config, _OFF)
    common = {"train_steps": config.get("num_train_timesteps", 1000)}
    if name == "FlowMatchEulerDiscreteScheduler":
        terminal = config.get("shift_terminal") or None
        return {"rule": "euler", "shift": config.get("shift", 1.0), "terminal": terminal, **common}
    if config.get("prediction_type") != "flow_prediction" or not config.get("use_flow_sigmas"):
        raise InputError(
            f"{WHERE}: a flow model's has prediction_type flow_prediction and use_flow_sigmas"
        )
    settings = {"shift": config.get("flow_shift", 1.0), **common}
    if name == "DPMSolverMultistepScheduler":
        _require(config, final_sigmas_type="zero")
        return {"rule": "dpm++", **settings}
    end = config.get("final_sigmas_type", "zero") == "zero"
    terminal = config.get("shift_terminal") or None
    return {"rule": "unipc", "terminal": terminal, "end_clean": end, **settings}


def beta_solver(config: Mapping[str, Any], schedule: NoiseSchedule) -> dict[str, Mapping[str, Any]]:
    """For a model with betas, what `ModelConfig` calls ``solver`` and ``levels``: the solver as
    plain values, and arguments of `syncos_jax.sampling.sigmas.beta_sigmas`.

    Args:
        config: the entries of one of `BETA_SOLVERS`, its defaults among them.
        schedule: its rates.

    Raises:
        InputError: a setting that changes the result and is not there.
    """
    name = config["_class_name"]
    found = solver(config, (*_NEVER, *_NEVER_TOO))
    _require(config, interpolation_type="linear", timestep_type="discrete")
    _require(config, final_sigmas_type=("zero", "sigma_min"))
    least = config.get("lambda_min_clipped")
    if isinstance(least, int | float) and math.isfinite(least):
        signal = max(float(schedule.signal[-1]), LEAST_SIGNAL)
        if np.log(signal / schedule.noise[-1]) < least:
            raise InputError(
                f"{WHERE}: lambda_min_clipped {least} skips timesteps, which is not supported"
            )
    levels: dict[str, Any] = {
        "spacing": config.get("timestep_spacing", "linspace"),
        "offset": config.get("steps_offset", 0),
        "end_clean": config.get("final_sigmas_type", "zero") == "zero",
        "rule": "euler" if name == "EulerDiscreteScheduler" else "multistep",
        "sigmas": next((kind for key, kind in _SPREAD.items() if config.get(key)), None),
    }
    if levels["sigmas"] is not None and levels["rule"] == "multistep":
        # Where diffusers' last step would lead nowhere, or rounding decides over its timesteps.
        _refuse(config, ("use_exponential_sigmas",))
        _require(config, final_sigmas_type="zero", beta_schedule=("linear", "scaled_linear"))
    return {"solver": dataclasses.asdict(found), "levels": levels}


def _refuse(config: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if config.get(name):
            raise InputError(f"{WHERE}: {name} is {config[name]!r}; that cannot be converted")


def _require(config: Mapping[str, Any], **allowed: Any) -> None:
    for key, expected in allowed.items():
        values = expected if isinstance(expected, tuple) else (expected,)
        if config.get(key, values[0]) not in values:
            raise InputError(
                f"{WHERE}: {key} is {config[key]!r}; only {' or '.join(map(str, values))} can be "
                "converted"
            )
