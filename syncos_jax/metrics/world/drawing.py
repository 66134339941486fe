"""What the demo world looks like: its backgrounds, and the outlines of its shapes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.metrics.world.attributes import BACKGROUNDS, SHAPES, SIZE

# Half side, circumradius, outer and inner radius, in nominal radii: areas lie between 2.1 and 3.1.
_BOX = 0.88
_TRIANGLE = 1.35
_STAR = (1.32, 0.54)


@lru_cache(maxsize=1)
def backgrounds() -> np.ndarray:
    """The fixed background images: float32 ``[len(BACKGROUNDS), 64, 64, 3]`` in 0..255."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) * np.float32(2 * np.pi / SIZE)
    images = np.zeros((len(BACKGROUNDS), SIZE, SIZE, 3), np.float32)

    def paint(
        name: str, base: tuple[int, int, int], tint: tuple[int, int, int], wave: np.ndarray
    ) -> None:
        images[BACKGROUNDS.index(name)] = np.asarray(base, np.float32) + wave[..., None] * (
            np.asarray(tint, np.float32)
        )

    # Wave numbers count periods across the frame; 7 is the finest (9 px a period).
    paint(
        "meadow",
        (78, 126, 58),
        (14, 20, 12),
        0.6 * np.sin(6 * x + 1.2 * np.sin(2 * y)) + 0.5 * np.sin(3 * y + 1.5 * np.sin(x)),
    )
    paint(
        "beach",
        (202, 172, 112),
        (14, 14, 16),
        np.sin(5 * y + 1.4 * np.sin(x) + x),
    )
    paint(
        "snow",
        (220, 228, 238),
        (16, 12, 7),
        0.7 * np.sin(2 * x + y + np.sin(2 * y)) + 0.5 * np.sin(3 * y - x),
    )
    paint("night", (14, 18, 46), (6, 8, 20), np.cos(y / 2) + 0.2 * np.sin(2 * x))
    night = images[BACKGROUNDS.index("night")]
    row, column = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    for star_x, star_y in ((9, 12), (27, 5), (44, 15), (57, 30), (18, 36), (36, 44), (8, 56),
                           (52, 55)):  # fmt: skip
        glow = np.exp(-((column - star_x) ** 2 + (row - star_y) ** 2) / (2 * 1.3**2))
        night += glow[..., None] * np.asarray((85, 85, 75), np.float32)
    images = np.clip(images, 0, 255)
    images.setflags(write=False)
    return images


def signed_distance(shape: str, x: np.ndarray, y: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Signed distance (px, negative inside) from a subject's outline.

    Args:
        shape: a name from ``SHAPES``.
        x: float32, pixel minus centre, ``[n, 1, W]``.
        y: float32, pixel minus centre, ``[n, H, 1]``.
        size: float32, nominal radius, ``[n, 1, 1]``.

    Returns:
        float32 ``[n, H, W]``: exact near the edges, an underestimate far outside a corner.
    """
    if shape == "ball":
        return np.sqrt(x * x + y * y) - size
    if shape == "box":
        return np.maximum(np.abs(x), np.abs(y)) - np.float32(_BOX) * size
    if shape == "triangle":  # tip up; the centre is the centroid
        slant = np.abs(x) * np.float32(np.sqrt(0.75)) - y * np.float32(0.5)
        return np.maximum(slant, y) - np.float32(_TRIANGLE / 2) * size
    if shape == "star":  # fold the plane into the half wedge of the upper tip
        x, y = np.broadcast_arrays(np.abs(x), -y)
        for angle in (0.6 * np.pi, 0.2 * np.pi):  # mirrors, measured from the upper tip
            out_x, out_y = np.float32(np.cos(angle)), np.float32(-np.sin(angle))
            over = 2 * np.maximum(out_x * x + out_y * y, 0)
            x, y = x - over * out_x, y - over * out_y
        x = np.abs(x)
        outer, inner = _STAR
        valley_x, valley_y = inner * np.sin(np.pi / 5), inner * np.cos(np.pi / 5)
        edge = np.hypot(valley_x, outer - valley_y)
        out_x, out_y = np.float32((outer - valley_y) / edge), np.float32(valley_x / edge)
        return x * out_x + y * out_y - np.float32(outer * out_y) * size
    raise InputError(f"shape {shape!r} is not one of {', '.join(SHAPES)}")
