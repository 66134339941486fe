"""SynCoS and its parts as a method of the loop: the three stages.

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
from syncos_jax.sampling.known import (
    AT_ZERO,
    Known,
    KnownRule,
    at_windows,
    hold,
    noised,
    references,
    select,
)
from syncos_jax.sampling.loop import Inputs
from syncos_jax.sampling.prediction import Prediction, decode
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.solver_choice import timesteps_for
from syncos_jax.sampling.step_cache import StepCache, empty_cache
from syncos_jax.sampling.svgd import collaborative_score
from syncos_jax.sampling.windows import WindowLayout


class UpdateStep(NamedTuple):
    """A pass over all windows (stage 1) or one optimiser step (stage 2); in a `CallSchedule` each
    array has a leading axis of update steps."""

    step: Any
    """Denoising step, int32."""
    t: Any
    """Timestep passed to the network, float32."""
    a: Any
    """Signal rate at `t`, float32."""
    b: Any
    """Noise rate at `t`, float32."""
    refine: Any
    """False for stage 1, True for stage 2; bool."""
    draw_noise: Any
    """Whether to draw a new baseline noise first, bool."""
    noise_id: Any
    """Draw number of that noise (`syncos_jax.sampling.noise`), uint32."""
    restart: Any
    """Whether to reset the optimiser first, bool."""
    learning_rate: Any
    """Of AdamW, float32."""
    weight_decay: Any
    """Of AdamW, float32."""
    chosen: Any
    """All windows of the optimiser step, int32 ``[B]``."""
    resume: Any
    """Whether this ends the denoising step: resume at the next timestep (stage 3); bool."""
    a_next: Any
    """Signal rate to resume at, float32."""
    eps_coef: Any
    """Coefficient of the noise when resuming, ``sqrt(b_next^2 - sigma^2)``, float32."""
    sigma: Any
    """Coefficient of fresh noise when resuming, float32."""
    fresh_noise_id: Any
    """Draw number of the fresh noise, uint32."""
    renoise: Any
    """Whether the step resumes with the baseline noise or fresh noise instead of the solver's;
    bool."""
    reuse: Any
    """Predicted noise change below which stage 1 is skipped (``reuse`` of the settings), 0: never;
    float32."""
    samples: Any
    """Samples of the update step, int32."""
    clip: Any
    """Clip that it belongs to, where clips are made one after the other (`chained`); else 0;
    int32."""
    x_coef: Any
    """The solver's coefficient of the noisy latent, float32; not read for DDIM."""
    x0_coefs: Any
    """The solver's coefficients of the clean latents of this step and earlier ones, newest first,
    float32 ``[1 + history]``; not read for DDIM."""


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
    """Clean latents of earlier steps, newest first, as many as the solver reads; like `x`."""
    cache: StepCache | None = None
    """Decides which passes are skipped; None where none are."""


@dataclass(frozen=True)
class SynCoSMethod:
    """What of the method is fixed when the loop is compiled.

    Attributes:
      layout: the windows.
      prediction: what the network predicts.
      ancestral: whether any step adds fresh noise (its ``sigma > 0``). Compiling one drawing of
        noise takes seconds on a CPU, more than everything else but the network.
      refines: whether there can be a stage 2 (in a run without any it costs only compilation, and
        runs of all strengths share one program).
      shuffled: share of the initial noise that is that of the first window's frames.
      history: clean latents of earlier steps that the solver reads; None for DDIM, which resumes
        with the noise that it implies (so do the others, with other rounding).
      start: standard deviation of the noise that a run starts from.
      reuses: whether passes can be skipped.
      known: how the network receives known frames; None where there are none.
      guidance_rescale: see `loop.Method`.
    """

    layout: WindowLayout
    prediction: Prediction
    ancestral: bool
    refines: bool
    shuffled: float = 0.0
    history: int | None = None
    start: float = 1.0
    reuses: bool = False
    known: KnownRule | None = None
    guidance_rescale: float = 0.0

    @property
    def windows(self) -> int:
        """Windows of the largest update step."""
        return self.layout.count

    @property
    def window(self) -> int:
        """Frames of a window."""
        return self.layout.window

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
          latents: initial noise ``[F, H, W, C]``; None: drawn from `key`.
          known: known frames.
        """
        if latents is None:
            latents = self._noise(key, noise.INITIAL, tuple(frame_shape))
        # Separate buffers, none of them the caller's: the loop donates them.
        x = jnp.array(latents, jnp.float32, copy=True)
        if self.start != 1.0:
            x = x * jnp.float32(self.start)
        x = noised(x, jnp.asarray(latents, jnp.float32), known)
        x0 = hold(jnp.array(latents, jnp.float32, copy=True), known)
        past = tuple(jnp.zeros_like(x) for _ in range(self.history or 0))
        optimiser = _adamw(0.0, 0.0).init(x0)
        cache = empty_cache(x) if self.reuses else None
        eps = jnp.zeros_like(x)
        return State(x=x, x0=x0, eps=eps, optimiser=optimiser, past=past, cache=cache)

    def _noise(
        self, key: jax.Array, draw: jax.Array | int, frame_shape: tuple[int, ...]
    ) -> jax.Array:
        layout = self.layout
        fresh = noise.frame_noise(key, draw, frames=layout.frames, frame_shape=frame_shape)
        if not self.shuffled:
            return fresh
        initial = noise.partly_shuffled(
            key, fresh, self.shuffled, window=layout.window, stride=layout.stride
        )
        return jnp.where(draw == noise.INITIAL, initial, fresh)

    def _draw(self, draw: jax.Array, state: State, inputs: Inputs) -> jax.Array:
        return self._noise(inputs.key, draw, state.x.shape[1:])

    def begin(self, state: State, update: UpdateStep, inputs: Inputs) -> State:
        """Stage 2: draws the baseline noise and resets the optimiser where a refinement begins.
        Stage 1: decides whether the pass is skipped."""
        if state.cache is not None:
            cache = state.cache.should_skip(state.x, state.eps, update.reuse, update.samples)
            state = state._replace(cache=cache)
        if not self.refines:
            return state
        eps = lax.cond(
            update.draw_noise, lambda: self._draw(update.noise_id, state, inputs), lambda: state.eps
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
        x, t = self.layout.gather(long, windows), jnp.full(windows.shape, update.t, jnp.float32)
        if self.known in AT_ZERO:
            assert inputs.known is not None
            mask, latents = at_windows(
                inputs.known, self.layout, windows, self._references(inputs.known, update.t)
            )
            x = select(mask, latents, x)
            t = jnp.where(mask, jnp.float32(0.0), t[:, None])
        return x, t

    def _references(self, known: Known | None, t: jax.Array) -> jax.Array | None:
        """Windows' references; None where they get none, or their first frames are in no other."""
        layout = self.layout
        shared = layout.stride < layout.window or layout.drop_leading > 0
        if known is None or self.known != "reference" or not shared:
            return None
        return references(known, layout, t)

    def _fuse(
        self, v: jax.Array, reference: jax.Array | None, windows: jax.Array | None = None
    ) -> jax.Array:
        """`WindowLayout.fuse` without what stands at the place of references."""
        return self.layout.fuse(v, windows, None if reference is None else reference >= 0)

    def rates(self, update: UpdateStep, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
        """Signal and noise rate of the update step."""
        return update.a, update.b

    def skips(self, state: State) -> jax.Array | None:
        """Whether the update step skips the network; None where none does."""
        return None if state.cache is None else state.cache.skip

    def num_skipped(self, state: State) -> jax.Array | None:
        """Samples skipped so far; None where none can be."""
        return None if state.cache is None else state.cache.num_skipped

    def finish(
        self, state: State, predictions: jax.Array, update: UpdateStep, inputs: Inputs
    ) -> State:
        """The new clean latent, and from it the noisy latent of the next timestep."""
        if self.refines:
            state = lax.cond(
                update.refine,
                lambda: self._refine(state, predictions, update, inputs.known),
                lambda: self._co_denoise(state, predictions, update, inputs.known),
            )
        else:
            state = self._co_denoise(state, predictions, update, inputs.known)
        return lax.cond(update.resume, lambda: self._resume(state, update, inputs), lambda: state)

    def clean(self, state: State) -> jax.Array:
        """Current estimate of the clean latent ``[F, H, W, C]``."""
        return state.x0

    def result(self, state: State) -> jax.Array:
        """The clean latent ``[F, H, W, C]``."""
        return state.x

    def _co_denoise(
        self, state: State, predictions: jax.Array, update: UpdateStep, known: Known | None
    ) -> State:
        """Stage 1: ``x0 = fuse(x0_hat)``, and the noise that DDIM implies, ``(x - a x0) / b``."""
        # x0_hat is linear in x and the prediction, with factors that are equal in all windows:
        # fusing after decoding or before gives the same.
        fused = self._fuse(predictions, self._references(known, update.t))
        x0, _ = decode(self.prediction, fused, state.x, update.a, update.b)
        x0 = hold(x0, known)
        eps, cache = (state.x - update.a * x0) / update.b, state.cache
        if cache is not None:
            x0 = jnp.where(cache.skip, (state.x - update.b * state.eps) / update.a, x0)
            eps = jnp.where(cache.skip, state.eps, eps)
            after = cache.update(state.x, eps, state.eps)
            cache = jax.tree.map(partial(jnp.where, cache.skip), cache, after)
            x0 = hold(x0, known)
        return state._replace(x0=x0, eps=eps, cache=cache)

    def _refine(
        self, state: State, predictions: jax.Array, update: UpdateStep, known: Known | None
    ) -> State:
        """Stage 2: one AdamW step on ``x0`` along the fused collaborative score; known frames,
        whose residual is 0, do not move."""
        # All windows are in order already and need no copy in that order.
        chosen = None if len(update.chosen) == self.layout.count else update.chosen
        eps = self.layout.gather(state.eps, chosen)
        x = self.layout.gather(update.a * state.x0 + update.b * state.eps, chosen)
        value = predictions if chosen is None else predictions[chosen]
        _, eps_hat = decode(self.prediction, value, x, update.a, update.b)
        residual = eps_hat - eps
        reference = self._references(known, update.t)
        if known is not None:
            mask, latents = at_windows(known, self.layout, chosen, reference)
            residual = select(mask, jnp.zeros_like(residual), residual)
            if self.known in AT_ZERO:
                x = select(mask, latents, x)
        score = collaborative_score(x, residual, update.b)
        gradient = self._fuse(score, reference, chosen)
        optimiser = _adamw(update.learning_rate, update.weight_decay)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an int32 power
            updates, moments = optimiser.update(gradient, state.optimiser, state.x0)
        x0 = hold(jnp.asarray(optax.apply_updates(state.x0, updates)), known)
        return state._replace(x0=x0, optimiser=moments)

    def _resume(self, state: State, update: UpdateStep, inputs: Inputs) -> State:
        """Stage 3: ``x' = a' x0 + sqrt(b'^2 - sigma^2) eps + sigma z``, or the solver's step."""
        x = update.a_next * state.x0 + update.eps_coef * state.eps
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
            x = x + update.sigma * self._draw(update.fresh_noise_id, state, inputs)
        return state._replace(x=x, past=past)


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
    known: KnownRule | None = None,
) -> SynCoSMethod:
    """The method that computes `call_schedule`; `known` is the rule of the known frames, if any."""
    columns = call_schedule.updates.x0_coefs.shape[1]
    return SynCoSMethod(
        layout=layout,
        shuffled=settings.shuffled_noise,
        prediction=schedule.prediction,
        ancestral=bool((call_schedule.updates.sigma > 0).any()),
        refines=settings.refinement is not None,
        history=columns - 1 if columns else None,
        start=timesteps_for(schedule, settings.resolved()).start,
        reuses=settings.reuse is not None,
        known=known,
        guidance_rescale=settings.rescales,
    )
