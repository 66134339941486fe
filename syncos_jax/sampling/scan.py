"""The scan: one compiled loop over the rows of a tape, around one call of the network.

`play` is the whole of it, for any stretch of rows; `play_row` is one row. What a row's round does
with the predictions is the `Method`'s: `syncos_jax.sampling.coupled` (SynCoS and its parts) or
`syncos_jax.sampling.fifo`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from syncos_jax.errors import InputError
from syncos_jax.sampling.tape import Row

Denoise = Callable[..., jax.Array]
"""``denoise(x, t, cond)``, or ``denoise(params, x, t, cond)`` where parameters are given:
x float32 ``[b, w, H, W, C]``, t float32 ``[b]``, cond with leading axis ``b`` -> like x."""


class Inputs(NamedTuple):
    """What the compiled program is given besides carry and tape; all of it may differ between
    two runs without compiling again, as long as shapes and structure stay."""

    params: Any
    """Weights, or None where `denoise` takes none."""
    cond: Any
    """The table of conditionings, a pytree of arrays with leading axis ``K``."""
    key: jax.Array
    """Seeds the noise: a typed scalar key."""
    step_noise: jax.Array | None
    """Noise that DDIM adds at each step ``[steps, F, H, W, C]``, or None: drawn from `key`."""
    constants: Any
    """`Tape.constants`."""


class Method(Protocol):
    """What a sampler does around the calls of the network; frozen and hashable. `state` is a named
    tuple of its own, `round` a row of its table of rounds."""

    def begin(self, state: Any, round: Any, inputs: Inputs) -> Any:
        """The state at the beginning of a round."""

    def clips(self, state: Any, round: Any, windows: jax.Array, inputs: Inputs) -> Any:
        """Input of the network for some windows: x ``[b, w, H, W, C]``, t ``[b]`` or ``[b, w]``."""

    def skips(self, state: Any) -> jax.Array | None:
        """Whether the round's predictions are not read, so that the network is not called for them
        (they are zeros); None where they always are."""

    def spared(self, state: Any) -> jax.Array | None:
        """Clips that were skipped so far; None where none ever is."""

    def finish(self, state: Any, predictions: jax.Array, round: Any, inputs: Inputs) -> Any:
        """The state after a round, given its windows' predictions ``[N, w, H, W, C]``."""

    def clean(self, state: Any) -> jax.Array:
        """The clean latent as far as it is, to look at."""

    def result(self, state: Any) -> jax.Array:
        """The clean latent, once all rows have been played."""


@dataclass(frozen=True)
class Program:
    """What is fixed when the scan is compiled."""

    denoise: Denoise
    method: Any
    """A `Method`."""
    axes: tuple[str, ...] = ()
    """Mesh axes that the clips of a row are divided over (`syncos_jax.sampling.devices`)."""


class Failure(NamedTuple):
    """The first prediction that was not finite, if there was one."""

    row: jax.Array
    """Its row, or -1; int32."""
    windows: jax.Array
    """The windows that such values were found in, in that row, bool ``[N]``."""


class Carry(NamedTuple):
    """Everything that a run keeps from row to row; with the place on the tape, a checkpoint."""

    state: Any
    """The method's own."""
    predictions: jax.Array
    """The round's weighted predictions so far, float32 ``[N, w, H, W, C]``."""
    failure: Failure


def init_carry(state: Any, windows: int, clip_shape: tuple[int, ...]) -> Carry:
    """The carry before the first row, of a method's `state`; `clip_shape` is ``(w, H, W, C)``."""
    return Carry(
        state=state,
        predictions=jnp.zeros((windows, *clip_shape), jnp.float32),
        failure=Failure(jnp.full((), -1, jnp.int32), jnp.zeros(windows, bool)),
    )


def play(
    carry: Carry, rows: Row, rounds: Any, start: Any, stop: Any, inputs: Inputs, program: Program
) -> tuple[Carry, Failure]:
    """Plays rows ``start .. stop-1`` of a tape.

    The bounds are int32 arguments of the program, so that parts of every length are one
    compilation.

    Returns:
      The carry, and its `Failure` once more: small, and still there when the carry has been
      donated to the next part. Whoever waits for it waits for the part.
    """

    def body(index: jax.Array, carry: Carry) -> Carry:
        row = jax.tree.map(lambda column: column[index], rows)
        return play_row(carry, row, rounds, inputs, program)

    carry = lax.fori_loop(start, stop, body, carry)
    return carry, carry.failure


def play_row(carry: Carry, row: Row, rounds: Any, inputs: Inputs, program: Program) -> Carry:
    """One row: begin its round, call the network on its clips, finish its round."""
    method = program.method
    round = jax.tree.map(lambda column: column[row.round], rounds)
    state = lax.cond(
        row.first, lambda: method.begin(carry.state, round, inputs), lambda: carry.state
    )
    value = _unless(
        method.skips(state),
        lambda: _predict(state, round, row, inputs, program),
        (row.windows.shape[0], *carry.predictions.shape[1:]),
    )
    weights = row.weights.reshape(-1, *(1,) * (value.ndim - 1))
    so_far = jnp.where(row.first, jnp.float32(0.0), carry.predictions)
    predictions = so_far.at[row.windows].add(weights * value)
    state = lax.cond(
        row.last, lambda: method.finish(state, predictions, round, inputs), lambda: state
    )
    return Carry(state, predictions, _check(carry.failure, value, row))


def _unless(
    skip: jax.Array | None, predict: Callable[[], jax.Array], shape: tuple[int, ...]
) -> jax.Array:
    """Predictions, or zeros of that shape."""
    if skip is None:
        return predict()
    return lax.cond(skip, lambda: jnp.zeros(shape, jnp.float32), predict)


def _check(failure: Failure, value: jax.Array, row: Row) -> Failure:
    """Notes the row, and its windows, where its predictions are the first that are not finite."""
    # One read of the predictions, some millionths of what the network reads and computes.
    wrong = ~jnp.isfinite(value).all(axis=tuple(range(1, value.ndim)))
    first = wrong.any() & (failure.row < 0)
    hit = jnp.zeros_like(failure.windows).at[row.windows].max(wrong)
    return Failure(
        row=jnp.where(first, row.index, failure.row),
        windows=jnp.where(first, hit, failure.windows),
    )


def _predict(state: Any, round: Any, row: Row, inputs: Inputs, program: Program) -> jax.Array:
    """The network's predictions for the row's clips, float32 ``[b, w, H, W, C]``.

    Over several devices each has an equal share of the clips, and is told the others' predictions.
    """
    windows, texts = row.windows, row.texts
    if program.axes:
        share = windows.shape[0] // lax.axis_size(program.axes)
        own = lax.axis_index(program.axes) * share
        windows, texts = (lax.dynamic_slice_in_dim(v, own, share) for v in (windows, texts))
    x, t = program.method.clips(state, round, windows, inputs)
    cond = jax.tree.map(lambda leaf: leaf[texts], inputs.cond)
    arguments = (x, t, cond) if inputs.params is None else (inputs.params, x, t, cond)
    value = program.denoise(*arguments)
    if getattr(value, "shape", None) != x.shape:
        raise InputError(
            f"denoise returned {getattr(value, 'shape', type(value).__name__)} for x of shape "
            f"{x.shape}; it must return one array shaped like x"
        )
    value = value.astype(jnp.float32)
    if program.axes:
        value = lax.all_gather(value, program.axes, tiled=True)
    return value
