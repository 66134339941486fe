"""Pictures in: any size, orientation and mode, as the RGB frame of a video."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from syncos_jax.errors import InputError

Fit = Literal["cover", "contain"]
FITS: tuple[Fit, ...] = ("cover", "contain")
SMALLEST = 16
"""Pixels of the shorter side below which a picture is refused."""
_MAX_PIXELS = 100_000_000
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "JPEG2000", "PPM", "TGA")
"""Of Pillow's formats those of pictures; some others run programs or have no pixels."""
_GROUND = (255, 255, 255)  # what shows through a transparent picture


def load_picture(path: str | os.PathLike[str], max_pixels: int = _MAX_PIXELS) -> np.ndarray:
    """Reads a picture as it is meant to be seen, uint8 ``[H, W, 3]``, RGB.

    Turned as its EXIF data says; transparent parts on white; 16 bits scaled to 8; grey and CMYK
    converted. Colour profiles are not applied.

    Args:
        path: PNG, JPEG, WebP, AVIF, TIFF, GIF, BMP, JPEG 2000, PPM or TGA.
        max_pixels: more are refused before they are decoded.

    Raises:
        InputError: no such file, not a picture, damaged, animated, too small or too large.
    """
    source = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # checked here
            with Image.open(source, formats=_FORMATS) as image:
                _check(source, image, max_pixels)
                return np.asarray(as_rgb(ImageOps.exif_transpose(image)))
    except (FileNotFoundError, IsADirectoryError) as error:
        what = "a folder" if source.is_dir() else "no such file"
        raise InputError(what, place=source, remedy="give a picture") from error
    except Image.DecompressionBombError as error:  # before its size can be checked
        raise _too_many(source, "the picture's", max_pixels) from error
    except UnidentifiedImageError as error:
        kind = " HEIC files cannot be read" if source.suffix.lower() in (".heic", ".heif") else ""
        raise InputError(
            f"not a picture that can be read{';' + kind if kind else ''}",
            place=source,
            remedy="save it as PNG or JPEG",
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            "the picture is damaged or cut short", place=source, remedy="save it again as PNG"
        ) from error


def fit_picture(picture: np.ndarray, height: int, width: int, fit: Fit = "cover") -> np.ndarray:
    """A picture at the size of a video.

    Args:
        picture: uint8 ``[H, W, 3]``.
        height, width: of the result, in pixels.
        fit: "cover" fills the frame and cuts off what stands over, equally on both sides;
            "contain" shows all of it, on black.

    Returns:
        uint8 ``[height, width, 3]``.
    """
    if fit not in FITS:
        raise InputError(argument="fit", expected="cover or contain", value=fit)
    image = Image.fromarray(picture)
    if fit == "cover":
        made = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    else:
        made = ImageOps.pad(image, (width, height), Image.Resampling.LANCZOS, color=(0, 0, 0))
    return np.asarray(made)


def recompressed(picture: np.ndarray, crf: int) -> np.ndarray:
    """A picture after H.264 compression: networks trained on compressed videos otherwise take a
    sharp picture for a still one, and nothing moves.

    Args:
        picture: uint8 ``[H, W, 3]``; an odd last row or column is cut off.
        crf: quality, 1 to 51.
    """
    picture = np.ascontiguousarray(picture[: len(picture) // 2 * 2, : picture.shape[1] // 2 * 2])
    stream: Any = av.CodecContext.create("libx264", "w")
    stream.height, stream.width = picture.shape[:2]
    stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1)
    stream.options = {"crf": str(crf), "preset": "veryfast"}
    frame = av.VideoFrame.from_ndarray(picture).reformat(format="yuv420p")
    packets = [*stream.encode(frame), *stream.encode(None)]
    reader: Any = av.CodecContext.create("h264", "r")
    decoded = [f for packet in packets for f in reader.decode(packet)] + reader.decode(None)
    made: np.ndarray = decoded[0].to_ndarray(format="rgb24")
    return made


def describe_fit(shape: Sequence[int], height: int, width: int, fit: Fit = "cover") -> str:
    """One line on what `fit_picture` does to a picture of shape ``[H, W, 3]``."""
    tall, wide = shape[:2]
    size = f"{wide}×{tall} to {width}×{height}"
    if tall * width == wide * height:
        return size
    if fit == "contain":
        return f"{size}, with black bars"
    kept = min(tall * width, wide * height) / max(tall * width, wide * height)
    side = "left and right" if wide * height > tall * width else "top and bottom"
    return f"{size}, {100 * (1 - kept):.0f} % cut off at {side}"


def _check(source: Path, image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_many(source, f"{width}×{height}", max_pixels)
    if min(width, height) < SMALLEST:
        raise InputError(
            f"{width}×{height} pixels are too few",
            place=source,
            expected=f"at least {SMALLEST} on each side",
        )
    if getattr(image, "n_frames", 1) > 1 and image.format not in ("MPO", "TIFF"):
        raise InputError(
            f"an animation of {image.n_frames} frames",  # type: ignore[attr-defined]
            place=source,
            expected="a still picture",
            remedy="save one of its frames as PNG",
        )


def _too_many(source: Path, how_many: str, max_pixels: int) -> InputError:
    return InputError(
        f"{how_many} pixels are too many",
        place=source,
        expected=f"at most {max_pixels / 1e6:g} million pixels",
        remedy="make the picture smaller",
    )


def as_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode in RGB: transparent parts on white, 16 bits scaled to 8."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        if image.mode == "F":
            values = values * 255 if values.max(initial=0) <= 1 else values
        elif image.mode.startswith("I;16") or values.max(initial=0) > 255:
            values = values / 257
        image = Image.fromarray(np.clip(np.rint(np.nan_to_num(values)), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*_GROUND, 255))
        image = Image.alpha_composite(ground, image)
    return image.convert("RGB")
