"""Checks of what a network is called with, while it is traced: one sentence, no shape algebra."""

from __future__ import annotations

from typing import Any

import numpy as np

from syncos_jax.errors import InputError


def check_denoiser_inputs(x: Any, t: Any, text: Any, *, channels: int, features: int) -> None:
    """Raises InputError unless the arguments are those of a denoising network.

    Args:
        x: noisy latents; must be ``[b, f, h, w, channels]``.
        t: timesteps; must be ``[b]`` or ``[b, f]``.
        text: prompt features; must be ``[b, S, features]``.
        channels: latent channels of the network.
        features: text features of the network.
    """
    for name, value in (("x", x), ("t", t), ("text", text)):
        if not hasattr(value, "shape") or not hasattr(value, "dtype"):
            raise InputError(argument=name, expected="an array", value=value)
    shape, times, words = tuple(x.shape), tuple(t.shape), tuple(text.shape)
    if len(shape) != 5 or shape[-1] != channels:
        raise InputError(
            argument="x", expected=f"latents of shape [b, f, h, w, {channels}]", value=shape
        )
    if times not in (shape[:1], shape[:2]):
        raise InputError(
            argument="t",
            expected=f"timesteps of shape [{shape[0]}] or [{shape[0]}, {shape[1]}]",
            value=times,
        )
    if len(words) != 3 or words[0] != shape[0] or words[2] != features:
        raise InputError(
            argument="text",
            expected=f"prompt features of shape [{shape[0]}, S, {features}]",
            value=words,
        )
    if not np.issubdtype(np.dtype(x.dtype), np.floating) and "float" not in str(x.dtype):
        raise InputError(argument="x", expected="a floating-point array", value=str(x.dtype))
