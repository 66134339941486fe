"""From settings to a call schedule, and to the method that computes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from syncos_jax.sampling import chained, fifo, syncos_calls, syncos_method
from syncos_jax.sampling.call_schedule import CallSchedule
from syncos_jax.sampling.known import KnownRule
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout


def conditioning_layout(layout: WindowLayout, settings: SamplerConfig) -> WindowLayout:
    """What has a prompt of its own: the windows, or for diagonal denoising the frames (as windows
    of one frame)."""
    if settings.lookahead is None:
        return layout
    return WindowLayout(frames=layout.frames, window=1, stride=1)


def make_call_schedule(
    layout: WindowLayout,
    schedule: NoiseSchedule,
    settings: SamplerConfig,
    seed: Sequence[int] = (0,),
    *,
    cond_index: Sequence[np.ndarray] | None = None,
    num_shards: int = 1,
) -> CallSchedule:
    """The call schedule of a run.

    Args:
      layout: the windows.
      schedule: the timesteps and their rates.
      settings: the sampler; steps and guidance that are None become those of
        `SamplerConfig.resolved`.
      seed: non-negative integers; they decide which windows (and, without the grounded timestep,
        which timesteps) the refinement draws. ``settings.windows_per_call`` does not change them.
      cond_index: rows of the conditioning table, int ``[N]`` each: of each window
        (`conditioning_layout`) and, for guidance, of its negative conditioning. None: all windows'
        prompts, followed by all windows' negative prompts.
      num_shards: devices that split a call.

    Raises:
      InputError: if the schedule has no such steps, or the video is too short.
    """
    if settings.chained:
        return chained.make_call_schedule(
            layout, schedule, settings, cond_index=cond_index, num_shards=num_shards
        )
    if settings.lookahead is None:
        return syncos_calls.make_call_schedule(
            layout, schedule, settings, seed, cond_index=cond_index, num_shards=num_shards
        )
    method = fifo.make_method(layout.frames, layout.window, schedule, settings)
    return fifo.make_call_schedule(
        method, schedule, settings, cond_index=cond_index, num_shards=num_shards
    )


def make_method(
    layout: WindowLayout,
    schedule: NoiseSchedule,
    settings: SamplerConfig,
    call_schedule: CallSchedule,
    known: KnownRule | None = None,
) -> syncos_method.SynCoSMethod | chained.ChainedMethod | fifo.FIFOMethod:
    """The method that computes `call_schedule`; `known` is the rule of the known frames, if any."""
    if settings.chained:
        return chained.make_method(layout, schedule, settings, call_schedule, known)
    if settings.lookahead is None:
        return syncos_method.make_method(layout, schedule, settings, call_schedule, known)
    return fifo.make_method(layout.frames, layout.window, schedule, settings, known)
