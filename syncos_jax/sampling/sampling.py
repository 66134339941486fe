"""Sampling as pure functions, for a caller's own ``jit``, ``vmap`` and ``grad``.

`Sampling` puts a run together; `syncos_jax.sampling.run.Run` adds devices and a position.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple, NotRequired, Required, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from syncos_jax.errors import InputError
from syncos_jax.sampling import checks, loop, noise
from syncos_jax.sampling.call_schedule import CallSchedule, NetworkCall
from syncos_jax.sampling.known import Known, KnownFrames, hold
from syncos_jax.sampling.loop import Carry, Denoise, Inputs, Program
from syncos_jax.sampling.methods import conditioning_layout, make_call_schedule, make_method
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout

Array = jax.Array | np.ndarray


class VideoOptions(TypedDict):
    """Keyword arguments that describe the videos of a run; see `syncos_jax.sample`."""

    layout: WindowLayout
    frame_shape: Sequence[int]
    schedule: NoiseSchedule
    params: NotRequired[Any]


class SamplingOptions(VideoOptions, total=False):
    """Keyword arguments that describe one video; see `syncos_jax.sample`."""

    sampler: Required[SamplerConfig]
    uncond: Any
    step_noise: Array | None
    known: KnownFrames | tuple[Array, Array] | None
    window_cond: dict[str, Any] | None


class PureCarry(NamedTuple):
    """What a run keeps from call to call."""

    carry: Carry
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
    four videos (equal to those of separate runs, except for ``"rbg"`` keys, with which JAX itself
    draws other numbers under ``vmap``). Gradients flow through `step`, and through the whole by the
    scan above.

    Args:
      denoise, cond, **options: as for `syncos_jax.sample`.
      seed: non-negative integers that decide which windows and timesteps a sampler draws
        (``windows_per_step``, ``grounded_timestep=False``); equal for all keys, whose noise
        differs. None where nothing is drawn.
      num_shards: devices that will split each call.

    Attributes:
      call_schedule: the run on the host.
      calls: its network calls, a pytree of arrays with a leading axis of calls.
      updates: its update steps, a pytree of arrays with a leading axis of update steps.
      method: computes it.
      program: what is fixed when it is compiled.

    Raises:
      InputError: if shapes or settings do not fit together, or a seed is missing.
    """

    def __init__(
        self,
        denoise: Denoise,
        cond: Any,
        *,
        seed: Sequence[int] | None = None,
        num_shards: int = 1,
        **options: Unpack[SamplingOptions],
    ) -> None:
        layout, sampler, uncond = options["layout"], options["sampler"], options.get("uncond")
        checks.check_sampler(sampler)
        if seed is None and _draws(sampler, layout):
            raise InputError(
                "this sampler draws windows or timesteps on the host, from a seed that a traced "
                "key cannot give",
                remedy="make a Sampling with a seed, or call sample outside jit and vmap",
            )
        entries = conditioning_layout(layout, sampler).count
        checks.check_conditioning(cond, uncond, entries)
        cond_index = checks.cond_indices(entries, uncond)
        call_schedule = make_call_schedule(
            layout,
            options["schedule"],
            sampler,
            seed or (0,),
            cond_index=cond_index,
            num_shards=num_shards,
        )
        table = checks.conditioning_table(cond, uncond)
        self._assemble(denoise, table, call_schedule, options)

    @classmethod
    def of(
        cls,
        denoise: Denoise,
        table: Any,
        call_schedule: CallSchedule,
        **options: Unpack[SamplingOptions],
    ) -> Sampling:
        """A run whose call schedule is made already, for prompts in a table.

        Args:
          denoise, **options: as for `syncos_jax.sample`; ``uncond`` is part of `table`.
          table: conditioning table, a pytree of arrays with leading axis ``K``.
          call_schedule: refers to rows of the table.
        """
        made = cls.__new__(cls)
        made._assemble(denoise, table, call_schedule, options)
        return made

    def _assemble(
        self, denoise: Denoise, table: Any, call_schedule: CallSchedule, options: SamplingOptions
    ) -> None:
        layout, sampler = options["layout"], options["sampler"]
        self.call_schedule = call_schedule
        self._shape = checks.checked_shape(options["frame_shape"])
        streams = sampler.lookahead is not None or sampler.chained
        params, known = options.get("params"), KnownFrames.of(options.get("known"))
        self._known: Known | None = None
        if known is not None:
            self._known = known.placed((layout.frames, *self._shape), call_schedule.start)
        rule = None if known is None or self._known is None else known.rule
        self.method = make_method(layout, options["schedule"], sampler, call_schedule, rule)
        self.program = Program(checks.checked_denoise(denoise, params), self.method)
        self._frames = layout.window if streams else layout.frames
        step_noise = options.get("step_noise")
        if step_noise is not None and streams:
            raise InputError(
                f"{sampler.name} draws its own noise from the key", remedy="omit step_noise"
            )
        steps = int(call_schedule.updates.step.max()) + 1
        shape = (steps, layout.frames, *self._shape)
        self._step_noise = checks.checked_array("step_noise", step_noise, shape)
        self._window_cond = checks.checked_window_cond(
            options.get("window_cond"), table, layout.count, sampler.name if streams else None
        )
        self._params, self._table = params, table

    @cached_property
    def calls(self) -> NetworkCall:
        """The network calls, a pytree of arrays with a leading axis of calls."""
        with jax.ensure_compile_time_eval():
            made: NetworkCall = jax.tree.map(jnp.asarray, self.call_schedule.calls)
        return made

    @cached_property
    def updates(self) -> Any:
        """The update steps, a pytree of arrays with a leading axis of update steps."""
        with jax.ensure_compile_time_eval():
            return jax.tree.map(jnp.asarray, self.call_schedule.updates)

    def inputs(self, key: jax.Array) -> Inputs:
        """The arguments of the loop besides carry and call schedule.

        Args:
          key: scalar key for the noise, typed.
        """
        return Inputs(
            params=self._params,
            cond=self._table,
            key=key,
            step_noise=self._step_noise,
            constants=self.call_schedule.constants,
            known=self._known,
            window_cond=self._window_cond,
        )

    def init(self, key: jax.Array, latents: Array | None = None) -> PureCarry:
        """The carry before the first call.

        Args:
          key: typed scalar key for the noise.
          latents: initial noise ``[F, H, W, C]`` (for `FIFO` and `Chained` ``[w, H, W, C]``);
            None: drawn from `key`.
        """
        method, key = self.method, noise.as_key(key)
        start = checks.checked_array("latents", latents, (self._frames, *self._shape))
        state = method.init(key, self._shape, start, self._known)
        carry = loop.init_carry(state, method, self._shape)
        return PureCarry(carry, key)

    def step(self, carry: PureCarry, call: NetworkCall) -> PureCarry:
        """One of `calls`: one call of the network, and what follows from it."""
        inputs = self.inputs(carry.key)._replace(
            constants=jax.tree.map(jnp.asarray, self.call_schedule.constants)
        )
        new = loop.run_call(carry.carry, call, self.updates, inputs, self.program)
        return PureCarry(new, carry.key)

    def result(self, carry: PureCarry) -> jax.Array:
        """The clean latent after the last call, float32 ``[F, H, W, C]``."""
        return hold(self.method.result(carry.carry.state), self._known)

    def __call__(self, key: jax.Array, latents: Array | None = None) -> jax.Array:
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
