"""Draws ``world/objects.png``: ``python examples/demo_model/draw_objects.py icons.json``.

``icons.json`` is of the npm package ``@iconify-json/noto`` 1.2.9 (Noto Emoji by Google, Apache-2.0,
https://github.com/googlefonts/noto-emoji); rasterised with ``resvg-py`` 0.5.0. Of each icon the
silhouette and the brightness within it are kept: its colour is an attribute of the world.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

ICONS = (
    "cat dog elephant rabbit penguin duck fish turtle whale snail butterfly octopus crab horse "
    "giraffe t-rex automobile bus teapot airplane helicopter sailboat locomotive tractor "
    "red-apple pear strawberry cherries mushroom ice-cream umbrella key crown red-heart house "
    "christmas-tree tulip top-hat anchor bell"
).split()
CELL, COLUMNS = 64, 8
DRAWN = 256  # pixels; more than an icon's 128 units
MARGIN = 1.06  # side of a cell over the larger side of its object


def cell(body: str) -> np.ndarray:
    """Brightness and coverage of an icon, uint8 ``[CELL, CELL, 2]``."""
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 128 128" width="{DRAWN}" height="{DRAWN}">{body}</svg>'
    )
    drawn = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")
    pixels = np.pad(np.asarray(drawn, np.float32) / 255, ((DRAWN, DRAWN),) * 2 + ((0, 0),))
    cover = pixels[..., 3]
    inside = cover > 0.5
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    half = MARGIN * (1 + max(np.ptp(rows), np.ptp(columns))) / 2
    y, x = ((edge[0] + edge[-1] + 1) / 2 for edge in (rows, columns))
    bright = pixels[..., :3] @ np.asarray([0.299, 0.587, 0.114], np.float32)
    low, high = np.percentile(bright[inside], [5, 95])
    shade = np.clip((bright - low) / max(high - low, 0.1), 0, 1)
    small = [
        np.asarray(
            Image.fromarray(plane).resize(
                (CELL, CELL), Image.Resampling.LANCZOS, box=(x - half, y - half, x + half, y + half)
            )
        ).clip(0, 1)
        for plane in (cover * shade, cover)
    ]
    shade = small[0] / np.maximum(small[1], 1 / 255)
    return np.rint(255 * np.stack([shade, small[1]], axis=-1).clip(0, 1)).astype(np.uint8)


def main() -> None:
    """Write the sheet next to the world's code."""
    icons = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["icons"]
    cells = np.stack([cell(icons[name]["body"]) for name in ICONS])
    grid = cells.reshape(-1, COLUMNS, CELL, CELL, 2).swapaxes(1, 2)
    sheet = grid.reshape(-1, COLUMNS * CELL, 2)
    Image.fromarray(sheet, "LA").save(
        Path(__file__).parent / "world" / "objects.png", optimize=True
    )


if __name__ == "__main__":
    main()
