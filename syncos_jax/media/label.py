"""A visible label on a video, such as "generated": light text on a dark bar, lower left."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from syncos_jax.errors import Argument, InputError
from syncos_jax.files.text import short

_SMALLEST = 8
_MISSING = "\U0010fffe"  # in no font


def check_label(text: str | None) -> None:
    """Raises InputError for a label that cannot be drawn on a video of any size."""
    if text is None:
        return
    if not text.isprintable() or not text.strip():
        raise InputError(place="label", value=text, expected="one line of text")
    unknown = sorted(_unknown(text))
    if unknown:
        raise InputError(
            f"{short(''.join(unknown))} cannot be drawn with the built-in font",
            place="label",
            remedy="use Latin letters, digits and common signs",
        )


def render(text: str, height: int, width: int) -> Image.Image:
    """The label for frames of this size, RGBA; its type shrinks until the text fits.

    Raises:
        InputError: no text, more than one line, characters that cannot be drawn, or text that is
            too long for the frame.
    """
    check_label(text)
    text = text.strip()
    size = max(_SMALLEST, height // 18)
    while True:
        font = ImageFont.load_default(size=size)
        left, top, right, bottom = font.getbbox(text)
        pad = max(2, size // 3)
        bar = (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad)
        if bar[0] <= width and bar[1] <= height:
            break
        if size <= _SMALLEST:
            raise InputError(
                f"too long for a video {width} pixels wide",
                argument="label",
                value=text,
                remedy=("shorten it, or enlarge the video with ", Argument("scale")),
            )
        size -= 1
    image = Image.new("RGBA", bar, (0, 0, 0, 170))
    ImageDraw.Draw(image).text((pad - left, pad - top), text, font=font, fill=(255, 255, 255, 255))
    return image


def _unknown(text: str) -> set[str]:
    font = ImageFont.load_default(size=16)
    missing = bytes(font.getmask(_MISSING))
    return {c for c in set(text) if not c.isspace() and bytes(font.getmask(c)) == missing}
