"""A video in memory: written to files, read from them, laid out as a contact sheet."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from syncos_jax.errors import InputError
from syncos_jax.files import check_writable, replacing
from syncos_jax.media.encode import check_video_path, png_comment, write
from syncos_jax.media.read import constant_rate, frames_with_times
from syncos_jax.media.sound import Soundtrack

__all__ = ["Video", "check_video_path", "load_video", "side_by_side"]


@dataclass(frozen=True, eq=False)
class Video:
    """A video in memory.

    Attributes:
        frames: uint8 ``[F, H, W, 3]``, RGB.
        fps: frames per second.
        events: (first frame, text) of each event, in order; labels of the contact sheet.
        title: one line above the contact sheet.
        sound: the soundtrack that `save` writes.

    Raises:
        ValueError: `frames` are not such an array, or `fps` is not above 0.
    """

    frames: np.ndarray
    fps: float
    events: tuple[tuple[int, str], ...] = ()
    title: str = ""
    sound: Soundtrack | None = None

    def __post_init__(self) -> None:
        shape = self.frames.shape
        if self.frames.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise ValueError(
                f"frames are {self.frames.dtype} {list(shape)}, but uint8 [F, H, W, 3] is needed"
            )
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps is {self.fps}, but must be above 0")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return len(self) / self.fps

    def save(
        self,
        path: str | os.PathLike[str],
        scale: int = 1,
        crf: int = 15,
        *,
        label: str | None = None,
        comment: str = "",
        watermark: int | None = None,
    ) -> Path:
        """Writes the video in the format of the name's suffix and returns its path.

        Args:
            path: .mp4, .mov or .mkv (H.264, yuv420p, plays from the first byte on), .webm (VP9),
                .gif, or no suffix: a folder of PNG frames. Replaced only when the new one is
                complete.
            scale: every pixel becomes ``scale`` × ``scale`` pixels, so that small videos can be
                seen. For H.264 and VP9 an odd height or width is then made even by repeating the
                last row or column.
            crf: quality of H.264 and VP9, 0 (lossless) to 51; 15 shows no loss. Not 0 in .mp4 and
                .mov, where players cannot open it.
            label: text that is drawn onto every frame.
            comment: goes into the file's metadata.
            watermark: 64 bits that `syncos_jax.media.watermark` hides in the frames; None for none.

        Raises InputError for a path that cannot be written, OSError where writing fails.
        """
        _check_scale(scale)
        return write(
            path,
            self.frames,
            self.fps,
            scale=scale,
            crf=crf,
            label=label,
            comment=comment,
            watermark=watermark,
            sound=self.sound,
        )

    def contact_sheet(
        self, path: str | os.PathLike[str], columns: int = 8, comment: str = ""
    ) -> Path:
        """Writes a PNG of stills, with ``comment`` in its metadata, and returns its path.

        Each event has a line with its frames and its text, and below it a row of ``columns``
        stills, evenly spaced from its first frame to its last. A video without events is cut into
        at most eight rows.
        """
        return side_by_side([self], path, columns, comment)


def side_by_side(
    videos: Sequence[Video], path: str | os.PathLike[str], columns: int = 5, comment: str = ""
) -> Path:
    """Writes a PNG of the stills of several videos of one story, and returns its path.

    As `Video.contact_sheet`, with ``columns`` stills of each video in a row, and each video's title
    above its own. Lengths and texts of the events are those of the first.

    Raises InputError for videos of different sizes or lengths.
    """
    if columns < 1:
        raise InputError(f"columns is {columns}, but a contact sheet has at least one column")
    shapes = [video.frames.shape for video in videos]
    if len(set(shapes)) != 1:
        raise InputError(
            f"videos of shapes {', '.join(str(list(shape)) for shape in shapes)} cannot be laid "
            "side by side; give one or more of one shape"
        )
    check_writable(path)
    sheet = _sheet(videos, columns)
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG", pnginfo=png_comment(comment))
    return Path(path)


def _check_scale(scale: int) -> None:
    if not 1 <= scale <= 64:
        raise InputError(argument="scale", expected="an integer from 1 to 64", value=scale)


def _sections(video: Video, columns: int) -> list[tuple[int, int, str]]:
    """(first frame, end, text) of each row of the sheet."""
    total = len(video)
    if video.events:
        starts = [start for start, _ in video.events]
        ends = [*starts[1:], total]
        texts = [text for _, text in video.events]
        return [row for row in zip(starts, ends, texts, strict=True) if row[0] < row[1]]
    rows = min(8, -(-total // columns))
    edges = [total * row // rows for row in range(rows + 1)]
    return [(start, end, "") for start, end in zip(edges, edges[1:], strict=False)]


def _sheet(videos: Sequence[Video], columns: int) -> Image.Image:
    gap, line, first = 4, 22, videos[0]
    height, width = first.frames.shape[1:3]
    factor = -(-96 // max(height, width))  # small frames grow by whole pixels
    shrink = min(1.0, 256 / max(height, width))
    cell_w, cell_h = (max(1, round(side * factor * shrink)) for side in (width, height))
    font, bold = ImageFont.load_default(size=14), ImageFont.load_default(size=16)
    rows = _sections(first, columns)
    top = line + gap if any(video.title for video in videos) else gap
    block = columns * (cell_w + gap) + 4 * gap  # of a video, and what parts it from the next
    size = (gap + len(videos) * block - 4 * gap, top + len(rows) * (line + cell_h + gap))
    sheet = Image.new("RGB", size, (24, 24, 28))
    draw = ImageDraw.Draw(sheet)
    for number, video in enumerate(videos):
        draw.text((gap + number * block, gap), video.title, font=bold, fill=(255, 255, 255))
    for row, (start, end, text) in enumerate(rows):
        y = top + row * (line + cell_h + gap)
        label = f"{start / first.fps:.1f} to {end / first.fps:.1f} s   {text}"
        draw.text((gap, y), label, font=font, fill=(200, 205, 215))
        for column, index in enumerate(np.linspace(start, end - 1, min(columns, end - start))):
            for number, video in enumerate(videos):
                still = Image.fromarray(video.frames[round(index)])
                if still.size != (cell_w, cell_h):
                    kind = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
                    still = still.resize((cell_w, cell_h), kind)
                x = gap + number * block + column * (cell_w + gap)
                sheet.paste(still, (x, y + line))
    return sheet


def load_video(path: str | os.PathLike[str]) -> Video:
    """Reads a whole clip into memory, turned upright; variable rates become constant.

    Args:
        path: a video file, an animated picture or a folder of PNG frames.

    Raises:
        InputError: the file cannot be read as a clip, or has no frames.
    """
    read = list(frames_with_times(path))
    if not read:
        raise InputError("has no frames in it", place=path)
    sizes = {frame.shape[:2] for _, frame in read}
    if len(sizes) > 1:
        listed = ", ".join(f"{wide}×{tall}" for tall, wide in sorted(sizes))
        raise InputError(f"has frames of several sizes: {listed}", place=path)
    rate, shown = constant_rate(np.array([time for time, _ in read]))
    return Video(np.stack([read[index][1] for index in shown]), rate)
