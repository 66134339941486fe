"""States of a run in a folder: `Carry` before a network call, each one an Orbax checkpoint.

Orbax checks no values: with one bit flipped in its data files another state is restored. So every
state carries the SHA-256 of each leaf, the run it belongs to and its call, all verified on reading.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from syncos_jax.models.saved import orbax_quiet
from syncos_jax.sampling.loop import Carry

STATE, IDENTITY = "state", "identity"


class DamagedState(Exception):
    """A state that is not what was saved, or of another run."""


class States:
    """The newest two states of a run, in ``folder/CALL/``.

    Orbax writes in the background, under another name until a state is complete: what was half
    written when a process died is never read, and is removed here.

    Args:
      folder: created if missing. Only one process at a time may use it.
      run: identifies the run (`syncos_jax.pipeline.fingerprint.digest`).
    """

    def __init__(self, folder: Path, run: str) -> None:
        import orbax.checkpoint as ocp

        self.folder = folder.absolute()
        self.run = run
        self.folder.mkdir(exist_ok=True)
        for path in self.folder.iterdir():
            if not _is_call(path):
                remove_path(path)
        # Of several processes of a run only the first saves: its arrays are complete.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="syncos_jax"
        )
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
            create=False,
            cleanup_tmp_directories=False,  # done above; Orbax does it in the background
            enable_async_checkpointing=True,
            multiprocessing_options=alone,
        )
        handlers = {
            # Random-looking floats hardly shrink, and compressing them takes most of the time.
            STATE: ocp.PyTreeCheckpointHandler(
                use_compression=False, multiprocessing_options=alone
            ),
            IDENTITY: ocp.JsonCheckpointHandler(multiprocessing_options=alone),
        }
        with orbax_quiet():
            self._manager = ocp.CheckpointManager(
                self.folder, options=options, item_handlers=handlers
            )

    @property
    def busy(self) -> bool:
        """Whether the last state is still being written."""
        return self._manager.is_saving_in_progress()

    def save(self, call: int, samples: int, carry: Carry, *, wait: bool = False) -> bool:
        """Copies the state to the host and starts writing it, once the last one is written.

        Args:
          call: the next network call.
          samples: samples done, the position on a schedule with other calls (`Run.samples_done`).
          carry: the state before the call; may be donated as soon as this returns.
          wait: also wait until it is written.

        Returns:
          False if nothing was written: there is a state of this or a later call already, or the
          latent is not finite (the predictions were, but what the last optimiser step made of them
          would only show in the next call).

        Raises:
          Exception: of tensorstore's many kinds, if this state or the previous one could not be
            written.
        """
        import orbax.checkpoint as ocp

        state = _host_copy(carry)
        if not all(
            np.isfinite(value).all() for name, value in state.items() if name.startswith("state.x")
        ):
            return False
        identity = {"run": self.run, "call": call, "samples": samples, "leaves": _leaves(state)}
        identity["sha256"] = _sha256_of(identity)
        items = {
            STATE: ocp.args.PyTreeSave(state),
            IDENTITY: ocp.args.JsonSave(identity),
        }
        with orbax_quiet():
            self._manager.wait_until_finished()
            saved = self._manager.save(call, args=ocp.args.Composite(**items))
            if wait:
                self._manager.wait_until_finished()
        return bool(saved)

    def calls(self) -> list[int]:
        """The calls of the states in the folder, the newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def read(self, call: int, like: Carry) -> tuple[int, Carry]:
        """Samples done and the state before `call`, as arrays of the host, structured as `like`.

        Raises:
          DamagedState: it is not what was saved, or of another run.
          Exception: of Orbax, if it cannot be read at all.
        """
        import orbax.checkpoint as ocp

        with orbax_quiet():
            items = ocp.args.Composite(**{IDENTITY: ocp.args.JsonRestore()})
            identity = self._manager.restore(call, args=items)[IDENTITY]
        expected = _leaves(dict(zip(*_names(like)[:2], strict=True)), hashed=False)
        self._check(identity, call, expected)
        how = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in expected}
        with orbax_quiet():
            items = ocp.args.Composite(**{STATE: ocp.args.PyTreeRestore(restore_args=how)})
            state = self._manager.restore(call, args=items)[STATE]
        if _leaves(state) != identity["leaves"]:
            raise DamagedState("its data have changed since it was saved")
        names, _, structure = _names(like)
        return int(identity["samples"]), jax.tree.unflatten(structure, [state[n] for n in names])

    def _check(self, identity: Any, call: int, expected: Mapping[str, Any]) -> None:
        if not isinstance(identity, dict):
            raise DamagedState("its identity is damaged")
        rest = {key: value for key, value in identity.items() if key != "sha256"}
        if identity.get("sha256") != _sha256_of(rest):
            raise DamagedState("its identity is damaged")
        if identity["run"] != self.run:
            raise DamagedState("it belongs to another run")
        if identity["call"] != call:
            raise DamagedState(f"it is the state of call {identity['call']}")
        shapes = {name: leaf[:2] for name, leaf in identity["leaves"].items()}
        if shapes != expected:
            raise DamagedState("its arrays are not those of this run")

    def remove(self, call: int) -> bool:
        """Removes a state; returns whether it was removed.

        One that cannot be read has to go: Orbax saves no state of an earlier call, and would count
        it as one of the newest two.
        """
        removed = remove_path(self.folder / str(call))
        with orbax_quiet():
            self._manager.reload()
        return removed

    def close(self) -> None:
        """Waits until the last state is written; raises as `save`."""
        with orbax_quiet():
            self._manager.close()


def _is_call(path: Path) -> bool:
    """Whether a folder may be the state of a call: other names are leftovers, or not ours."""
    name = path.name
    plain = name.isascii() and name.isdigit() and len(name) <= 9 and str(int(name)) == name
    return plain and path.is_dir() and not path.is_symlink()


def remove_path(path: Path) -> bool:
    """Removes a file or a folder; returns whether it is not there."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return not (path.exists() or path.is_symlink())


def _leaves(state: Mapping[str, Any], *, hashed: bool = True) -> dict[str, list[Any]]:
    """dtype, shape and SHA-256 of each leaf, in plain values."""
    found: dict[str, list[Any]] = {}
    for name, value in state.items():
        found[name] = [str(value.dtype), list(value.shape)]
        if hashed:
            raw = np.ascontiguousarray(value)
            found[name].append(hashlib.sha256(raw.data.cast("B")).hexdigest())
    return found


def _sha256_of(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _names(carry: Carry) -> tuple[list[str], list[Any], Any]:
    """A name for each leaf, such as ``optimiser.0.mu``, the leaves and the structure."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(carry)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    return names, [leaf for _, leaf in leaves], structure


def _host_copy(carry: Carry) -> dict[str, np.ndarray]:
    """The leaves by name, in memory of their own: the buffers are donated to the next part, and on
    a CPU `device_get` returns those very buffers."""
    names, leaves, _ = _names(jax.device_get(carry))
    return {name: np.array(value) for name, value in zip(names, leaves, strict=True)}
