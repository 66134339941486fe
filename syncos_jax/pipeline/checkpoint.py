"""Checkpoints: the state of a run in a folder, from which the same run resumes.

The folder contains

============= ====================================================================================
run.json      what the run is: scenario, sampler, seed, model, versions, kind of device
rows/CALL/    the state before that network call (`States`)
latents.npy   the clean latent, once all calls are done
latents.json  which run it belongs to, and its SHA-256; written last
lock          held by the process that writes here; released when that process ends
============= ====================================================================================

Whatever is read is verified: that it belongs to this run and is what was saved. A damaged or
half-written state is skipped with a warning, and the run resumes from the one before.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import jax
import numpy as np

from syncos_jax.errors import Argument, InputError, Terminated
from syncos_jax.files.locks import NoLocks
from syncos_jax.files.versioned import FileFormat
from syncos_jax.pipeline import saved_latents
from syncos_jax.pipeline.fingerprint import differences, digest, listed
from syncos_jax.pipeline.run_folder import (
    RUN,
    STATES,
    check_folder,
    lock_folder,
    remove_folder,
    run_folder,
)
from syncos_jax.pipeline.save_interval import MAX_SAVE_OVERHEAD, SaveInterval, parse_save_interval
from syncos_jax.pipeline.saved_latents import ABOUT_LATENTS, LATENTS
from syncos_jax.pipeline.states import States
from syncos_jax.sampling.hosts import broadcast
from syncos_jax.sampling.loop import Carry
from syncos_jax.sampling.run import PART_SECONDS, Progress, Run, run_to_end

START_OVER = ("pass ", Argument("resume", False), " to start over")
STATE = FileFormat(
    "syncos_jax.run", "the state of a run", START_OVER, remedy_version=START_OVER, version=2
)
__all__ = [
    "LATENTS",
    "RUN",
    "Checkpoint",
    "RunLocked",
    "SaveInterval",
    "parse_save_interval",
    "run_folder",
]


class RunLocked(InputError):
    """Another process has the run open."""


class Checkpoint:
    """The folder of one run, open for this process alone; a context manager.

    Of several processes of one run (``jax.distributed``) each opens it with the same arguments;
    only the first touches the folder.

    Args:
      folder: created if missing.
      run: what the run is (`Request.fingerprint`), a mapping of plain values for JSON. A folder of
        the same run resumes; one of another run is an error.
      resume: False deletes what is there of any run.
      every: how often the state is saved; None for about every 30 seconds.
      stop: called between the parts of the run; once it returns True (in one of the processes) the
        run saves its state and raises `Terminated` (in all of them, at the same call).
      warn: called with one line if a state cannot be saved (a full disk, say) or is damaged, which
        does not stop the run.

    Attributes:
      saved: number of states saved by this process.
      waited: seconds that the run stood still for them; the rest happens in the background.

    Raises:
      InputError: the folder holds another run (says what differs) or other files, another process
        uses it, or an old state cannot be deleted.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        run: Mapping[str, Any],
        *,
        resume: bool = True,
        every: SaveInterval | None = None,
        stop: Callable[[], bool] | None = None,
        warn: Callable[[str], Any] = warnings.warn,
    ) -> None:
        self.folder = Path(folder)
        self.run = json.loads(json.dumps(run, allow_nan=False))
        self.every = every or SaveInterval()
        self.saved = 0
        self.waited = 0.0
        self._digest = digest(self.run)
        self._alone = jax.process_count() == 1
        self._main = jax.process_index() == 0
        self._stop = stop
        self._warn = warn
        self._states: Any = None
        self._not_before = 0.0
        self._last_call = 0
        self._unlock: Callable[[], None] | None = None
        if not self._main:
            return
        try:
            self._open(resume)
        except BaseException:
            self._release()
            raise

    def _open(self, resume: bool) -> None:
        check_folder(self.folder)
        try:
            self._unlock = lock_folder(self.folder)
        except NoLocks:
            self._warn(f"{self.folder}: no file locks here; start no second process for this run")
        else:
            if self._unlock is None:
                raise RunLocked(
                    "another process has this run open",
                    place=self.folder,
                    remedy="wait for it, or choose another output",
                )
        old = self._read() if resume else None
        if old is None:
            self._delete()
            STATE.write(self.folder / RUN, {"run": self.run})
            return
        found = differences(old, self.run)
        if found:
            raise InputError(
                f"contains the state of another run: {listed(found)}",
                place=self.folder,
                remedy=(*START_OVER, ", or choose another output"),
            )
        damaged = saved_latents.read(self.folder, self._digest) is None
        if damaged and (self.folder / LATENTS).exists():
            self._warn(f"{self.folder}: {LATENTS} is damaged; resuming from the last state")
            self._delete(LATENTS, ABOUT_LATENTS)

    def _delete(self, *names: str) -> None:
        """Deletes files of earlier runs; raises InputError if one stays, which would be resumed."""
        for name in names or (LATENTS, ABOUT_LATENTS, STATES):
            path = self.folder / name
            try:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise InputError(
                    f"the state of an earlier run cannot be deleted: {error.strerror or error}",
                    place=path,
                    remedy="delete it, or choose another output",
                ) from error

    def _read(self) -> dict[str, Any] | None:
        """Content of run.json; None if there is none (the process died before it was written)."""
        path = self.folder / RUN
        try:
            run = STATE.read(path).get("run")
        except FileNotFoundError:
            return None
        if not isinstance(run, dict):
            raise InputError(
                place=(path, "run"), value=run, expected="a mapping", remedy=STATE.remedy
            )
        return run

    # -- latents ---------------------------------------------------------------------------------

    def latents(self) -> np.ndarray | None:
        """The clean latent of an earlier start that did all its calls, float32; None without one,
        or if it is not what was saved."""
        values = saved_latents.read(self.folder, self._digest) if self._main else None
        if not broadcast(int(values is not None)):
            return None
        return self._broadcast(values)  # the first of several processes sends it to the others

    # -- playing ---------------------------------------------------------------------------------

    def play(
        self, run: Run, progress: Progress | None = None, part_seconds: float = PART_SECONDS
    ) -> jax.Array:
        """Plays `run` to its end, from the newest state in the folder; returns `Run.latents`.

        Args:
          run: a run before its first call.
          progress, part_seconds: as for `run_to_end`; `stop` is called after each part.

        Raises:
          Terminated: `stop` returned True; the state is saved.
          NonFiniteError: a prediction is not finite; the last state is kept, and is finite.
        """
        if self._main:
            self._states = States(self.folder / STATES, self._digest)
        self._restore(run)
        self._last_call = run.next_call
        by_call = self.every.calls is not None
        self._not_before = monotonic() + self.every.seconds
        # Several processes agree after each part whether to stop, and must pause at the same calls.
        each_part = by_call or not self._alone

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
                part_seconds=0.0 if by_call else part_seconds,
            )
        except _Stopping:
            run.check()  # a part may have been dispatched beyond the reported one
            if self._main and not self._save(run, wait=True):
                raise Terminated("the last state could not be saved") from None
            raise Terminated(f"call {run.next_call} of {run.num_calls} is saved") from None
        latents = run.latents()
        if self._main:
            saved_latents.write(self.folder, self._digest, latents)
            self._close_states()
        return latents

    def newest_call(self) -> int | None:
        """The call of the newest complete state in the folder; None for none."""
        try:
            names = [path.name for path in (self.folder / STATES).iterdir()]
        except OSError:
            return None
        return max((int(name) for name in names if name.isdecimal()), default=None)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to resume from."""
        return self.newest_call() is None and not (self.folder / LATENTS).exists()

    @property
    def position(self) -> str:
        """Where the run resumes, in words."""
        if (self.folder / LATENTS).exists():
            return "with decoding: all network calls are done"
        call = self.newest_call()
        return "from the start" if call is None else f"from call {call}"

    def _stop_requested(self) -> bool:
        own = self._stop is not None and self._stop()
        if self._alone:
            return own
        from jax.experimental import multihost_utils

        return bool(np.any(multihost_utils.process_allgather(np.int32(own))))

    def _pause(self, run: Run) -> None:
        if not self._main or run.next_call == run.num_calls:  # the latents are saved instead
            return
        if self.every.calls is not None and run.next_call - self._last_call < self.every.calls:
            return
        if self.every.calls is None and monotonic() < self._not_before:
            return
        self._save(run)

    def _save(self, run: Run, wait: bool = False) -> bool:
        """Saves the state; whether it, or one of this very call, is saved."""
        if self.every.calls is None and not wait and self._states.busy:
            return False  # the disk is slower than that: rather skip one than wait
        begin = monotonic()
        saved = False
        try:
            saved = self._states.save(run.next_call, run.samples_done, run.carry, wait=wait)
        except Exception as error:  # tensorstore has no exception of its own for a full disk
            self._warn_of("the state could not be saved", error)
        self.saved += saved
        now = monotonic()
        self.waited += now - begin
        self._last_call = run.next_call
        self._not_before = now + max(self.every.seconds, (now - begin) / MAX_SAVE_OVERHEAD)
        return saved or self.newest_call() == run.next_call

    def _warn_of(self, what: str, error: Exception) -> None:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        self._warn(f"{self.folder}: {what}: {reason}")

    def _restore(self, run: Run) -> None:
        samples, carry = self._newest(run.carry) if self._main else (0, None)
        samples = broadcast(samples)
        if samples:
            run.restore(samples, self._broadcast(carry if self._main else None, like=run.carry))

    def _newest(self, like: Carry) -> tuple[int, Any]:
        for call in self._states.calls():
            try:
                return self._states.read(call, like)
            except Exception as error:  # Orbax has many kinds
                self._warn_of(f"the state at call {call} is unusable and skipped", error)
                self._states.remove(call)
        return 0, None

    def _broadcast(self, values: Any, like: Any = None) -> Any:
        """The first process's arrays, in all processes; `like` has their shapes."""
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
        if self._main:
            remove_folder(self.folder)
        self._release()

    def remove_empty(self) -> None:
        """Deletes the folder if there is nothing to resume from, without waiting."""
        if self._main and self.empty:
            remove_folder(self.folder)
        self._release()

    def close(self) -> None:
        """Waits for the state that is being written, and releases the folder."""
        self._close_states()
        self._release()

    def _release(self) -> None:
        unlock, self._unlock = self._unlock, None
        if unlock is not None:
            unlock()

    def _close_states(self) -> None:
        if self._states is not None:
            states, self._states = self._states, None
            try:
                states.close()
            except Exception as error:
                self._warn_of("the state could not be saved", error)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Stopping(Exception):
    """Raised between two parts, once `stop` returned True."""
