"""A sampling run on its way: advanced in parts, watched, stopped, put back where it was."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.sampling.call_schedule import CallSchedule
from syncos_jax.sampling.failures import (
    REMEDY,
    DeviceMemoryError,
    NonFiniteError,
    check_failure,
    describe_call,
    translate_oom,
)
from syncos_jax.sampling.hosts import broadcast
from syncos_jax.sampling.loop import Carry, Failure, Inputs, Program
from syncos_jax.sampling.memory import resized
from syncos_jax.sampling.placement import PER_VIDEO, Placement, compiled

Progress = Callable[[int, int], None]
"""``progress(done_rows, total_rows)``, called between the parts of a run."""

__all__ = ["DeviceMemoryError", "NonFiniteError", "Progress", "Run", "run_to_end"]

PART_SECONDS = 0.7
"""How long a part of a watched run takes: what Ctrl-C and the progress bar wait for."""


class Run:
    """A run on its way, from `syncos_jax.sampling.sampler.start` or `start_batch`.

    With `samples_done` and `carry` of one, another of the same arguments goes on (`restore`), on
    any
    number of devices and with any number of samples in a call: neither depends on them.

    Attributes:
      call_schedule: what is played; of a batch, that of the first video.
      call_schedules: those of all videos.
      next_call: the next call; those before it have been played or are being played.
      num_calls: calls in all.
      carry: the state before `call`, of a batch with the videos as leading axis; donated to the
        next part, so read it before `advance`.
      calls, updates: the call_schedule, on the devices, with spare calls (`CallSchedule.padded`).
      program: what is fixed in the compiled program.
      inputs: what it is given.
      failure: pending result of the last part: the first prediction that was not finite, if any;
        None before any part.
      placement: the devices.
      dispatched, played: when the first part was handed to the devices, and when the last one was
        found played (`time.monotonic`); None before that.
    """

    def __init__(
        self,
        call_schedules: Sequence[CallSchedule],
        carry: Carry,
        inputs: Inputs,
        program: Program,
        placement: Placement,
    ) -> None:
        self.call_schedules = tuple(call_schedules)
        self.call_schedule = call_schedules[0]
        self.num_calls = len(self.call_schedule)
        self.next_call = 0
        self.program = program
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
    def clean(self) -> jax.Array:
        """The clean latent as far as it is, float32 ``[F, H, W, C]``; to look at."""
        return self.program.method.clean(self.carry.state)

    @property
    def num_skipped(self) -> int:
        """Samples so far that `SamplerConfig.reuse` num_skipped the network, of a batch those
        of all videos;
        blocks until the calls before `call` have been played."""
        num_skipped = self.program.method.num_skipped(self.carry.state)
        return 0 if num_skipped is None else int(np.sum(self.placement.gathered(num_skipped)))

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """The devices."""
        return self.placement.mesh

    @property
    def clips_per_window(self) -> int:
        """2 where any prediction is guided, else 1."""
        used, windows = self.call_schedule.used, self.call_schedule.calls.windows
        of_round = self.call_schedule.calls.update[:, None] * (windows.max() + 1) + windows
        return int(np.unique(of_round[used], return_counts=True)[1].max())

    @property
    def windows(self) -> int:
        """Windows of a call of the network, of all devices together."""
        return max(1, self.call_schedule.samples_per_call // self.clips_per_window)

    @property
    def longest(self) -> int:
        """Windows of the longest update, which a call can have at most."""
        return -(-self.call_schedule.longest // self.clips_per_window)

    @property
    def devices(self) -> int:
        """Devices that share a call."""
        return self.placement.num_clip_shards

    @cached_property
    def _clips_before(self) -> np.ndarray:
        """Samples before each call, and in all: int ``[calls + 1]``."""
        return np.concatenate([[0], np.cumsum(self.call_schedule.used.sum(axis=1))])

    @property
    def samples_done(self) -> int:
        """Samples before `call`: the place on the call_schedule, whatever the number of samples
        of a call."""
        return int(self._clips_before[self.next_call])

    def lower(self, samples: int | None = None) -> jax.stages.Lowered:
        """The program of a part, traced but not compiled, to look into or to compile ahead: that
        of the run's own number of samples is then not compiled again by `advance`.

        Args:
          samples: for another number of samples in a call; None for the run's own.
        """
        carry, calls = self.carry, self.calls
        if samples is not None and samples != self.call_schedule.samples_per_call:
            carry, calls = resized(self, samples)
        bound = np.int32(0)
        # pmap's program is the same, but JAX does not give it away.
        placement = dataclasses.replace(self.placement, parallel="shard_map")
        program = dataclasses.replace(self.program, axes=placement.clip_axes)
        part = compiled(program, placement)
        return part.lower(carry, calls, self.updates, bound, bound, self.inputs)  # type: ignore[attr-defined]

    def advance(self, calls: int | None = None) -> None:
        """Plays the next `calls` calls, or all that are left; does not wait for them."""
        stop = self.num_calls if calls is None else min(self.num_calls, self.next_call + calls)
        if stop <= self.next_call:
            return
        bounds = np.int32(self.next_call), np.int32(stop)
        self.dispatched = self.dispatched or time.monotonic()
        with translate_oom(self):
            part = compiled(self.program, self.placement)
            self.carry, self.failure = part(
                self.carry, self.calls, self.updates, *bounds, self.inputs
            )
        self.next_call = stop

    def wait(self) -> None:
        """Blocks until the calls before `call` have been played."""
        with translate_oom(self):
            jax.block_until_ready(self.failure)

    def check(self, failure: Failure | None = None) -> None:
        """Blocks like `wait`, or until the part that `failure` is from has been played.

        Raises:
          NonFiniteError: if the network's prediction was not finite in one of the calls played.
          DeviceMemoryError: if the device ran out of memory.
        """
        failure = failure or self.failure
        if failure is not None:
            with translate_oom(self):
                check_failure(failure, self.call_schedules)
            self.played = time.monotonic()

    def restore(self, samples_done: int, carry: Carry) -> None:
        """Goes on with `carry` (arrays of the device or of the host; copied) from where
        `samples_done` samples were done; from the beginning of that update, where no call of this
        call_schedule
        begins there.

        Raises:
          InputError: if they are not those of a run like this one.
        """
        before = self._clips_before
        if not 0 <= samples_done <= before[-1]:
            raise InputError(
                f"restore: {samples_done} samples are not on this run's call_schedule of "
                f"{before[-1]}"
            )
        leaves, structure = jax.tree.flatten(self.carry)
        given, structure_given = jax.tree.flatten(carry)
        shapes = [[(v.shape, v.dtype) for v in side] for side in (leaves, given)]
        if str(structure) != str(structure_given) or shapes[0] != shapes[1]:
            raise InputError("restore: the carry is that of another run: its shapes differ")
        carry = jax.tree.map(lambda v: jnp.array(v, copy=True), carry)
        call = int(np.searchsorted(before, samples_done, side="right")) - 1
        if before[call] != samples_done:  # within a update nothing but its predictions changes
            call = int(
                np.argmax(self.call_schedule.calls.update == self.call_schedule.calls.update[call])
            )
        self.carry = self.placement.place_videos(carry)
        self.next_call = call
        self.failure = None

    def latents(self) -> jax.Array:
        """The clean latent, float32 ``[F, H, W, C]`` (of a batch ``[V, F, H, W, C]``), once all
        calls have been played; on every device.

        Raises:
          NonFiniteError: if a prediction, or the result itself, is not finite.
          InputError: if calls are left.
        """
        if self.next_call < self.num_calls:
            raise InputError(
                f"latents: {self.num_calls - self.next_call} calls have not been played yet"
            )
        self.check()
        x = self.placement.gathered(self.program.method.result(self.carry.state))
        if not bool(jnp.isfinite(x).all()):  # the last optimiser step, which no prediction follows
            last = self.num_calls - 1
            raise NonFiniteError(
                f"{describe_call(self.call_schedule, last)}: the result is {REMEDY}", last, ()
            )
        return x


def run_to_end(
    run: Run,
    *,
    progress: Progress | None = None,
    pause: Callable[[Run], None] | None = None,
    pause_seconds: float = 60.0,
    part_seconds: float = PART_SECONDS,
) -> None:
    """Plays `run` to its end in parts of about `part_seconds`; Ctrl-C takes effect between them.

    Args:
      run: the run, at any call.
      progress: called with (calls played, calls in all) after each part; what it raises stops the
        run.
      pause: called with the run about every `pause_seconds` and at the end, when its calls have
        been played and found finite: ``run.samples_done`` and ``run.carry`` are then a state to
        keep.
      pause_seconds: 0 for after every part.
      part_seconds: the first parts are shorter, to learn the speed.

    Raises:
      NonFiniteError: if a prediction was not finite.
      DeviceMemoryError: if the device ran out of memory.
    """
    # Of several programs with collectives in flight at once, the CPU's may starve each other.
    ahead = run.mesh.devices.flat[0].platform != "cpu"
    size, measured = 1, False
    last_pause = last_part = time.monotonic()
    pending: tuple[int, int, Failure] | None = None

    def finish(part: tuple[int, int, Failure]) -> None:
        nonlocal size, measured, last_part
        start, stop, failure = part
        run.check(failure)
        now = time.monotonic()
        if measured:  # not the first part, whose time is that of the compilation
            per_row = max((now - last_part) / (stop - start), 1e-6)
            size = max(1, min(int(part_seconds / per_row), 8 * (stop - start)))
        measured, last_part = True, now
        if progress is not None:
            progress(stop, run.num_calls)

    while run.next_call < run.num_calls:
        start = run.next_call
        run.advance(broadcast(size))  # clocks differ, but all processes must play the same parts
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
