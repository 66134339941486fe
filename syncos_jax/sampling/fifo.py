"""FIFO-Diffusion as a method of the loop: diagonal denoising (Kim et al., arXiv 2405.11473).

Windows do not share a timestep here. A queue holds consecutive frames, the first almost clean, the
last pure noise, each at a timestep of its own. One iteration, an update step of the call schedule,
denoises all of them by one step, removes the first frame and appends noise at the end. The queue
starts from a clip of one window, sampled by DDIM in the first update steps and noised again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from syncos_jax.errors import InputError
from syncos_jax.sampling import noise
from syncos_jax.sampling.call_schedule import (
    MAX_SAMPLES_PER_CALL,
    CallSchedule,
    Samples,
    choose_samples_per_call,
    make_samples,
    pack,
)
from syncos_jax.sampling.known import AT_ZERO, Known, KnownRule, at_frames, noised, select
from syncos_jax.sampling.loop import Inputs
from syncos_jax.sampling.prediction import Prediction, decode
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.schedule import NoiseSchedule

_STREAM = 0xF1F0  # sets the queue's draws of noise apart from those of the clip
_QUEUE, _ENTER, _STEP = 0, 1, 2  # draws: of the first queue, of what enters it, of each iteration


class UpdateStep(NamedTuple):
    """A step of the first clip, or an iteration of the queue; in a `CallSchedule` each array has a
    leading axis of update steps."""

    step: Any
    """Denoising step of the clip; for an iteration the last step; int32."""
    t: Any
    """Timestep of the clip, or the highest in the queue; float32."""
    refine: Any
    """Always False: there is no stage 2."""
    iteration: Any
    """Iteration of the queue, from 0; -1 for the clip; int32."""
    queue: Any
    """Whether this makes the queue from the clip at its end; bool."""


class Rates(NamedTuple):
    """Rates at each slot of context and queue, float32 ``[p + S]``, from clean to noisy."""

    t: Any
    a: Any
    b: Any
    a_next: Any
    keep: Any
    sigma: Any


class State(NamedTuple):
    """What the method keeps from call to call."""

    held: jax.Array
    """Context and queue; during the first update steps the clip in its last slots; float32
    ``[p + S, H, W, C]``."""
    x: jax.Array
    """Frames that have left the queue, float32 ``[F, H, W, C]``."""


@dataclass(frozen=True)
class FIFOMethod:
    """What of the method is fixed when the loop is compiled.

    Attributes:
      frames: of the video.
      window: frames of a window ``w``.
      updated: frames ``u`` that a window updates, its last ones.
      steps: frames ``S`` in the queue, without the context in front of it.
      prediction: what the network predicts.
      ancestral: whether steps add fresh noise.
      known: how the network receives known frames; None where there are none.
      guidance_rescale: see `loop.Method`.
    """

    frames: int
    window: int
    updated: int
    steps: int
    prediction: Prediction
    ancestral: bool = False
    known: KnownRule | None = None
    guidance_rescale: float = 0.0

    @property
    def context(self) -> int:
        """Frames ``p`` in front of the queue that are context only."""
        return self.window - self.updated

    @property
    def places(self) -> int:
        """Frames ``p + S`` held in all."""
        return self.context + self.steps

    @property
    def windows(self) -> int:
        """Windows ``W`` of an iteration."""
        return self.steps // self.updated

    @property
    def iterations(self) -> int:
        """Frames that leave the queue; the first ``S - w`` are copies of the first frame."""
        return self.frames + self.steps - self.window

    def frame_of_window(self, iteration: int) -> np.ndarray:
        """The frame of the video whose prompt each window uses: the middle one of those it updates;
        int32 ``[W]``, each in ``0 .. F-1``."""
        place = np.arange(self.windows) * self.updated + self.updated // 2
        number = iteration + place - (self.steps - self.window)
        return np.clip(number, 0, self.frames - 1).astype(np.int32)

    def init(
        self,
        key: jax.Array,
        frame_shape: Sequence[int],
        latents: jax.Array | None = None,
        known: Known | None = None,
    ) -> State:
        """The state before the first update step.

        Args:
          key: typed scalar key.
          frame_shape: ``(H, W, C)``.
          latents: initial noise of the first clip ``[w, H, W, C]``; None: drawn from `key`.
          known: known frames.
        """
        shape = tuple(frame_shape)
        if latents is None:
            latents = noise.frame_noise(key, noise.INITIAL, frames=self.window, frame_shape=shape)
        clip = jnp.asarray(latents, jnp.float32)
        if known is not None:
            mask, clean = (x[: self.window] for x in (known.mask, known.latents))
            clip = noised(clip, clip, known._replace(mask=mask, latents=clean))
        held = jnp.zeros((self.places, *shape), jnp.float32)
        held = held.at[self.places - self.window :].set(clip)
        return State(held=held, x=jnp.zeros((self.frames, *shape), jnp.float32))

    def _frames(self, iteration: jax.Array, slots: jax.Array | np.ndarray) -> jax.Array:
        """Frame numbers of the video at some slots; below 0 for copies of the first frame."""
        begun = jnp.maximum(iteration, 0)
        return begun + (jnp.asarray(slots, jnp.int32) - (self.places - self.window))

    def begin(self, state: State, update: UpdateStep, inputs: Inputs) -> State:
        """Nothing: frames enter the queue at the end of an update step."""
        return state

    def network_input(
        self, state: State, update: UpdateStep, windows: jax.Array, inputs: Inputs
    ) -> Any:
        """The frames of the windows, and a timestep for each of them."""
        at = self._slots(update, windows)
        in_clip = jnp.broadcast_to(update.t, at.shape)
        x, t = state.held[at], jnp.where(update.iteration < 0, in_clip, inputs.constants.t[at])
        if self.known in AT_ZERO:
            assert inputs.known is not None
            mask, latents = at_frames(inputs.known, self._frames(update.iteration, at))
            x, t = select(mask, latents, x), jnp.where(mask, jnp.float32(0.0), t)
        return x, t

    def _slots(self, update: UpdateStep, windows: jax.Array) -> jax.Array:
        """Slots of the windows' frames ``[n, w]``."""
        in_queue = windows * self.updated
        first = jnp.where(update.iteration < 0, self.places - self.window, in_queue)
        return first[:, None] + jnp.arange(self.window, dtype=jnp.int32)[None]

    def rates(self, update: UpdateStep, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
        """Signal and noise rate of each frame of all windows ``[W, w, 1, 1, 1]``."""
        # The clip's rates at step i are those of the slot that has i steps behind it.
        slots, clip = self._slots(update, jnp.arange(self.windows)), self.places - 1 - update.step
        at = jnp.where(update.iteration < 0, clip, slots)[..., None, None, None]
        return inputs.constants.a[at], inputs.constants.b[at]

    def skips(self, state: State) -> None:
        """No update step skips the network."""

    def num_skipped(self, state: State) -> None:
        """Nothing is skipped."""

    def finish(
        self, state: State, predictions: jax.Array, update: UpdateStep, inputs: Inputs
    ) -> State:
        """One step of DDIM for the clip, or for all frames of the queue."""
        return lax.cond(
            update.iteration < 0,
            lambda: self._clip(state, predictions, update, inputs),
            lambda: self._iterate(state, predictions, update, inputs),
        )

    def clean(self, state: State) -> jax.Array:
        """Frames that have left the queue ``[F, H, W, C]``; the others are 0."""
        return state.x

    def result(self, state: State) -> jax.Array:
        """The clean latent ``[F, H, W, C]``."""
        return state.x

    def _clip(
        self, state: State, predictions: jax.Array, update: UpdateStep, inputs: Inputs
    ) -> State:
        place = self.places - 1 - update.step  # as in `rates`
        rates = jax.tree.map(lambda column: column[place], inputs.constants)
        first = self.places - self.window
        x0, eps = decode(self.prediction, predictions[0], state.held[first:], rates.a, rates.b)
        if inputs.known is not None:
            window = np.arange(first, self.places)
            mask, latents = at_frames(inputs.known, self._frames(update.iteration, window))
            x0 = select(mask, latents, x0)
            eps = select(mask, (state.held[first:] - rates.a * x0) / rates.b, eps)
        x = rates.a_next * x0 + rates.keep * eps
        if self.ancestral:
            draw = 2 * update.step.astype(jnp.uint32) + jnp.uint32(noise.ddim_draw(0))
            x = x + rates.sigma * self._noise(inputs.key, draw, state, self.window)
        held = state.held.at[first:].set(x)
        held = lax.cond(
            update.queue, lambda: self._fill(state._replace(held=held), inputs), lambda: held
        )
        return state._replace(held=held)

    def _fill(self, state: State, inputs: Inputs) -> jax.Array:
        """The first queue: the clip in the last slots, its first frame in all before; noised."""
        first = self.places - self.window
        clean = state.held[np.maximum(first, np.arange(self.places))]
        drawn = self._noise(self._stream(inputs), jnp.uint32(_QUEUE), state, self.places)
        return _each(inputs.constants.a, clean) * clean + _each(inputs.constants.b, clean) * drawn

    def _iterate(
        self, state: State, predictions: jax.Array, update: UpdateStep, inputs: Inputs
    ) -> State:
        held, context = state.held, self.context
        # The frames that each window updates; concatenated they are the queue.
        value = predictions[:, context:].reshape(-1, *held.shape[1:])
        rates = jax.tree.map(lambda column: _each(column[context:], held), inputs.constants)
        x0, eps = decode(self.prediction, value, held[context:], rates.a, rates.b)
        known = inputs.known
        if known is not None:
            slots = np.arange(context, self.places)
            mask, latents = at_frames(known, self._frames(update.iteration, slots))
            x0 = select(mask, latents, x0)
            eps = select(mask, (held[context:] - rates.a * x0) / rates.b, eps)
        queue = rates.a_next * x0 + rates.keep * eps
        stream, k = self._stream(inputs), update.iteration.astype(jnp.uint32)
        if self.ancestral:
            fresh = self._noise(stream, k + jnp.uint32(_STEP), state, self.steps)
            queue = queue + rates.sigma * fresh
        of_draw = jax.random.fold_in(stream, jnp.uint32(_ENTER))
        enters = jax.random.normal(jax.random.fold_in(of_draw, k), held.shape[1:], jnp.float32)
        if known is not None:
            number = self._frames(update.iteration, np.asarray(self.places))
            mask, latents = at_frames(known, number)
            enters = select(mask, known.a * latents + known.b * enters, enters)
        held = jnp.concatenate([held[:context], queue, enters[None]])[1:]
        # Copies that leave before the clip's own frames are overwritten by the first of these.
        place = jnp.maximum(update.iteration - (self.steps - self.window), 0)
        return State(held=held, x=state.x.at[place].set(queue[0]))

    @staticmethod
    def _stream(inputs: Inputs) -> jax.Array:
        return jax.random.fold_in(inputs.key, _STREAM)

    @staticmethod
    def _noise(key: jax.Array, draw: jax.Array, state: State, frames: int) -> jax.Array:
        return noise.frame_noise(key, draw, frames=frames, frame_shape=state.x.shape[1:])


def _each(rate: jax.Array, frames: jax.Array) -> jax.Array:
    """``[n]`` -> ``[n, 1, 1, 1]``."""
    return rate.reshape(-1, *(1,) * (frames.ndim - 1))


def fifo_schedule(schedule: NoiseSchedule) -> NoiseSchedule:
    """The schedule with exactly the requested number of steps, spread evenly from the last timestep
    to 0, as the method's authors do; frames leave the queue clean."""
    return replace(schedule, spacing="linspace", final_timestep=None, timesteps=(), sigmas=())


def make_method(
    frames: int,
    window: int,
    schedule: NoiseSchedule,
    settings: SamplerConfig,
    known: KnownRule | None = None,
) -> FIFOMethod:
    """The method of a run; `known` is the rule of the known frames, if any.

    Raises:
      InputError: if the video is shorter than a window, or lookahead is set with one-frame windows.
    """
    settings = settings.resolved()
    assert settings.steps is not None
    if frames < window:
        raise InputError(f"fifo: a video of {frames} frames is shorter than a window of {window}")
    if settings.lookahead and window < 2:
        raise InputError(
            "fifo: a window of one frame has no half to look ahead from",
            remedy="set lookahead to false",
        )
    updated = window // 2 if settings.lookahead else window
    count = max(-(-window // updated), round(settings.steps / updated))
    steps = fifo_schedule(schedule).steps(count * updated, eta=settings.eta)
    return FIFOMethod(
        frames=frames,
        window=window,
        updated=updated,
        steps=count * updated,
        prediction=schedule.prediction,
        ancestral=bool((steps.sigma > 0).any()),
        known=known,
        guidance_rescale=settings.rescales,
    )


def make_call_schedule(
    method: FIFOMethod,
    schedule: NoiseSchedule,
    settings: SamplerConfig,
    *,
    cond_index: Sequence[np.ndarray] | None = None,
    num_shards: int = 1,
) -> CallSchedule:
    """The call schedule of a run; `cond_index` as for `methods.make_call_schedule`, of each *frame*
    ``[F]``."""
    settings = settings.resolved()
    steps = fifo_schedule(schedule).steps(method.steps, eta=settings.eta)
    if cond_index is None:
        everything = np.arange(2 * method.frames, dtype=np.int32)
        cond_index = np.split(everything, 2)
    queue_times = np.pad(steps.t[::-1], (method.context, 0), mode="edge")
    updates: list[UpdateStep] = []
    samples: list[Samples] = []
    last = len(steps.t) - 1

    def add(step: int, t: float, iteration: int, frame_of_window: np.ndarray) -> None:
        of_window = [of_frame[frame_of_window] for of_frame in cond_index]
        windows = np.arange(len(frame_of_window), dtype=np.int32)
        noisiest: float | np.ndarray = t
        if iteration >= 0:  # of each window, as its network is chosen
            noisiest = queue_times[windows * method.updated + method.window - 1]
        times = np.broadcast_to(noisiest, windows.shape)
        samples.append(_samples_at(times, windows, of_window, settings))
        queue = iteration < 0 and step == last
        updates.append(
            UpdateStep(
                np.int32(step), np.float32(t), np.False_, np.int32(iteration), np.bool_(queue)
            )
        )

    middle = np.asarray([method.window // 2], np.int32)
    for i, t in enumerate(steps.t):
        add(i, t, -1, middle)
    for k in range(method.iterations):
        add(last, steps.t[0], k, method.frame_of_window(k))

    most = MAX_SAMPLES_PER_CALL
    if settings.windows_per_call is not None:  # the clip, one window, comes first
        most = settings.windows_per_call * len(samples[0].windows)
    b = choose_samples_per_call([len(c.windows) for c in samples], most, num_shards)
    calls, used = pack(samples, b)
    table = UpdateStep(*(np.stack(column) for column in zip(*updates, strict=True)))
    start = float(steps.a[0]), float(steps.b[0])
    return CallSchedule(calls, used, table, start, constants=_rates(steps, method))


def _samples_at(
    times: np.ndarray,
    windows: np.ndarray,
    cond_index: Sequence[np.ndarray],
    settings: SamplerConfig,
) -> Samples:
    """The samples of windows, each weighted as at a timestep of its own."""
    weights = [settings.sample_weights(float(t)) for t in times]
    parts = []
    for each in dict.fromkeys(weights):
        chosen = np.asarray([weight == each for weight in weights])
        parts.append(make_samples(windows[chosen], cond_index, each))
    return Samples(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _rates(steps: Any, method: FIFOMethod) -> Rates:
    keep = np.sqrt(np.maximum(steps.b_next**2 - steps.sigma**2, 0.0))
    columns = (steps.t, steps.a, steps.b, steps.a_next, keep, steps.sigma)
    # The context in front counts as noisy as the first frame of the queue, which it was before its
    # last step.
    front = [np.pad(column[::-1], (method.context, 0), mode="edge") for column in columns]
    return Rates(*(column.astype(np.float32) for column in front))
