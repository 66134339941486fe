"""Clips one after the other, each from the last frames of the one before (`Chained`).

Each clip is a run of its own: a video of one window whose first frames are known
(`syncos_jax.sampling.known`), with the noise of a key of its own. Memory of the network and of the
latent that is denoised does not grow with the video. Names: ``F`` frames of the long video, ``w``
frames of a clip.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from syncos_jax.errors import InputError
from syncos_jax.sampling import syncos_calls, syncos_method
from syncos_jax.sampling.call_schedule import CallSchedule, NetworkCall
from syncos_jax.sampling.known import AT_ZERO, Known, KnownRule, hold, unknown
from syncos_jax.sampling.loop import Inputs
from syncos_jax.sampling.prediction import Prediction
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.syncos_method import SynCoSMethod, UpdateStep
from syncos_jax.sampling.windows import WindowLayout


class State(NamedTuple):
    """What the method keeps from call to call."""

    clip: syncos_method.State
    """The clip that is being made, as in a run of its own."""
    number: jax.Array
    """Which clip that is, int32."""
    video: jax.Array
    """Finished clips and the estimate of the one that is being made, float32 ``[F, H, W, C]``; 0
    where there is none yet."""


@dataclass(frozen=True)
class ChainedMethod:
    """What of the method is fixed when the loop is compiled.

    Attributes:
      layout: the clips.
      one: how one clip is made.
      steps: denoising steps of a clip.
      start: signal and noise rate of the first timestep.
      known: how the network receives known frames.
    """

    layout: WindowLayout
    one: SynCoSMethod
    steps: int
    start: tuple[float, float]
    known: KnownRule

    @property
    def windows(self) -> int:
        """Windows of an update step: the clip."""
        return 1

    @property
    def window(self) -> int:
        """Frames of a clip."""
        return self.layout.window

    @property
    def prediction(self) -> Prediction:
        """What the network predicts."""
        return self.one.prediction

    @property
    def guidance_rescale(self) -> float:
        """See `loop.Method`."""
        return self.one.guidance_rescale

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
          known: known frames of the video.
        """
        number = jnp.int32(0)
        video = hold(jnp.zeros((self.layout.frames, *frame_shape), jnp.float32), known)
        begun = self._known(video, number, known)
        clip = self.one.init(jax.random.fold_in(key, 0), frame_shape, latents, begun)
        return State(clip, number, video)

    def begin(self, state: State, update: UpdateStep, inputs: Inputs) -> State:
        """Begins the next clip after the last step of one."""
        number = update.clip

        def fresh() -> syncos_method.State:
            known = self._known(state.video, number, inputs.known)
            key, shape = jax.random.fold_in(inputs.key, number), state.video.shape[1:]
            return self.one.init(key, shape, None, known)

        clip = lax.cond(number > state.number, fresh, lambda: state.clip)
        return state._replace(clip=clip, number=number)

    def network_input(
        self, state: State, update: UpdateStep, windows: jax.Array, inputs: Inputs
    ) -> Any:
        """The clip's noisy latent, with the frames that are known."""
        return self.one.network_input(state.clip, update, windows, self._own(state, inputs))

    def rates(self, update: UpdateStep, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
        """Signal and noise rate of the update step."""
        return self.one.rates(update, inputs)

    def skips(self, state: State) -> None:
        """No update step skips the network."""

    def num_skipped(self, state: State) -> None:
        """Nothing is skipped."""

    def finish(
        self, state: State, predictions: jax.Array, update: UpdateStep, inputs: Inputs
    ) -> State:
        """A step of the clip, which is part of the video."""
        own = self._own(state, inputs)
        clip = self.one.finish(state.clip, predictions, update, own)
        done = update.step == self.steps - 1
        shown = jnp.where(done, self.one.result(clip), self.one.clean(clip))
        first = jnp.asarray(self.layout.starts)[state.number]
        video = lax.dynamic_update_slice_in_dim(state.video, hold(shown, own.known), first, 0)
        return state._replace(clip=clip, video=video)

    def clean(self, state: State) -> jax.Array:
        """The finished clips, and of the one that is being made the current estimate."""
        return state.video

    def result(self, state: State) -> jax.Array:
        """The clean latent ``[F, H, W, C]``."""
        return state.video

    def _known(self, video: jax.Array, number: jax.Array, known: Known | None) -> Known:
        """The known frames of a clip: those of the clip before, and the video's."""
        starts, window = self.layout.starts, self.window
        made = np.concatenate([[0], starts[:-1] + window])  # frames of the video before each clip
        first = jnp.asarray(starts)[number]
        mask = first + jnp.arange(window) < jnp.asarray(made)[number]
        if known is not None:
            mask |= lax.dynamic_slice_in_dim(known.mask, first, window)
        latents = lax.dynamic_slice_in_dim(video, first, window)
        latents = jnp.where(mask[:, None, None, None], latents, jnp.float32(0.0))
        a, b = (jnp.float32(rate) for rate in self.start)
        return unknown(latents.shape)._replace(latents=latents, mask=mask, a=a, b=b)

    def _own(self, state: State, inputs: Inputs) -> Inputs:
        """The arguments of the clip's own run."""
        key = jax.random.fold_in(inputs.key, state.number)
        return inputs._replace(
            key=key, known=self._known(state.video, state.number, inputs.known), step_noise=None
        )


def one_clip(layout: WindowLayout) -> WindowLayout:
    """The layout of one clip of a video.

    Raises:
      InputError: where clips have no frame in common with the one before.
    """
    if layout.count > 1 and layout.stride == layout.window:
        raise InputError(
            f"chained: clips of {layout.window} frames at a stride of {layout.stride} share none",
            remedy="choose a smaller stride",
        )
    return WindowLayout(frames=layout.window, window=layout.window, stride=layout.window)


def make_call_schedule(
    layout: WindowLayout,
    schedule: NoiseSchedule,
    settings: SamplerConfig,
    *,
    cond_index: Sequence[np.ndarray] | None = None,
    num_shards: int = 1,
) -> CallSchedule:
    """The call schedule of a run, clip by clip; arguments as for `methods.make_call_schedule`."""
    if cond_index is None:
        cond_index = np.split(np.arange(2 * layout.count, dtype=np.int32), 2)
    parts = [
        syncos_calls.make_call_schedule(
            one_clip(layout),
            schedule,
            settings,
            cond_index=[of_window[n : n + 1] for of_window in cond_index],
            num_shards=num_shards,
        )
        for n in range(layout.count)
    ]
    calls, updates = [], []
    for n, part in enumerate(parts):
        calls.append(
            part.calls._replace(
                index=part.calls.index + np.int32(n * len(part)),
                update=part.calls.update + np.int32(n * len(part.updates.step)),
            )
        )
        updates.append(part.updates._replace(clip=np.full_like(part.updates.clip, n)))
    return dataclasses.replace(
        parts[0],
        calls=NetworkCall(*(np.concatenate(column) for column in zip(*calls, strict=True))),
        used=np.concatenate([part.used for part in parts]),
        updates=UpdateStep(*(np.concatenate(column) for column in zip(*updates, strict=True))),
    )


def make_method(
    layout: WindowLayout,
    schedule: NoiseSchedule,
    settings: SamplerConfig,
    call_schedule: CallSchedule,
    known: KnownRule | None = None,
) -> ChainedMethod:
    """The method that computes `call_schedule`; `known`: how the network receives known frames,
    None: ``"replace"``."""
    # A clip's windows are itself: none is without known frames, and needs a reference.
    rule: KnownRule = "timestep" if known in AT_ZERO else "replace"
    one = syncos_method.make_method(one_clip(layout), schedule, settings, call_schedule, rule)
    steps = int(call_schedule.updates.step.max()) + 1
    return ChainedMethod(layout, one, steps, call_schedule.start, rule)
