"""Frames to files: H.264 video through PyAV, and a contact sheet of stills."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from PIL import Image, ImageDraw, ImageFont

from syncos_jax.errors import InputError
from syncos_jax.files import check_writable, replacing

SUFFIXES = (".mp4", ".mov", ".mkv")
_BT709 = 1
_LIMITED_RANGE = 1


def check_video_path(path: str | os.PathLike[str]) -> Path:
    """As ``check_writable``, for a video: the name must end in .mp4, .mov or .mkv."""
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES and not target.is_dir():
        raise InputError(f"{target}: the video's name must end in {', '.join(SUFFIXES)}")
    return check_writable(target)


@dataclass(frozen=True, eq=False)
class Video:
    """A video in memory.

    Attributes:
        frames: uint8 ``[F, H, W, 3]``, RGB.
        fps: frames per second.
        events: (first frame, text) of each event, in order; labels of the contact sheet.
        title: one line above the contact sheet.
    """

    frames: np.ndarray
    fps: float
    events: tuple[tuple[int, str], ...] = ()
    title: str = ""

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

    def save(self, path: str | os.PathLike[str], scale: int = 1, crf: int = 15) -> Path:
        """Writes an H.264 file (yuv420p, plays from the first byte on) and returns its path.

        Args:
            path: ends in .mp4, .mov or .mkv. Replaced only when the new file is complete.
            scale: every pixel becomes ``scale`` × ``scale`` pixels, so that small videos can be
                seen. An odd height or width is then made even by repeating the last row or column.
            crf: x264's quality, 0 (lossless) to 51; 15 shows no loss.

        Raises InputError for a path that cannot be written, OSError where writing fails.
        """
        _check_scale(scale)
        target = check_video_path(path)
        try:
            with replacing(target) as temporary:
                self._encode(temporary, scale, crf)
        except FFmpegError as error:
            raise OSError(error.errno, error.strerror, str(target)) from error
        return target

    def _encode(self, path: Path, scale: int, crf: int) -> None:
        rate = Fraction(self.fps).limit_denominator(1001)
        height, width = (-(-side * scale // 2) * 2 for side in self.frames.shape[1:3])
        options = {} if path.suffix.lower() == ".mkv" else {"movflags": "+faststart"}
        with av.open(str(path), "w", options=options) as container:
            stream = container.add_stream("libx264", rate=rate)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"crf": str(crf), "preset": "medium"}
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED_RANGE
            for frame in self.frames:
                picture = VideoFrame.from_ndarray(_enlarge(frame, scale, height, width))
                picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))

    def contact_sheet(self, path: str | os.PathLike[str], columns: int = 8) -> Path:
        """Writes a PNG of stills and returns its path.

        Each event has a line with its frames and its text, and below it a row of ``columns``
        stills, evenly spaced from its first frame to its last. A video without events is cut into
        at most eight rows.
        """
        if columns < 1:
            raise InputError(f"columns is {columns}, but a contact sheet has at least one column")
        check_writable(path)
        sheet = _sheet(self, columns)
        with replacing(path) as temporary:
            sheet.save(temporary, format="PNG")
        return Path(path)


def _check_scale(scale: int) -> None:
    if not 1 <= scale <= 64:
        raise InputError(f"scale is {scale}, but must be a whole number from 1 to 64")


def _enlarge(frame: np.ndarray, scale: int, height: int, width: int) -> np.ndarray:
    """Nearest neighbour, and the last row and column once more where a side is odd."""
    large = frame.repeat(scale, axis=0).repeat(scale, axis=1)
    pad = (height - large.shape[0], width - large.shape[1])
    large = np.pad(large, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
    return np.ascontiguousarray(large)


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


def _sheet(video: Video, columns: int) -> Image.Image:
    gap, line = 4, 22
    height, width = video.frames.shape[1:3]
    factor = -(-96 // max(height, width))  # small frames grow by whole pixels
    shrink = min(1.0, 256 / max(height, width))
    cell_w, cell_h = (max(1, round(side * factor * shrink)) for side in (width, height))
    font, bold = ImageFont.load_default(size=14), ImageFont.load_default(size=16)
    rows = _sections(video, columns)
    top = line + gap if video.title else gap
    size = (gap + columns * (cell_w + gap), top + len(rows) * (line + cell_h + gap))
    sheet = Image.new("RGB", size, (24, 24, 28))
    draw = ImageDraw.Draw(sheet)
    if video.title:
        draw.text((gap, gap), video.title, font=bold, fill=(255, 255, 255))
    for row, (start, end, text) in enumerate(rows):
        y = top + row * (line + cell_h + gap)
        label = f"{start / video.fps:.1f} to {end / video.fps:.1f} s   {text}"
        draw.text((gap, y), label, font=font, fill=(200, 205, 215))
        for column, index in enumerate(np.linspace(start, end - 1, min(columns, end - start))):
            still = Image.fromarray(video.frames[round(index)])
            if still.size != (cell_w, cell_h):
                kind = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
                still = still.resize((cell_w, cell_h), kind)
            sheet.paste(still, (gap + column * (cell_w + gap), y + line))
    return sheet


def load_video(path: str | os.PathLike[str]) -> Video:
    """Reads a whole video file into memory; raises InputError where there is none."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: has no video in it")
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 0)
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    except (OSError, FFmpegError) as error:
        raise InputError(f"{path}: cannot be read as a video: {error.strerror}") from error
    if not frames or not rate:
        raise InputError(f"{path}: has no frames in it")
    return Video(np.stack(frames), rate)
