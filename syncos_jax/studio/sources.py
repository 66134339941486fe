"""What new videos build on: uploaded pictures, and takes of earlier videos.

A scenario of the studio names them by reference, never by path: ``p`` and 32 hexadecimal digits for
a picture, ``ID/TAKE`` for a take. `resolved` puts the files of the studio's folder in their place.
"""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from syncos_jax.errors import InputError
from syncos_jax.files import replacing
from syncos_jax.media.pictures import load_picture
from syncos_jax.scenario import Scenario
from syncos_jax.studio.api_errors import ApiError, Finding, finding
from syncos_jax.studio.bodies import PICTURE, TAKE
from syncos_jax.studio.documents import take_file

MAX_PIXELS = 40_000_000
LARGEST_SIDE = 2048
"""Pixels; larger pictures are made smaller, as frames never have that size."""


class Pictures:
    """Uploaded pictures, each a PNG named by the hash of its bytes.

    Turned upright, RGB, and without any metadata (EXIF, profiles, comments).

    Args:
        folder: of the pictures; made with the first one.
        most: number of pictures; beyond it, the oldest that nothing uses is deleted.
        used: whether a video or template names a picture.
    """

    def __init__(self, folder: Path, most: int, used: Callable[[str], bool]) -> None:
        self._folder = folder
        self._most = most
        self._used = used
        self._lock = threading.Lock()

    def path(self, id: str) -> Path:
        """The file of a picture, whether it exists or not."""
        return self._folder / f"{id}.png"

    def add(self, data: bytes, field: str = "picture") -> dict[str, Any]:
        """Store a picture; return it as ``POST /v1/pictures`` does.

        Args:
            data: a file that Pillow reads.
            field: of the form, for errors.

        Raises:
            ApiError: not a picture, damaged, animated, too small or large; no room.
        """
        self._folder.mkdir(exist_ok=True)
        frame = self._read(data, field)
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "PNG")
        raw = file.getvalue()
        id = f"p{hashlib.sha256(raw).hexdigest()[:32]}"
        with self._lock:
            if self.path(id).is_file():
                self.path(id).touch()
            else:
                self._make_room()
                with replacing(self.path(id)) as temporary:
                    temporary.write_bytes(raw)
        height, width = frame.shape[:2]
        return {
            "id": id,
            "object": "picture",
            "width": width,
            "height": height,
            "bytes": len(raw),
            "content": f"/v1/pictures/{id}",
        }

    def _read(self, data: bytes, field: str) -> np.ndarray:
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".received") as temporary:
            temporary.write(data)
            temporary.flush()
            try:
                frame = load_picture(temporary.name, MAX_PIXELS)
            except InputError as error:
                plain = InputError(error.what, expected=error.expected, remedy=error.remedy)
                raise ApiError(422, finding(plain, field)) from error
        height, width = frame.shape[:2]
        scale = LARGEST_SIDE / max(height, width)
        if scale >= 1:
            return frame
        size = (max(1, round(scale * width)), max(1, round(scale * height)))
        return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))

    def _make_room(self) -> None:
        found = [path for path in self._folder.glob("p*.png") if re.match(PICTURE, path.stem)]
        if len(found) < self._most:
            return
        for path in sorted(found, key=lambda path: path.stat().st_mtime):
            if not self._used(path.stem):
                path.unlink(missing_ok=True)
                return
        raise ApiError(
            409,
            Finding(
                f"the studio holds {self._most} pictures, all of them in use",
                "Delete videos that are no longer needed",
            ),
        )


def check_references(scenario: Scenario) -> None:
    """Raises ApiError if a scenario names anything but uploaded pictures and takes."""
    named = [("image", scenario.image, PICTURE), ("end_image", scenario.end_image, PICTURE)]
    named += [
        (f"events.{index}.image", event.image, PICTURE)
        for index, event in enumerate(scenario.events)
    ]
    named += [("extend", scenario.extend, TAKE)]
    named += [("redo", scenario.redo.video if scenario.redo else None, TAKE)]
    if scenario.audio is not None:
        raise ApiError(
            422, Finding("soundtracks cannot be added here", "Add it with syncos generate", "audio")
        )
    for field, reference, form in named:
        if reference is None or re.match(form, reference):
            continue
        what, remedy = "pictures cannot be named by path here", "Upload the picture"
        if form == TAKE:
            what = "videos cannot be named by path here"
            remedy = "Use a take of this studio: ID/TAKE"
        raise ApiError(422, Finding(what, remedy, field))


def resolved(scenario: Scenario, root: Path) -> Scenario:
    """A scenario with the files of its references.

    Args:
        scenario: as stored.
        root: the studio's folder.

    Raises:
        InputError: a picture or take is not there (any more).
    """
    if not scenario.input_files:
        return scenario

    def picture(reference: str | None, place: str) -> str | None:
        path = root / "pictures" / f"{reference}.png"
        return None if reference is None else _existing(path, place, "picture", "choose it again")

    def take(reference: str | None, place: str) -> str | None:
        if reference is None:
            return None
        video, number = reference.split("/")
        path = take_file(root / "videos" / video, int(number))
        if not path.with_suffix(".json").is_file():  # written last
            path = path.with_suffix(".missing")
        return _existing(path, place, "take", "use a completed take of a video that exists")

    events = [
        event.model_copy(update={"image": picture(event.image, f"events[{index}].image")})
        for index, event in enumerate(scenario.events)
    ]
    redo = scenario.redo
    if redo is not None:
        redo = redo.model_copy(update={"video": take(redo.video, "redo")})
    return scenario.model_copy(
        update={
            "image": picture(scenario.image, "image"),
            "end_image": picture(scenario.end_image, "end_image"),
            "extend": take(scenario.extend, "extend"),
            "redo": redo,
            "events": tuple(events),
        }
    )


def _existing(path: Path, place: str, kind: str, remedy: str) -> str:
    if not path.is_file() or path.is_symlink() or path.parent.is_symlink():
        raise InputError(f"there is no such {kind}", place=place, remedy=remedy)
    return str(path)


def without_paths(text: str, stored: Scenario, found: Scenario) -> str:
    """An error's text with references in place of the server's paths."""
    for reference, path in zip(stored.input_files, found.input_files, strict=True):
        text = text.replace(path, reference)
    return text
