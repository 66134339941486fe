"""`sample`: a long video latent out of a model that makes short ones.

`start` gives the same run to be played in parts; `sample_batch` and `start_batch` are for several
videos of the same shape. `syncos_jax.sampling.pure` has the same as pure functions, for a caller's
own ``jit``, ``vmap`` and ``grad``.
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
from syncos_jax.sampling.arguments import (
    VideoProgram,
    check_conditioning,
    check_settings,
    cond_indices,
    conditioning_table,
    prepare,
)
from syncos_jax.sampling.devices import default_mesh
from syncos_jax.sampling.loop import Denoise, Inputs
from syncos_jax.sampling.methods import conditioning_layout, make_call_schedule
from syncos_jax.sampling.placement import REPLICATED, Parallel, Placement, Rules
from syncos_jax.sampling.pure import Sampling
from syncos_jax.sampling.run import Progress, Run, run_to_end
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout

__all__ = [
    "VideoProgram",
    "batch_run",
    "default_mesh",
    "prepare",
    "sample",
    "sample_batch",
    "start",
    "start_batch",
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
    sampler: SamplerConfig,
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

    Within a caller's ``jit``, ``vmap`` or ``grad`` it is part of that program: predictions are not
    checked on the way, `progress` and `mesh` cannot be had, and with a traced `key` a sampler that
    draws windows or timesteps needs `syncos_jax.sampling.pure.Sampling` with a seed.

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
      mesh: devices (`syncos_jax.make_mesh`), over which the samples of each call are divided; None
        for JAX's default device. The result does not depend on it but for rounding.
      parallel: how the devices are driven: ``"shard_map"``, or ``"pmap"`` for code built on it.
      rules: which mesh axis each axis of the arrays is split over; weights are replicated.

    Returns:
      The clean latent, float32 ``[F, H, W, C]``, in full on every device.

    Raises:
      InputError: if shapes or settings do not fit together.
      NonFiniteError: if a prediction, or the result, is not finite.
    """
    given: dict[str, Any] = {
        "uncond": uncond,
        "params": params,
        "layout": layout,
        "frame_shape": frame_shape,
        "schedule": schedule,
        "sampler": sampler,
        "step_noise": step_noise,
    }
    key = noise.as_key(key)
    if _traced(cond, uncond, params, key, latents, step_noise):
        if progress is not None or mesh is not None:
            raise InputError(
                "sample: within jit, vmap or grad there is no progress to report, and the devices "
                "are the caller's; leave out progress and mesh"
            )
        seed = None if _traced_value(key) else noise.seed_words(key)
        return Sampling(denoise, cond, **given, seed=seed)(key, latents)
    run = start(
        denoise,
        cond,
        **given,
        key=key,
        latents=latents,
        mesh=mesh,
        parallel=parallel,
        rules=rules,
    )
    if progress is None:
        run.advance()
    else:
        run_to_end(run, progress=progress)
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
    sampler: SamplerConfig,
    key: jax.Array,
    latents: jax.Array | np.ndarray | None = None,
    step_noise: jax.Array | np.ndarray | None = None,
    mesh: Mesh | None = None,
    parallel: Parallel = "shard_map",
    rules: Rules = REPLICATED,
) -> Run:
    """A run before its first call, to be played in parts: `Run.advance`, `run_to_end`.

    Arguments and errors are those of `sample`. Runs of the same shapes and the same `denoise`
    share one compiled program, whatever the lengths of their parts.
    """
    placement = Placement(mesh or default_mesh(), parallel, rules)
    part = _part(
        denoise,
        cond,
        uncond,
        key,
        placement,
        params=params,
        layout=layout,
        frame_shape=frame_shape,
        schedule=schedule,
        sampler=sampler,
        latents=latents,
        step_noise=step_noise,
    )
    return Run([part.call_schedule], part.carry, part.inputs, part.program, placement)


def start_batch(
    denoise: Denoise,
    conds: Sequence[Any],
    *,
    unconds: Sequence[Any] | None = None,
    params: Any = None,
    layout: WindowLayout,
    frame_shape: Sequence[int],
    schedule: NoiseSchedule,
    sampler: SamplerConfig | Sequence[SamplerConfig],
    keys: Sequence[jax.Array],
    latents: Sequence[jax.Array | np.ndarray] | None = None,
    mesh: Mesh,
    rules: Rules = REPLICATED,
) -> Run:
    """A run of several videos at once, as many as the axis ``data`` of `mesh` is long.

    Each video has its own part of the devices, and plays its own call_schedule. Arguments as in
    `sample`,
    but for `conds`, `unconds`, `keys` and `latents`, which have one entry a video, and `sampler`,
    which may. ``Run.latents()`` is ``[V, F, H, W, C]``; each equals what `sample` makes of it
    alone, up to rounding.

    Raises:
      InputError: as in `sample`, or if there are not as many videos, or their samplers' programs
        differ.
    """
    placement = Placement(mesh, rules=rules, batched=True)
    count = placement.videos
    samplers = [sampler] * count if isinstance(sampler, SamplerConfig) else list(sampler)
    given = {"conds": conds, "unconds": unconds, "keys": keys, "latents": latents}
    for name, value in (given | {"sampler": samplers}).items():
        if value is not None and len(value) != count:
            raise InputError(
                f"start_batch: {name} has {len(value)} entries, but the mesh has places for "
                f"{count} videos at once (its axis {rules.video!r}); sample_batch takes any number"
            )
    parts = [
        _part(
            denoise,
            conds[video],
            None if unconds is None else unconds[video],
            keys[video],
            placement,
            params=params,
            layout=layout,
            frame_shape=frame_shape,
            schedule=schedule,
            sampler=settings,
            latents=None if latents is None else latents[video],
            step_noise=None,
        )
        for video, settings in enumerate(samplers)
    ]
    return batch_run(parts, placement)


def _part(
    denoise: Denoise,
    cond: Any,
    uncond: Any,
    key: jax.Array,
    placement: Placement,
    *,
    layout: WindowLayout,
    schedule: NoiseSchedule,
    sampler: SamplerConfig,
    **others: Any,
) -> VideoProgram:
    """One video: its call_schedule, and what plays it; `others` as for `prepare`."""
    check_settings(sampler)
    entries = conditioning_layout(layout, sampler).count
    check_conditioning(cond, uncond, entries)
    key = noise.as_key(key)
    call_schedule = make_call_schedule(
        layout,
        schedule,
        sampler,
        noise.seed_words(key),
        cond_index=cond_indices(entries, uncond),
        num_shards=placement.num_clip_shards,
    )
    return prepare(
        denoise,
        conditioning_table(cond, uncond),
        call_schedule,
        layout=layout,
        schedule=schedule,
        sampler=sampler,
        key=key,
        axes=placement.clip_axes,
        **others,
    )


def _traced(*trees: Any) -> bool:
    """Whether this is within a caller's ``jit``, or one of the arrays within ``vmap`` or
    ``grad``."""
    return any(map(_traced_value, (jnp.zeros(()), *jax.tree.leaves(trees))))


def _traced_value(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)


def batch_run(parts: Sequence[VideoProgram], placement: Placement) -> Run:
    """The run of several videos at once; InputError where their programs or call_schedules
    differ."""
    one = parts[0]
    for part in parts[1:]:
        if (
            part.program != one.program
            or part.call_schedule.structure != one.call_schedule.structure
        ):
            raise InputError(
                "start_batch: the videos' samplers need different programs, so that they cannot be "
                "played side by side; give those that differ in other runs"
            )
        if _shapes(part) != _shapes(one):
            raise InputError(
                "start_batch: the videos' conditionings have different shapes or dtypes; give "
                "those that differ in other runs"
            )
    carries, inputs = ([part.carry for part in parts], [part.inputs for part in parts])
    carry = jax.tree.map(lambda *leaves: jnp.stack(leaves), *carries)
    together = {
        name: jax.tree.map(lambda *leaves: jnp.stack(leaves), *(getattr(i, name) for i in inputs))
        for name in Inputs._fields
        if name != "params"
    }
    call_schedules = [part.call_schedule for part in parts]
    return Run(call_schedules, carry, one.inputs._replace(**together), one.program, placement)


def _shapes(part: VideoProgram) -> tuple:
    leaves, structure = jax.tree.flatten((part.carry, part.inputs._replace(params=None)))
    return str(structure), [(leaf.shape, leaf.dtype) for leaf in leaves]


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
      progress: called with (calls done, calls in all), of all videos.
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
            run_to_end(run, progress=_within(progress, group, groups))
        results.append(run.latents()[: min(places, total - group * places)])
    return jnp.concatenate(results)


def _within(progress: Progress, group: int, groups: int) -> Progress:
    """Progress of one of several groups, as that of all."""
    return lambda done, total: progress(group * total + done, groups * total)
