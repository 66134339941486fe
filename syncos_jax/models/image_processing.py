"""How a picture is prepared for an image encoder: resized, cropped, normed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from syncos_jax.errors import InputError
from syncos_jax.models.resample import resize, shorter_side

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class ImageProcessing:
    """The steps, in their order; the defaults are CLIP's.

    Attributes:
        shorter: length that the shorter side is resized to, or None.
        size: height and width that a picture is stretched to instead, or None.
        crop: height and width of the middle part that is kept, or None.
        resample: how pixels are resampled: a number of Pillow's (3: bicubic, antialiased), or
            "torch" for bicubic without antialiasing, as Wan's own code does.
        scale: multiplies the values 0 to 255.
        mean, std: of the colours, after that.
    """

    shorter: int | None = 224
    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = (224, 224)
    resample: int | str = 3
    scale: float = 1 / 255
    mean: tuple[float, ...] = _MEAN
    std: tuple[float, ...] = _STD

    @classmethod
    def wan(cls) -> ImageProcessing:
        """Of Wan's own code: stretched to 224 x 224, bicubic without antialiasing."""
        return cls(shorter=None, size=(224, 224), crop=None, resample="torch")

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """A picture uint8 ``[H, W, 3]`` as the encoder takes it, float32 ``[h, w, 3]``."""
        height, width = picture.shape[:2]
        if self.size is not None:
            height, width = self.size
        elif self.shorter is not None:
            height, width = shorter_side(height, width, self.shorter)
        if self.resample == "torch":
            values = resize(picture[None], height, width, "bicubic")[0]
        else:
            how = Image.Resampling(int(self.resample))
            values = np.asarray(Image.fromarray(picture).resize((width, height), how))
        if self.crop is not None:
            values = _middle(values, *self.crop)
        values = values.astype(np.float32) * np.float32(self.scale)
        made: np.ndarray = (values - np.asarray(self.mean, np.float32)) / np.asarray(
            self.std, np.float32
        )
        return made.astype(np.float32)


def _middle(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of ``[H, W, C]``, with zeros around what is smaller."""
    tall, wide = max(values.shape[0], height), max(values.shape[1], width)
    top, left = -(-(tall - values.shape[0]) // 2), -(-(wide - values.shape[1]) // 2)
    padded = np.zeros((tall, wide, values.shape[2]), values.dtype)
    padded[top : top + values.shape[0], left : left + values.shape[1]] = values
    top, left = (tall - height) // 2, (wide - width) // 2
    return padded[top : top + height, left : left + width]


def of_transformers(values: Mapping[str, Any], where: str) -> ImageProcessing:
    """From transformers' ``preprocessor_config.json``.

    Args:
        values: the file's entries.
        where: names it in errors.

    Raises:
        InputError: sizes that are no sizes.
    """
    own = ImageProcessing()

    def sides(value: Any) -> tuple[int, int]:
        if isinstance(value, int):
            return value, value
        try:
            return int(value["height"]), int(value["width"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                place=where, value=value, expected="a height and a width, or shortest_edge"
            ) from error

    shorter, size = own.shorter, None
    if not values.get("do_resize", True):
        shorter = None
    elif "size" in values:
        given = values["size"]
        if isinstance(given, int):
            shorter = given
        elif "shortest_edge" in given:
            shorter = int(given["shortest_edge"])
        else:
            shorter, size = None, sides(given)
    crop = sides(values["crop_size"]) if values.get("crop_size") is not None else own.crop
    scale = float(values.get("rescale_factor", own.scale))
    normed = values.get("do_normalize", True)
    return ImageProcessing(
        shorter=shorter,
        size=size,
        crop=crop if values.get("do_center_crop", True) else None,
        resample=int(values.get("resample", own.resample)),
        scale=scale if values.get("do_rescale", True) else 1.0,
        mean=tuple(values.get("image_mean", own.mean)) if normed else (0.0,) * 3,
        std=tuple(values.get("image_std", own.std)) if normed else (1.0,) * 3,
    )
