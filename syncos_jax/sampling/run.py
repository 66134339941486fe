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
from syncos_jax.sampling.faults import (
    REMEDY,
    DeviceMemoryError,
    NonFiniteError,
    check_failure,
    explained,
    place,
)
from syncos_jax.sampling.hosts import broadcast
from syncos_jax.sampling.memory import resized
from syncos_jax.sampling.placement import PER_VIDEO, Placement, compiled
from syncos_jax.sampling.scan import Carry, Failure, Inputs, Program
from syncos_jax.sampling.tape import Tape

Progress = Callable[[int, int], None]
"""``progress(done_rows, total_rows)``, called between the parts of a run."""

__all__ = ["DeviceMemoryError", "NonFiniteError", "Progress", "Run", "play_through"]

PART_SECONDS = 0.7
"""How long a part of a watched run takes: what Ctrl-C and the progress bar wait for."""


class Run:
    """A run on its way, from `syncos_jax.sampling.sampler.start` or `start_batch`.

    With `clips_done` and `carry` of one, another of the same arguments goes on (`restore`), on any
    number of devices and with any number of clips in a call: neither depends on them.

    Attributes:
      tape: what is played; of a batch, that of the first video.
      tapes: those of all videos.
      row: the next row; those before it have been played or are being played.
      total: rows in all.
      carry: the state before `row`, of a batch with the videos as leading axis; donated to the
        next part, so read it before `advance`.
      rows, rounds: the tape, on the devices, with spare rows (`Tape.padded`).
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
        tapes: Sequence[Tape],
        carry: Carry,
        inputs: Inputs,
        program: Program,
        placement: Placement,
    ) -> None:
        self.tapes = tuple(tapes)
        self.tape = tapes[0]
        self.total = len(self.tape)
        self.row = 0
        self.program = program
        self.placement = placement
        self.failure: Failure | None = None
        self.dispatched: float | None = None
        self.played: float | None = None
        self.carry = placement.place_videos(carry)
        placed = {name: placement.place_videos(getattr(inputs, name)) for name in PER_VIDEO}
        self.inputs = Inputs(params=placement.place_weights(inputs.params), **placed)
        self.rows, self.rounds = placement.place_videos(self._stacked())

    def _stacked(self) -> tuple:
        each = [tape.padded() for tape in self.tapes]
        if not self.placement.batched:
            return each[0]
        return jax.tree.map(lambda *columns: np.stack(columns), *each)

    @property
    def clean(self) -> jax.Array:
        """The clean latent as far as it is, float32 ``[F, H, W, C]``; to look at."""
        return self.program.method.clean(self.carry.state)

    @property
    def clips_spared(self) -> int:
        """Clips so far that `Settings.reuse` spared the network, of a batch those of all videos;
        blocks until the rows before `row` have been played."""
        spared = self.program.method.spared(self.carry.state)
        return 0 if spared is None else int(np.sum(self.placement.gathered(spared)))

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """The devices."""
        return self.placement.mesh

    @property
    def clips_per_window(self) -> int:
        """2 where any prediction is guided, else 1."""
        used, windows = self.tape.used, self.tape.rows.windows
        of_round = self.tape.rows.round[:, None] * (windows.max() + 1) + windows
        return int(np.unique(of_round[used], return_counts=True)[1].max())

    @property
    def windows(self) -> int:
        """Windows of a call of the network, of all devices together."""
        return max(1, self.tape.clips_per_call // self.clips_per_window)

    @property
    def longest(self) -> int:
        """Windows of the longest round, which a call can have at most."""
        return -(-self.tape.longest // self.clips_per_window)

    @property
    def devices(self) -> int:
        """Devices that share a call."""
        return self.placement.shares

    @cached_property
    def _clips_before(self) -> np.ndarray:
        """Clips before each row, and in all: int ``[rows + 1]``."""
        return np.concatenate([[0], np.cumsum(self.tape.used.sum(axis=1))])

    @property
    def clips_done(self) -> int:
        """Clips before `row`: the place on the tape, whatever the number of clips of a call."""
        return int(self._clips_before[self.row])

    def lower(self, clips: int | None = None) -> jax.stages.Lowered:
        """The program of a part, traced but not compiled, to look into or to compile ahead: that
        of the run's own number of clips is then not compiled again by `advance`.

        Args:
          clips: for another number of clips in a call; None for the run's own.
        """
        carry, rows = self.carry, self.rows
        if clips is not None and clips != self.tape.clips_per_call:
            carry, rows = resized(self, clips)
        bound = np.int32(0)
        # pmap's program is the same, but JAX does not give it away.
        placement = dataclasses.replace(self.placement, parallel="shard_map")
        program = dataclasses.replace(self.program, axes=placement.split)
        part = compiled(program, placement)
        return part.lower(carry, rows, self.rounds, bound, bound, self.inputs)  # type: ignore[attr-defined]

    def advance(self, rows: int | None = None) -> None:
        """Plays the next `rows` rows, or all that are left; does not wait for them."""
        stop = self.total if rows is None else min(self.total, self.row + rows)
        if stop <= self.row:
            return
        bounds = np.int32(self.row), np.int32(stop)
        self.dispatched = self.dispatched or time.monotonic()
        with explained(self):
            part = compiled(self.program, self.placement)
            self.carry, self.failure = part(
                self.carry, self.rows, self.rounds, *bounds, self.inputs
            )
        self.row = stop

    def wait(self) -> None:
        """Blocks until the rows before `row` have been played."""
        with explained(self):
            jax.block_until_ready(self.failure)

    def check(self, failure: Failure | None = None) -> None:
        """Blocks like `wait`, or until the part that `failure` is from has been played.

        Raises:
          NonFiniteError: if the network's prediction was not finite in one of the rows played.
          DeviceMemoryError: if the device ran out of memory.
        """
        failure = failure or self.failure
        if failure is not None:
            with explained(self):
                check_failure(failure, self.tapes)
            self.played = time.monotonic()

    def restore(self, clips_done: int, carry: Carry) -> None:
        """Goes on with `carry` (arrays of the device or of the host; copied) from where
        `clips_done` clips were done; from the beginning of that round, where no row of this tape
        begins there.

        Raises:
          InputError: if they are not those of a run like this one.
        """
        before = self._clips_before
        if not 0 <= clips_done <= before[-1]:
            raise InputError(
                f"restore: {clips_done} clips are not on this run's tape of {before[-1]}"
            )
        leaves, structure = jax.tree.flatten(self.carry)
        given, structure_given = jax.tree.flatten(carry)
        shapes = [[(v.shape, v.dtype) for v in side] for side in (leaves, given)]
        if str(structure) != str(structure_given) or shapes[0] != shapes[1]:
            raise InputError("restore: the carry is that of another run: its shapes differ")
        carry = jax.tree.map(lambda v: jnp.array(v, copy=True), carry)
        row = int(np.searchsorted(before, clips_done, side="right")) - 1
        if before[row] != clips_done:  # within a round nothing but its predictions changes
            row = int(np.argmax(self.tape.rows.round == self.tape.rows.round[row]))
        self.carry = self.placement.place_videos(carry)
        self.row = row
        self.failure = None

    def latents(self) -> jax.Array:
        """The clean latent, float32 ``[F, H, W, C]`` (of a batch ``[V, F, H, W, C]``), once all
        rows have been played; on every device.

        Raises:
          NonFiniteError: if a prediction, or the result itself, is not finite.
          InputError: if rows are left.
        """
        if self.row < self.total:
            raise InputError(f"latents: {self.total - self.row} rows have not been played yet")
        self.check()
        x = self.placement.gathered(self.program.method.result(self.carry.state))
        if not bool(jnp.isfinite(x).all()):  # the last optimiser step, which no prediction follows
            last = self.total - 1
            raise NonFiniteError(f"{place(self.tape, last)}: the result is {REMEDY}", last, ())
        return x


def play_through(
    run: Run,
    *,
    progress: Progress | None = None,
    pause: Callable[[Run], None] | None = None,
    pause_seconds: float = 60.0,
    part_seconds: float = PART_SECONDS,
) -> None:
    """Plays `run` to its end in parts of about `part_seconds`; Ctrl-C takes effect between them.

    Args:
      run: the run, at any row.
      progress: called with (rows played, rows in all) after each part; what it raises stops the
        run.
      pause: called with the run about every `pause_seconds` and at the end, when its rows have
        been played and found finite: ``run.clips_done`` and ``run.carry`` are then a state to keep.
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
            progress(stop, run.total)

    while run.row < run.total:
        start = run.row
        run.advance(broadcast(size))  # clocks differ, but all processes must play the same parts
        assert run.failure is not None
        part = (start, run.row, run.failure)
        if pending is not None:
            finish(pending)
        pending = part
        due = pause is not None and time.monotonic() - last_pause >= pause_seconds
        if due or not ahead or run.row == run.total:
            finish(pending)
            pending = None
        if pause is not None and (due or run.row == run.total):
            pause(run)
            last_pause = last_part = time.monotonic()
