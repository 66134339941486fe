"""A video's way through layers that look ahead, whole or in pieces.

Each layer of a stream keeps its last frames and returns as many frames as it is given, numbered
from where it can compute them: they lag behind what goes in. Frames outside of the video are
computed along (they fill the pipeline, and empty it at the end) and have no meaning.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

Kept = tuple[tuple[jax.Array, ...], ...]
"""Frames that each layer keeps of the piece before."""


class Piece:
    """The frames that a layer is given: all of a video, or a piece of a stream.

    The frames of a piece are numbered ``start .. start + n - 1``, those of the video
    ``0 .. length - 1``.

    Args:
        start, length: int32 scalars; None for a whole video.
        kept: frames that the layer kept; None to start with zeros.
    """

    def __init__(self, start: Any = None, length: Any = None, kept: Any = None):
        self.start, self.length = start, length
        self._old = None if kept is None else iter(kept)
        self.kept: tuple[jax.Array, ...] = ()

    def _extended(self, x: jax.Array, frames: int) -> jax.Array:
        """``x`` with the last `frames` in front of it."""
        if self._old is None:
            before = jnp.zeros((x.shape[0], frames, *x.shape[2:]), x.dtype)
        else:
            before = next(self._old)
        y = jnp.concatenate([before, x], axis=1)
        self.kept = (*self.kept, y[:, -frames:])
        return y

    def surrounded(self, x: jax.Array, before: int, after: int) -> jax.Array:
        """``[n, before + f + after, ...]``: what a convolution over frames needs. The first and the
        last frame of the video stand for those outside of it."""
        if self.start is None:
            first, last = jnp.repeat(x[:, :1], before, axis=1), jnp.repeat(x[:, -1:], after, axis=1)
            return jnp.concatenate([first, x, last], axis=1)
        y = self._extended(x, before + after)
        begin = self.start - (before + after)
        number = jnp.clip(jnp.arange(y.shape[1], dtype=jnp.int32) + begin, 0, self.length - 1)
        self.start = self.start - after
        return jnp.take(y, jnp.clip(number - begin, 0, y.shape[1] - 1), axis=1)

    def delayed(self, x: jax.Array, frames: int) -> jax.Array:
        """As many frames, `frames` earlier: for a shortcut around layers that lag."""
        if self.start is None or not frames:
            return x
        return self._extended(x, frames)[:, : x.shape[1]]


class Stream:
    """What passes a video from layer to layer.

    Args:
        start, length: of the first layer's `Piece`; None for a whole video.
        kept: what the piece before left; None to start with zeros.
    """

    def __init__(self, start: Any = None, length: Any = None, kept: Kept | None = None):
        self.start, self.length = start, length
        self._old: Iterator[tuple[jax.Array, ...]] | None = None if kept is None else iter(kept)
        self.kept: Kept = ()

    def through(self, layer: Any, x: jax.Array, *arguments: Any) -> jax.Array:
        """``layer(x, piece, *arguments)``, skipped where the layer is given no frame of the video
        or returns none.

        Args:
            layer: has ``moved(start, length)``, which says how it numbers what it returns.
            x: ``[n, f, h, w, C]``.
            arguments: further ones.
        """
        if self.start is None:
            return layer(x, Piece(), *arguments)
        kept = None if self._old is None else next(self._old)

        def run() -> tuple[jax.Array, tuple[jax.Array, ...]]:
            piece = Piece(self.start, self.length, kept)
            return layer(x, piece, *arguments), piece.kept

        start, length = layer.moved(self.start, self.length)
        if kept is None:
            y, new = run()
        else:
            like = jax.eval_shape(run)[0]
            needed = (self.start + x.shape[1] > 0) & (start < length)
            y, new = jax.lax.cond(
                needed, run, lambda: (jnp.zeros(like.shape, like.dtype), tuple(kept))
            )
        self.kept = (*self.kept, new)
        self.start, self.length = start, length
        return y
