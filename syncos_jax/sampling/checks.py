"""Checks of the arguments of a run, and its conditioning table."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.sampling.loop import Denoise
from syncos_jax.sampling.sampler_config import SamplerConfig


def cond_indices(entries: int, uncond: Any) -> list[np.ndarray]:
    """Rows of `conditioning_table`: of the prompts and, if there are any, of the negative ones."""
    each = np.arange(entries, dtype=np.int32)
    return [each] if uncond is None else [each, each + entries]


def conditioning_table(cond: Any, uncond: Any) -> Any:
    """The conditioning table: the rows of `cond`, followed by those of `uncond`."""
    if uncond is None:
        return jax.tree.map(jnp.asarray, cond)
    return jax.tree.map(
        lambda c, u: jnp.concatenate([jnp.asarray(c), jnp.asarray(u)]), cond, uncond
    )


def check_sampler(sampler: Any) -> None:
    """InputError unless it is a `SamplerConfig`."""
    if not isinstance(sampler, SamplerConfig):
        raise InputError(
            argument="sampler", expected="settings such as SynCoS(steps=50)", value=sampler
        )


def checked_shape(frame_shape: Sequence[int]) -> tuple[int, ...]:
    """``(H, W, C)`` as integers, or InputError."""
    shape = tuple(int(size) for size in frame_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(argument="frame_shape", expected="(H, W, C)", value=shape)
    return shape


def checked_denoise(denoise: Denoise, params: Any) -> Denoise:
    """`denoise`; InputError unless it is a hashable function of the right number of arguments."""
    if not callable(denoise):
        raise InputError(argument="denoise", expected="a function", value=denoise)
    try:
        hash(denoise)
    except TypeError:
        raise InputError(
            "denoise cannot be hashed, so its compiled program could not be found again",
            remedy="pass a plain function, and its weights as params",
        ) from None
    names = "x, t, cond" if params is None else "params, x, t, cond"
    try:
        inspect.signature(denoise).bind(*names.split(", "))
    except TypeError:
        other = "pass its weights as params" if params is None else "or leave out params"
        raise InputError(
            "denoise does not take the arguments of a denoiser",
            expected=f"denoise({names})",
            remedy=other,
        ) from None
    except ValueError:  # a callable without a signature
        pass
    return denoise


def checked_array(name: str, value: Any, shape: tuple[int, ...]) -> jax.Array | None:
    """`value` as float32; None for None; InputError on another shape."""
    if value is None:
        return None
    if np.shape(value) != shape:
        raise InputError(f"{name} has shape {np.shape(value)}", expected=str(shape))
    return jnp.asarray(value, jnp.float32)


def check_conditioning(cond: Any, uncond: Any, entries: int) -> None:
    """InputError unless both have `entries` rows, and equal structures, shapes and dtypes."""
    for name, tree in (("cond", cond), ("uncond", uncond)):
        _check_rows(name, tree, entries, "windows of the layout (for FIFO, its frames)")
    if uncond is None:
        return
    of_cond, of_uncond = str(jax.tree.structure(cond)), str(jax.tree.structure(uncond))
    if of_cond != of_uncond:
        raise InputError(f"uncond has structure {of_uncond}", expected=f"that of cond, {of_cond}")
    pairs = zip(jax.tree_util.tree_leaves_with_path(cond), jax.tree.leaves(uncond), strict=True)
    for (path, c), u in pairs:
        c, u = jnp.asarray(c), jnp.asarray(u)
        if c.shape != u.shape or c.dtype != u.dtype:
            raise InputError(
                f"uncond{jax.tree_util.keystr(path)} is {u.dtype}{list(u.shape)}",
                expected=f"that of cond, {c.dtype}{list(c.shape)}",
            )


def checked_window_cond(value: Any, cond: Any, windows: int, streams: str | None) -> Any:
    """`window_cond` as arrays; None for None.

    Raises:
      InputError: unless it is a dict of arrays with a row per window and keys that `cond` has not,
        or with a sampler (`streams`, its name) whose windows have no fixed place.
    """
    if value is None:
        return None
    if streams is not None:
        raise InputError(
            f"{streams}'s windows have no fixed place, so that window_cond cannot be used",
            remedy="use another sampler",
        )
    if not isinstance(value, dict) or not isinstance(cond, dict | None):
        raise InputError(argument="window_cond", expected="a dict, next to a cond that is a dict")
    twice = sorted(value.keys() & (cond or {}).keys())
    if twice:
        raise InputError(f"window_cond and cond both have {twice[0]!r}", remedy="rename one")
    _check_rows("window_cond", value, windows, "windows of the layout")
    return jax.tree.map(jnp.asarray, value)


def _check_rows(name: str, tree: Any, entries: int, of_what: str) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        shape = np.shape(leaf)
        if not shape or shape[0] != entries:
            raise InputError(
                f"{name}{jax.tree_util.keystr(path)} has shape {shape}",
                expected=f"a leading axis of the {entries} {of_what}",
            )
