"""Weights that are made while they are written: a network is never in memory as a whole."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from syncos_jax.errors import InputError

_GROUP_BYTES = 2**27
"""Weights that are written at a time; as many are made meanwhile. A larger weight goes alone."""
_CHUNK_BYTES = 2**27
"""Of a weight, at most so many bytes are encoded at a time."""
_FILE_BYTES = 2**28


@dataclasses.dataclass(frozen=True)
class PendingWeight:
    """A weight that is made when its turn comes to be written.

    Attributes:
        shape: of the array.
        dtype: of the array.
        make: returns the array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def save(folder: Path, tree: Any) -> None:
    """Writes a tree of `PendingWeight` and arrays as an Orbax checkpoint of arrays.

    Raises:
        InputError: as a weight's `make`.
        Exception: what Orbax or tensorstore raise.
    """
    handler = _Handler()
    arrays = (jax.Array, ocp.type_handlers.ArrayHandler())
    registry = ocp.type_handlers.create_type_handler_registry((PendingWeight, handler), arrays)
    # Random-looking floats hardly shrink, and compressing them takes most of the time.
    writer = ocp.PyTreeCheckpointHandler(
        save_concurrent_gb=1, use_compression=False, type_handler_registry=registry
    )
    args = ocp.args.PyTreeSave(
        tree,
        save_args=jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), tree),
        ocdbt_target_data_file_size=_FILE_BYTES,
    )
    try:
        with ocp.Checkpointer(writer) as checkpointer:
            checkpointer.save(folder.absolute(), args=args)
    except BaseException as error:
        handler.stopped.set()
        if handler.refused is not None and isinstance(error, Exception):
            raise handler.refused from None
        raise


class _Written(np.ndarray):
    """An array that nobody changes any more: Orbax need not copy it."""

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> _Written:
        return self


class _Handler(ocp.type_handlers.NumpyHandler):
    """Makes and writes weights group by group."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = Event()
        self.refused: InputError | None = None

    async def serialize(
        self,
        values: Sequence[Any],
        infos: Sequence[Any],
        args: Sequence[Any] | None = None,
    ) -> Sequence[Any]:
        args = args or [ocp.SaveArgs()] * len(values)
        writing: Sequence[Any] = ()
        for group in _groups(values):
            made = await asyncio.to_thread(self._made, [values[i] for i in group])
            for written in writing:
                await asyncio.to_thread(written.result)
            chosen = [infos[i] for i in group], [args[i] for i in group]
            writing = await super().serialize(made, *chosen)
            del made
        return writing

    def _made(self, values: Sequence[PendingWeight]) -> list[np.ndarray]:
        arrays: list[np.ndarray] = []
        for value in values:
            if self.stopped.is_set():
                raise RuntimeError("stopped")
            try:
                arrays.append(value.make().view(_Written))
            except InputError as error:
                self.refused = error
                raise
        return arrays


def _groups(values: Sequence[Any]) -> list[list[int]]:
    """Indices of `values` in order, in groups of about `_GROUP_BYTES`."""
    groups: list[list[int]] = []
    held = _GROUP_BYTES
    for index, value in enumerate(values):
        if held + value.nbytes > _GROUP_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(index)
        held += value.nbytes
    return groups
