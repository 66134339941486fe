"""The page's plots: curves as SVG points, matrices as PNG in perceptually even colours."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

# Anchors of the viridis map (CC0): even steps in lightness, readable without colour vision.
_RAMP = np.asarray(
    [
        (68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142),
        (31, 158, 137), (53, 183, 121), (109, 205, 89), (180, 222, 44), (253, 231, 37),
    ],
    np.float64,
)  # fmt: skip


def data_uri(raw: bytes, kind: str) -> str:
    """``raw`` as a URI of the media type ``kind``."""
    return f"data:{kind};base64,{base64.b64encode(raw).decode('ascii')}"


def colours(values: np.ndarray) -> np.ndarray:
    """uint8 ``[..., 3]`` of values in 0 .. 1."""
    at = np.clip(values, 0, 1) * (len(_RAMP) - 1)
    channels = [np.interp(at, np.arange(len(_RAMP)), _RAMP[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def heat_png(levels: np.ndarray) -> str:
    """A matrix of uint8 levels as a PNG, one pixel a value, as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(colours(levels / 255)).save(buffer, format="PNG", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")


def ramp_png() -> str:
    """The colours from low to high, as a data URI."""
    return heat_png(np.arange(256, dtype=np.uint8)[None])


def levels(matrix: np.ndarray, low: float) -> np.ndarray:
    """Values in ``low`` .. 1 as uint8."""
    scaled = (matrix - low) / max(1 - low, 1e-9)
    return np.clip(np.rint(scaled * 255), 0, 255).astype(np.uint8)


def polyline(x: Sequence[float], y: Sequence[float], low: float, high: float) -> str:
    """Points of an SVG polyline in a 1000 × 200 box; ``x`` in 0 .. 1, ``y`` in low .. high."""
    height = [200 * (1 - (value - low) / (high - low)) for value in y]
    return " ".join(f"{1000 * a:.1f},{b:.1f}" for a, b in zip(x, height, strict=True))


def axis(values: Sequence[float], top: float | None = None) -> tuple[float, float]:
    """A low and a high end in round numbers: from 0 up, or down from ``top``."""
    if top is None:
        step = 10.0 ** np.floor(np.log10(max(max(values), 1e-3)))
        return 0.0, max(float(np.ceil(max(values) / step) * step), 1.0)
    step = 10.0 ** np.floor(np.log10(max(top - min(values), 0.01)))
    return min(float(np.floor(min(values) / step) * step), top - 0.1), top
