"""`sample`: a long video latent out of a model that makes short ones.

`start` gives the same run to be played in parts; `sample_batch` and `start_batch` are for several
videos of the same shape. `syncos_jax.sampling.pure` has the same as pure functions, for a caller's
own ``jit``, ``vmap`` and ``grad``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from syncos_jax.errors import InputError
from syncos_jax.sampling import noise
from syncos_jax.sampling.devices import make_mesh
from syncos_jax.sampling.methods import conditioned, make_method, make_tape
from syncos_jax.sampling.placement import REPLICATED, Parallel, Placement, Rules
from syncos_jax.sampling.run import Progress, Run, play_through
from syncos_jax.sampling.scan import Carry, Denoise, Inputs, Program, init_carry
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.settings import Settings
from syncos_jax.sampling.tape import Tape
from syncos_jax.sampling.windows import WindowLayout

__all__ = ["sample", "sample_batch", "start", "start_batch"]


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
    `denoise` (told apart by equality and hash: pass the same function, not a new closure). Within a
    caller's ``jit``, ``vmap`` or ``grad`` it is part of that program; then nothing is checked on
    the way, and a sampler that draws windows or timesteps at random needs
    `syncos_jax.sampling.pure.Sampling` with a seed.

    Args:
      denoise: the network, ``denoise(x, t, cond)``, or ``denoise(params, x, t, cond)`` where
        `params` is given. It must trace in JAX. x is float32 ``[n, w, H, W, C]``, t float32
        ``[n]`` (timesteps of the schedule; 1000 times the noise level for flow models; for `FIFO`
        ``[n, w]``), cond has leading axis ``n``; it returns the prediction, an array shaped like x.
      cond: conditioning of each window (for `FIFO` of each frame), a pytree of arrays with leading
        axis ``N``; None for an unconditional network.
      uncond: the negative conditioning, of the same structure, shapes and dtypes; None for no
        guidance.
      params: a pytree for `denoise`'s first argument; an argument of the compiled program.
      layout: frames of the long video and its windows.
      frame_shape: ``(H, W, C)`` of a latent frame.
      schedule: timesteps, rates, prediction type.
      sampler: settings: `SynCoS`, `CoDenoising`, `RefinementOnly` or `FIFO`.
      key: ``jax.random.key(seed)``. The result depends on it and on nothing of the machine but
        rounding.
      latents: initial noise ``[F, H, W, C]`` (of `FIFO`'s first clip: ``[w, H, W, C]``); drawn from
        `key` where None.
      step_noise: the noise that DDIM adds after each step where ``eta > 0``,
        ``[steps, F, H, W, C]``; drawn from `key` where None; not read where ``eta = 0``.
      progress: called as ``progress(done_rows, total_rows)`` between parts of the run, about every
        0.7 seconds.
      mesh: devices (`syncos_jax.make_mesh`), over which the clips of each call are divided; None
        for JAX's default device. The result does not depend on it but for rounding.
      parallel: how the devices are driven: ``"shard_map"``, or ``"pmap"`` for code built on it.
      rules: which mesh axis each axis of the arrays is split over; weights are replicated.

    Returns:
      The clean latent, float32 ``[F, H, W, C]``, in full on every device.

    Raises:
      InputError: if shapes or settings do not fit together.
      NonFiniteError: if a prediction, or the result, is not finite.
    """
    given = {
        "uncond": uncond,
        "params": params,
        "layout": layout,
        "frame_shape": frame_shape,
        "schedule": schedule,
        "sampler": sampler,
    }
    traced = jax.tree.leaves((cond, uncond, params, key, latents, step_noise))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in traced):
        from syncos_jax.sampling.pure import Sampling

        pure = Sampling(denoise, cond, **given, step_noise=step_noise)
        return pure(noise.as_key(key), latents)
    run = start(
        denoise,
        cond,
        **given,
        key=key,
        latents=latents,
        step_noise=step_noise,
        mesh=mesh,
        parallel=parallel,
        rules=rules,
    )
    if progress is None:
        run.advance()
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
    placement = Placement(mesh or default_mesh(), parallel, rules)
    _check_conditioning(cond, uncond, conditioned(layout, sampler).count)
    key = noise.as_key(key)
    tape = make_tape(
        layout,
        schedule,
        sampler,
        noise.seed_words(key),
        texts=texts_of(conditioned(layout, sampler).count, uncond),
        shares=placement.shares,
    )
    part = prepare(
        denoise,
        table_of(cond, uncond),
        tape,
        params=params,
        layout=layout,
        frame_shape=frame_shape,
        schedule=schedule,
        sampler=sampler,
        key=key,
        latents=latents,
        step_noise=step_noise,
        axes=placement.split,
    )
    return Run([part.tape], part.carry, part.inputs, part.program, placement)


def start_batch(
    denoise: Denoise,
    conds: Sequence[Any],
    *,
    unconds: Sequence[Any] | None = None,
    params: Any = None,
    layout: WindowLayout,
    frame_shape: Sequence[int],
    schedule: NoiseSchedule,
    sampler: Settings | Sequence[Settings],
    keys: Sequence[jax.Array],
    latents: Sequence[jax.Array | np.ndarray] | None = None,
    mesh: Mesh,
    rules: Rules = REPLICATED,
) -> Run:
    """A run of several videos at once, as many as the axis ``data`` of `mesh` is long.

    Each video has its own part of the devices, and plays its own tape. Arguments as in `sample`,
    but for `conds`, `unconds`, `keys` and `latents`, which have one entry a video, and `sampler`,
    which may. ``Run.latents()`` is ``[V, F, H, W, C]``; each equals what `sample` makes of it
    alone, up to rounding.

    Raises:
      InputError: as in `sample`, or if there are not as many videos, or their samplers' programs
        differ.
    """
    placement = Placement(mesh, rules=rules, batched=True)
    count = placement.videos
    samplers = [sampler] * count if isinstance(sampler, Settings) else list(sampler)
    given = {"conds": conds, "unconds": unconds, "keys": keys, "latents": latents}
    for name, value in (given | {"sampler": samplers}).items():
        if value is not None and len(value) != count:
            raise InputError(
                f"start_batch: {name} has {len(value)} entries, but the mesh has places for "
                f"{count} videos at once (its axis {rules.video!r}); sample_batch takes any number"
            )
    parts = []
    for video, settings in enumerate(samplers):
        uncond = None if unconds is None else unconds[video]
        entries = conditioned(layout, settings).count
        _check_conditioning(conds[video], uncond, entries)
        key = noise.as_key(keys[video])
        tape = make_tape(
            layout,
            schedule,
            settings,
            noise.seed_words(key),
            texts=texts_of(entries, uncond),
            shares=placement.shares,
        )
        part = prepare(
            denoise,
            table_of(conds[video], uncond),
            tape,
            params=params,
            layout=layout,
            frame_shape=frame_shape,
            schedule=schedule,
            sampler=settings,
            key=key,
            latents=None if latents is None else latents[video],
            step_noise=None,
            axes=placement.split,
        )
        parts.append(part)
    return batch_run(parts, placement)


class Part(NamedTuple):
    """One video of a `Run`."""

    tape: Tape
    carry: Carry
    inputs: Inputs
    program: Program


def batch_run(parts: Sequence[Part], placement: Placement) -> Run:
    """The run of several videos at once; InputError where their programs or tapes differ."""
    one = parts[0]
    for part in parts[1:]:
        if part.program != one.program or part.tape.structure != one.tape.structure:
            raise InputError(
                "start_batch: the videos' samplers need different programs, so that they cannot be "
                "played side by side; give those that differ in other runs"
            )
    carries, inputs = ([part.carry for part in parts], [part.inputs for part in parts])
    carry = jax.tree.map(lambda *leaves: jnp.stack(leaves), *carries)
    together = {
        name: jax.tree.map(lambda *leaves: jnp.stack(leaves), *(getattr(i, name) for i in inputs))
        for name in Inputs._fields
        if name != "params"
    }
    tapes = [part.tape for part in parts]
    return Run(tapes, carry, one.inputs._replace(**together), one.program, placement)


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
    places = Placement(mesh, rules=rules, batched=True).videos
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
            run.advance()
        else:
            play_through(run, progress=_within(progress, group, groups))
        results.append(run.latents()[: min(places, total - group * places)])
    return jnp.concatenate(results)


def _within(progress: Progress, group: int, groups: int) -> Progress:
    """Progress of one of several groups, as that of all."""
    return lambda done, total: progress(group * total + done, groups * total)


# -- what a run is made from ----------------------------------------------------------------------


def texts_of(entries: int, uncond: Any) -> list[np.ndarray]:
    """Indices into `table_of`, of the prompts and of the negative ones where there are any."""
    each = np.arange(entries, dtype=np.int32)
    return [each] if uncond is None else [each, each + entries]


def table_of(cond: Any, uncond: Any) -> Any:
    """The table of conditionings: those of `cond`, and behind them those of `uncond`."""
    if uncond is None:
        return jax.tree.map(jnp.asarray, cond)
    return jax.tree.map(
        lambda c, u: jnp.concatenate([jnp.asarray(c), jnp.asarray(u)]), cond, uncond
    )


def prepare(
    denoise: Denoise,
    table: Any,
    tape: Tape,
    *,
    params: Any,
    layout: WindowLayout,
    frame_shape: Sequence[int],
    schedule: NoiseSchedule,
    sampler: Settings,
    key: jax.Array,
    latents: Any,
    step_noise: Any,
    axes: tuple[str, ...] = (),
) -> Part:
    """What plays `tape` with the conditionings of `table`; other arguments as for `sample`."""
    shape = checked_shape(frame_shape)
    method = make_method(layout, schedule, sampler, tape)
    if latents is not None:
        frames = layout.frames if sampler.lookahead is None else layout.window
        latents = _array("latents", latents, (frames, *shape))
    if step_noise is not None:
        steps = int(tape.rounds.step.max()) + 1
        step_noise = _array("step_noise", step_noise, (steps, layout.frames, *shape))
    inputs = Inputs(params, table, key, step_noise, tape.constants)
    state = method.init(key, shape, latents)
    carry = init_carry(state, method.windows, (method.window, *shape))
    return Part(tape, carry, inputs, Program(hashable(denoise), method, axes))


def checked_shape(frame_shape: Sequence[int]) -> tuple[int, ...]:
    """``(H, W, C)`` as integers; InputError where it is none."""
    shape = tuple(int(size) for size in frame_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"sample: frame_shape must be (H, W, C), got {shape}")
    return shape


def hashable(denoise: Denoise) -> Denoise:
    """`denoise`; InputError where it is no function, or cannot be found again."""
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


def default_mesh() -> Mesh:
    """JAX's default device, as a mesh of one."""
    return make_mesh([next(iter(jnp.zeros(()).devices()))])


def _array(name: str, value: Any, shape: tuple[int, ...]) -> jax.Array:
    if np.shape(value) != shape:
        raise InputError(f"sample: {name} has shape {np.shape(value)}, expected {shape}")
    return jnp.asarray(value, jnp.float32)


def _check_conditioning(cond: Any, uncond: Any, entries: int) -> None:
    for name, tree in (("cond", cond), ("uncond", uncond)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            shape = np.shape(leaf)
            if not shape or shape[0] != entries:
                raise InputError(
                    f"sample: {name}{jax.tree_util.keystr(path)} has shape {shape}; its leading "
                    f"axis must be the {entries} windows of the layout (for FIFO, its frames)"
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
