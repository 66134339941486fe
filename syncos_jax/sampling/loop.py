"""The scan: one compiled loop over the calls of a call_schedule, around one call of the network.

`run_calls` is the whole of it, for any stretch of calls; `run_call` is one call. What a call's
update does
with the predictions is the `Method`'s: `syncos_jax.sampling.syncos_method` (SynCoS and its parts)
or
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
from syncos_jax.sampling.call_schedule import NetworkCall

Denoise = Callable[..., jax.Array]
"""``denoise(x, t, cond)``, or ``denoise(params, x, t, cond)`` where parameters are given:
x float32 ``[b, w, H, W, C]``, t float32 ``[b]``, cond with leading axis ``b`` -> like x."""


class Inputs(NamedTuple):
    """What the compiled program is given besides carry and call_schedule; all of it may differ
    between
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
    """`CallSchedule.constants`."""


class Method(Protocol):
    """What a sampler does around the calls of the network; frozen and hashable. `state` is a named
    tuple of its own, `update` a call of its table of updates."""

    def begin(self, state: Any, update: Any, inputs: Inputs) -> Any:
        """The state at the beginning of a update."""

    def network_input(self, state: Any, update: Any, windows: jax.Array, inputs: Inputs) -> Any:
        """Input of the network for some windows: x ``[b, w, H, W, C]``, t ``[b]`` or ``[b, w]``."""

    def skips(self, state: Any) -> jax.Array | None:
        """Whether the update's predictions are not read, so that the network is not called for them
        (they are zeros); None where they always are."""

    def num_skipped(self, state: Any) -> jax.Array | None:
        """Samples that were skipped so far; None where none ever is."""

    def finish(self, state: Any, predictions: jax.Array, update: Any, inputs: Inputs) -> Any:
        """The state after a update, given its windows' predictions ``[N, w, H, W, C]``."""

    def clean(self, state: Any) -> jax.Array:
        """The clean latent as far as it is, to look at."""

    def result(self, state: Any) -> jax.Array:
        """The clean latent, once all calls have been played."""


@dataclass(frozen=True)
class Program:
    """What is fixed when the scan is compiled."""

    denoise: Denoise
    method: Any
    """A `Method`."""
    axes: tuple[str, ...] = ()
    """Mesh axes that the samples of a call are divided over (`syncos_jax.sampling.devices`)."""


class Failure(NamedTuple):
    """The first prediction that was not finite, if there was one."""

    call: jax.Array
    """Its call, or -1; int32."""
    windows: jax.Array
    """The windows that such values were found in, in that call, bool ``[N]``."""


class Carry(NamedTuple):
    """Everything that a run keeps from call to call; with the place on the call_schedule, a
    checkpoint."""

    state: Any
    """The method's own."""
    predictions: jax.Array
    """The update's weighted predictions so far, float32 ``[N, w, H, W, C]``."""
    failure: Failure


def init_carry(state: Any, windows: int, clip_shape: tuple[int, ...]) -> Carry:
    """The carry before the first call, of a method's `state`; `clip_shape` is ``(w, H, W, C)``."""
    return Carry(
        state=state,
        predictions=jnp.zeros((windows, *clip_shape), jnp.float32),
        failure=Failure(jnp.full((), -1, jnp.int32), jnp.zeros(windows, bool)),
    )


def run_calls(
    carry: Carry,
    calls: NetworkCall,
    updates: Any,
    start: Any,
    stop: Any,
    inputs: Inputs,
    program: Program,
) -> tuple[Carry, Failure]:
    """Plays calls ``start .. stop-1`` of a call_schedule.

    The bounds are int32 arguments of the program, so that parts of every length are one
    compilation.

    Returns:
      The carry, and its `Failure` once more: small, and still there when the carry has been
      donated to the next part. Whoever waits for it waits for the part.
    """

    def body(index: jax.Array, carry: Carry) -> Carry:
        call = jax.tree.map(lambda column: column[index], calls)
        return run_call(carry, call, updates, inputs, program)

    carry = lax.fori_loop(start, stop, body, carry)
    return carry, carry.failure


def run_call(
    carry: Carry, call: NetworkCall, updates: Any, inputs: Inputs, program: Program
) -> Carry:
    """One call: begin its update, call the network on its samples, finish its update."""
    method = program.method
    update = jax.tree.map(lambda column: column[call.update], updates)
    state = lax.cond(
        call.first, lambda: method.begin(carry.state, update, inputs), lambda: carry.state
    )
    value = _unless(
        method.skips(state),
        lambda: _predict(state, update, call, inputs, program),
        (call.windows.shape[0], *carry.predictions.shape[1:]),
    )
    weights = call.weights.reshape(-1, *(1,) * (value.ndim - 1))
    so_far = jnp.where(call.first, jnp.float32(0.0), carry.predictions)
    predictions = so_far.at[call.windows].add(weights * value)
    state = lax.cond(
        call.last, lambda: method.finish(state, predictions, update, inputs), lambda: state
    )
    return Carry(state, predictions, _check(carry.failure, value, call))


def _unless(
    skip: jax.Array | None, predict: Callable[[], jax.Array], shape: tuple[int, ...]
) -> jax.Array:
    """Predictions, or zeros of that shape."""
    if skip is None:
        return predict()
    return lax.cond(skip, lambda: jnp.zeros(shape, jnp.float32), predict)


def _check(failure: Failure, value: jax.Array, call: NetworkCall) -> Failure:
    """Notes the call, and its windows, where its predictions are the first that are not finite."""
    # One read of the predictions, some millionths of what the network reads and computes.
    wrong = ~jnp.isfinite(value).all(axis=tuple(range(1, value.ndim)))
    first = wrong.any() & (failure.call < 0)
    hit = jnp.zeros_like(failure.windows).at[call.windows].max(wrong)
    return Failure(
        call=jnp.where(first, call.index, failure.call),
        windows=jnp.where(first, hit, failure.windows),
    )


def _predict(
    state: Any, update: Any, call: NetworkCall, inputs: Inputs, program: Program
) -> jax.Array:
    """The network's predictions for the call's samples, float32 ``[b, w, H, W, C]``.

    Over several devices each has an equal share of the samples, and is told the others'
    predictions.
    """
    windows, cond_index = call.windows, call.cond_index
    if program.axes:
        share = windows.shape[0] // lax.axis_size(program.axes)
        own = lax.axis_index(program.axes) * share
        windows, cond_index = (
            lax.dynamic_slice_in_dim(v, own, share) for v in (windows, cond_index)
        )
    x, t = program.method.network_input(state, update, windows, inputs)
    cond = jax.tree.map(lambda leaf: leaf[cond_index], inputs.cond)
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
