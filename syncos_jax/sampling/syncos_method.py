"""SynCoS and its parts as a method of the scan: the three stages.

Stage 1, temporal co-denoising; stage 2, coupled refinement; stage 3, resuming at the next timestep
(Kim et al., arXiv 2503.08605, section 4). Names: ``F`` frames of the long video, ``N`` windows,
``w`` frames of a window, ``B`` windows of an optimiser step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from syncos_jax.sampling import noise
from syncos_jax.sampling.call_schedule import CallSchedule
from syncos_jax.sampling.loop import Inputs
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.schedule import NoiseSchedule, Prediction, decode
from syncos_jax.sampling.solver_choice import timesteps_for
from syncos_jax.sampling.step_cache import Reuse, begin_reuse, computed, decide
from syncos_jax.sampling.svgd import collaborative_score
from syncos_jax.sampling.windows import WindowLayout


class UpdateStep(NamedTuple):
    """A pass over all windows (stage 1) or one optimiser step (stage 2); on a `CallSchedule`
    each array
    has the updates as an axis in front."""

    step: Any
    """Denoising step, int32."""
    t: Any
    """Timestep given to the network, float32."""
    a: Any
    """Signal rate at `t`, float32."""
    b: Any
    """Noise rate at `t`, float32."""
    refine: Any
    """False for stage 1, True for stage 2; bool."""
    draw: Any
    """Whether to draw a new baseline noise before the update, bool."""
    baseline: Any
    """Draw number of that noise (`syncos_jax.sampling.noise`), uint32."""
    restart: Any
    """Whether to start the optimiser anew before the update, bool."""
    learning_rate: Any
    """Of AdamW, float32."""
    weight_decay: Any
    """Of AdamW, float32."""
    chosen: Any
    """All windows of the optimiser step, int32 ``[B]``."""
    resume: Any
    """Whether the update ends its step: go on to the next timestep (stage 3); bool."""
    a_next: Any
    """Signal rate to resume at, float32."""
    keep: Any
    """Rate of the kept noise in the resumed latent, ``sqrt(b_next^2 - sigma^2)``, float32."""
    sigma: Any
    """Rate of the fresh noise in the resumed latent, float32."""
    fresh: Any
    """Draw number of the fresh noise, uint32."""
    renoise: Any
    """Whether the step resumes with the baseline noise or with fresh noise, not by the solver;
    bool."""
    reuse: Any
    """Foretold change of the noise below which stage 1 is not computed (`SamplerConfig.reuse`),
    0 where
    it always is; float32."""
    samples: Any
    """Predictions of the update, int32."""
    x_coef: Any
    """The solver's coefficient of the noisy latent, float32; not read of DDIM."""
    x0_coefs: Any
    """The solver's coefficients of the clean latents of this step and of those before, newest
    first, float32 ``[1 + history]``; not read of DDIM."""


class State(NamedTuple):
    """What the method keeps from call to call."""

    x: jax.Array
    """Noisy latent ``x_t``, and after the last call the result, float32 ``[F, H, W, C]``."""
    x0: jax.Array
    """Clean latent of the step, like `x`."""
    eps: jax.Array
    """Baseline noise, like `x`."""
    optimiser: optax.OptState
    """AdamW's state for `x0`."""
    past: tuple[jax.Array, ...] = ()
    """Clean latents of the steps before, newest first, as many as the solver reads; like `x`."""
    reuse: Reuse | None = None
    """What passes that may be left out are decided by; None where all are computed."""


@dataclass(frozen=True)
class SynCoSMethod:
    """The method, as far as it is fixed when the scan is compiled.

    Attributes:
      layout: the windows.
      prediction: what the network predicts.
      ancestral: whether any step adds fresh noise (its ``sigma > 0``). Compiling one drawing of
        noise takes seconds on a CPU, more than all else that is not the network.
      refines: whether there can be a stage 2 (in a run that has none it costs nothing but the
        compilation, and runs of all strengths are one program).
      shuffled: whether frames beyond the first window begin with noise of its frames.
      history: clean latents of earlier steps that the solver reads; None for DDIM, which goes on
        with the noise that it implies (as the others do too, but not in the same rounding).
      start: standard deviation of the noise that a run starts from.
      reuses: whether a pass may be left out.
    """

    layout: WindowLayout
    prediction: Prediction
    ancestral: bool
    refines: bool
    shuffled: bool = False
    history: int | None = None
    start: float = 1.0
    reuses: bool = False

    @property
    def windows(self) -> int:
        """Windows of the longest update."""
        return self.layout.count

    @property
    def window(self) -> int:
        """Frames of a window."""
        return self.layout.window

    def init(
        self, key: jax.Array, frame_shape: Sequence[int], latents: jax.Array | None = None
    ) -> State:
        """The state before the first update; `latents`: initial noise ``[F, H, W, C]`` or None."""
        if latents is None:
            latents = self._initial(key, tuple(frame_shape))
        # Separate buffers, none of them the caller's: the scan is given them for good.
        x = jnp.array(latents, jnp.float32, copy=True)
        if self.start != 1.0:
            x = x * jnp.float32(self.start)
        x0 = jnp.array(latents, jnp.float32, copy=True)
        past = tuple(jnp.zeros_like(x) for _ in range(self.history or 0))
        optimiser = _adamw(0.0, 0.0).init(x0)
        reuse = begin_reuse(x) if self.reuses else None
        eps = jnp.zeros_like(x)
        return State(x=x, x0=x0, eps=eps, optimiser=optimiser, past=past, reuse=reuse)

    def _initial(self, key: jax.Array, frame_shape: tuple[int, ...]) -> jax.Array:
        layout = self.layout
        if not self.shuffled:
            return noise.frame_noise(
                key, noise.INITIAL, frames=layout.frames, frame_shape=frame_shape
            )
        clip = noise.frame_noise(key, noise.INITIAL, frames=layout.window, frame_shape=frame_shape)
        window, stride = layout.window, layout.stride
        order = noise.shuffled_frames(key, frames=layout.frames, window=window, stride=stride)
        return clip[order]

    def begin(self, state: State, update: UpdateStep, inputs: Inputs) -> State:
        """Stage 2: the baseline noise and the optimiser, where the update begins a refinement.
        Stage 1: whether it is computed."""
        if state.reuse is not None:
            reuse = decide(state.reuse, state.x, state.eps, update.reuse, update.samples)
            state = state._replace(reuse=reuse)
        if not self.refines:
            return state
        eps = lax.cond(
            update.draw, lambda: _draw(update.baseline, state, inputs), lambda: state.eps
        )
        optimiser = jax.tree.map(
            lambda leaf: jnp.where(update.restart, jnp.zeros_like(leaf), leaf), state.optimiser
        )
        return state._replace(eps=eps, optimiser=optimiser)

    def network_input(
        self, state: State, update: UpdateStep, windows: jax.Array, inputs: Inputs
    ) -> Any:
        """``x_t`` of the windows: the noisy latent's (stage 1) or ``a x0 + b eps`` (stage 2)."""
        long = jnp.where(update.refine, update.a * state.x0 + update.b * state.eps, state.x)
        return self.layout.gather(long, windows), jnp.full(windows.shape, update.t, jnp.float32)

    def skips(self, state: State) -> jax.Array | None:
        """Whether the network is not called in the update; None where it always is."""
        return None if state.reuse is None else state.reuse.skip

    def num_skipped(self, state: State) -> jax.Array | None:
        """Samples that were not predicted so far; None where all are."""
        return None if state.reuse is None else state.reuse.num_skipped

    def finish(
        self, state: State, predictions: jax.Array, update: UpdateStep, inputs: Inputs
    ) -> State:
        """The clean latent anew, and with it the noisy latent of the next timestep."""
        if self.refines:
            state = lax.cond(
                update.refine,
                lambda: self._refine(state, predictions, update),
                lambda: self._co_denoise(state, predictions, update),
            )
        else:
            state = self._co_denoise(state, predictions, update)
        return lax.cond(update.resume, lambda: self._resume(state, update, inputs), lambda: state)

    def clean(self, state: State) -> jax.Array:
        """The clean latent as far as it is, ``[F, H, W, C]``."""
        return state.x0

    def result(self, state: State) -> jax.Array:
        """The clean latent ``[F, H, W, C]``."""
        return state.x

    def _co_denoise(self, state: State, predictions: jax.Array, update: UpdateStep) -> State:
        """Stage 1: ``x0 = fuse(x0_hat)``, and the noise that DDIM implies, ``(x - a x0) / b``."""
        # x0_hat is linear in x and the prediction, with factors that are the same in all windows:
        # fused after decoding or before is the same.
        x0, _ = decode(self.prediction, self.layout.fuse(predictions), state.x, update.a, update.b)
        eps, reuse = (state.x - update.a * x0) / update.b, state.reuse
        if reuse is not None:
            x0 = jnp.where(reuse.skip, (state.x - update.b * state.eps) / update.a, x0)
            eps = jnp.where(reuse.skip, state.eps, eps)
            after = computed(reuse, state.x, eps, state.eps)
            reuse = jax.tree.map(partial(jnp.where, reuse.skip), reuse, after)
        return state._replace(x0=x0, eps=eps, reuse=reuse)

    def _refine(self, state: State, predictions: jax.Array, update: UpdateStep) -> State:
        """Stage 2: one AdamW step on ``x0`` along the fused collaborative score."""
        # Where all windows are chosen they are in order already, and need no copy in that order.
        chosen = None if len(update.chosen) == self.layout.count else update.chosen
        eps = self.layout.gather(state.eps, chosen)
        x = self.layout.gather(update.a * state.x0 + update.b * state.eps, chosen)
        value = predictions if chosen is None else predictions[chosen]
        _, eps_hat = decode(self.prediction, value, x, update.a, update.b)
        score = collaborative_score(x, eps_hat - eps, update.b)
        gradient = self.layout.fuse(score, chosen)
        optimiser = _adamw(update.learning_rate, update.weight_decay)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an int32 power
            updates, moments = optimiser.update(gradient, state.optimiser, state.x0)
        x0 = jnp.asarray(optax.apply_updates(state.x0, updates))
        return state._replace(x0=x0, optimiser=moments)

    def _resume(self, state: State, update: UpdateStep, inputs: Inputs) -> State:
        """Stage 3: ``x' = a' x0 + sqrt(b'^2 - sigma^2) eps + sigma z``, or the solver's step."""
        x = update.a_next * state.x0 + update.keep * state.eps
        past = state.past
        if self.history is not None:
            held = (state.x0, *past)
            solved = update.x_coef * state.x
            for k, clean in enumerate(held):
                solved = solved + update.x0_coefs[k] * clean
            x, past = jnp.where(update.renoise, x, solved), held[: self.history]
        if self.ancestral and inputs.step_noise is not None:
            x = x + update.sigma * inputs.step_noise[update.step]
        elif self.ancestral:
            x = x + update.sigma * _draw(update.fresh, state, inputs)
        return state._replace(x=x, past=past)


def _draw(number: jax.Array, state: State, inputs: Inputs) -> jax.Array:
    frames, *frame_shape = state.x.shape
    return noise.frame_noise(inputs.key, number, frames=frames, frame_shape=tuple(frame_shape))


def _adamw(
    learning_rate: jax.Array | float, weight_decay: jax.Array | float
) -> optax.GradientTransformation:
    return optax.adamw(
        learning_rate,  # type: ignore[arg-type]
        weight_decay=weight_decay,  # type: ignore[arg-type]
        # Far below its eps of 1e-8, so no result changes; but the square root has a derivative
        # where no chosen window covers a frame, whose second moment is 0.
        eps_root=1e-36,
    )


def make_method(
    layout: WindowLayout,
    schedule: NoiseSchedule,
    settings: SamplerConfig,
    call_schedule: CallSchedule,
) -> SynCoSMethod:
    """The method that plays `call_schedule`."""
    return SynCoSMethod(
        layout=layout,
        shuffled=settings.shuffled_noise,
        prediction=schedule.prediction,
        ancestral=bool((call_schedule.updates.sigma > 0).any()),
        refines=settings.refinement is not None,
        history=call_schedule.updates.x0_coefs.shape[1] - 1
        if call_schedule.updates.x0_coefs.shape[1]
        else None,
        start=timesteps_for(schedule, settings.resolved()).start,
        reuses=settings.reuse is not None,
    )
