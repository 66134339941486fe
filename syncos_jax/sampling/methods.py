"""From settings to what is played: the call_schedule, and the method that plays it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from syncos_jax.sampling import fifo, syncos_calls, syncos_method
from syncos_jax.sampling.call_schedule import CallSchedule
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
    """Writes a run down.

    Args:
      layout: the windows.
      schedule: the timesteps and their rates.
      settings: the sampler; steps and guidance that are None are as `SamplerConfig.resolved` has
      them.
      seed: non-negative integers; they decide which windows (and, without the grounded timestep,
        which timesteps) the refinement draws. What is drawn does not depend on
        ``settings.windows_per_call``.
      cond_index: what each window (`conditioning_layout`) is conditioning_layout on and, for
      guidance, what guidance
        leads away from: indices into the table of conditionings, int ``[N]`` each. None for a table
        of all windows' prompts and, behind them, all windows' negative prompts.
      num_shards: devices that share a call.

    Raises:
      InputError: if the schedule has no such steps, or the video is too short.
    """
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
) -> syncos_method.SynCoSMethod | fifo.FIFOMethod:
    """The method that plays `call_schedule`; arguments as for `make_call_schedule`."""
    if settings.lookahead is None:
        return syncos_method.make_method(layout, schedule, settings, call_schedule)
    return fifo.make_method(layout.frames, layout.window, schedule, settings)
