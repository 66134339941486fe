"""The player: one compiled ``lax.scan`` over the rows of a tape.

The network stands in the program once, whatever the sampler. `play` is a whole run; `play_part`
any stretch of one, for runs that are watched or saved on their way. Names: ``F`` frames of the long
video, ``N`` windows, ``w`` frames of a window, ``b`` windows of a call, ``B`` windows of an
optimiser step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from syncos_jax.errors import InputError
from syncos_jax.sampling import noise
from syncos_jax.sampling.schedule import Prediction, decode
from syncos_jax.sampling.svgd import collaborative_score
from syncos_jax.sampling.tape import Begin, Row
from syncos_jax.sampling.windows import WindowLayout

Denoise = Callable[..., jax.Array]
"""``denoise(x, t, cond)``, or ``denoise(params, x, t, cond)`` where parameters are given:
x float32 ``[b, w, H, W, C]``, t float32 ``[b]``, cond with leading axis ``b`` -> like x."""


class Carry(NamedTuple):
    """Everything that a run keeps from row to row; with the place on the tape, a checkpoint."""

    x: jax.Array
    """Noisy latent ``x_t``, and after the last row the result, float32 ``[F, H, W, C]``."""
    x0: jax.Array
    """Clean latent of the step, like `x`."""
    eps: jax.Array
    """Baseline noise, like `x`."""
    optimiser: optax.OptState
    """AdamW's state for `x0`."""
    slots: jax.Array
    """The round's outputs so far, float32 ``[slots, w, H, W, C]``: clean latents of the windows
    in stage 1, noise residuals in stage 2."""
    bad: jax.Array
    """First row whose outputs had a value that is not finite, or -1; int32."""
    hit: jax.Array
    """Windows that such values were found in, in that row, bool ``[N]``."""


class Bad(NamedTuple):
    """Where a run went wrong, if it did."""

    row: jax.Array
    """As ``Carry.bad``."""
    windows: jax.Array
    """As ``Carry.hit``."""


class Inputs(NamedTuple):
    """What the compiled program is given besides carry and rows; all of it may differ between
    two runs without compiling again, as long as shapes and structure stay."""

    params: Any
    """Weights, or None where `denoise` takes none."""
    cond: Any
    """Conditioning, leading axis ``N``."""
    uncond: Any
    """The same for the negative prompt, or None: no guidance in any row."""
    key: jax.Array
    guidance: jax.Array
    learning_rate: jax.Array
    weight_decay: jax.Array
    step_noise: jax.Array | None
    """Noise that DDIM adds at each step ``[steps, F, H, W, C]``, or None: drawn from `key`."""


@dataclass(frozen=True)
class Program:
    """What is fixed when the player is compiled."""

    denoise: Denoise
    layout: WindowLayout
    prediction: Prediction
    ancestral: bool
    """Whether any row adds fresh noise (its ``sigma > 0``). Compiling one drawing of noise takes
    seconds on a CPU, more than all else that is not the network."""
    some_unguided: bool = False
    """Whether there are rows without guidance beside those with it. The network then stands in the
    program twice, once for either number of clips."""
    few: int | None = None
    """Windows of a second, smaller call (`Tape.few`), or None: all rows call the
    network on as many."""
    split: tuple[str, ...] = ()
    """Mesh axes that the windows of a row are split over (`syncos_jax.sampling.devices`)."""


def init_carry(
    layout: WindowLayout,
    frame_shape: Sequence[int],
    slots: int,
    key: jax.Array,
    latents: jax.Array | None = None,
) -> Carry:
    """The state before the first row.

    Args:
      layout: the windows.
      frame_shape: ``(H, W, C)``.
      slots: ``Tape.slots``.
      key: typed scalar key.
      latents: initial noise ``[F, H, W, C]``; drawn from `key` where None. Not donated.
    """
    if latents is None:
        latents = noise.frame_noise(
            key, noise.INITIAL, frames=layout.frames, frame_shape=tuple(frame_shape)
        )
    # Separate buffers, none of them the caller's: the player is given them for good.
    x = jnp.array(latents, jnp.float32, copy=True)
    x0 = jnp.array(latents, jnp.float32, copy=True)
    return Carry(
        x=x,
        x0=x0,
        eps=jnp.zeros_like(x),
        optimiser=_optimiser(0.0, 0.0).init(x0),
        slots=jnp.zeros((slots, layout.window, *x.shape[1:]), jnp.float32),
        bad=jnp.full((), -1, jnp.int32),
        hit=jnp.zeros(layout.count, bool),
    )


@partial(jax.jit, static_argnames="program", donate_argnames="carry")
def play(carry: Carry, rows: Row, inputs: Inputs, *, program: Program) -> Carry:
    """Plays all the rows it is given; the result stands in ``Carry.x``.

    `carry` is donated. Compiled once for each `program` and shapes, the number of rows among them.
    """
    return scan_rows(carry, rows, inputs, program)


@partial(jax.jit, static_argnames="program", donate_argnames="carry")
def play_part(
    carry: Carry,
    rows: Row,
    start: jax.Array | np.int32,
    stop: jax.Array | np.int32,
    inputs: Inputs,
    *,
    program: Program,
) -> tuple[Carry, Bad]:
    """Plays rows ``start .. stop-1`` of a whole tape's rows.

    The bounds are int32 arguments of the program, so that parts of every length are one
    compilation. `carry` is donated.

    Returns:
      The carry, and its `Bad` once more: small, and still there when the carry has been donated to
      the next part. Whoever waits for it waits for the part.
    """
    carry = loop_rows(carry, rows, start, stop, inputs, program)
    return carry, Bad(carry.bad, carry.hit)


def scan_rows(carry: Carry, rows: Row, inputs: Inputs, program: Program) -> Carry:
    """What `play` compiles."""

    def body(carry: Carry, row: Row) -> tuple[Carry, None]:
        return play_row(carry, row, inputs, program), None

    return lax.scan(body, carry, rows)[0]


def loop_rows(
    carry: Carry, rows: Row, start: Any, stop: Any, inputs: Inputs, program: Program
) -> Carry:
    """What `play_part` compiles."""

    def body(index: jax.Array, carry: Carry) -> Carry:
        row = jax.tree.map(lambda column: column[index], rows)
        return play_row(carry, row, inputs, program)

    return lax.fori_loop(start, stop, body, carry)


def play_row(carry: Carry, row: Row, inputs: Inputs, program: Program) -> Carry:
    """One row: begin, call the network on its windows, update ``x0``, resume."""
    eps = lax.cond(
        row.begin != Begin.KEEP,
        lambda: _draw(row.baseline, carry, inputs),
        lambda: carry.eps,
    )
    optimiser = lax.cond(
        row.begin == Begin.NOISE_AND_OPTIMISER,
        lambda: jax.tree.map(jnp.zeros_like, carry.optimiser),
        lambda: carry.optimiser,
    )
    outputs = window_outputs(carry, eps, row, inputs, program)
    carry = _watch(carry, outputs, row)
    carry = carry._replace(
        eps=eps,
        optimiser=optimiser,
        slots=lax.dynamic_update_slice_in_dim(carry.slots, outputs, row.slot, axis=0),
    )
    x0, optimiser = lax.switch(
        row.update,
        [
            lambda: (carry.x0, carry.optimiser),
            lambda: (_fuse(carry, program), carry.optimiser),
            lambda: _optimise(carry, row, inputs, program),
        ],
    )
    carry = carry._replace(x0=x0, optimiser=optimiser)
    x = lax.switch(
        row.resume,
        [
            lambda: carry.x,
            lambda: _resume((carry.x - row.a * x0) / row.b, carry, row, inputs, program),
            lambda: _resume(carry.eps, carry, row, inputs, program),
        ],
    )
    return carry._replace(x=x)


def _watch(carry: Carry, outputs: jax.Array, row: Row) -> Carry:
    """Notes the row, and its windows, where its outputs are the first that are not finite."""
    # One read of the outputs, some millionths of what the network reads and computes.
    wrong = ~jnp.isfinite(outputs).all(axis=(1, 2, 3, 4))
    first = wrong.any() & (carry.bad < 0)
    hit = jnp.zeros_like(carry.hit).at[row.windows].max(wrong)
    return carry._replace(
        bad=jnp.where(first, row.index, carry.bad), hit=jnp.where(first, hit, carry.hit)
    )


def window_outputs(
    carry: Carry, eps: jax.Array, row: Row, inputs: Inputs, program: Program
) -> jax.Array:
    """The row's call of the network, float32 ``[b, w, H, W, C]``.

    Clean latents (stage 1), or ``s = predicted noise - baseline noise`` (stage 2). Windows do not
    see one another here.
    """
    long = jnp.where(row.refine, row.a * carry.x0 + row.b * eps, carry.x)
    x = program.layout.gather(long, row.windows)
    value = _predict(x, row, inputs, program)
    x0_hat, eps_hat = decode(program.prediction, value, x, row.a, row.b)
    residual = eps_hat - program.layout.gather(eps, row.windows)
    return jnp.where(row.refine, residual, x0_hat)


def _predict(x: jax.Array, row: Row, inputs: Inputs, program: Program) -> jax.Array:
    """The network's prediction for the row's windows; zeros at the places that a small row has not
    got."""
    few, places = program.few, len(x)
    if few is None or few >= places:
        return _guide(x, row, inputs, program)

    def small() -> jax.Array:
        part = row._replace(windows=row.windows[:few])
        value = _guide(x[:few], part, inputs, program)
        return jnp.concatenate([value, jnp.zeros((places - few, *value.shape[1:]), value.dtype)])

    return lax.cond(row.valid[few:].any(), lambda: _guide(x, row, inputs, program), small)


def _guide(x: jax.Array, row: Row, inputs: Inputs, program: Program) -> jax.Array:
    """The network's prediction, guided where there is a negative conditioning."""
    call = _call_share if program.split else _call
    cond = jax.tree.map(lambda leaf: leaf[row.windows], inputs.cond)

    def alone() -> jax.Array:
        return call(x, cond, row, inputs, program).astype(jnp.float32)

    def guided() -> jax.Array:  # both halves in one call
        uncond = jax.tree.map(lambda leaf: leaf[row.windows], inputs.uncond)
        both = jax.tree.map(lambda c, u: jnp.concatenate([c, u]), cond, uncond)
        value = call(jnp.concatenate([x, x]), both, row, inputs, program).astype(jnp.float32)
        with_prompt, without = jnp.split(value, 2)
        return without + inputs.guidance * (with_prompt - without)

    if inputs.uncond is None:
        return alone()
    if not program.some_unguided:
        return guided()
    return lax.cond(row.guided, guided, alone)


def _call_share(batch: jax.Array, cond: Any, row: Row, inputs: Inputs, program: Program) -> Any:
    """The network on this device's share of the clips, and what the others predict for theirs.

    With guidance a window is two clips, which may fall to two devices: less stands idle where the
    devices do not divide the windows.
    """
    count = batch.shape[0]
    share = -(-count // lax.axis_size(program.split))
    # Where they do not divide the clips, the last places repeat the last clip.
    places = lax.axis_index(program.split) * share + jnp.arange(share)
    mine = jnp.minimum(places, count - 1)
    cond = jax.tree.map(lambda leaf: leaf[mine], cond)
    value = _call(batch[mine], cond, row, inputs, program)
    return lax.all_gather(value, program.split, tiled=True)[:count]


def _call(batch: jax.Array, cond: Any, row: Row, inputs: Inputs, program: Program) -> jax.Array:
    t = jnp.full(batch.shape[0], row.t, jnp.float32)
    arguments = (batch, t, cond) if inputs.params is None else (inputs.params, batch, t, cond)
    value = program.denoise(*arguments)
    if getattr(value, "shape", None) != batch.shape:
        raise InputError(
            f"denoise returned {getattr(value, 'shape', type(value).__name__)} for x of shape "
            f"{batch.shape}; it must return one array shaped like x"
        )
    return value


def _fuse(carry: Carry, program: Program) -> jax.Array:
    """Stage 1: ``x0 = fuse(x0_hat)``."""
    # A round of the refinement alone may keep fewer slots than there are windows; then no row
    # fuses, and this branch, which is compiled all the same, must only have the right shape.
    if carry.slots.shape[0] < program.layout.count:
        return carry.x0
    return program.layout.fuse(carry.slots[: program.layout.count])


def _optimise(
    carry: Carry, row: Row, inputs: Inputs, program: Program
) -> tuple[jax.Array, optax.OptState]:
    """Stage 2: one AdamW step on ``x0`` along the fused collaborative score."""
    # x0 and eps have not changed within the round, so its inputs need not be kept.
    chosen = row.chosen if row.chosen.shape[0] else None  # none written down: all of them
    x = program.layout.gather(row.a * carry.x0 + row.b * carry.eps, chosen)
    score = collaborative_score(x, carry.slots[: x.shape[0]], row.b)
    gradient = program.layout.fuse(score, chosen)
    optimiser = _optimiser(inputs.learning_rate, inputs.weight_decay)
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an int32 power
        updates, state = optimiser.update(gradient, carry.optimiser, carry.x0)
    return jnp.asarray(optax.apply_updates(carry.x0, updates)), state


def _resume(eps: jax.Array, carry: Carry, row: Row, inputs: Inputs, program: Program) -> jax.Array:
    """Stage 3: ``x' = a' x0 + sqrt(b'^2 - sigma^2) eps + sigma z``."""
    x = row.a_next * carry.x0 + row.keep * eps
    if not program.ancestral:
        return x
    if inputs.step_noise is not None:
        return x + row.sigma * inputs.step_noise[row.step]
    return x + row.sigma * _draw(row.fresh, carry, inputs)


def _draw(draw: jax.Array, carry: Carry, inputs: Inputs) -> jax.Array:
    frames, *frame_shape = carry.x.shape
    return noise.frame_noise(inputs.key, draw, frames=frames, frame_shape=tuple(frame_shape))


def _optimiser(
    learning_rate: jax.Array | float, weight_decay: jax.Array | float
) -> optax.GradientTransformation:
    return optax.adamw(learning_rate, weight_decay=weight_decay)  # type: ignore[arg-type]
