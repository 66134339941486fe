"""How a long video is covered by overlapping windows, and how windows are fused again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax.errors import InputError

WEIGHTINGS = ("uniform", "triangle")


@dataclass(frozen=True)
class WindowLayout:
    """Windows of a fixed length over a longer video.

    Windows start at ``0, stride, 2*stride, ...``; where the last of them would not reach the
    end of the video, one more starts at ``frames - window``. Axes: ``F`` frames of the long
    video, ``N`` windows, ``w`` frames of a window.

    Attributes:
      frames: length ``F`` of the long (latent) video, in latent frames.
      window: length ``w`` of a window, in latent frames: the clip length of the base model.
      stride: distance of two neighbouring windows, ``1 <= stride <= window``.
      weighting: how much a window's frame counts in `fuse`: ``"uniform"`` (the method as
        published) or ``"triangle"`` (1, 2, ..., 2, 1: the middle of a window counts most).
      drop_leading: frames at the beginning of each window but the video's first that are predicted
      and
        thrown away. To a model that is causal in time a clip's first latent frame is the beginning
        of a scene; in mid-video it is not, and the windows before cover that frame.

    Raises:
      InputError: if the video is shorter than a window, or a number is out of range.
    """

    frames: int
    window: int
    stride: int
    weighting: str = "uniform"
    drop_leading: int = 0

    def __post_init__(self) -> None:
        for name in ("frames", "window", "stride"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise InputError(f"WindowLayout: {name} must be a positive integer, got {value!r}")
            object.__setattr__(self, name, int(value))
        if self.frames < self.window:
            raise InputError(
                f"WindowLayout: the video has {self.frames} frames, fewer than one window of "
                f"{self.window}; make it at least {self.window} frames long"
            )
        if self.stride > self.window:
            raise InputError(
                f"WindowLayout: stride {self.stride} is larger than the window {self.window} and "
                f"would leave frames uncovered; choose 1 to {self.window}"
            )
        if self.drop_leading < 0 or self.stride > self.window - self.drop_leading:
            raise InputError(
                f"WindowLayout: drop_leading {self.drop_leading} and stride {self.stride} "
                f"together are "
                f"more than the window of {self.window}, which would leave frames uncovered"
            )
        if self.weighting not in WEIGHTINGS:
            raise InputError(
                f"WindowLayout: unknown weighting {self.weighting!r}; "
                f"one of {', '.join(WEIGHTINGS)}"
            )

    def __len__(self) -> int:
        return self.count

    @cached_property
    def starts(self) -> np.ndarray:
        """First frame of each window, int32 ``[N]``."""
        starts = list(range(0, self.frames - self.window + 1, self.stride))
        if starts[-1] + self.window < self.frames:
            starts.append(self.frames - self.window)
        return np.asarray(starts, np.int32)

    @property
    def centers(self) -> np.ndarray:
        """The frame that decides which event a window belongs to, ``start + w // 2``; int32
        ``[N]``."""
        return self.starts + np.int32(self.window // 2)

    @property
    def count(self) -> int:
        """Number of windows ``N``."""
        return len(self.starts)

    @cached_property
    def frame_index(self) -> np.ndarray:
        """Frame of the long video at each place of each window, int32 ``[N, w]``."""
        return self.starts[:, None] + np.arange(self.window, dtype=np.int32)

    @cached_property
    def weights(self) -> np.ndarray:
        """Weight of each place in a window before normalisation, float32 ``[w]``, all > 0."""
        if self.weighting == "uniform":
            return np.ones(self.window, np.float32)
        place = np.arange(self.window)
        return np.minimum(place + 1, self.window - place).astype(np.float32)

    @cached_property
    def coverage(self) -> np.ndarray:
        """Number of windows over each frame, int32 ``[F]``, all >= 1."""
        return np.bincount(self.frame_index.ravel(), minlength=self.frames).astype(np.int32)

    @cached_property
    def _cover(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each frame the windows over it, padded to the largest coverage ``K``.

        Returns ``[F, K]`` arrays: window, place in that window, weight (0 where padded).
        """
        depth = int(self.coverage.max())
        window = np.zeros((self.frames, depth), np.int32)
        place = np.zeros((self.frames, depth), np.int32)
        weight = np.zeros((self.frames, depth), np.float32)
        used = np.zeros(self.frames, np.int32)
        for n, frames in enumerate(self.frame_index):
            window[frames, used[frames]] = n
            place[frames, used[frames]] = np.arange(self.window)
            weight[frames, used[frames]] = self.weights
            if n:
                begins = frames[: self.drop_leading]
                weight[begins, used[begins]] = 0.0
            used[frames] += 1
        return window, place, weight

    def gather(self, x: jax.Array, windows: jax.Array | None = None) -> jax.Array:
        """Cuts windows out of a long video.

        Args:
          x: ``[F, ...]``.
          windows: which ones, int ``[n]``, each in ``0 .. N-1``; None for all.

        Returns:
          ``[N, w, ...]``, or ``[n, w, ...]`` where `windows` is given.
        """
        self._check(x, (self.frames,), "gather: x")
        index = jnp.asarray(self.frame_index)
        return jnp.asarray(x)[index if windows is None else index[windows]]

    def fuse(
        self,
        v: jax.Array,
        windows: jax.Array | None = None,
        without_first: jax.Array | None = None,
    ) -> jax.Array:
        """Per frame, the weighted mean over the windows that cover it.

        Args:
          v: ``[N, w, ...]``, or ``[n, w, ...]`` with `windows`.
          windows: which windows `v` holds, int ``[n]``, no two alike; None for all of them.
          without_first: windows whose first frame does not count, bool ``[N]``.

        Returns:
          ``[F, ...]``; a frame that none of the given windows covers is 0.
        """
        v = jnp.asarray(v)
        window, place, weight = (jnp.asarray(table) for table in self._cover)
        if without_first is not None:
            weight = jnp.where(without_first[window] & (place == 0), 0.0, weight)
        if windows is None:
            self._check(v, (self.count, self.window), "fuse: v")
        else:
            self._check(v, (windows.shape[0], self.window), "fuse: v")
            given = jnp.zeros(self.count, weight.dtype).at[windows].set(1.0)
            weight = weight * given[window]
            v = jnp.zeros((self.count, *v.shape[1:]), v.dtype).at[windows].set(v)
        # A sum over a table of contributions, not a scatter-add: the order of the additions is
        # then the same on every machine and for every batching of the windows.
        total = weight.sum(axis=1)
        share = (weight / jnp.where(total > 0, total, 1.0)[:, None]).astype(v.dtype)
        share = share.reshape(share.shape + (1,) * (v.ndim - 2))
        return (share * v[window, place]).sum(axis=1)

    def event_of_window(self, event_frame_lengths: Sequence[int]) -> np.ndarray:
        """The event that each window's middle frame lies in.

        The middle frame of a window is ``start + w // 2``.

        Args:
          event_frame_lengths: length of each event in latent frames; they add up to `frames`.

        Returns:
          int32 ``[N]``, each in ``0 .. E-1``.

        Raises:
          InputError: if a length is negative or not whole, or they do not add up to `frames`.
        """
        lengths = np.asarray(event_frame_lengths)
        if lengths.ndim != 1 or not np.issubdtype(lengths.dtype, np.integer) or (lengths < 0).any():
            raise InputError(
                f"event lengths must be integers, in frames, got {list(event_frame_lengths)}"
            )
        if lengths.sum() != self.frames:
            raise InputError(
                f"the events are {lengths.sum()} latent frames long together, the video "
                f"{self.frames}; make them equal"
            )
        return np.searchsorted(np.cumsum(lengths), self.centers, side="right").astype(np.int32)

    def _check(self, x: jax.Array, leading: tuple[int, ...], what: str) -> None:
        if tuple(np.shape(x)[: len(leading)]) != leading:
            raise InputError(f"{what} has shape {np.shape(x)}; expected {[*leading]} in front")
