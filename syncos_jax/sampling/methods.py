"""From settings to what is played: the tape, and the method that plays it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from syncos_jax.sampling import coupled, coupled_tape, fifo
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.settings import Settings
from syncos_jax.sampling.tape import Tape
from syncos_jax.sampling.windows import WindowLayout


def conditioned(layout: WindowLayout, settings: Settings) -> WindowLayout:
    """What has a prompt of its own: the windows, or for diagonal denoising the frames (as windows
    of one frame)."""
    if settings.lookahead is None:
        return layout
    return WindowLayout(frames=layout.frames, window=1, stride=1)


def make_tape(
    layout: WindowLayout,
    schedule: NoiseSchedule,
    settings: Settings,
    seed: Sequence[int] = (0,),
    *,
    texts: Sequence[np.ndarray] | None = None,
    shares: int = 1,
) -> Tape:
    """Writes a run down.

    Args:
      layout: the windows.
      schedule: the timesteps and their rates.
      settings: the sampler; steps and guidance that are None are as `Settings.resolved` has them.
      seed: non-negative integers; they decide which windows (and, without the grounded timestep,
        which timesteps) the refinement draws. What is drawn does not depend on ``settings.batch``.
      texts: what each window (`conditioned`) is conditioned on and, for guidance, what guidance
        leads away from: indices into the table of conditionings, int ``[N]`` each. None for a table
        of all windows' prompts and, behind them, all windows' negative prompts.
      shares: devices that share a call.

    Raises:
      InputError: if the schedule has no such steps, or the video is too short.
    """
    if settings.lookahead is None:
        return coupled_tape.make_tape(layout, schedule, settings, seed, texts=texts, shares=shares)
    method = fifo.make_method(layout.frames, layout.window, schedule, settings)
    return fifo.make_tape(method, schedule, settings, texts=texts, shares=shares)


def make_method(
    layout: WindowLayout, schedule: NoiseSchedule, settings: Settings, tape: Tape
) -> coupled.Coupled | fifo.Diagonal:
    """The method that plays `tape`; arguments as for `make_tape`."""
    if settings.lookahead is None:
        return coupled.make_method(layout, schedule, settings, tape)
    return fifo.make_method(layout.frames, layout.window, schedule, settings)
