"""`sample`: a long video latent out of a model that makes short ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax import noise
from syncos_jax.errors import InputError
from syncos_jax.player import Denoise, Inputs, Program, init_carry, play
from syncos_jax.progress import Progress, reporting
from syncos_jax.schedule import NoiseSchedule
from syncos_jax.settings import (
    SAMPLERS,
    CoDenoising,
    Refinement,
    RefinementOnly,
    Settings,
    SynCoS,
    settings_from_dict,
    settings_to_dict,
)
from syncos_jax.tape import Tape, make_tape
from syncos_jax.windows import WindowLayout

__all__ = [
    "SAMPLERS",
    "CoDenoising",
    "RefinementOnly",
    "Settings",
    "SynCoS",
    "sample",
    "settings_from_dict",
    "settings_to_dict",
]


def sample(
    denoise: Denoise,
    cond: Any,
    *,
    uncond: Any = None,
    params: Any = None,
    layout: WindowLayout,
    frame_shape: Sequence[int],
    schedule: NoiseSchedule,
    sampler: Settings,
    key: jax.Array,
    latents: jax.Array | np.ndarray | None = None,
    step_noise: jax.Array | np.ndarray | None = None,
    progress: Progress | None = None,
) -> jax.Array:
    """Samples a long video latent.

    The whole run is one compiled program, kept for the next run of the same shapes and the same
    `denoise` (told apart by equality and hash: pass the same function, not a new closure).

    Args:
      denoise: the network, ``denoise(x, t, cond)``, or ``denoise(params, x, t, cond)`` where
        `params` is given. It must trace in JAX. x is float32 ``[n, w, H, W, C]``, t float32
        ``[n]`` (timesteps of the schedule; 1000 times the noise level for flow models), cond has
        leading axis ``n``; it returns the prediction, an array shaped like x. With `uncond`, n is
        twice the number of windows of a call: both halves of the guidance in one call.
      cond: conditioning of each window, a pytree of arrays with leading axis ``N``; None for an
        unconditional network.
      uncond: the negative conditioning, of the same structure, shapes and dtypes; None for no
        guidance.
      params: a pytree for `denoise`'s first argument; an argument of the compiled program.
      layout: frames of the long video and its windows.
      frame_shape: ``(H, W, C)`` of a latent frame.
      schedule: timesteps, rates, prediction type.
      sampler: settings: `SynCoS`, `CoDenoising` or `RefinementOnly`.
      key: ``jax.random.key(seed)``. The result depends on it and on nothing of the machine but
        rounding.
      latents: initial noise ``[F, H, W, C]``; drawn from `key` where None.
      step_noise: the noise that DDIM adds after each step where ``eta > 0``,
        ``[steps, F, H, W, C]``; drawn from `key` where None; not read where ``eta = 0``.
      progress: called as ``progress(done_rows, total_rows)`` after each row of the tape. A program
        that reports is another program than one that does not, and JAX's persistent compilation
        cache does not keep it.

    Returns:
      The clean latent, float32 ``[F, H, W, C]``.

    Raises:
      InputError: if shapes or settings do not fit together.
    """
    if not isinstance(sampler, Settings):
        raise InputError(
            f"sample: sampler must be settings such as SynCoS(steps=50), got {sampler!r}"
        )
    frame_shape = tuple(int(size) for size in frame_shape)
    if len(frame_shape) != 3 or min(frame_shape) < 1:
        raise InputError(f"sample: frame_shape must be (H, W, C), got {frame_shape}")
    key = noise.as_key(key)
    _check_conditioning(cond, uncond, layout)
    video_shape = (layout.frames, *frame_shape)
    tape = make_tape(layout, schedule, sampler, noise.seed_words(key))
    if latents is not None:
        latents = _array("latents", latents, video_shape)
    if step_noise is not None:
        step_noise = _array("step_noise", step_noise, (_step_count(tape), *video_shape))
    program = Program(
        denoise=_hashable(denoise),
        layout=layout,
        prediction=schedule.prediction,
        ancestral=bool((tape.rows.sigma > 0).any()),
        reports=progress is not None,
    )
    refinement = sampler if isinstance(sampler, Refinement) else None
    with reporting(progress, len(tape)) as run:
        inputs = Inputs(
            params=params,
            cond=jax.tree.map(jnp.asarray, cond),
            uncond=jax.tree.map(jnp.asarray, uncond),
            key=key,
            guidance=jnp.asarray(sampler.guidance, jnp.float32),
            learning_rate=jnp.asarray(refinement.learning_rate if refinement else 0, jnp.float32),
            weight_decay=jnp.asarray(refinement.weight_decay if refinement else 0, jnp.float32),
            step_noise=step_noise,
            run=jnp.asarray(run, jnp.int32),
        )
        carry = init_carry(layout, frame_shape, tape.slots, key, latents)
        return play(carry, tape.rows, inputs, program=program).x


def _step_count(tape: Tape) -> int:
    return int(tape.rows.step[-1]) + 1


def _array(name: str, value: jax.Array | np.ndarray, shape: tuple[int, ...]) -> jax.Array:
    if np.shape(value) != shape:
        raise InputError(f"sample: {name} has shape {np.shape(value)}, expected {shape}")
    return jnp.asarray(value, jnp.float32)


def _hashable(denoise: Denoise) -> Denoise:
    if not callable(denoise):
        raise InputError(f"sample: denoise must be a function, got {denoise!r}")
    try:
        hash(denoise)
    except TypeError:
        raise InputError(
            "sample: denoise cannot be hashed, so its compiled program could not be found again; "
            "pass a plain function and hand its weights over as params"
        ) from None
    return denoise


def _check_conditioning(cond: Any, uncond: Any, layout: WindowLayout) -> None:
    for name, tree in (("cond", cond), ("uncond", uncond)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            shape = np.shape(leaf)
            if not shape or shape[0] != layout.count:
                raise InputError(
                    f"sample: {name}{jax.tree_util.keystr(path)} has shape {shape}; its leading "
                    f"axis must be the {layout.count} windows of the layout"
                )
    if uncond is None:
        return
    of_cond, of_uncond = str(jax.tree.structure(cond)), str(jax.tree.structure(uncond))
    if of_cond != of_uncond:
        raise InputError(
            f"sample: uncond has structure {of_uncond}, cond {of_cond}; make them equal"
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(cond), jax.tree.leaves(uncond), strict=True)
    for (path, c), u in pairs:
        c, u = jnp.asarray(c), jnp.asarray(u)
        if c.shape != u.shape or c.dtype != u.dtype:
            raise InputError(
                f"sample: uncond{jax.tree_util.keystr(path)} is {u.dtype}{list(u.shape)}, "
                f"cond {c.dtype}{list(c.shape)}; make them equal"
            )
