"""Sampling as pure functions, for a caller's own ``jit``, ``vmap`` and ``grad``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from syncos_jax.errors import InputError
from syncos_jax.sampling import loop, noise
from syncos_jax.sampling.arguments import (
    check_conditioning,
    check_settings,
    checked_denoise,
    checked_noise,
    checked_shape,
    cond_indices,
    conditioning_table,
)
from syncos_jax.sampling.call_schedule import NetworkCall
from syncos_jax.sampling.loop import Denoise, Inputs, Program
from syncos_jax.sampling.methods import conditioning_layout, make_call_schedule, make_method
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout


class PureCarry(NamedTuple):
    """What a run keeps from call to call."""

    carry: loop.Carry
    key: jax.Array


class Sampling:
    """A sampling run as pure functions: `init`, `step` and `result`.

    ::

        run = Sampling(denoise, cond, params=params, layout=layout, frame_shape=(H, W, C),
                       schedule=schedule, sampler=SynCoS(steps=50))
        carry = run.init(jax.random.key(0))
        carry, _ = jax.lax.scan(lambda carry, call: (run.step(carry, call), None), carry, run.calls)
        latents = run.result(carry)

    which is what ``run(jax.random.key(0))`` does. Nothing is read on the host once it is made, so
    keys, conditionings and weights may be traced: ``jax.vmap(run)(jax.random.split(key, 4))`` makes
    four videos (those of separate runs, but for keys of the kind ``"rbg"``, with which JAX itself
    draws something else under ``vmap``). Gradients flow through `step`, and through the whole by
    the scan above.

    Args:
      denoise, cond, uncond, params, layout, frame_shape, schedule, sampler, step_noise: as for
        `syncos_jax.sample`.
      seed: non-negative integers; they decide which windows and timesteps a sampler draws that
        draws some (``windows_per_step``, ``grounded_timestep=False``). What is drawn is the same
        for all keys, whose noise differs. None where nothing is drawn.

    Attributes:
      calls: the call_schedule, a pytree of arrays with the calls in front.
      updates: what the calls belong to, a pytree of arrays with the updates in front.

    Raises:
      InputError: if shapes or settings do not fit together, or a seed is missing.
    """

    def __init__(
        self,
        denoise: Denoise,
        cond: Any,
        *,
        uncond: Any = None,
        params: Any = None,
        layout: WindowLayout,
        frame_shape: Sequence[int],
        schedule: NoiseSchedule,
        sampler: SamplerConfig,
        seed: Sequence[int] | None = None,
        step_noise: Any = None,
    ) -> None:
        check_settings(sampler)
        if seed is None and _draws(sampler, layout):
            raise InputError(
                "sample: this sampler draws windows or timesteps on the host, which a traced "
                "key cannot decide; make a syncos_jax.sampling.pure.Sampling with a seed, or "
                "call sample outside of jit and vmap"
            )
        entries = conditioning_layout(layout, sampler).count
        check_conditioning(cond, uncond, entries)
        cond_index = cond_indices(entries, uncond)
        call_schedule = make_call_schedule(
            layout, schedule, sampler, seed or (0,), cond_index=cond_index
        )
        shape = checked_shape(frame_shape)
        self._checked = partial(
            checked_noise, call_schedule=call_schedule, layout=layout, shape=shape, sampler=sampler
        )
        _, step_noise = self._checked(None, step_noise)
        self._method = make_method(layout, schedule, sampler, call_schedule)
        self._program = Program(checked_denoise(denoise), self._method)
        self._shape = shape
        self.updates = jax.tree.map(jnp.asarray, call_schedule.updates)
        self._given = (params, conditioning_table(cond, uncond), step_noise)
        self._constants = jax.tree.map(jnp.asarray, call_schedule.constants)
        self.calls: NetworkCall = jax.tree.map(jnp.asarray, call_schedule.calls)

    def init(self, key: jax.Array, latents: jax.Array | np.ndarray | None = None) -> PureCarry:
        """The carry before the first call.

        Args:
          key: typed scalar key; seeds the noise.
          latents: initial noise ``[F, H, W, C]``; drawn from `key` where None.
        """
        method = self._method
        key = noise.as_key(key)
        latents, _ = self._checked(latents, None)
        state = method.init(key, self._shape, latents)
        carry = loop.init_carry(state, method.windows, (method.window, *self._shape))
        return PureCarry(carry, key)

    def step(self, carry: PureCarry, call: NetworkCall) -> PureCarry:
        """One call of `calls`: one call of the network, and what follows from it."""
        params, table, step_noise = self._given
        inputs = Inputs(params, table, carry.key, step_noise, self._constants)
        new = loop.run_call(carry.carry, call, self.updates, inputs, self._program)
        return PureCarry(new, carry.key)

    def result(self, carry: PureCarry) -> jax.Array:
        """The clean latent after the last call, float32 ``[F, H, W, C]``."""
        return self._method.result(carry.carry.state)

    def __call__(self, key: jax.Array, latents: jax.Array | np.ndarray | None = None) -> jax.Array:
        """All calls, as one ``lax.scan``."""
        carry = self.init(key, latents)
        carry, _ = lax.scan(lambda carry, call: (self.step(carry, call), None), carry, self.calls)
        return self.result(carry)


def _draws(sampler: SamplerConfig, layout: WindowLayout) -> bool:
    """Whether windows or timesteps are drawn at random."""
    refinement = sampler.refinement
    if refinement is None:
        return False
    some = refinement.windows_of_step(layout.count) < layout.count
    return some or not refinement.grounded_timestep
