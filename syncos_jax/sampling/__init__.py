"""The method, in pure JAX: schedules, windows, the tape, the scan. Knows no model."""

from syncos_jax.sampling.devices import make_mesh
from syncos_jax.sampling.sampler import (
    CoDenoising,
    RefinementOnly,
    SynCoS,
    sample,
    sample_batch,
)
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout

__all__ = [
    "CoDenoising",
    "NoiseSchedule",
    "RefinementOnly",
    "SynCoS",
    "WindowLayout",
    "make_mesh",
    "sample",
    "sample_batch",
]
