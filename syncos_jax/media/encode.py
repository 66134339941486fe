"""Frames to files: H.264 and VP9 through PyAV, animated GIF and PNG through Pillow."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from PIL import Image, PngImagePlugin

from syncos_jax.errors import InputError
from syncos_jax.files import check_writable, replacing, replacing_folder
from syncos_jax.media.sound import Soundtrack, SoundWriter

STREAMS = (".mp4", ".mov", ".mkv", ".webm")
SUFFIXES = (*STREAMS, ".gif")
FRAME_NAME = re.compile(r"\d{6}\.png")
_BT709 = 1
_LIMITED_RANGE = 1
_GIF_MOST_FPS = 50  # players slow down what is faster
_PALETTE_STILLS = 16


def is_frames_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a video's name is that of a folder of PNG frames: it has no suffix."""
    return not Path(path).suffix


def check_video_path(path: str | os.PathLike[str]) -> Path:
    """As ``check_writable``, for a video: .mp4, .mov, .mkv, .webm, .gif, or a folder for frames.

    A folder must be new, empty, or contain only frames of an earlier run.
    """
    target = Path(path)
    if "://" in str(path):
        raise InputError(
            "single videos are written to local folders, not to addresses",
            place=str(path),
            remedy="write a file and copy it, or use syncos batch, which writes to object stores",
        )
    if not is_frames_folder(target):
        if target.suffix.lower() not in SUFFIXES and not target.is_dir():
            raise InputError(
                f"the video's name must end in {', '.join(SUFFIXES)}, or have no extension for a "
                "folder of PNG frames",
                place=target,
            )
        return check_writable(target)
    try:
        if target.is_dir():
            if all(FRAME_NAME.fullmatch(entry.name) for entry in target.iterdir()):
                return target
            raise InputError(
                "the folder contains other files",
                place=target,
                remedy="give a new or empty one for frames, or a name that ends in "
                f"{', '.join(SUFFIXES)}",
            )
        if target.exists():
            raise InputError(
                f"not a folder, and a video's name must end in {', '.join(SUFFIXES)}", place=target
            )
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be written: {error}", place=target) from error
    return check_writable(target)


def check_rate(path: str | os.PathLike[str], fps: float) -> None:
    """Raises InputError if the format cannot play that many frames per second."""
    if Path(path).suffix.lower() == ".gif" and fps > _GIF_MOST_FPS:
        raise InputError(
            f"a GIF plays at most {_GIF_MOST_FPS} frames per second, not {fps:g}",
            place=path,
            remedy="write .mp4 or .webm",
        )


def check_quality(path: str | os.PathLike[str], crf: int) -> None:
    """Raises InputError for an invalid `crf`, or one whose file most players cannot open."""
    if isinstance(crf, bool) or not isinstance(crf, int) or not 0 <= crf <= 51:
        raise InputError(argument="crf", value=crf, expected="an integer from 0 (lossless) to 51")
    suffix = Path(path).suffix.lower()
    if crf == 0 and suffix in (".mp4", ".mov"):
        raise InputError(
            "crf 0 is lossless H.264, which QuickTime, iOS and Firefox do not play",
            place=path,
            remedy="use 1 or more, or write .mkv, .webm or a folder of PNG frames",
        )


def write(
    path: str | os.PathLike[str],
    frames: Sequence[np.ndarray] | np.ndarray,
    fps: float,
    *,
    scale: int = 1,
    crf: int = 15,
    label: str | None = None,
    comment: str = "",
    watermark: int | None = None,
    sound: Soundtrack | None = None,
) -> Path:
    """Writes frames in the format of the name's suffix; replaced only when the file is complete.

    Args:
        path: as `check_video_path` accepts it.
        frames: uint8 ``[F, H, W, 3]``.
        fps: frames per second.
        scale: every pixel becomes ``scale`` × ``scale`` pixels.
        crf: quality of H.264 and VP9, 0 (lossless) to 51. Not 0 in .mp4 and .mov: lossless H.264
            has a profile that most players do not have.
        label: text that is drawn onto every frame, at the lower left.
        comment: goes into the file's metadata (in a folder, into each PNG's).
        watermark: 64 bits that are hidden in the frames; None for none.
        sound: the soundtrack, written as AAC (Opus in .webm); GIF and folders have none.

    H.264 and VP9 need even sides: an odd height or width is made even by repeating the last row or
    column. GIF and PNG keep the size.

    Raises InputError for a path or a label that will not do, OSError where writing fails.
    """
    target = check_video_path(path)
    kind = target.suffix.lower()
    height, width = (side * scale for side in frames[0].shape[:2])
    if kind in STREAMS:
        height, width = (-(-side // 2) * 2 for side in (height, width))
    check_rate(target, fps)
    check_quality(target, crf)
    overlay = _overlay(label, height, width) if label else None
    hidden = None
    if watermark is not None:
        from syncos_jax.media.watermark import Watermark

        hidden = Watermark(watermark, height, width, fps)
    pictures = (
        _finished(
            frame, scale, height, width, overlay, partial(hidden.mark, index=i) if hidden else None
        )
        for i, frame in enumerate(frames)
    )
    try:
        if is_frames_folder(target):
            with replacing_folder(target) as folder:
                _write_png(folder, pictures, comment)
            return target
        with replacing(target) as temporary:
            if kind == ".gif":
                _write_gif(temporary, list(pictures), fps, comment)
            else:
                seconds = len(frames) / fps
                track = None if sound is None else (sound, seconds)
                _write_stream(temporary, pictures, (height, width), fps, crf, comment, track)
    except FFmpegError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    return target


def _finished(
    frame: np.ndarray,
    scale: int,
    height: int,
    width: int,
    overlay: Image.Image | None,
    mark: Callable[[np.ndarray], np.ndarray] | None,
) -> np.ndarray:
    """Enlarged by nearest neighbour, padded to even sides, with the watermark and the label."""
    large = frame.repeat(scale, axis=0).repeat(scale, axis=1)
    pad = (height - large.shape[0], width - large.shape[1])
    large = np.pad(large, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
    if mark is not None:
        large = mark(large)
    if overlay is not None:
        picture = Image.fromarray(large)
        picture.paste(overlay, (0, height - overlay.height), overlay)
        large = np.asarray(picture)
    return np.ascontiguousarray(large)


def _overlay(label: str, height: int, width: int) -> Image.Image:
    from syncos_jax.media.label import render

    return render(label, height, width)


def _write_stream(
    path: Path,
    pictures: Iterator[np.ndarray],
    size: tuple[int, int],
    fps: float,
    crf: int,
    comment: str,
    track: tuple[Soundtrack, float] | None = None,
) -> None:
    kind = path.suffix.lower()
    options: dict[str, Any] = {"movflags": "+faststart"} if kind in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=options) as container:
        if comment:
            container.metadata["comment"] = comment
        codec = "libvpx-vp9" if kind == ".webm" else "libx264"
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        if kind == ".webm":
            stream.options = {"crf": str(crf), "b": "0", "cpu-used": "3", "row-mt": "1"}
        else:
            stream.options = {"crf": str(crf), "preset": "medium"}
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        sound = None if track is None else SoundWriter(container, *track)
        for index, picture in enumerate(pictures):
            frame = VideoFrame.from_ndarray(picture)
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
            container.mux(stream.encode(frame))
            if sound is not None:
                sound.write((index + 1) / fps)
        container.mux(stream.encode(None))
        if sound is not None:
            sound.write()


def _write_gif(path: Path, pictures: list[np.ndarray], fps: float, comment: str) -> None:
    # One palette for the whole video, so that what stands still does not flicker.
    step = -(-len(pictures) // _PALETTE_STILLS)
    stills = np.concatenate(pictures[::step], axis=0)
    palette = Image.fromarray(stills).quantize(256, method=Image.Quantize.MEDIANCUT)
    images = [
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        for picture in pictures
    ]
    # A GIF counts in hundredths of a second: rounded so that the whole has the right length.
    ends = [10 * round(100 * (index + 1) / fps) for index in range(len(images))]
    durations = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    first, *rest = images
    info = {"comment": comment.encode()} if comment else {}
    first.save(path, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, **info)


def _write_png(folder: Path, pictures: Iterable[np.ndarray], comment: str) -> None:
    info = png_comment(comment)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{index:06}.png", pnginfo=info)


def png_comment(comment: str) -> PngImagePlugin.PngInfo:
    """The metadata of a PNG that holds a comment."""
    info = PngImagePlugin.PngInfo()
    if comment:
        info.add_itxt("Comment", comment)
    return info


def read_comment(path: str | os.PathLike[str]) -> str:
    """The comment in a video's metadata, or in a folder's first frame; "" where it has none.

    Raises InputError where there is no video.
    """
    source = Path(path)
    try:
        if source.is_dir():
            source = min(source.glob("*.png"), default=source)
        if source.suffix.lower() in (".gif", ".png"):
            with Image.open(source) as image:
                found = image.info.get("Comment", image.info.get("comment", b""))
            return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
        with av.open(str(source)) as container:
            found = {key.lower(): value for key, value in container.metadata.items()}
            return found.get("comment", "")
    except (OSError, FFmpegError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as a video: {reason}") from error
