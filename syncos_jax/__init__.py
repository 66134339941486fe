"""Multi-event long video generation with synchronized coupled sampling (SynCoS), in JAX.

The names below are the public interface. Each is imported when it is first used, so that
``import syncos_jax`` and the command line's help do not wait for JAX.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from syncos_jax.version import __version__

if TYPE_CHECKING:
    from syncos_jax.errors import InputError
    from syncos_jax.media.video import Video
    from syncos_jax.models.family import Model
    from syncos_jax.pipeline import Pipeline
    from syncos_jax.pipeline.load import load_model
    from syncos_jax.sampling import (
        FIFO,
        Chained,
        CoDenoising,
        DeviceMemoryError,
        FlowLong,
        FreeNoise,
        KnownFrames,
        NonFiniteError,
        RefinementOnly,
        Rules,
        SamplerConfig,
        Sampling,
        SynCoS,
        sample,
        sample_batch,
    )
    from syncos_jax.sampling.devices import make_mesh
    from syncos_jax.sampling.schedule import NoiseSchedule
    from syncos_jax.sampling.windows import WindowLayout
    from syncos_jax.scenario import Event, Scenario
    from syncos_jax.scenario.template import Template

_HOME = {
    "KnownFrames": "sampling",
    "SamplerConfig": "sampling",
    "Rules": "sampling",
    "NonFiniteError": "sampling",
    "Model": "models.family",
    "DeviceMemoryError": "sampling",
    "Chained": "sampling",
    "CoDenoising": "sampling",
    "Event": "scenario",
    "FIFO": "sampling",
    "FlowLong": "sampling",
    "FreeNoise": "sampling",
    "InputError": "errors",
    "NoiseSchedule": "sampling",
    "Pipeline": "pipeline",
    "RefinementOnly": "sampling",
    "Sampling": "sampling",
    "Scenario": "scenario",
    "SynCoS": "sampling",
    "Template": "scenario.template",
    "Video": "pipeline",
    "WindowLayout": "sampling",
    "load_model": "pipeline.load",
    "make_mesh": "sampling",
    "sample": "sampling",
    "sample_batch": "sampling",
}

__all__ = [
    "KnownFrames",
    "SamplerConfig",
    "Rules",
    "NonFiniteError",
    "Model",
    "DeviceMemoryError",
    "FIFO",
    "Chained",
    "CoDenoising",
    "Event",
    "FlowLong",
    "FreeNoise",
    "InputError",
    "NoiseSchedule",
    "Pipeline",
    "RefinementOnly",
    "Sampling",
    "Scenario",
    "SynCoS",
    "Template",
    "Video",
    "WindowLayout",
    "__version__",
    "load_model",
    "make_mesh",
    "sample",
    "sample_batch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME))
