"""A preview of a video while it is being sampled: a strip of frames, cheap enough to write often.

A linear map turns each latent cell into a colour. For each preview the map is fitted by least
squares to a few frames decoded by the VAE, so the cost does not depend on the video's length.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from syncos_jax.errors import InputError
from syncos_jax.files import check_writable, replacing

if TYPE_CHECKING:
    from syncos_jax.pipeline import Pipeline
    from syncos_jax.sampling.run import Run

_FITTED = 4
_SHOWN = 16
_COLUMNS = 8
_CELL = 128


def colours(latents: np.ndarray, frames: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """All latents as small pictures, by the linear map that best fits a few decoded frames.

    Args:
        latents: float32 ``[F, h, w, C]``.
        frames: uint8 ``[n, H, W, 3]``, decoded from the chosen latents.
        chosen: int ``[n]``, their indices.

    Returns:
        uint8 ``[F, h, w, 3]``.
    """
    height, width = latents.shape[1:3]
    rows, columns = frames.shape[1] // height, frames.shape[2] // width
    cells = frames.reshape(len(frames), height, rows, width, columns, 3).mean(axis=(2, 4))
    ones = np.ones((*latents.shape[:3], 1), np.float32)
    features = np.concatenate([latents, ones], axis=-1)
    known = features[chosen].reshape(-1, features.shape[-1])
    fit, *_ = np.linalg.lstsq(known, cells.reshape(-1, 3), rcond=None)
    return np.clip(np.round(features @ fit), 0, 255).astype(np.uint8)


class Preview:
    """Writes a strip of the video, as far as it is, every `every` calls of the network.

    Args:
        pipeline: whose VAE decodes.
        path: the PNG; replaced each time.
        every: network calls between previews, at least.
    """

    def __init__(self, pipeline: Pipeline, path: str | os.PathLike[str], every: int = 20) -> None:
        if every < 1:
            raise InputError(argument="preview_every", value=every, expected="1 or more")
        self.path = check_writable(path)
        self._pipeline = pipeline
        self._every = every
        self._next = every

    def __call__(self, run: Run) -> None:
        """Call it between the parts of a run; writes only once `every` calls have passed."""
        if run.next_call < self._next and run.next_call < run.num_calls:
            return
        self._next = run.next_call + self._every
        self.write(np.asarray(run.clean, np.float32))

    def write(self, latents: np.ndarray) -> None:
        """Writes the strip of these clean latents ``[F, h, w, C]``."""
        count = len(latents)
        chosen = np.unique(np.linspace(0, count - 1, min(_FITTED, count)).round().astype(int))
        # One by one: a causal VAE makes one frame of the first latent and several of later ones.
        decoded = np.concatenate([self._pipeline.decode(latents[i : i + 1])[:1] for i in chosen])
        small = colours(latents, decoded, chosen)
        shown = np.unique(np.linspace(0, count - 1, min(_SHOWN, count)).round().astype(int))
        height, width = small.shape[1:3]
        factor = max(1, _CELL // max(height, width))
        size = (width * factor, height * factor)
        columns = min(_COLUMNS, len(shown))
        lines = -(-len(shown) // columns)
        strip = Image.new("RGB", (columns * (size[0] + 4) + 4, lines * (size[1] + 4) + 4))
        for cell, index in enumerate(shown):
            still = Image.fromarray(small[index]).resize(size, Image.Resampling.BICUBIC)
            line, column = divmod(cell, columns)
            strip.paste(still, (4 + column * (size[0] + 4), 4 + line * (size[1] + 4)))
        with replacing(self.path, durable=False) as temporary:
            strip.save(temporary, format="PNG")
