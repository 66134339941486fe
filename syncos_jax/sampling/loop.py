"""The compiled loop over the network calls of a call schedule.

`run_calls` runs any stretch of calls, `run_call` one. What an update step does with the predictions
is defined by the `Method`: `syncos_jax.sampling.syncos_method` (SynCoS and its parts) or
`syncos_jax.sampling.fifo`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from syncos_jax.errors import InputError
from syncos_jax.sampling.call_schedule import NetworkCall
from syncos_jax.sampling.guidance import rescaled_guidance
from syncos_jax.sampling.known import Known

Denoise = Callable[..., jax.Array]
"""``denoise(x, t, cond)``, or ``denoise(params, x, t, cond)`` where parameters are passed:
x float32 ``[b, w, H, W, C]``, t float32 ``[b]``, cond with leading axis ``b`` -> like x."""


class Inputs(NamedTuple):
    """Arguments of the compiled program besides carry and call schedule. They may differ between
    runs of equal shapes without another compilation."""

    params: Any
    """Weights, or None where `denoise` takes none."""
    cond: Any
    """Conditioning table, a pytree of arrays with leading axis ``K``."""
    key: jax.Array
    """Typed scalar key that the noise is derived from."""
    step_noise: jax.Array | None
    """Noise that DDIM adds at each step ``[steps, F, H, W, C]``; None: drawn from `key`."""
    constants: Any
    """`CallSchedule.constants`."""
    known: Known | None = None
    """Known frames."""
    window_cond: Any = None
    """Conditioning of each window by its place, a dict of arrays with leading axis ``N``."""


class Method(Protocol):
    """What a sampler computes around the network calls; frozen and hashable. `state` is the
    method's own named tuple, `update` one row of its table of update steps."""

    def begin(self, state: Any, update: Any, inputs: Inputs) -> Any:
        """The state at the beginning of an update step."""

    def network_input(self, state: Any, update: Any, windows: jax.Array, inputs: Inputs) -> Any:
        """The network's input for some windows: x ``[b, w, H, W, C]``, t ``[b]`` or ``[b, w]``."""

    def skips(self, state: Any) -> jax.Array | None:
        """Whether the update step skips the network and takes zeros as its predictions; None: never
        in this program."""

    def num_skipped(self, state: Any) -> jax.Array | None:
        """Samples skipped so far; None where none can be."""

    @property
    def windows(self) -> int:
        """Windows ``N`` of the largest update step."""

    @property
    def window(self) -> int:
        """Frames ``w`` of a window."""

    @property
    def guidance_rescale(self) -> float:
        """Of the sampler's settings; 0 in programs that need no predictions for it."""

    def rates(self, update: Any, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
        """Signal and noise rate of what the network is given for all windows, which broadcast to
        ``[N, w, H, W, C]``."""

    def finish(self, state: Any, predictions: jax.Array, update: Any, inputs: Inputs) -> Any:
        """The state after an update step, given its predictions ``[N, w, H, W, C]``."""

    def clean(self, state: Any) -> jax.Array:
        """Current estimate of the clean latent, for previews."""

    def result(self, state: Any) -> jax.Array:
        """The clean latent after the last call."""


@dataclass(frozen=True)
class Program:
    """What is fixed when the loop is compiled.

    Attributes:
      denoise: the network.
      method: a `Method`.
      axes: mesh axes that the samples of a call are split over (`syncos_jax.sampling.devices`).
    """

    denoise: Denoise
    method: Any
    axes: tuple[str, ...] = ()


class Failure(NamedTuple):
    """The first prediction that was not finite, if any."""

    call: jax.Array
    """The network call, or -1; int32."""
    windows: jax.Array
    """Windows with NaN or Inf in that call, bool ``[N]``."""


class Carry(NamedTuple):
    """What a run keeps from call to call; with the position in the call schedule, a checkpoint."""

    state: Any
    """The method's own."""
    predictions: jax.Array
    """Weighted sum of the update step's predictions so far, float32 ``[N, w, H, W, C]``."""
    failure: Failure
    prompted: jax.Array | None = None
    """Of these predictions the ones for the prompts in the network itself; None where guidance is
    not rescaled."""


def init_carry(state: Any, method: Method, frame_shape: Sequence[int]) -> Carry:
    """The carry before the first call; `state` is the method's, `frame_shape` ``(H, W, C)``."""
    windows = method.windows
    empty = partial(jnp.zeros, (windows, method.window, *frame_shape), jnp.float32)
    return Carry(
        state=state,
        predictions=empty(),
        prompted=empty() if method.guidance_rescale else None,
        failure=Failure(jnp.full((), -1, jnp.int32), jnp.zeros(windows, bool)),
    )


def run_calls(
    carry: Carry,
    schedule: tuple[NetworkCall, Any],
    bounds: tuple[Any, Any],
    inputs: Inputs,
    program: Program,
) -> tuple[Carry, Failure]:
    """Runs the calls ``bounds[0] .. bounds[1] - 1`` of a schedule ``(calls, updates)``.

    The bounds are int32 arguments of the program, so that stretches of every length share one
    compilation.

    Returns:
      The carry, and its `Failure` again: small, and still readable when the carry has been donated
      to the next stretch.
    """
    calls, updates = schedule

    def body(index: jax.Array, carry: Carry) -> Carry:
        call = jax.tree.map(lambda column: column[index], calls)
        return run_call(carry, call, updates, inputs, program)

    carry = lax.fori_loop(*bounds, body, carry)
    return carry, carry.failure


def run_call(
    carry: Carry, call: NetworkCall, updates: Any, inputs: Inputs, program: Program
) -> Carry:
    """One call: begins its update step, calls the network, finishes the update step."""
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
    predictions = _added(carry.predictions, value, call, call.weights)
    prompted, guided = carry.prompted, lambda: predictions
    if prompted is not None:
        prompted = _added(prompted, value, call, call.prompted)
        guided = partial(_rescaled, state, predictions, prompted, update, inputs, method)
    state = lax.cond(
        call.last, lambda: method.finish(state, guided(), update, inputs), lambda: state
    )
    return Carry(state, predictions, _check(carry.failure, value, call), prompted)


def _added(so_far: jax.Array, value: jax.Array, call: NetworkCall, weights: jax.Array) -> jax.Array:
    """Predictions of the windows ``[N, ...]`` with those of a call's samples ``[b, ...]``."""
    so_far = jnp.where(call.first, jnp.float32(0.0), so_far)
    wide = weights.astype(jnp.float32).reshape(-1, *(1,) * (value.ndim - 1))
    return so_far.at[call.windows].add(wide * value)


def _rescaled(
    state: Any,
    predictions: jax.Array,
    prompted: jax.Array,
    update: Any,
    inputs: Inputs,
    method: Any,
) -> jax.Array:
    """Guided predictions whose clean latents have, in part, the unguided ones' standard deviation
    in each window."""
    x, _ = method.network_input(state, update, jnp.arange(method.windows), inputs)
    a, b = method.rates(update, inputs)
    return rescaled_guidance(
        method.prediction, method.guidance_rescale, predictions, prompted, x, a, b
    )


def _unless(
    skip: jax.Array | None, predict: Callable[[], jax.Array], shape: tuple[int, ...]
) -> jax.Array:
    """Predictions, or zeros of that shape."""
    if skip is None:
        return predict()
    return lax.cond(skip, lambda: jnp.zeros(shape, jnp.float32), predict)


def _check(failure: Failure, value: jax.Array, call: NetworkCall) -> Failure:
    """Records the call, and its windows, if its predictions are the first that are not finite."""
    # One read of the predictions: millionths of what the network reads and computes.
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

    On several devices each predicts an equal share of the samples and receives the others'.
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
    if inputs.window_cond is not None:
        by_window = jax.tree.map(lambda leaf: leaf[windows], inputs.window_cond)
        cond = {**(cond or {}), **by_window}
    arguments = (x, t, cond) if inputs.params is None else (inputs.params, x, t, cond)
    value = program.denoise(*arguments)
    shape = getattr(value, "shape", None)
    if shape != x.shape:
        raise InputError(
            f"denoise returned {shape or type(value).__name__} for x of shape {x.shape}",
            remedy="return one array shaped like x",
        )
    value = value.astype(jnp.float32)
    if program.axes:
        value = lax.all_gather(value, program.axes, tiled=True)
    return value
