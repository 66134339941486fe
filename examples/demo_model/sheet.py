"""Clips and their prompts as one picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from syncos_jax.files import replacing

COLUMNS = 3
LINE, GAP = 14, 8


def write_sheet(path: Path, clips: np.ndarray, prompts: Sequence[str]) -> None:
    """Write a PNG of clips uint8 ``[n, F, H, W, 3]``, each as a row of its frames under its prompt,
    `COLUMNS` in a row."""
    n, frames, height, width, _ = clips.shape
    cell = frames * width + GAP, height + LINE + GAP
    sheet = Image.new("RGB", (COLUMNS * cell[0], -(-n // COLUMNS) * cell[1]), (24, 24, 28))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for number, (clip, text) in enumerate(zip(clips, prompts, strict=True)):
        x, y = number % COLUMNS * cell[0], number // COLUMNS * cell[1]
        draw.text((x + 2, y), text, font=font, fill=(200, 205, 215))
        sheet.paste(Image.fromarray(np.concatenate(list(clip), axis=1)), (x, y + LINE))
    with replacing(path) as part:
        sheet.save(part, format="PNG")
