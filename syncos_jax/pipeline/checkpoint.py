"""Checkpoints: the state of a run in a folder, from which the same run resumes.

The folder holds

============= ====================================================================================
run.json      what the run is: scenario, sampler, seed, model, versions, kind of device
rows/ROW/     the state before that row, an Orbax checkpoint: one array for each leaf of `Carry`
latents.npy   the clean latent, once all rows have been played
lock          held by the process that writes here; released when that process ends
============= ====================================================================================

A state is written beside its place and renamed when it is complete, so that one that was half
written when the process died is never read; the one before it is kept until then.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import jax
import numpy as np
from filelock import FileLock, Timeout

from syncos_jax.errors import InputError, Terminated
from syncos_jax.files import replacing
from syncos_jax.files.text import short
from syncos_jax.files.versioned import FileFormat
from syncos_jax.pipeline.fingerprint import differences
from syncos_jax.pipeline.states import States
from syncos_jax.sampling.hosts import broadcast
from syncos_jax.sampling.loop import Carry
from syncos_jax.sampling.run import PART_SECONDS, Progress, Run, run_to_end

RUN, ROWS, LATENTS, LOCK = "run.json", "rows", "latents.npy", "lock"
STATE = FileFormat(
    "syncos_jax.run",
    "the state of a run",
    remedy="give `resume=False` to start anew",
    remedy_version="give `resume=False` to start anew",
)

MAX_SAVE_OVERHEAD = 0.02
"""Share of the time that a run may wait for its own checkpoints: after one that took a second, the
next comes 50 seconds later at the earliest."""


@dataclass(frozen=True)
class SaveInterval:
    """How often the state is saved.

    Attributes:
      seconds: about this often; less often where saving takes more than 2 % of the time.
      rows: instead of that, every so many calls of the network. The run is then played row by row.
    """

    seconds: float = 30.0
    rows: int | None = None

    def __post_init__(self) -> None:
        if not self.seconds >= 0 or (self.rows is not None and self.rows < 1):
            raise InputError("checkpoints: give 0 or more seconds, or 1 or more rows")


def parse_save_interval(text: str) -> SaveInterval:
    """``"30"`` or ``"30s"``: seconds; ``"100rows"``: rows. Raises InputError."""
    word = text.strip().lower()
    try:
        if word.endswith("rows"):
            return SaveInterval(rows=int(word.removesuffix("rows")))
        return SaveInterval(seconds=float(word.removesuffix("s")))
    except ValueError:
        raise InputError(
            f"`checkpoint_every`: is {short(text)}, but expected seconds such as 30, or rows such "
            "as 100rows"
        ) from None


def run_folder(out: str | os.PathLike[str]) -> Path:
    """Where the command line keeps the state of the run for a video: ``.out.mp4.run`` beside it."""
    path = Path(out)
    return path.with_name(f".{path.name}.run")


class RunLocked(InputError):
    """Another process is at the run."""


class Checkpoint:
    """The folder of one run, open for this process alone; a context manager.

    Of several processes of one run (``jax.distributed``) each opens it with the same arguments;
    only the first touches the folder.

    Args:
      folder: made where it does not exist.
      run: what the run is (`Request.fingerprint`), a mapping of plain values that JSON can hold.
        A folder of the same run goes on; one of another is an error.
      resume: False deletes what is there of any run.
      every: how often the state is saved.
      stop: called between the parts of the run; once it returns True (in one of the processes) the
        run saves its state and raises `Terminated` (in all of them, at the same row).
      warn: called where a state cannot be saved (a full disk, say), which does not stop the run.

    Attributes:
      saved: how many states this process has saved.
      waited: seconds that the run stood still for them; the rest happens beside it.

    Raises:
      InputError: if the folder holds another run (says what differs), or other files, or another
        process is at it.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        run: Mapping[str, Any],
        *,
        resume: bool = True,
        every: SaveInterval = SaveInterval(),
        stop: Callable[[], bool] | None = None,
        warn: Callable[[str], Any] = warnings.warn,
    ) -> None:
        self.folder = Path(folder)
        self.run = json.loads(json.dumps(run, allow_nan=False))
        self.every = every
        self._alone = jax.process_count() == 1
        self._main = jax.process_index() == 0
        self._stop = stop
        self._warn = warn
        self._states: Any = None
        self.saved = 0
        self.waited = 0.0
        self._not_before = 0.0
        self._last_row = 0
        self._lock = FileLock(self.folder / LOCK, timeout=0, thread_local=False)
        if not self._main:
            return
        try:
            self._open(resume)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, resume: bool) -> None:
        if not self.folder.parent.is_dir():
            raise InputError(f"{self.folder}: {self.folder.parent} does not exist; make it first")
        if self.folder.exists():
            if not self.folder.is_dir():
                raise InputError(f"{self.folder}: is not a folder; remove it")
            others = {path.name for path in self.folder.iterdir()} - {RUN, ROWS, LATENTS, LOCK}
            others = {name for name in others if not name.startswith(f".{Path(RUN).stem}.")}
            others = {name for name in others if not name.startswith(f".{Path(LATENTS).stem}.")}
            if others:
                raise InputError(
                    f"{self.folder}: is a folder with other things in it ({min(others)}); give a "
                    "new or empty one"
                )
        self.folder.mkdir(exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise RunLocked(
                f"{self.folder}: another process is at this run; wait for it, or choose another "
                "output"
            ) from None
        old = self._read() if resume else None
        if old is not None:
            found = differences(old, self.run)
            if found:
                more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
                raise InputError(
                    f"{self.folder} holds the state of another run: {'; '.join(found[:3])}{more}. "
                    "Give `resume=False` to delete it and start anew, or choose "
                    "another output"
                )
            return
        shutil.rmtree(self.folder / ROWS, ignore_errors=True)
        (self.folder / LATENTS).unlink(missing_ok=True)
        STATE.write(self.folder / RUN, {"run": self.run})

    def _read(self) -> dict[str, Any] | None:
        """What run.json says; None where there is none: the process died before it was written."""
        path = self.folder / RUN
        try:
            run = STATE.read(path).get("run")
        except FileNotFoundError:
            return None
        if not isinstance(run, dict):
            raise InputError(f"{path}: run: is {short(run)}; {STATE.remedy}")
        return run

    # -- playing ---------------------------------------------------------------------------------

    def latents(self) -> np.ndarray | None:
        """The clean latent of an earlier start that came to its last row; None before that."""
        path = self.folder / LATENTS
        there = broadcast(int(self._main and path.exists()))
        if not there:
            return None
        # Several processes of one run: the first one reads it and sends it to the others.
        values = None
        if self._main:
            try:
                values = np.load(path, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise InputError(
                    f"{path}: cannot be read ({error}); give `resume=False`"
                ) from error
        return self._broadcast(values)

    def play(
        self, run: Run, progress: Progress | None = None, part_seconds: float = PART_SECONDS
    ) -> jax.Array:
        """Plays `run` to its end, from the newest state in the folder; returns `Run.latents`.

        Args:
          run: one before its first row.
          progress, part_seconds: as for `run_to_end`; `stop` is asked after each part.

        Raises:
          Terminated: once `stop` says so; the state is saved.
          NonFiniteError: if a prediction is not finite; the last state is kept, and is finite.
        """
        if self._main:
            self._states = States(self.folder / ROWS)
        self._restore(run)
        self._last_row = run.next_call
        by_row = self.every.rows is not None
        self._not_before = monotonic() + self.every.seconds
        # Several processes agree after each part whether to stop: they have to pause at the same
        # rows.
        each_part = by_row or not self._alone

        def watched(done: int, total: int) -> None:
            if progress is not None:
                progress(done, total)
            if done < total and self._stop_requested():
                raise _Stopping

        try:
            run_to_end(
                run,
                progress=watched,
                pause=self._pause,
                pause_seconds=0.0 if each_part else self.every.seconds,
                part_seconds=0.0 if by_row else part_seconds,
            )
        except _Stopping:
            run.check()  # a part may have been dispatched beyond the one that was reported
            if self._main:
                self._save(run, wait=True)
            raise Terminated(f"row {run.next_call} of {run.num_calls} is saved") from None
        latents = run.latents()
        if self._main:
            with replacing(self.folder / LATENTS) as temporary, temporary.open("wb") as file:
                np.save(file, np.asarray(latents))
            self._close_states()
            shutil.rmtree(self.folder / ROWS, ignore_errors=True)
        return latents

    def newest_row(self) -> int | None:
        """The row of the newest complete state in the folder; None for none."""
        try:
            names = [path.name for path in (self.folder / ROWS).iterdir()]
        except OSError:
            return None
        return max((int(name) for name in names if name.isdigit()), default=None)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to go on from."""
        return self.newest_row() is None and not (self.folder / LATENTS).exists()

    def _stop_requested(self) -> bool:
        own = self._stop is not None and self._stop()
        if self._alone:
            return own
        from jax.experimental import multihost_utils

        return bool(np.any(multihost_utils.process_allgather(np.int32(own))))

    def _pause(self, run: Run) -> None:
        if (
            not self._main or run.next_call == run.num_calls
        ):  # at the end the latents are saved instead
            return
        if self.every.rows is not None and run.next_call - self._last_row < self.every.rows:
            return
        if self.every.rows is None and monotonic() < self._not_before:
            return
        self._save(run)

    def _save(self, run: Run, wait: bool = False) -> None:
        if self.every.rows is None and not wait and self._states.busy:
            return  # the disk is slower than that: rather skip one than wait
        begin = monotonic()
        try:
            self.saved += self._states.save(run.next_call, run.samples_done, run.carry, wait=wait)
        except Exception as error:  # tensorstore has no class of its own for a full disk
            self._warn_of("could not be saved", error)
        now = monotonic()
        self.waited += now - begin
        self._last_row = run.next_call
        self._not_before = now + max(self.every.seconds, (now - begin) / MAX_SAVE_OVERHEAD)

    def _warn_of(self, what: str, error: Exception) -> None:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        self._warn(f"{self.folder}: the state of the run {what}: {reason}")

    def _restore(self, run: Run) -> None:
        clips, carry = self._newest(run.carry) if self._main else (0, None)
        clips = broadcast(clips)
        if clips:
            run.restore(clips, self._broadcast(carry if self._main else None, like=run.carry))

    def _newest(self, like: Carry) -> tuple[int, Any]:
        for row in self._states.rows():
            try:
                return self._states.read(row, like)
            except Exception as error:  # damaged by what is not a kill: the disk, another program
                self._warn_of(f"at row {row} cannot be read", error)
        return 0, None

    def _broadcast(self, values: Any, like: Any = None) -> Any:
        """The first process's arrays, in all; `like` has their shapes."""
        if self._alone:
            return values
        from jax.experimental import multihost_utils

        if like is None:
            shape = np.zeros(8, np.int32)
            if values is not None:
                shape[: values.ndim + 1] = values.ndim, *values.shape
            shape = np.asarray(multihost_utils.broadcast_one_to_all(shape))
            like = np.zeros(shape[1 : 1 + shape[0]], np.float32)
        own = like if values is None else values
        return multihost_utils.broadcast_one_to_all(jax.tree.map(np.asarray, own))

    # -- the end ---------------------------------------------------------------------------------

    def remove(self) -> None:
        """Deletes the folder: the video is complete."""
        self._close_states()
        if self._main:  # while it is still locked
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    def remove_empty(self) -> None:
        """Deletes the folder if there is nothing in it to go on from; waits for nothing."""
        if self._main and self.empty:
            shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Waits for the state that is being written, and lets other processes at the folder."""
        self._close_states()
        self._lock.release()

    def _close_states(self) -> None:
        if self._states is not None:
            states, self._states = self._states, None
            try:
                states.close()
            except Exception as error:
                self._warn_of("could not be saved", error)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Stopping(Exception):
    """Raised between two parts, once `stop` returned True."""
