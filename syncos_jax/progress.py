"""Progress of a run from inside the compiled program.

The program carries a run's number, not its callback, so it is the same program for every run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax

Progress = Callable[[int, int], None]
"""``progress(done_rows, total_rows)``, called on the host after each row."""

_runs: dict[int, Callable[[int], None]] = {}
_numbers = itertools.count()


@contextmanager
def reporting(progress: Progress | None, total: int) -> Iterator[int]:
    """Registers `progress` for the runs inside the block; yields the number to hand to `report`.

    Waits at the end until every row has been reported. What the callback raises is raised there,
    not inside the compiled program.
    """
    number = next(_numbers) % 2**31
    if progress is None:
        yield number
        return
    furthest = 0
    failure: list[BaseException] = []

    def on_row(index: int) -> None:
        nonlocal furthest
        # Reports of different rows may overtake one another; done rows only ever grow.
        if index + 1 > furthest and not failure:
            furthest = index + 1
            try:
                progress(furthest, total)
            except BaseException as error:
                failure.append(error)

    _runs[number] = on_row
    try:
        yield number
        jax.effects_barrier()
    finally:
        del _runs[number]
    if failure:
        raise failure[0]


def report(number: jax.Array, index: jax.Array) -> None:
    """Inside a traced function: tells run `number` that row `index` is done."""
    jax.debug.callback(_dispatch, number, index)


def _dispatch(number: jax.Array, index: jax.Array) -> None:
    on_row = _runs.get(int(number))
    if on_row is not None:
        on_row(int(index))
