"""States of a run in a folder: what `Carry` holds before a row, each an Orbax checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from syncos_jax.models.saved import orbax_quiet
from syncos_jax.sampling.loop import Carry

CLIPS = "clips_done"


class States:
    """The newest two states of a run, in ``folder/ROW/``.

    Orbax writes them beside the run, each under another name until it is complete: what was half
    written when a process died is never read, and is removed here.

    Args:
      folder: made where there is none. One process at a time may be at it.
    """

    def __init__(self, folder: Path) -> None:
        import orbax.checkpoint as ocp

        folder = folder.absolute()
        folder.mkdir(exist_ok=True)
        # Of several processes of a run only the first saves: its arrays are complete.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="syncos_jax"
        )
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
            create=False,
            # In the background: in a new folder it may still be looking when that is removed.
            cleanup_tmp_directories=any(folder.iterdir()),
            enable_async_checkpointing=True,
            multiprocessing_options=alone,
        )
        # Random-looking floats hardly shrink, and compressing them takes most of the time.
        handler = ocp.PyTreeCheckpointHandler(use_compression=False, multiprocessing_options=alone)
        with orbax_quiet():
            self._manager = ocp.CheckpointManager(folder, options=options, item_handlers=handler)

    @property
    def busy(self) -> bool:
        """Whether the last state is still being written."""
        return self._manager.is_saving_in_progress()

    def save(self, row: int, clips: int, carry: Carry, *, wait: bool = False) -> bool:
        """Copies the state to the host and begins to write it, once the last one is written.

        Args:
          row: the next row.
          clips: clips done, which is the place on a call schedule with other calls
          (`Run.samples_done`).
          carry: the state before the row; may be donated as soon as this returns.
          wait: also waits until it is written.

        Returns:
          False, and nothing is written, where the latent is not finite: the predictions were, but
          what the last optimiser step made of them would only show in the next row.

        Raises:
          Exception: of tensorstore's many kinds, if this state or the one before it could not be
            written.
        """
        import orbax.checkpoint as ocp

        state = _host_copy(carry) | {CLIPS: np.asarray(clips, np.int64)}
        if not all(
            np.isfinite(value).all() for name, value in state.items() if name.startswith("state.x")
        ):
            return False
        with orbax_quiet():
            self._manager.wait_until_finished()
            self._manager.save(row, args=ocp.args.PyTreeSave(state))
            if wait:
                self._manager.wait_until_finished()
        return True

    def rows(self) -> list[int]:
        """The rows that there is a state of, the newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def read(self, row: int, like: Carry) -> tuple[int, Carry]:
        """Clips done and the state before `row`, as arrays of the host, structured as `like`.

        Raises:
          Exception: if it cannot be read.
        """
        import orbax.checkpoint as ocp

        names, structure = _names(like)
        how = {n: ocp.RestoreArgs(restore_type=np.ndarray) for n in (*names, CLIPS)}
        with orbax_quiet():
            found = self._manager.restore(row, args=ocp.args.PyTreeRestore(restore_args=how))
        carry = jax.tree.unflatten(structure, [found[name] for name in names])
        return int(found[CLIPS]), carry

    def close(self) -> None:
        """Waits until the last state is written; raises as `save`."""
        with orbax_quiet():
            self._manager.close()


def _names(carry: Carry) -> tuple[list[str], Any]:
    """A name for each leaf, such as ``optimiser.0.mu``, and the structure."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(carry)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves], structure


def _host_copy(carry: Carry) -> dict[str, np.ndarray]:
    """The leaves by name, in memory of their own: the buffers are donated to the next part, and on
    a CPU what `device_get` returns are those very buffers."""
    names, _ = _names(carry)
    values = jax.tree.leaves(jax.device_get(carry))
    return {name: np.array(value) for name, value in zip(names, values, strict=True)}
