"""A sampling run in progress: advanced in parts, watched, stopped, restored."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.sampling.failures import (
    NonFiniteError,
    check_failure,
    describe_call,
    translate_oom,
)
from syncos_jax.sampling.hosts import broadcast
from syncos_jax.sampling.known import hold, unknown
from syncos_jax.sampling.loop import Carry, Failure, Inputs, Program
from syncos_jax.sampling.memory import resized
from syncos_jax.sampling.own_settings import own_settings
from syncos_jax.sampling.placement import PER_VIDEO, Placement, compiled
from syncos_jax.sampling.sampling import PureCarry, Sampling

Progress = Callable[[int, int], None]
"""``progress(done_calls, total_calls)``, called between the parts of a run."""

PART_SECONDS = 0.7
"""Duration of a part of a watched run: the latency of Ctrl-C and the progress bar."""


class VideoProgram(NamedTuple):
    """One video of a `Run`: how it is sampled, and its first carry."""

    sampling: Sampling
    start: PureCarry

    @property
    def inputs(self) -> Inputs:
        """Arguments of the loop; placed by the run."""
        return self.sampling.inputs(self.start.key)


class Run:
    """A run in progress: one or several `Sampling`, a placement on devices, and a position.

    With `samples_done` and `carry` of one run another of the same arguments resumes (`restore`), on
    any number of devices and with any number of samples per call: neither depends on them.

    Args:
      videos: one, or as many as the placement's mesh has places for videos.
      placement: the devices.

    Attributes:
      call_schedule: the schedule; of a batch, that of the first video.
      call_schedules: those of all videos.
      next_call: the next call; those before it have run or are running.
      num_calls: calls in all.
      carry: the state before `next_call`, of a batch with a leading axis of videos; donated to the
        next part, so read it before `advance`.
      calls, updates: the schedule on the devices, with spare calls (`CallSchedule.padded`).
      program: what is fixed in the compiled program.
      inputs: its arguments.
      failure: pending result of the last part: the first prediction that was not finite, if any;
        None before any part.
      placement: the devices.
      dispatched, played: when the first part was dispatched, and when the last one was found
        finished (`time.monotonic`); None before that.

    Raises:
      InputError: if the videos cannot share a program.
    """

    @own_settings()
    def __init__(self, videos: Sequence[VideoProgram], placement: Placement) -> None:
        self.program = dataclasses.replace(shared_program(videos), axes=placement.clip_axes)
        carry, inputs = together(videos) if placement.batched else _single(videos)
        self.call_schedules = tuple(video.sampling.call_schedule for video in videos)
        self.call_schedule = self.call_schedules[0]
        self.num_calls = len(self.call_schedule)
        self.next_call = 0
        self.placement = placement
        self.failure: Failure | None = None
        self.dispatched: float | None = None
        self.played: float | None = None
        self.carry = placement.place_videos(carry)
        placed = {name: placement.place_videos(getattr(inputs, name)) for name in PER_VIDEO}
        self.inputs = Inputs(params=placement.place_weights(inputs.params), **placed)
        self.calls, self.updates = placement.place_videos(self._stacked())

    def _stacked(self) -> tuple:
        each = [call_schedule.padded() for call_schedule in self.call_schedules]
        if not self.placement.batched:
            return each[0]
        return jax.tree.map(lambda *columns: np.stack(columns), *each)

    @property
    @own_settings()
    def clean(self) -> jax.Array:
        """Current estimate of the clean latent, float32 ``[F, H, W, C]``, for previews."""
        return self._held(self.program.method.clean(self.carry.state))

    def _held(self, x: jax.Array) -> jax.Array:
        known = self.inputs.known
        if known is None:
            return x
        x, known = jax.tree.map(self.placement.gathered, (x, known))
        return jax.vmap(hold)(x, known) if self.placement.batched else hold(x, known)

    @property
    @own_settings()
    def num_skipped(self) -> int:
        """Samples skipped so far by ``reuse``, of a batch those of all videos; blocks until the
        calls before `next_call` have run."""
        skipped = self.program.method.num_skipped(self.carry.state)
        return (
            0 if skipped is None else int(np.sum(jax.device_get(self.placement.gathered(skipped))))
        )

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """The devices."""
        return self.placement.mesh

    @property
    def samples_per_call(self) -> int:
        """Slots of a call, of all devices together."""
        return self.call_schedule.samples_per_call

    @property
    def samples_per_window(self) -> int:
        """2 where any prediction is guided, else 1."""
        used, windows = self.call_schedule.used, self.call_schedule.calls.windows
        of_update = self.call_schedule.calls.update[:, None] * (windows.max() + 1) + windows
        return int(np.unique(of_update[used], return_counts=True)[1].max())

    @property
    def windows(self) -> int:
        """Windows of a call of the network, of all devices together."""
        return max(1, self.samples_per_call // self.samples_per_window)

    @property
    def max_windows(self) -> int:
        """Windows of the largest update step, the most that a call can use."""
        return -(-self.call_schedule.max_samples // self.samples_per_window)

    @property
    def devices(self) -> int:
        """Devices that share a call."""
        return self.placement.num_clip_shards

    @cached_property
    def _samples_before(self) -> np.ndarray:
        """Samples before each call, and in all: int ``[calls + 1]``."""
        return np.concatenate([[0], np.cumsum(self.call_schedule.used.sum(axis=1))])

    @property
    def samples_done(self) -> int:
        """Samples before `next_call`: the position in the schedule, whatever the number of samples
        per call."""
        return int(self._samples_before[self.next_call])

    @own_settings()
    def lower(self, samples: int | None = None) -> jax.stages.Lowered:
        """The program of a part, traced but not compiled, to inspect or to compile ahead: with the
        run's own number of samples, `advance` does not compile it again.

        Args:
          samples: per call; None: the run's own number.
        """
        carry, calls = self.carry, self.calls
        if samples is not None and samples != self.samples_per_call:
            carry, calls = resized(self, samples)
        bound = np.int32(0)
        # pmap's program is the same, but JAX cannot lower it.
        placement = dataclasses.replace(self.placement, parallel="shard_map")
        program = dataclasses.replace(self.program, axes=placement.clip_axes)
        part = compiled(program, placement)
        schedule = calls, self.updates
        return part.lower(carry, schedule, (bound, bound), self.inputs)  # type: ignore[attr-defined]

    @own_settings(set_up=False)
    def advance(self, calls: int | None = None) -> None:
        """Dispatches the next `calls` calls, or all that are left, without waiting for them."""
        stop = self.num_calls if calls is None else min(self.num_calls, self.next_call + calls)
        if stop <= self.next_call:
            return
        bounds = self.placement.place((np.int32(self.next_call), np.int32(stop)))
        self.dispatched = self.dispatched or time.monotonic()
        with translate_oom(self):
            part = compiled(self.program, self.placement)
            schedule = self.calls, self.updates
            self.carry, self.failure = part(self.carry, schedule, bounds, self.inputs)
        self.next_call = stop

    def wait(self) -> None:
        """Blocks until the calls before `next_call` have run."""
        with translate_oom(self):
            jax.block_until_ready(self.failure)

    def check(self, failure: Failure | None = None) -> None:
        """Blocks like `wait`, or until the part that returned `failure` has run.

        Raises:
          NonFiniteError: if a prediction was not finite.
          DeviceMemoryError: if the device ran out of memory.
        """
        failure = failure or self.failure
        if failure is not None:
            with translate_oom(self):
                check_failure(failure, self.call_schedules)
            self.played = time.monotonic()

    @own_settings()
    def restore(self, samples_done: int, carry: Carry) -> None:
        """Resumes with `carry` (arrays of the device or the host; copied) after `samples_done`
        samples; from the beginning of that update step, if no call of this schedule begins there.

        Raises:
          InputError: if they do not belong to a run like this one.
        """
        before = self._samples_before
        if not 0 <= samples_done <= before[-1]:
            raise InputError(
                argument="samples_done", expected=f"0 to {before[-1]}", value=samples_done
            )
        leaves, structure = jax.tree.flatten(self.carry)
        given, structure_given = jax.tree.flatten(carry)
        shapes = [[(v.shape, v.dtype) for v in side] for side in (leaves, given)]
        if str(structure) != str(structure_given) or shapes[0] != shapes[1]:
            raise InputError("the carry belongs to another run: its shapes differ")
        carry = jax.tree.map(lambda v: jnp.array(v, copy=True), carry)
        call = int(np.searchsorted(before, samples_done, side="right")) - 1
        if before[call] != samples_done:  # within an update step only its predictions change
            update = self.call_schedule.calls.update
            call = int(np.argmax(update == update[call]))
        self.carry = self.placement.place_videos(carry)
        self.next_call = call
        self.failure = None

    @own_settings()
    def latents(self) -> jax.Array:
        """The clean latent, float32 ``[F, H, W, C]`` (of a batch ``[V, F, H, W, C]``), after the
        last call; on every device.

        Raises:
          NonFiniteError: if a prediction, or the result itself, is not finite.
          InputError: if calls are left.
        """
        if self.next_call < self.num_calls:
            raise InputError(
                f"{self.num_calls - self.next_call} calls have not run yet", remedy="call advance()"
            )
        self.check()
        x = self._held(self.placement.gathered(self.program.method.result(self.carry.state)))
        if not bool(
            jax.device_get(jnp.isfinite(x).all())
        ):  # the last optimiser step, which no prediction follows
            last = self.num_calls - 1
            raise NonFiniteError(
                f"sampling diverged at {describe_call(self.call_schedule, last)}: the result holds "
                "NaN or Inf",
                last,
                (),
            )
        return x


def shared_program(videos: Sequence[VideoProgram]) -> Program:
    """The program of all videos; those without known frames take part in one that has some.

    Raises:
      InputError: if they need different programs.
    """
    programs = [video.sampling.program for video in videos]
    rules = {program.method.known for program in programs} - {None}
    if rules:
        programs = [
            dataclasses.replace(
                each, method=dataclasses.replace(each.method, known=each.method.known or min(rules))
            )
            for each in programs
        ]
    one = videos[0].sampling.call_schedule.structure
    if len(set(programs)) > 1 or any(
        video.sampling.call_schedule.structure != one for video in videos
    ):
        raise InputError(
            "the videos' samplers need different programs, so they cannot run side by side",
            remedy="run those that differ separately",
        )
    return programs[0]


def together(videos: Sequence[VideoProgram]) -> tuple[Carry, Inputs]:
    """Carry and inputs of a batch, with a leading axis of videos.

    Raises:
      InputError: if their conditionings have different shapes or dtypes.
    """
    inputs = [video.inputs for video in videos]
    if any(each.known is not None for each in inputs):  # mask all False: no known frame
        shape = next(each.known.latents.shape for each in inputs if each.known is not None)
        inputs = [each._replace(known=each.known or unknown(shape)) for each in inputs]
    carries = [video.start.carry for video in videos]
    pairs = list(zip(carries, inputs, strict=True))
    if any(_shapes(pair) != _shapes(pairs[0]) for pair in pairs):
        raise InputError(
            "the videos' conditionings have different shapes or dtypes",
            remedy="run those that differ separately",
        )
    stacked = {
        name: jax.tree.map(lambda *leaves: jnp.stack(leaves), *(getattr(i, name) for i in inputs))
        for name in Inputs._fields
        if name != "params"
    }
    carry = jax.tree.map(lambda *leaves: jnp.stack(leaves), *carries)
    return carry, inputs[0]._replace(**stacked)


def _single(videos: Sequence[VideoProgram]) -> tuple[Carry, Inputs]:
    (video,) = videos
    return video.start.carry, video.inputs


def _shapes(pair: tuple[Carry, Inputs]) -> tuple:
    carry, inputs = pair
    leaves, structure = jax.tree.flatten((carry, inputs._replace(params=None)))
    return str(structure), [(leaf.shape, leaf.dtype) for leaf in leaves]


def run_to_end(
    run: Run,
    *,
    progress: Progress | None = None,
    pause: Callable[[Run], None] | None = None,
    pause_seconds: float = 60.0,
    part_seconds: float = PART_SECONDS,
) -> None:
    """Runs to the end in parts of about `part_seconds`; Ctrl-C takes effect between them.

    Args:
      run: the run, at any call.
      progress: called with (calls done, calls in all) after each part; an exception stops the run.
      pause: called with the run about every `pause_seconds` and at the end, when its calls have
        finished without NaN or Inf: ``run.samples_done`` and ``run.carry`` are then a checkpoint.
      pause_seconds: 0: after every part.
      part_seconds: the first parts are shorter, to measure the speed.

    Raises:
      NonFiniteError: if a prediction was not finite.
      DeviceMemoryError: if the device ran out of memory.
    """
    # On CPU, several programs with collectives in flight may starve each other.
    ahead = run.mesh.devices.flat[0].platform != "cpu"
    size, measured = 1, False
    last_pause = last_part = time.monotonic()
    pending: tuple[int, int, Failure] | None = None

    def finish(part: tuple[int, int, Failure]) -> None:
        nonlocal size, measured, last_part
        start, stop, failure = part
        run.check(failure)
        now = time.monotonic()
        if measured:  # not for the first part, whose time is the compilation's
            per_call = max((now - last_part) / (stop - start), 1e-6)
            size = max(1, min(int(part_seconds / per_call), 8 * (stop - start)))
        measured, last_part = True, now
        if progress is not None:
            progress(stop, run.num_calls)

    while run.next_call < run.num_calls:
        start = run.next_call
        run.advance(broadcast(size))  # clocks differ, but all processes must run equal parts
        assert run.failure is not None
        part = (start, run.next_call, run.failure)
        if pending is not None:
            finish(pending)
        pending = part
        due = pause is not None and time.monotonic() - last_pause >= pause_seconds
        if due or not ahead or run.next_call == run.num_calls:
            finish(pending)
            pending = None
        if pause is not None and (due or run.next_call == run.num_calls):
            pause(run)
            last_pause = last_part = time.monotonic()
