"""A small picture of a video."""

from __future__ import annotations

from pathlib import Path

import av
from av.error import FFmpegError
from PIL import Image

from syncos_jax.errors import InputError
from syncos_jax.files import replacing

SIDE = 320


def write_thumbnail(video: Path, path: Path) -> Path:
    """Writes the frame in the middle of a video as a PNG of at most 320 pixels a side.

    Raises InputError where the video cannot be read, OSError where writing fails.
    """
    picture = None
    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            middle = (stream.duration or 0) // 2
            if middle:
                container.seek(middle, stream=stream)
            for frame in container.decode(stream):
                picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
                if frame.pts is None or frame.pts >= middle:
                    break
    except (FFmpegError, IndexError) as error:
        raise InputError(f"not readable as a video: {error}", place=video) from error
    if picture is None:
        raise InputError("has no frames in it", place=video)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")
    return path
