"""The method, in pure JAX: schedules, windows, the call_schedule, the scan. Knows no model."""

from syncos_jax.sampling.devices import make_mesh
from syncos_jax.sampling.pure import Sampling
from syncos_jax.sampling.sampler import sample, sample_batch, start, start_batch
from syncos_jax.sampling.sampler_config import Refinement, SamplerConfig
from syncos_jax.sampling.samplers import (
    FIFO,
    CoDenoising,
    FlowLong,
    FreeNoise,
    RefinementOnly,
    SynCoS,
)
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout

__all__ = [
    "FIFO",
    "CoDenoising",
    "FlowLong",
    "FreeNoise",
    "NoiseSchedule",
    "Refinement",
    "RefinementOnly",
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
