"""A small network and the exact denoiser of a mixture, for the sampler's tests."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

FRAME = (2, 2, 3)


class Network:
    """Nonlinear, mixes the frames of a window, reads time and text; counts how often it is traced.

    Its arctangent occurs nowhere else in the sampler, so it can be counted in a program.
    """

    def __init__(self) -> None:
        self.traces = 0

    def __call__(self, params, x, t, cond):
        self.traces += 1
        assert x.dtype == t.dtype == jnp.float32 and t.shape in (x.shape[:1], x.shape[:2])
        t = t if t.ndim == 2 else t[:, None]  # of each frame, or of all
        hidden = jnp.einsum("nfhwc,cd->nfhwd", x, params["in"])
        hidden = hidden + 0.5 * jnp.roll(hidden, 1, axis=1)
        bias = cond["text"].mean(axis=1)[:, None, :] + (t / 1000.0)[:, :, None]
        hidden = jnp.atan2(hidden + bias[:, :, None, None, :], jnp.float32(1.0))
        return jnp.einsum("nfhwd,dc->nfhwc", hidden, params["out"])


def parameters():
    rng = np.random.default_rng(7)
    return {
        "in": jnp.asarray(rng.normal(size=(3, 5)) / 2, jnp.float32),
        "out": jnp.asarray(rng.normal(size=(5, 3)) / 2, jnp.float32),
    }


def conditioning(windows, seed=0):
    rng = np.random.default_rng(seed)
    return {"text": jnp.asarray(rng.normal(size=(windows, 4, 5)), jnp.float32)}


def mixture_denoiser(modes, spread, schedule):
    """The exact noise prediction for windows whose frames all show one of several subjects.

    A window is ``x0[f] = mode + spread * n[f]`` with one mode for all of its frames, so the
    posterior over the modes comes from all frames of the window together.

    Args:
      modes: ``[K, D]``.
      spread: standard deviation within a mode.
      schedule: where the rates at a timestep come from.
    """
    signal = jnp.asarray(schedule.signal, jnp.float32)
    noise = jnp.asarray(schedule.noise, jnp.float32)

    def denoise(x, t, cond):
        at = t.astype(jnp.int32)
        a, b = (rates[at].reshape(-1, 1, 1, 1, 1) for rates in (signal, noise))
        return (x - a * mixture_mean(x, a, b, modes, spread)) / b

    return denoise


def mixture_flow(modes, spread):
    """The exact flow ``eps - x0`` for the same windows: ``a = 1 - t / 1000``, ``b = t / 1000``."""

    def denoise(x, t, cond):
        b = (t / 1000.0).reshape(-1, 1, 1, 1, 1)
        a = 1.0 - b
        x0 = mixture_mean(x, a, b, modes, spread)
        return (x - a * x0) / b - x0

    return denoise


def mixture_mean(x, a, b, modes, spread):
    """The mean of ``x0`` given ``x``, for any rates ``[n, 1, 1, 1, 1]``."""
    modes = jnp.asarray(modes, jnp.float32)
    flat, (a, b) = x.reshape(*x.shape[:2], -1), (rate[..., 0, 0] for rate in (a, b))
    variance = (a * spread) ** 2 + b**2
    away = flat[:, :, None, :] - a[..., None] * modes[None, None]  # [n, w, K, D]
    logits = -jnp.sum(away**2, axis=(1, 3)) / (2.0 * variance[:, :, 0])
    posterior = jax.nn.softmax(logits, axis=-1)
    means = modes[None, None] + (a * spread**2 / variance)[..., None] * away
    return jnp.einsum("nk,nfkd->nfd", posterior, means).reshape(x.shape)
