"""What a run is made from: arguments checked, the table of conditionings, call_schedule and
first carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.sampling.call_schedule import CallSchedule
from syncos_jax.sampling.loop import Carry, Denoise, Inputs, Program, init_carry
from syncos_jax.sampling.methods import make_method
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout


class VideoProgram(NamedTuple):
    """One video of a `Run`."""

    call_schedule: CallSchedule
    carry: Carry
    inputs: Inputs
    program: Program


def cond_indices(entries: int, uncond: Any) -> list[np.ndarray]:
    """Indices into `conditioning_table`, of the prompts and of the negative ones where there
    are any."""
    each = np.arange(entries, dtype=np.int32)
    return [each] if uncond is None else [each, each + entries]


def conditioning_table(cond: Any, uncond: Any) -> Any:
    """The table of conditionings: those of `cond`, and behind them those of `uncond`."""
    if uncond is None:
        return jax.tree.map(jnp.asarray, cond)
    return jax.tree.map(
        lambda c, u: jnp.concatenate([jnp.asarray(c), jnp.asarray(u)]), cond, uncond
    )


def prepare(
    denoise: Denoise,
    table: Any,
    call_schedule: CallSchedule,
    *,
    params: Any,
    layout: WindowLayout,
    frame_shape: Sequence[int],
    schedule: NoiseSchedule,
    sampler: SamplerConfig,
    key: jax.Array,
    latents: Any,
    step_noise: Any,
    axes: tuple[str, ...] = (),
) -> VideoProgram:
    """What plays `call_schedule` with the conditionings of `table`; other arguments as for
    `sample`."""
    shape = checked_shape(frame_shape)
    method = make_method(layout, schedule, sampler, call_schedule)
    latents, step_noise = checked_noise(latents, step_noise, call_schedule, layout, shape, sampler)
    inputs = Inputs(params, table, key, step_noise, call_schedule.constants)
    state = method.init(key, shape, latents)
    carry = init_carry(state, method.windows, (method.window, *shape))
    return VideoProgram(
        call_schedule, carry, inputs, Program(checked_denoise(denoise), method, axes)
    )


def check_settings(sampler: Any) -> None:
    """InputError where it is no `SamplerConfig`."""
    if not isinstance(sampler, SamplerConfig):
        raise InputError(
            f"sample: sampler must be settings such as SynCoS(steps=50); got {sampler!r}"
        )


def checked_shape(frame_shape: Sequence[int]) -> tuple[int, ...]:
    """``(H, W, C)`` as integers; InputError where it is none."""
    shape = tuple(int(size) for size in frame_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"sample: frame_shape must be (H, W, C), got {shape}")
    return shape


def checked_denoise(denoise: Denoise) -> Denoise:
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


def checked_noise(
    latents: Any,
    step_noise: Any,
    call_schedule: CallSchedule,
    layout: WindowLayout,
    shape: tuple[int, ...],
    sampler: SamplerConfig,
) -> tuple[jax.Array | None, jax.Array | None]:
    """`latents` and `step_noise` as arrays; InputError where they have not their shapes."""
    if latents is not None:
        frames = layout.frames if sampler.lookahead is None else layout.window
        latents = _array("latents", latents, (frames, *shape))
    if step_noise is not None:
        if sampler.lookahead is not None:
            raise InputError("sample: FIFO takes no step_noise; it draws its own from the key")
        steps = int(call_schedule.updates.step.max()) + 1
        step_noise = _array("step_noise", step_noise, (steps, layout.frames, *shape))
    return latents, step_noise


def _array(name: str, value: Any, shape: tuple[int, ...]) -> jax.Array:
    if np.shape(value) != shape:
        raise InputError(f"sample: {name} has shape {np.shape(value)}, expected {shape}")
    return jnp.asarray(value, jnp.float32)


def check_conditioning(cond: Any, uncond: Any, entries: int) -> None:
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
