"""Known frames: frames of a video whose clean latents are given, as in image-to-video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.sampling.windows import WindowLayout

KnownRule = Literal["replace", "timestep", "reference", "condition"]
AT_ZERO = ("timestep", "reference")
"""Rules by which known frames enter clean, at timestep 0."""
REFERENCE_T = (600.0, 850.0)
"""Timesteps at which windows receive a reference. Above, positions are decided, which should not be
those of the reference; then what the subject looks like."""


class Known(NamedTuple):
    """Known frames as arguments of the compiled program."""

    latents: jax.Array
    """Clean latents, read at known frames, float32 ``[F, H, W, C]``."""
    mask: jax.Array
    """True at known frames, bool ``[F]``."""
    a: jax.Array
    """Signal rate of the first timestep, float32."""
    b: jax.Array
    """Noise rate of the first timestep, float32."""


@dataclass(frozen=True, eq=False)
class KnownFrames:
    """Frames whose clean latents are given. They come out of a run unchanged.

    Attributes:
      latents: clean latents, float ``[F, H, W, C]``; only those of known frames are read.
      mask: which frames are known, bool ``[F]``.
      rule: how the network receives them, which depends on how it was trained.
        ``"replace"``: noised like all other frames, with the noise of the run; for text-to-video
        networks.
        ``"timestep"``: clean, at timestep 0; ``denoise`` then receives timesteps ``[n, w]``, and
        its predictions at known frames are ignored (Wan 2.2 TI2V).
        ``"reference"``: as ``"timestep"``; and at timesteps in `REFERENCE_T`, windows that hold no
        known frame receive the last one before them as their first frame.
        ``"condition"``: by ``window_cond`` alone; the network draws the frames itself, and the
        latents here are not read (Wan I2V, CogVideoX I2V).

    Raises:
      InputError: on an unknown rule.
    """

    latents: Any
    mask: Any
    rule: KnownRule = "replace"

    def __post_init__(self) -> None:
        if self.rule not in get_args(KnownRule):
            raise InputError(
                argument="rule",
                expected=f"one of {', '.join(get_args(KnownRule))}",
                value=self.rule,
            )

    @classmethod
    def of(cls, known: Any) -> KnownFrames | None:
        """`known`, which may be a pair ``(latents, mask)``."""
        if known is None or isinstance(known, KnownFrames):
            return known
        if isinstance(known, tuple | list) and len(known) == 2:
            return cls(*known)
        raise InputError(argument="known", expected="a pair (latents, mask)", value=known)

    def placed(self, shape: tuple[int, ...], start: tuple[float, float]) -> Known | None:
        """The program's arguments; None where the program needs none.

        Args:
          shape: ``(F, H, W, C)``.
          start: signal and noise rate of the first timestep.

        Raises:
          InputError: on another shape, or a known frame that is not finite.
        """
        if self.rule == "condition":
            return None
        latents, mask = jnp.asarray(self.latents, jnp.float32), jnp.asarray(self.mask)
        if latents.shape != shape:
            raise InputError(f"known: latents have shape {latents.shape}", expected=f"{shape}")
        if mask.shape != shape[:1] or mask.dtype != jnp.bool_:
            raise InputError(
                f"known: the mask is {mask.dtype}{list(mask.shape)}", expected=f"bool[{shape[0]}]"
            )
        # Unknown frames are never read; as zeros they cannot spread a NaN.
        latents = jnp.where(mask[:, None, None, None], latents, jnp.float32(0.0))
        if not isinstance(latents, jax.core.Tracer) and not bool(jnp.isfinite(latents).all()):
            raise InputError("known: a known frame holds NaN or Inf")
        return Known(latents, mask, *(jnp.float32(rate) for rate in start))


def unknown(shape: tuple[int, ...]) -> Known:
    """Arguments that stand for no known frame, in a program that can have some."""
    one = jnp.ones((), jnp.float32)
    return Known(jnp.zeros(shape, jnp.float32), jnp.zeros(shape[0], bool), one, one)


def hold(x: jax.Array, known: Known | None) -> jax.Array:
    """`x` ``[F, H, W, C]`` with the clean latents of known frames; `x` itself without any."""
    return x if known is None else jnp.where(_wide(known.mask), known.latents, x)


def noised(x: jax.Array, noise: jax.Array, known: Known | None) -> jax.Array:
    """`x` ``[F, H, W, C]`` with known frames at the first timestep's noise level."""
    if known is None:
        return x
    return jnp.where(_wide(known.mask), known.a * known.latents + known.b * noise, x)


def at_frames(known: Known, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mask and latents of known frames at frame numbers of any shape; numbers below 0 stand for the
    first frame, numbers beyond the video for unknown frames."""
    inside = jnp.clip(frames, 0, known.mask.shape[0] - 1)
    return known.mask[inside] & (frames < known.mask.shape[0]), known.latents[inside]


def references(known: Known, layout: WindowLayout, t: jax.Array) -> jax.Array:
    """The reference of each window at timestep `t`: the last known frame before a window that holds
    none; -1 for no reference; int32 ``[N]``."""
    numbers = jnp.arange(layout.frames, dtype=jnp.int32)
    last = jax.lax.cummax(jnp.where(known.mask, numbers, -1))
    before = jnp.where(layout.starts > 0, last[np.maximum(layout.starts - 1, 0)], -1)
    alone = ~layout.gather(known.mask).any(axis=1)
    alone &= (t >= REFERENCE_T[0]) & (t <= REFERENCE_T[1])
    return jnp.where(alone, before, -1)


def at_windows(
    known: Known, layout: WindowLayout, windows: jax.Array | None, reference: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Mask ``[n, w]`` and latents ``[n, w, H, W, C]`` of known frames in windows ``[n]`` (None: all
    of them), with `references` as first frames."""
    mask, latents = layout.gather(known.mask, windows), layout.gather(known.latents, windows)
    if reference is None:
        return mask, latents
    frame = reference if windows is None else reference[windows]
    first = select(frame >= 0, known.latents[frame], latents[:, 0])
    return mask.at[:, 0].set(mask[:, 0] | (frame >= 0)), latents.at[:, 0].set(first)


def _wide(mask: jax.Array) -> jax.Array:
    return mask[..., None, None, None]


def select(mask: jax.Array, latents: jax.Array, x: jax.Array) -> jax.Array:
    """`latents` where `mask`, which has the leading axes of both, else `x`."""
    return jnp.where(_wide(mask), latents, x)


def host_mask(known: KnownFrames) -> np.ndarray:
    """The mask on the host, bool ``[F]``."""
    return np.asarray(known.mask, bool)
