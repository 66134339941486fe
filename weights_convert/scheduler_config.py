"""diffusers' ``scheduler_config.json`` of flow models and of multistep solvers, as our settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.sampling.solvers import Solver

WHERE = "scheduler/scheduler_config.json"
FLOW_SCHEDULERS = (
    "UniPCMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
)
"""Classes of which a flow can be sampled."""

_SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
_OFF = (*_SIGMAS, "use_lu_lambdas", "use_dynamic_shifting", "invert_sigmas", "thresholding")
_OFF_TOO = ("stochastic_sampling", "solver_p", "variance_type")


def solver(config: Mapping[str, Any]) -> Solver:
    """The solver that a scheduler is.

    Raises:
        InputError: it is none that there is here, or has a setting that changes the result and is
            not there either; named.
    """
    name = config.get("_class_name")
    _refuse(config, (*_OFF, *_OFF_TOO))
    if name in ("DDIMScheduler", "CogVideoXDDIMScheduler"):
        return Solver("ddim")
    if name == "CogVideoXDPMScheduler":
        return Solver("sde-dpm++")
    if name == "FlowMatchEulerDiscreteScheduler":
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
        _require(config, algorithm_type=("dpmsolver++", "deis"))
        kind = config.get("solver_type", "midpoint")
        return Solver(
            "dpm++",
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
    """Arguments of `syncos_jax.sampling.levels.flow_levels` from a scheduler of a flow model.

    Raises:
        InputError: it is of no flow model, or has settings that are not there.
    """
    name = config.get("_class_name")
    if name not in FLOW_SCHEDULERS:
        raise InputError(
            f"{WHERE}: a {name} is not of a flow model; one of {', '.join(FLOW_SCHEDULERS)} is"
        )
    _refuse(config, (*_OFF, *_OFF_TOO))
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
