"""A sampling run on its way: advanced in parts, watched, stopped, put back where it was."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.sampling.devices import Spread, agreed, players
from syncos_jax.sampling.faults import (
    REMEDY,
    DeviceMemoryError,
    NonFiniteError,
    check_bad,
    explained,
    place,
)
from syncos_jax.sampling.memory import resized
from syncos_jax.sampling.scan import Bad, Carry, Inputs, Program, play, play_part
from syncos_jax.sampling.tape import Row, Tape

Progress = Callable[[int, int], None]
"""``progress(done_rows, total_rows)``, called between the parts of a run."""

__all__ = ["DeviceMemoryError", "NonFiniteError", "Progress", "Run", "play_through"]

PART_SECONDS = 0.7
"""How long a part of a watched run takes: what Ctrl-C and the progress bar wait for."""


class Run:
    """A run on its way, from `syncos_jax.sampling.sampler.start` or `start_batch`.

    With `row` and `carry` of one, another of the same arguments goes on (`restore`), on any number
    of devices: neither depends on it.

    Attributes:
      tape: what is played; of a batch, that of the first video.
      row: the next row; those before it have been played or are being played.
      total: rows in all.
      carry: the state before `row`, of a batch with the videos as leading axis; donated to the
        next part, so read it before `advance`.
      rows: the tape, on the devices.
      program: what is fixed in the compiled program.
      inputs: what it is given.
      bad: what the last part gave to wait for, or None before any.
      mesh: the devices, or None for JAX's default one.
    """

    def __init__(
        self,
        tapes: Sequence[Tape],
        carry: Carry,
        inputs: Inputs,
        program: Program,
        spread: Spread | None = None,
    ) -> None:
        self.tape = tapes[0]
        self.total = len(self.tape)
        self.row = 0
        self.program = program
        self.mesh = None if spread is None else spread.mesh
        self._spread = spread
        self._tapes = tuple(tapes)
        self.bad: Bad | None = None
        if spread is None:
            self.carry, self.inputs = carry, inputs
        else:
            self.carry = spread.place_videos(carry)
            per_video = ("cond", "uncond", "key", "step_noise")
            self.inputs = Inputs(
                **{
                    name: spread.place_weights(value)
                    if name == "params"
                    else (spread.place_videos if name in per_video else spread.place)(value)
                    for name, value in inputs._asdict().items()
                }
            )
        self.rows = self._placed_rows(0)

    def _placed_rows(self, start: int) -> Row:
        rows = [tape.part(start) for tape in self._tapes]
        if self.tape.rows.chosen.shape[1] == self.program.layout.count:
            # All windows in every row: a table that would grow with the square of the length.
            rows = [row._replace(chosen=row.chosen[:, :0]) for row in rows]
        if self._spread is None:
            return jax.tree.map(jnp.asarray, rows[0])
        if not self._spread.batched:
            return self._spread.place(rows[0])
        return self._spread.place_videos(jax.tree.map(lambda *r: np.stack(r), *rows))

    @property
    def windows(self) -> int:
        """Windows of a call of the network, of all devices together."""
        return self.tape.rows.windows.shape[1]

    @property
    def longest(self) -> int:
        """Windows of the longest round, which a call can have at most."""
        rows = self.tape.rows
        return int((rows.slot + rows.valid.sum(axis=1)).max())

    @property
    def devices(self) -> int:
        """Devices that share a call."""
        if self._spread is None or self.mesh is None:
            return 1
        return math.prod(self.mesh.shape[axis] for axis in self._spread.split)

    def lower(self, windows: int | None = None) -> jax.stages.Lowered:
        """The program of a part, traced but not compiled, to look into or to compile ahead.

        Args:
          windows: for another number of windows in a call; None for the run's own.
        """
        carry, rows = resized(self, windows or self.windows)
        bound = np.int32(0)
        if self._spread is None:
            return play_part.lower(carry, rows, bound, bound, self.inputs, program=self.program)
        # pmap's program is the same, but JAX does not give it away.
        spread = dataclasses.replace(self._spread, parallel="shard_map")
        return players(self.program, spread)[1].lower(carry, rows, bound, bound, self.inputs)

    def advance(self, rows: int | None = None) -> None:
        """Plays the next `rows` rows, or all that are left; does not wait for them."""
        stop = self.total if rows is None else min(self.total, self.row + rows)
        if stop <= self.row:
            return
        where = (self.rows, np.int32(self.row), np.int32(stop), self.inputs)
        with explained(self):
            if self._spread is None:
                self.carry, self.bad = play_part(self.carry, *where, program=self.program)
            else:
                _, part = players(self.program, self._spread)
                self.carry, self.bad = part(self.carry, *where)
        self.row = stop

    def play(self) -> None:
        """Plays all that is left as one ``lax.scan``; does not wait for it."""
        if self.row == self.total:
            return
        rows = self.rows if self.row == 0 else self._placed_rows(self.row)
        with explained(self):
            if self._spread is None:
                self.carry = play(self.carry, rows, self.inputs, program=self.program)
                self.bad = Bad(self.carry.bad, self.carry.hit)
            else:
                whole, _ = players(self.program, self._spread)
                self.carry, self.bad = whole(self.carry, rows, self.inputs)
        self.row = self.total

    def wait(self) -> None:
        """Blocks until the rows before `row` have been played."""
        with explained(self):
            jax.block_until_ready(self.bad)

    def check(self, bad: Bad | None = None) -> None:
        """Blocks like `wait`, or until the part that `bad` is from has been played.

        Raises:
          NonFiniteError: if the network's prediction was not finite in one of the rows played.
          DeviceMemoryError: if the device ran out of memory.
        """
        bad = bad or self.bad
        if bad is not None:
            with explained(self):
                check_bad(bad, self._tapes, self.program.layout)

    def restore(self, row: int, carry: Carry) -> None:
        """Goes on from `row` with `carry` (arrays of the device or of the host; copied).

        Raises:
          InputError: if they are not those of a run like this one.
        """
        if not 0 <= row <= self.total:
            raise InputError(f"restore: row {row} is not on this run's tape of {self.total} rows")
        leaves, structure = jax.tree.flatten(self.carry)
        given, structure_given = jax.tree.flatten(carry)
        shapes = [[(v.shape, v.dtype) for v in side] for side in (leaves, given)]
        if str(structure) != str(structure_given) or shapes[0] != shapes[1]:
            raise InputError("restore: the carry is that of another run: its shapes differ")
        carry = jax.tree.map(lambda v: jnp.array(v, copy=True), carry)
        self.carry = carry if self._spread is None else self._spread.place_videos(carry)
        self.row = row
        self.bad = None

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
        x = self.carry.x if self._spread is None else self._spread.gathered(self.carry.x)
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
        been played and found finite: ``run.row`` and ``run.carry`` are then a state to keep.
      pause_seconds: 0 for after every part.
      part_seconds: the first parts are shorter, to learn the speed.

    Raises:
      NonFiniteError: if a prediction was not finite.
      DeviceMemoryError: if the device ran out of memory.
    """
    # Of several programs with collectives in flight at once, the CPU's may starve each other.
    device = next(iter(run.carry.x.devices()))
    ahead = device.platform != "cpu"
    size, measured = 1, False
    last_pause = last_part = time.monotonic()
    pending: tuple[int, int, Bad] | None = None

    def finish(part: tuple[int, int, Bad]) -> None:
        nonlocal size, measured, last_part
        start, stop, bad = part
        run.check(bad)
        now = time.monotonic()
        if measured:  # not the first part, whose time is that of the compilation
            per_row = max((now - last_part) / (stop - start), 1e-6)
            size = max(1, min(int(part_seconds / per_row), 8 * (stop - start)))
        measured, last_part = True, now
        if progress is not None:
            progress(stop, run.total)

    while run.row < run.total:
        start = run.row
        run.advance(agreed(size))  # clocks differ, but all processes must play the same parts
        assert run.bad is not None
        part = (start, run.row, run.bad)
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
