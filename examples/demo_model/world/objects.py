"""Forty drawn objects and six places: the next world, which people recognise.

The objects are of Noto Emoji (Google, Apache-2.0), as ``objects.png`` holds them: brightness and
coverage, 64 × 64 each. A subject's colour is its attribute's, darker where the object is dark.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from syncos_jax.metrics.world import BACKGROUNDS, SIZE
from syncos_jax.metrics.world.drawing import backgrounds
from syncos_jax.metrics.world.words import PLACES, SHAPE_WORDS

CELL = 64
REACH = 1.25  # half a cell, in nominal radii
DARKEST, BRIGHTEST = 0.55, 1.1  # of the colour
_FINE = 2  # samples along each side of a pixel

OBJECT_WORDS: dict[str, tuple[str, ...]] = {
    "cat": ("cat", "kitten"),
    "dog": ("dog", "puppy"),
    "elephant": ("elephant",),
    "rabbit": ("rabbit", "bunny"),
    "penguin": ("penguin",),
    "duck": ("duck",),
    "fish": ("fish",),
    "turtle": ("turtle", "tortoise"),
    "whale": ("whale",),
    "snail": ("snail",),
    "butterfly": ("butterfly",),
    "octopus": ("octopus",),
    "crab": ("crab",),
    "horse": ("horse",),
    "giraffe": ("giraffe",),
    "dinosaur": ("dinosaur", "t-rex"),
    "car": ("car",),
    "bus": ("bus",),
    "teapot": ("teapot",),
    "airplane": ("airplane", "plane"),
    "helicopter": ("helicopter",),
    "sailboat": ("sailboat", "boat"),
    "train": ("train", "locomotive"),
    "tractor": ("tractor",),
    "apple": ("apple",),
    "pear": ("pear",),
    "strawberry": ("strawberry",),
    "cherry": ("cherry",),
    "mushroom": ("mushroom",),
    "sundae": ("sundae", "ice cream"),
    "umbrella": ("umbrella",),
    "key": ("key",),
    "crown": ("crown",),
    "heart": ("heart",),
    "house": ("house",),
    "fir": ("fir tree", "christmas tree"),
    "tulip": ("tulip", "flower"),
    "hat": ("top hat", "hat"),
    "anchor": ("anchor",),
    "bell": ("bell",),
}
OBJECTS = tuple(OBJECT_WORDS)
SUBJECT_WORDS = SHAPE_WORDS | OBJECT_WORDS

MORE_PLACES: dict[str, tuple[str, ...]] = {
    "sea": ("on the sea", "on the water", "at sea", "on the waves"),
    "road": ("on a grey road", "on a road", "in the street", "on the asphalt"),
}
PLACE_WORDS = PLACES | MORE_PLACES
SCENERY = (*BACKGROUNDS, *MORE_PLACES)


@lru_cache(maxsize=1)
def scenery() -> np.ndarray:
    """The background images: float32 ``[len(SCENERY), 64, 64, 3]`` in 0..255."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) * np.float32(2 * np.pi / SIZE)
    waves = np.sin(6 * y + 1.3 * np.sin(2 * x) + 0.7 * np.sin(y))
    stripe = np.clip(6 * np.cos(y) - 5.2, 0, 1) * (np.sin(3 * x) > 0)
    grain = 0.6 * np.sin(7 * x + 3 * y) + 0.5 * np.sin(5 * y - 4 * x)
    plain = {
        "sea": ((24, 92, 118), waves[..., None] * np.asarray((10, 20, 22), np.float32)),
        "road": ((104, 106, 112), (6 * grain + 70 * stripe)[..., None]),
    }
    more = [np.asarray(base, np.float32) + texture for base, texture in plain.values()]
    images = np.concatenate([backgrounds(), np.stack(more)]).clip(0, 255).astype(np.float32)
    images.setflags(write=False)
    return images


@lru_cache(maxsize=1)
def _cells() -> np.ndarray:
    """Brightness times coverage, and coverage, float32 ``[len(OBJECTS), 2, CELL, CELL]``."""
    with Image.open(Path(__file__).with_name("objects.png")) as sheet:
        values = np.asarray(sheet, np.float32) / 255
    columns = values.shape[1] // CELL
    cells = values.reshape(-1, CELL, columns, CELL, 2).swapaxes(1, 2).reshape(-1, CELL, CELL, 2)
    return np.stack([cells[..., 0] * cells[..., 1], cells[..., 1]], axis=1)


def drawn_object(name: str, x: float, y: float, size: float) -> tuple[np.ndarray, np.ndarray]:
    """One object in a frame.

    Args:
        name: of `OBJECTS`.
        x, y: centre, px.
        size: nominal radius, px.

    Returns:
        coverage in 0..1 and brightness as a factor of the colour, float32 ``[64, 64]`` each.
    """
    fine = (np.arange(SIZE * _FINE, dtype=np.float32) + 0.5) / _FINE - 0.5
    scale = CELL / (2 * REACH * size)
    places = [(fine - centre) * scale + (CELL - 1) / 2 for centre in (y, x)]
    grid = np.meshgrid(*places, indexing="ij")
    light, cover = (
        ndimage.map_coordinates(plane, grid, order=1, mode="constant")
        .reshape(SIZE, _FINE, SIZE, _FINE)
        .mean(axis=(1, 3))
        for plane in _cells()[OBJECTS.index(name)]
    )
    shade = DARKEST + (BRIGHTEST - DARKEST) * light / np.maximum(cover, 1e-3)
    return cover.astype(np.float32), shade.astype(np.float32)
