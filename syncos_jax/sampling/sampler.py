"""`sample`: a long video latent from a model that makes short ones.

`start` returns the same run to be advanced in parts; `sample_batch` and `start_batch` are for
several videos of equal shape. `syncos_jax.sampling.sampling` has the same as pure functions, for a
caller's own ``jit``, ``vmap`` and ``grad``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from syncos_jax.errors import InputError
from syncos_jax.sampling import noise
from syncos_jax.sampling.devices import default_mesh
from syncos_jax.sampling.loop import Denoise
from syncos_jax.sampling.own_settings import own_settings
from syncos_jax.sampling.placement import REPLICATED, Parallel, Placement, Rules
from syncos_jax.sampling.run import Progress, Run, VideoProgram, run_to_end
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.sampling import Array, Sampling, SamplingOptions, VideoOptions


def sample(
    denoise: Denoise,
    cond: Any,
    *,
    key: jax.Array,
    latents: Array | None = None,
    progress: Progress | None = None,
    mesh: Mesh | None = None,
    parallel: Parallel = "shard_map",
    rules: Rules = REPLICATED,
    **options: Unpack[SamplingOptions],
) -> jax.Array:
    """Samples a long video latent.

    The whole run is one compiled program, kept for the next run of equal shapes and the same
    `denoise` (compared by equality and hash: pass the same function, not a new closure).

    Within a caller's ``jit``, ``vmap`` or ``grad`` it becomes part of that program: NaN and Inf do
    not raise, `progress` and `mesh` are not available, and with a traced `key` a sampler that draws
    windows or timesteps needs `syncos_jax.Sampling` with a seed.

    Args:
      denoise: the network, ``denoise(x, t, cond)``, or ``denoise(params, x, t, cond)`` with
        `params`. It must be traceable by JAX. x is float32 ``[n, w, H, W, C]``, t float32 ``[n]``
        (timesteps of the schedule; 1000 times the noise level for flow models; for `FIFO` and for
        known frames at timestep 0 ``[n, w]``), cond has leading axis ``n``; it returns the
        prediction, an array shaped like x.
      cond: conditioning of each window (for `FIFO` of each frame), a pytree of arrays with leading
        axis ``N``; None for an unconditional network.
      key: ``jax.random.key(seed)``. The result depends on it, and on nothing of the machine except
        rounding.
      latents: initial noise ``[F, H, W, C]`` (for `FIFO` and `Chained` of the first clip:
        ``[w, H, W, C]``); None: drawn from `key`.
      progress: called as ``progress(done_calls, total_calls)`` between parts of the run, about
        every 0.7 seconds.
      mesh: devices (`syncos_jax.make_mesh`) that split the samples of each call; None: JAX's
        default device. The result does not depend on it except for rounding.
      parallel: ``"shard_map"``, or ``"pmap"`` for code built on it.
      rules: which mesh axis each axis of the arrays is split over; weights are replicated.
      layout: `WindowLayout`: frames of the long video and its windows. Required.
      frame_shape: ``(H, W, C)`` of a latent frame. Required.
      schedule: `NoiseSchedule`: timesteps, rates, prediction type. Required.
      sampler: settings such as `SynCoS` or `CoDenoising`. Required.
      params: a pytree for `denoise`'s first argument, passed to the compiled program.
      uncond: negative conditioning, with the structure, shapes and dtypes of `cond`; None: no
        guidance.
      step_noise: the noise that DDIM adds after each step if ``eta > 0``, ``[steps, F, H, W, C]``;
        None: drawn from `key`. Not read if ``eta = 0``.
      known: frames whose clean latents are given (`KnownFrames`, or a pair of latents
        ``[F, H, W, C]`` and mask ``[F]``), as in image-to-video; they are returned unchanged.
      window_cond: conditioning of each window by its place (rather than its prompt), a dict of
        arrays with leading axis ``N``; merged into the ``cond`` that `denoise` receives.

    Returns:
      The clean latent, float32 ``[F, H, W, C]``. Without `mesh` an uncommitted array like any other
      of JAX; with it in full on each of its devices and committed to them;
      ``jax.device_get(latents)`` gives an array of the host, which combines with all others.

    Raises:
      InputError: if shapes or settings do not fit together.
      NonFiniteError: if a prediction, or the result, is not finite.
    """
    if _traced(cond, dict(options), key, latents):
        if progress is not None or mesh is not None:
            raise InputError(
                "progress and mesh are not available within jit, vmap or grad",
                remedy="omit progress and mesh",
            )
        key = noise.as_key(key)
        seed = None if _traced_value(key) else noise.seed_words(key)
        return Sampling(denoise, cond, seed=seed, **options)(key, latents)
    run = _start(denoise, cond, (key, latents), (mesh, parallel, rules), options)
    if progress is None:
        run.advance()
    else:
        run_to_end(run, progress=progress)
    if mesh is not None:
        return run.latents()
    with own_settings():  # by way of the host, as nothing else makes an array uncommitted
        return jnp.asarray(jax.device_get(run.latents()))


def start(
    denoise: Denoise,
    cond: Any,
    *,
    key: jax.Array,
    latents: Array | None = None,
    mesh: Mesh | None = None,
    parallel: Parallel = "shard_map",
    rules: Rules = REPLICATED,
    **options: Unpack[SamplingOptions],
) -> Run:
    """A run before its first call, to be advanced in parts: `Run.advance`, `run_to_end`.

    Arguments and errors are those of `sample`. Runs of equal shapes and the same `denoise` share
    one compiled program, whatever the lengths of their parts.
    """
    return _start(denoise, cond, (key, latents), (mesh, parallel, rules), options)


@own_settings()
def _start(
    denoise: Denoise,
    cond: Any,
    noise_from: tuple[jax.Array, Array | None],
    where: tuple[Mesh | None, Parallel, Rules],
    options: SamplingOptions,
) -> Run:
    mesh, parallel, rules = where
    placement = Placement(mesh or default_mesh(), parallel, rules)
    return Run([_video(denoise, cond, noise_from, placement, options)], placement)


def _video(
    denoise: Denoise,
    cond: Any,
    noise_from: tuple[jax.Array, Array | None],
    placement: Placement,
    options: SamplingOptions,
) -> VideoProgram:
    """One video of a run; `noise_from`: its key, and its initial noise or None."""
    key = noise.as_key(noise_from[0])
    sampling = Sampling(
        denoise,
        cond,
        seed=noise.seed_words(key),
        num_shards=placement.num_clip_shards,
        **options,
    )
    return VideoProgram(sampling, sampling.init(key, noise_from[1]))


@own_settings()
def start_batch(
    denoise: Denoise,
    conds: Sequence[Any],
    *,
    keys: Sequence[jax.Array],
    sampler: SamplerConfig | Sequence[SamplerConfig],
    mesh: Mesh,
    rules: Rules = REPLICATED,
    each: dict[str, Sequence[Any]] | None = None,
    unconds: Sequence[Any] | None = None,
    latents: Sequence[Array] | None = None,
    **shared: Unpack[VideoOptions],
) -> Run:
    """A run of several videos at once, as many as the axis ``data`` of `mesh` is long.

    Each video has its own part of the devices and its own call schedule. ``Run.latents()`` is
    ``[V, F, H, W, C]``; each equals what `sample` makes of it alone, up to rounding.

    Args:
      denoise, mesh, rules, **shared: as for `sample`.
      conds, keys, unconds, latents: one entry per video, each as for `sample`.
      sampler: settings, or one per video.
      each: further arguments of `sample` with one entry per video, such as
        ``{"known": [...], "window_cond": [...]}``.

    Raises:
      InputError: as in `sample`, or if the number of videos is another, or their samplers need
        different programs.
    """
    placement = Placement(mesh, rules=rules, batched=True)
    count = placement.videos
    samplers = [sampler] * count if isinstance(sampler, SamplerConfig) else list(sampler)
    columns: dict[str, Sequence[Any]] = {"conds": conds, "keys": keys, "sampler": samplers}
    columns |= {"uncond": unconds} if unconds is not None else {}
    columns |= {"latents": latents} if latents is not None else {}
    columns |= each or {}
    for name, value in columns.items():
        if len(value) != count:
            raise InputError(
                f"{name} has {len(value)} entries, but the mesh has places for {count} videos at "
                f"once (its axis {rules.video!r})",
                remedy="use sample_batch for any number of videos",
            )
    videos = []
    for video in range(count):
        own = {name: value[video] for name, value in columns.items()}
        noise_from = own.pop("keys"), own.pop("latents", None)
        options: Any = {**shared, **{k: v for k, v in own.items() if k != "conds"}}
        videos.append(_video(denoise, own["conds"], noise_from, placement, options))
    return Run(videos, placement)


def sample_batch(
    denoise: Denoise,
    conds: Sequence[Any],
    *,
    keys: Sequence[jax.Array],
    sampler: SamplerConfig,
    mesh: Mesh,
    rules: Rules = REPLICATED,
    progress: Progress | None = None,
    each: dict[str, Sequence[Any]] | None = None,
    unconds: Sequence[Any] | None = None,
    latents: Sequence[Array] | None = None,
    **shared: Unpack[VideoOptions],
) -> jax.Array:
    """Samples any number of videos of equal shape, ``mesh.shape["data"]`` at a time.

    Args:
      progress: called with (calls done, calls in all), of all videos.
      denoise, conds, keys, sampler, mesh, rules, each, unconds, latents, **shared: as for
        `start_batch`, with any number of entries. If the last group has fewer videos than places,
        the last video is computed in the free places, too.

    Returns:
      float32 ``[V, F, H, W, C]``.

    Raises:
      InputError: as in `start_batch`.
      NonFiniteError: if a prediction, or a result, is not finite.
    """
    total = len(conds)
    if total == 0 or len(keys) != total:
        raise InputError(f"{total} conds and {len(keys)} keys", remedy="pass one of each per video")
    columns: dict[str, Sequence[Any]] = {"conds": conds, "keys": keys}
    columns |= {"unconds": unconds} if unconds is not None else {}
    columns |= {"latents": latents} if latents is not None else {}
    places = Placement(mesh, rules=rules, batched=True).videos
    groups = -(-total // places)
    results: list[jax.Array] = []
    for group in range(groups):
        chosen = [min(group * places + place, total - 1) for place in range(places)]
        own: Any = {name: [value[video] for video in chosen] for name, value in columns.items()}
        of_each: dict[str, Sequence[Any]] = {
            name: [value[video] for video in chosen] for name, value in (each or {}).items()
        }
        run = start_batch(
            denoise, sampler=sampler, mesh=mesh, rules=rules, each=of_each, **own, **shared
        )
        if progress is None:
            run.advance()
        else:
            run_to_end(run, progress=_within(progress, group, groups))
        with own_settings():
            results.append(run.latents()[: min(places, total - group * places)])
    with own_settings():
        return jnp.concatenate(results)


def _within(progress: Progress, group: int, groups: int) -> Progress:
    """Progress of one of several groups, as that of all."""
    return lambda done, total: progress(group * total + done, groups * total)


def _traced(*trees: Any) -> bool:
    """Whether this is within a caller's ``jit``, or one of the arrays within ``vmap`` or
    ``grad``."""
    with jax.transfer_guard_host_to_device("allow"):
        here = jnp.zeros(())
    return any(map(_traced_value, (here, *jax.tree.leaves(trees))))


def _traced_value(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)
