"""`sample`: a long video latent out of a model that makes short ones.

`start` gives the same run to be played in parts; `sample_batch` and `start_batch` are for several
videos of the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from syncos_jax.errors import InputError
from syncos_jax.sampling import noise
from syncos_jax.sampling.devices import REPLICATED, Parallel, Rules, Spread
from syncos_jax.sampling.run import Progress, Run, play_through
from syncos_jax.sampling.scan import Carry, Denoise, Inputs, Program, init_carry
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.settings import (
    SAMPLERS,
    CoDenoising,
    Refinement,
    RefinementOnly,
    Settings,
    SynCoS,
    TapeSettings,
    settings_from_dict,
    settings_to_dict,
)
from syncos_jax.sampling.tape import Tape, make_tape
from syncos_jax.sampling.windows import WindowLayout

__all__ = [
    "SAMPLERS",
    "CoDenoising",
    "RefinementOnly",
    "Settings",
    "SynCoS",
    "sample",
    "sample_batch",
    "start",
    "start_batch",
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
    mesh: Mesh | None = None,
    parallel: Parallel = "shard_map",
    rules: Rules = REPLICATED,
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
      progress: called as ``progress(done_rows, total_rows)`` between parts of the run, about every
        0.7 seconds. The run is then played in parts (another program, compiled once as well).
      mesh: devices (`syncos_jax.make_mesh`), over which the windows of each call are split; None
        for JAX's default device. The result does not depend on it but for rounding.
      parallel: how the devices are driven: ``"shard_map"``, or ``"pmap"`` for code built on it.
      rules: which mesh axis each axis of the arrays is split over; weights are replicated.

    Returns:
      The clean latent, float32 ``[F, H, W, C]``, in full on every device.

    Raises:
      InputError: if shapes or settings do not fit together.
      NonFiniteError: if a prediction, or the result, is not finite.
    """
    run = start(
        denoise,
        cond,
        uncond=uncond,
        params=params,
        layout=layout,
        frame_shape=frame_shape,
        schedule=schedule,
        sampler=sampler,
        key=key,
        latents=latents,
        step_noise=step_noise,
        mesh=mesh,
        parallel=parallel,
        rules=rules,
    )
    if progress is None:
        run.play()
    else:
        play_through(run, progress=progress)
    return run.latents()


def start(
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
    mesh: Mesh | None = None,
    parallel: Parallel = "shard_map",
    rules: Rules = REPLICATED,
) -> Run:
    """A run before its first row, to be played in parts: `Run.advance`, `play_through`.

    Arguments and errors are those of `sample`. Runs of the same shapes and the same `denoise`
    share one compiled program, whatever the lengths of their parts.
    """
    spread = None if mesh is None else Spread(mesh, parallel, rules)
    tape, carry, inputs, program = _prepare(
        denoise,
        cond,
        uncond,
        params,
        layout,
        frame_shape,
        schedule,
        sampler,
        key,
        latents,
        step_noise,
        () if spread is None else spread.split,
    )
    return Run([tape], carry, inputs, program, spread)


def start_batch(
    denoise: Denoise,
    conds: Sequence[Any],
    *,
    unconds: Sequence[Any] | None = None,
    params: Any = None,
    layout: WindowLayout,
    frame_shape: Sequence[int],
    schedule: NoiseSchedule,
    sampler: Settings,
    keys: Sequence[jax.Array],
    latents: Sequence[jax.Array | np.ndarray] | None = None,
    mesh: Mesh,
    rules: Rules = REPLICATED,
) -> Run:
    """A run of several videos at once, as many as the axis ``data`` of `mesh` is long.

    Each video has its own part of the devices. Arguments as in `sample`, but for `conds`,
    `unconds`, `keys` and `latents`, which have one entry a video. ``Run.latents()`` is
    ``[V, F, H, W, C]``; each equals what `sample` makes of it alone, up to rounding.

    Raises:
      InputError: as in `sample`, or if there are not as many videos.
    """
    spread = Spread(mesh, rules=rules, batched=True)
    count = spread.videos
    given = {"conds": conds, "unconds": unconds, "keys": keys, "latents": latents}
    for name, value in given.items():
        if value is not None and len(value) != count:
            raise InputError(
                f"start_batch: {name} has {len(value)} entries, but the mesh has places for "
                f"{count} videos at once (its axis {rules.video!r}); sample_batch takes any number"
            )
    parts = [
        _prepare(
            denoise,
            conds[video],
            None if unconds is None else unconds[video],
            params,
            layout,
            frame_shape,
            schedule,
            sampler,
            keys[video],
            None if latents is None else latents[video],
            None,
            spread.split,
        )
        for video in range(count)
    ]
    tapes, carries, inputs, programs = zip(*parts, strict=True)
    together = {
        name: jax.tree.map(lambda *leaves: jnp.stack(leaves), *(getattr(i, name) for i in inputs))
        for name in ("cond", "uncond", "key")
    }
    carry = jax.tree.map(lambda *leaves: jnp.stack(leaves), *carries)
    return Run(tapes, carry, inputs[0]._replace(**together), programs[0], spread)


def sample_batch(
    denoise: Denoise,
    conds: Sequence[Any],
    *,
    unconds: Sequence[Any] | None = None,
    keys: Sequence[jax.Array],
    latents: Sequence[jax.Array | np.ndarray] | None = None,
    progress: Progress | None = None,
    mesh: Mesh,
    rules: Rules = REPLICATED,
    **shared: Any,
) -> jax.Array:
    """Samples any number of videos of one shape, ``mesh.shape["data"]`` at a time.

    Args:
      denoise, conds, unconds, keys, latents, mesh, rules: as for `start_batch`, but with any
        number of entries. Where the last videos are fewer than there are places, the last one is
        computed in the free places, too.
      progress: called with (rows done, rows in all), of all videos.
      **shared: `params`, `layout`, `frame_shape`, `schedule` and `sampler`, as for `start_batch`.

    Returns:
      float32 ``[V, F, H, W, C]``.
    """
    total = len(conds)
    if total == 0 or len(keys) != total:
        raise InputError(f"sample_batch: {total} conds and {len(keys)} keys; give one of each")
    places = Spread(mesh, rules=rules, batched=True).videos
    groups = -(-total // places)
    results: list[jax.Array] = []
    for group in range(groups):
        chosen = [min(group * places + place, total - 1) for place in range(places)]
        run = start_batch(
            denoise,
            [conds[video] for video in chosen],
            unconds=None if unconds is None else [unconds[video] for video in chosen],
            keys=[keys[video] for video in chosen],
            latents=None if latents is None else [latents[video] for video in chosen],
            mesh=mesh,
            rules=rules,
            **shared,
        )
        if progress is None:
            run.play()
        else:
            play_through(run, progress=_within(progress, group, groups))
        results.append(run.latents()[: min(places, total - group * places)])
    return jnp.concatenate(results)


def _within(progress: Progress, group: int, groups: int) -> Progress:
    """Progress of one of several groups, as that of all."""
    return lambda done, total: progress(group * total + done, groups * total)


def _prepare(
    denoise: Denoise,
    cond: Any,
    uncond: Any,
    params: Any,
    layout: WindowLayout,
    frame_shape: Sequence[int],
    schedule: NoiseSchedule,
    sampler: Settings,
    key: jax.Array,
    latents: jax.Array | np.ndarray | None,
    step_noise: jax.Array | np.ndarray | None,
    split: tuple[str, ...],
) -> tuple[Tape, Carry, Inputs, Program]:
    """Checks the arguments of a run and makes what it is played from."""
    if not isinstance(sampler, TapeSettings):
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
    guided = tape.rows.guided
    if not guided.any():
        uncond = None  # would be computed for nothing
    if latents is not None:
        latents = _array("latents", latents, video_shape)
    if step_noise is not None:
        step_noise = _array("step_noise", step_noise, (_step_count(tape), *video_shape))
    program = Program(
        denoise=_hashable(denoise),
        layout=layout,
        prediction=schedule.prediction,
        ancestral=bool((tape.rows.sigma > 0).any()),
        some_unguided=uncond is not None and not guided.all(),
        few=tape.few,
        split=split,
    )
    refinement = sampler if isinstance(sampler, Refinement) else None
    inputs = Inputs(
        params=params,
        cond=jax.tree.map(jnp.asarray, cond),
        uncond=jax.tree.map(jnp.asarray, uncond),
        key=key,
        guidance=jnp.asarray(sampler.guidance, jnp.float32),
        learning_rate=jnp.asarray(refinement.learning_rate if refinement else 0, jnp.float32),
        weight_decay=jnp.asarray(refinement.weight_decay if refinement else 0, jnp.float32),
        step_noise=step_noise,
    )
    carry = init_carry(layout, frame_shape, tape.slots, key, latents)
    return tape, carry, inputs, program


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
