"""The method in pure JAX: noise schedules, windows, call schedule and loop. Knows no model."""

from syncos_jax.sampling.devices import make_mesh
from syncos_jax.sampling.failures import DeviceMemoryError, NonFiniteError
from syncos_jax.sampling.known import KnownFrames
from syncos_jax.sampling.placement import Rules
from syncos_jax.sampling.sampler import sample, sample_batch, start, start_batch
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.samplers import (
    FIFO,
    Chained,
    CoDenoising,
    FlowLong,
    FreeNoise,
    RefinementOnly,
    SynCoS,
)
from syncos_jax.sampling.sampling import Sampling
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout

__all__ = [
    "FIFO",
    "Chained",
    "CoDenoising",
    "DeviceMemoryError",
    "FlowLong",
    "FreeNoise",
    "KnownFrames",
    "NoiseSchedule",
    "NonFiniteError",
    "RefinementOnly",
    "Rules",
    "Sampling",
    "SamplerConfig",
    "SynCoS",
    "WindowLayout",
    "make_mesh",
    "sample",
    "sample_batch",
    "start",
    "start_batch",
]
