"""What can go wrong in a run: values that are not finite, and devices out of memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.sampling.call_schedule import CallSchedule
from syncos_jax.sampling.loop import Failure
from syncos_jax.sampling.memory import BatchFit, Measurable, largest_batch

REMEDY = (
    "lower the sampler's learning_rate, iterations or guidance, or compute the networks in float32"
)


class NonFiniteError(InputError):
    """A run produced NaN or Inf.

    Args:
      message: what happened, in one line.

    Attributes:
      call: the network call, from 0.
      windows: the windows affected.
      video: index of the video in a batch, 0 for a single one.
    """

    def __init__(self, message: str, call: int, windows: Sequence[int], video: int = 0) -> None:
        super().__init__(message, remedy=REMEDY)
        self.call = call
        self.windows = tuple(windows)
        self.video = video


class DeviceMemoryError(RuntimeError):
    """A device ran out of memory.

    Args:
      message: what happened, in one line.

    Attributes:
      windows: windows of a call.
      fit: what would fit, by estimate; None where unknown.
    """

    def __init__(self, message: str, windows: int, fit: BatchFit | None = None) -> None:
        super().__init__(message)
        self.windows = windows
        self.fit = fit


def check_failure(failure: Failure, call_schedules: Sequence[CallSchedule]) -> None:
    """Waits for `failure`, and raises NonFiniteError if it names a call.

    Args:
      failure: of the run, or of each video of a batch.
      call_schedules: one per video.
    """
    calls = np.atleast_1d(jax.device_get(failure.call))
    if (calls < 0).all():
        return
    video = int((calls >= 0).argmax())
    call, schedule = int(calls[video]), call_schedules[video]
    windows = np.atleast_2d(jax.device_get(failure.windows))[video]
    hit = np.flatnonzero(windows).tolist()
    of_batch = f" of video {video}" if len(calls) > 1 else ""
    if call == 0:
        t = float(schedule.updates.t[schedule.calls.update[0]])
        raise NonFiniteError(
            f"the denoiser returned NaN or Inf at its first call (timestep {t:g}){of_batch}, "
            f"windows {_listed(hit)}",
            call,
            hit,
            video,
        )
    called = np.unique(schedule.calls.windows[call]).tolist()
    raise NonFiniteError(
        f"sampling diverged at {describe_call(schedule, call)}, windows {_listed(called)} of "
        f"0-{len(windows) - 1}: NaN or Inf in the prediction for {_listed(hit)}{of_batch}",
        call,
        hit,
        video,
    )


def describe_call(schedule: CallSchedule, call: int) -> str:
    """The call's number, step, timestep and stage, for messages."""
    updates, at = schedule.updates, schedule.calls.update[call]
    stage = "refinement" if updates.refine[at] else "co-denoising"
    return (
        f"call {call + 1} of {len(schedule)}, step {int(updates.step[at]) + 1} of "
        f"{int(updates.step[-1]) + 1}, timestep {float(updates.t[at]):g} ({stage})"
    )


def _listed(numbers: Sequence[int]) -> str:
    """``[0, 1, 2, 5]`` -> ``0-2, 5``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


@contextmanager
def translate_oom(run: Measurable) -> Iterator[None]:
    """Turns XLA's out-of-memory errors into DeviceMemoryError."""
    try:
        yield
    except RuntimeError as error:  # the class of XLA's own errors
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise _out_of_memory(run) from error


def _out_of_memory(run: Measurable) -> DeviceMemoryError:
    devices = f" on {run.devices} devices" if run.devices > 1 else ""
    said = f"out of memory with {run.windows} windows per call{devices}"
    try:
        fit = largest_batch(run)
    except InputError as error:
        return DeviceMemoryError(f"{said}; {error}", run.windows)
    except RuntimeError:  # out of memory even while compiling
        return DeviceMemoryError(f"{said}; use fewer windows per call", run.windows)
    if fit.windows >= run.windows:  # others have taken the memory since, or before
        return DeviceMemoryError(
            f"{said}, which should fit; is the device shared with other programs?",
            run.windows,
        )
    return DeviceMemoryError(
        f"{said}; an estimated {fit.windows} fit ({fit.needed / 2**30:.2f} GiB of "
        f"{fit.room / 2**30:.2f} GiB)",
        run.windows,
        fit,
    )
