"""What may go wrong while a run is played, said so that one knows what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.sampling.call_schedule import CallSchedule
from syncos_jax.sampling.loop import Failure
from syncos_jax.sampling.memory import BatchFit, largest_batch

if TYPE_CHECKING:
    from syncos_jax.sampling.run import Run


class NonFiniteError(InputError):
    """A run met a value that is not finite.

    Attributes:
      call: the call of the call_schedule, from 0.
      windows: the windows that were hit.
      video: which video of a batch, 0 for a single one.
    """

    def __init__(self, message: str, call: int, windows: Sequence[int], video: int = 0) -> None:
        super().__init__(message)
        self.call = call
        self.windows = tuple(windows)
        self.video = video


class DeviceMemoryError(RuntimeError):
    """A device ran out of memory.

    Attributes:
      windows: windows that a call had.
      fit: what would fit by estimate; None where that could not be found out.
    """

    def __init__(self, message: str, windows: int, fit: BatchFit | None = None) -> None:
        super().__init__(message)
        self.windows = windows
        self.fit = fit


def check_failure(failure: Failure, call_schedules: Sequence[CallSchedule]) -> None:
    """Raises NonFiniteError where `failure` names a call; waits for it. `call_schedules`: one a
    video."""
    calls = np.atleast_1d(np.asarray(failure.call))
    if (calls < 0).all():
        return
    video = int((calls >= 0).argmax())
    call, call_schedule = int(calls[video]), call_schedules[video]
    windows = np.atleast_2d(np.asarray(failure.windows))[video]
    hit = np.flatnonzero(windows).tolist()
    called = np.unique(call_schedule.calls.windows[call]).tolist()
    of_batch = f" of video {video}" if len(calls) > 1 else ""
    raise NonFiniteError(
        f"{describe_call(call_schedule, call)}, windows {_listed(called)} of "
        f"0-{len(windows) - 1}: the prediction "
        f"for {_listed(hit)}{of_batch} is {REMEDY}",
        call,
        hit,
        video,
    )


REMEDY = (
    "not finite; lower the sampler's learning_rate, iterations or guidance, or let the networks "
    "compute in float32"
)


def describe_call(call_schedule: CallSchedule, call: int) -> str:
    """The call in words: its number, step, timestep and stage."""
    updates, at = call_schedule.updates, call_schedule.calls.update[call]
    stage = "refinement" if updates.refine[at] else "co-denoising"
    return (
        f"the sampling diverged in call {call + 1} of {len(call_schedule)}, step "
        f"{int(updates.step[at]) + 1} "
        f"of {int(updates.step[-1]) + 1}, timestep {float(updates.t[at]):g} ({stage})"
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
def translate_oom(run: Run) -> Iterator[None]:
    """Turns a device's being out of memory into DeviceMemoryError."""
    try:
        yield
    except RuntimeError as error:  # the class of XLA's own errors
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise _out_of_memory(run) from error


def _out_of_memory(run: Run) -> DeviceMemoryError:
    devices = f" on {run.devices} devices" if run.devices > 1 else ""
    said = f"out of memory: a call had {run.windows} windows{devices}"
    try:
        fit = largest_batch(run)
    except InputError as error:
        return DeviceMemoryError(f"{said}; {error}", run.windows)
    except RuntimeError:  # out of memory even while compiling
        return DeviceMemoryError(f"{said}; let it have fewer", run.windows)
    if fit.windows >= run.windows:  # others have taken the memory since, or before
        return DeviceMemoryError(
            f"{said}, which should have fitted; is the device shared with other programs?",
            run.windows,
        )
    return DeviceMemoryError(
        f"{said}; by estimate at most {fit.windows} fit ({fit.needed / 2**30:.2f} GiB of "
        f"{fit.room / 2**30:.2f} GiB)",
        run.windows,
        fit,
    )
