"""FIFO-Diffusion: diagonal denoising (Kim et al., arXiv 2405.11473).

Not a tape: windows do not share a timestep here. A queue holds a run of frames, the first almost
clean, the last pure noise, each at a timestep of its own. One iteration denoises all of them by one
step, takes the first frame out and puts noise in at the end. It is one ``lax.scan`` over the
iterations, with the schedule, the noise and the conditioning of all other samplers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from syncos_jax.errors import InputError
from syncos_jax.sampling import noise
from syncos_jax.sampling.run import NonFiniteError
from syncos_jax.sampling.sampler import CoDenoising, sample
from syncos_jax.sampling.scan import Denoise
from syncos_jax.sampling.schedule import NoiseSchedule, Prediction, decode
from syncos_jax.sampling.settings import Settings
from syncos_jax.sampling.windows import WindowLayout

_STREAM = 0xF1F0  # sets this file's draws of noise apart from the tape's
_QUEUE, _ENTER, _STEP = 0, 1, 2  # draws: of the first queue, of what enters it, of each iteration


@dataclass(frozen=True, kw_only=True)
class FIFO(Settings):
    """Diagonal denoising.

    Attributes:
      steps: length of the queue, which is also the number of denoising steps of a frame; rounded
        to a multiple of the frames that a window updates, and at least one window.
      eta: as in `CoDenoising`; 1 is the authors' default.
      lookahead: each window updates its noisier half and sees the cleaner half as context
        (lookahead denoising: twice the calls). False: each window updates all of its frames.
    """

    name: ClassVar[str] = "fifo"
    co_denoises: ClassVar[bool] = False

    eta: float = 1.0
    lookahead: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("eta", least=0.0, most=1.0)
        self._flag("lookahead")


@dataclass(frozen=True)
class Queue:
    """The shape of a run, known before it starts.

    Attributes:
      frames: of the video.
      window: of a window ``w``.
      updated: frames ``u`` that a window updates, its last ones.
      steps: frames ``S`` in the queue beside the context in front of it.
    """

    frames: int
    window: int
    updated: int
    steps: int

    @property
    def context(self) -> int:
        """Frames ``p`` in front of the queue that are seen but not updated."""
        return self.window - self.updated

    @property
    def windows(self) -> int:
        """Windows ``W`` of an iteration."""
        return self.steps // self.updated

    @property
    def iterations(self) -> int:
        """How often a frame leaves the queue; the first ``S - w`` are copies of the first frame."""
        return self.frames + self.steps - self.window

    @property
    def cost(self) -> int:
        """Windows predicted in all, with those of the first clip."""
        return self.iterations * self.windows + self.steps

    def frame_of_window(self) -> np.ndarray:
        """The frame of the video whose prompt each window has: the middle one of those it updates.

        Returns:
          int32 ``[iterations, W]``, each in ``0 .. frames-1``.
        """
        place = np.arange(self.windows) * self.updated + self.updated // 2
        number = np.arange(self.iterations)[:, None] + place - (self.steps - self.window)
        return np.clip(number, 0, self.frames - 1).astype(np.int32)


def make_queue(frames: int, window: int, settings: FIFO) -> Queue:
    """The queue of a run.

    Raises:
      InputError: if the video is shorter than a window, or lookahead is asked of one-frame windows.
    """
    if frames < window:
        raise InputError(f"fifo: the video has {frames} frames, fewer than one window of {window}")
    if settings.lookahead and window < 2:
        raise InputError("fifo: a window of one frame has no half to look ahead from")
    updated = window // 2 if settings.lookahead else window
    rounds = max(-(-window // updated), round(settings.steps / updated))
    return Queue(frames=frames, window=window, updated=updated, steps=rounds * updated)


def fifo_schedule(schedule: NoiseSchedule) -> NoiseSchedule:
    """The schedule with exactly as many steps as are asked for, evenly from the last timestep to 0,
    as the method's authors take them; what leaves the queue is clean."""
    return replace(schedule, spacing="linspace", final_timestep=None)


class _Rates(NamedTuple):
    """At each place of context and queue, float32 ``[p + S]``, from clean to noisy."""

    t: Any
    a: Any
    b: Any
    a_next: Any
    keep: Any
    sigma: Any


class _Inputs(NamedTuple):
    params: Any
    cond: Any
    uncond: Any
    key: jax.Array
    guidance: jax.Array
    rates: _Rates


@dataclass(frozen=True)
class _Program:
    denoise: Denoise
    queue: Queue
    prediction: Prediction
    ancestral: bool
    batch: int


def sample_fifo(
    denoise: Denoise,
    cond: Any,
    *,
    uncond: Any = None,
    params: Any = None,
    frames: int,
    window: int,
    frame_shape: tuple[int, int, int],
    schedule: NoiseSchedule,
    settings: FIFO,
    key: jax.Array,
) -> jax.Array:
    """Samples a long video latent by diagonal denoising.

    The queue starts from a clip of one window, sampled with the same network, guidance, eta and
    number of steps, and noised anew.

    Args:
      denoise: as in `sample`, but it is given a timestep for each frame: t float32 ``[n, w]``.
      cond: conditioning of each *frame*, a pytree with leading axis ``frames``. A window has that
        of the middle of the frames that it updates.
      uncond: the negative conditioning, likewise; None for no guidance.
      params: a pytree for `denoise`'s first argument.
      frames: of the video.
      window: frames of a window.
      frame_shape: ``(H, W, C)`` of a latent frame.
      schedule: rates and prediction type; see `fifo_schedule` for the timesteps taken.
      settings: the settings.
      key: ``jax.random.key(seed)``.

    Returns:
      The clean latent, float32 ``[frames, H, W, C]``.

    Raises:
      InputError: if the video is shorter than a window, or the conditioning does not have one entry
        a frame.
      NonFiniteError: if the result is not finite.
    """
    queue = make_queue(frames, window, settings)
    for tree in (cond, uncond):
        for leaf in jax.tree.leaves(tree):
            if not np.shape(leaf) or np.shape(leaf)[0] != frames:
                raise InputError(
                    f"sample_fifo: a conditioning of shape {np.shape(leaf)} must have one entry "
                    f"for each of the {frames} frames"
                )
    key = noise.as_key(key)
    schedule = fifo_schedule(schedule)
    inputs = _Inputs(
        params=params,
        cond=jax.tree.map(jnp.asarray, cond),
        uncond=jax.tree.map(jnp.asarray, uncond),
        key=jax.random.fold_in(key, _STREAM),
        guidance=jnp.asarray(settings.guidance, jnp.float32),
        rates=_rates(schedule, queue, settings.eta),
    )
    program = _Program(
        denoise=denoise,
        queue=queue,
        prediction=schedule.prediction,
        ancestral=bool((inputs.rates.sigma > 0).any()),
        batch=min(settings.batch or queue.windows, queue.windows),
    )
    clip = _first_clip(denoise, inputs, queue, frame_shape, schedule, settings, key)
    latents = _play(clip, queue.frame_of_window(), inputs, program=program)
    if not bool(jnp.isfinite(latents).all()):
        message = "fifo: the result is not finite; lower the sampler's guidance"
        raise NonFiniteError(message, queue.iterations - 1, ())
    return latents


def pipeline_latents(pipeline: Any, scenario: Any, settings: FIFO, seed: int) -> jax.Array:
    """`sample_fifo` for a `syncos_jax.pipeline.Pipeline`; like its ``latents``."""
    config = pipeline.model.config
    frames = pipeline.layout(scenario).frames
    each_frame = WindowLayout(frames=frames, window=1, stride=1)
    cond, uncond = pipeline.conditioning(scenario, each_frame)
    return sample_fifo(
        pipeline._denoiser,
        cond,
        uncond=uncond,
        params=pipeline._unet,
        frames=frames,
        window=config.window,
        frame_shape=pipeline.frame_shape(scenario),
        schedule=pipeline.model.schedule,
        settings=settings,
        key=jax.random.key(seed),
    )


def _rates(schedule: NoiseSchedule, queue: Queue, eta: float) -> _Rates:
    steps = schedule.steps(queue.steps, eta=eta)
    keep = np.sqrt(np.maximum(steps.b_next**2 - steps.sigma**2, 0.0))
    columns = (steps.t, steps.a, steps.b, steps.a_next, keep, steps.sigma)
    # The context in front is taken for as noisy as the first frame of the queue, which it was
    # before its last step.
    front = [np.pad(column[::-1], (queue.context, 0), mode="edge") for column in columns]
    return _Rates(*(column.astype(np.float32) for column in front))


def _first_clip(
    denoise: Denoise,
    inputs: _Inputs,
    queue: Queue,
    frame_shape: tuple[int, int, int],
    schedule: NoiseSchedule,
    settings: FIFO,
    key: jax.Array,
) -> jax.Array:
    middle = slice(queue.window // 2, queue.window // 2 + 1)
    cond, uncond = jax.tree.map(lambda leaf: leaf[middle], (inputs.cond, inputs.uncond))
    return sample(
        denoise,
        cond,
        uncond=uncond,
        params=inputs.params,
        layout=WindowLayout(frames=queue.window, window=queue.window, stride=queue.window),
        frame_shape=frame_shape,
        schedule=schedule,
        sampler=CoDenoising(steps=queue.steps, guidance=settings.guidance, eta=settings.eta),
        key=key,
    )


@partial(jax.jit, static_argnames="program")
def _play(
    clip: jax.Array, frame_of_window: jax.Array, inputs: _Inputs, *, program: _Program
) -> jax.Array:
    """All iterations: float32 ``[frames, H, W, C]``."""
    queue, rates = program.queue, inputs.rates
    shape = clip.shape[1:]
    draw = partial(noise.frame_noise, inputs.key, frame_shape=shape)
    # The last w places hold the clip, all in front of them its first frame.
    length = queue.context + queue.steps
    number = np.maximum(0, np.arange(length) - (length - queue.window))
    start = _each(rates.a, clip) * clip[number]
    start = start + _each(rates.b, clip) * draw(jnp.uint32(_QUEUE), frames=length)
    enters = draw(jnp.uint32(_ENTER), frames=queue.iterations)

    def iterate(held: jax.Array, now: Any) -> tuple[jax.Array, jax.Array]:
        k, of_window, new = now
        updated = _step(held, of_window, inputs, program)
        if program.ancestral:
            fresh = draw(k + jnp.uint32(_STEP), frames=queue.steps)
            updated = updated + _each(rates.sigma[queue.context :], clip) * fresh
        held = jnp.concatenate([held[: queue.context], updated, new[None]])[1:]
        return held, updated[0]

    counts = jnp.arange(queue.iterations, dtype=jnp.uint32)
    left: jax.Array = lax.scan(iterate, start, (counts, frame_of_window, enters))[1]
    return left[-queue.frames :]


def _step(held: jax.Array, of_window: jax.Array, inputs: _Inputs, program: _Program) -> jax.Array:
    """One DDIM step of the whole queue, without fresh noise: ``[S, H, W, C]``.

    All windows are predicted from the queue as it is, so their order does not matter.
    """
    queue, rates = program.queue, inputs.rates
    start = np.arange(queue.windows, dtype=np.int32) * queue.updated
    groups = -(-queue.windows // program.batch)
    spare = groups * program.batch - queue.windows

    def call(group: tuple[jax.Array, jax.Array]) -> jax.Array:
        places = group[0][:, None] + np.arange(queue.window, dtype=np.int32)[None]
        return _predict(held[places], rates_t[places], group[1], inputs, program)

    rates_t = jnp.asarray(rates.t)
    split = (groups, program.batch)
    starts = jnp.asarray(np.pad(start, (0, spare), mode="edge").reshape(split))
    texts = jnp.pad(of_window, (0, spare), mode="edge").reshape(split)
    value = lax.map(call, (starts, texts)).reshape(-1, queue.window, *held.shape[1:])
    # Of each window the frames that it updates; end to end they are the queue.
    value = value[: queue.windows, queue.context :].reshape(-1, *held.shape[1:])
    a, b, a_next, keep = (
        _each(rate[queue.context :], held) for rate in (rates.a, rates.b, rates.a_next, rates.keep)
    )
    x0, eps = decode(program.prediction, value, held[queue.context :], a, b)
    return a_next * x0 + keep * eps


def _predict(
    x: jax.Array, t: jax.Array, texts: jax.Array, inputs: _Inputs, program: _Program
) -> jax.Array:
    """One call of the network on windows ``[b, w, H, W, C]`` at timesteps ``[b, w]``."""
    cond = jax.tree.map(lambda leaf: leaf[texts], inputs.cond)
    if inputs.uncond is not None:  # both halves in one call
        uncond = jax.tree.map(lambda leaf: leaf[texts], inputs.uncond)
        cond = jax.tree.map(lambda c, u: jnp.concatenate([c, u]), cond, uncond)
        x, t = jnp.concatenate([x, x]), jnp.concatenate([t, t])
    arguments = (x, t, cond) if inputs.params is None else (inputs.params, x, t, cond)
    value = program.denoise(*arguments).astype(jnp.float32)
    if inputs.uncond is None:
        return value
    guided, unguided = jnp.split(value, 2)
    return unguided + inputs.guidance * (guided - unguided)


def _each(rate: Any, frames: jax.Array) -> jax.Array:
    """``[n]`` -> ``[n, 1, 1, 1]``."""
    return jnp.asarray(rate).reshape(-1, *(1,) * (frames.ndim - 1))
