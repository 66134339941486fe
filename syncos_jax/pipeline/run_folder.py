"""The folder of a run's state: where it is, who has it, how it goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from syncos_jax.errors import InputError
from syncos_jax.files.locks import try_lock
from syncos_jax.pipeline.saved_latents import ABOUT_LATENTS, LATENTS
from syncos_jax.pipeline.states import remove_path

RUN, STATES, LOCK = "run.json", "rows", "lock"


def run_folder(out: str | os.PathLike[str]) -> Path:
    """Where the command line keeps the run state of a video: ``.out.mp4.run`` next to it."""
    path = Path(out)
    return path.with_name(f".{path.name}.run")


def check_folder(folder: Path) -> None:
    """Raises InputError where `folder` cannot be, or holds something else than a run's state."""
    if not folder.parent.is_dir():
        raise InputError(f"{folder.parent} does not exist", place=folder, remedy="create it first")
    try:
        names = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise InputError("is not a folder", place=folder, remedy="remove it") from None
    ours = {RUN, STATES, LATENTS, ABOUT_LATENTS, LOCK}
    temporary = tuple(f".{Path(name).stem}." for name in (RUN, LATENTS))
    others = {name for name in names - ours if not name.startswith(temporary)}
    if others:
        raise InputError(
            f"the folder contains other files ({min(others)})",
            place=folder,
            remedy="give a new or empty one",
        )


def lock_folder(folder: Path) -> Callable[[], None] | None:
    """Makes the folder and locks it, as `try_lock`."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            return try_lock(folder / LOCK)
        except FileNotFoundError:  # another process has just deleted the folder
            continue


def remove_folder(folder: Path) -> None:
    """Deletes the folder, the lock last: from then on another process may use the folder."""
    with suppress(OSError):
        for path in sorted(folder.iterdir(), key=lambda path: path.name == LOCK):
            remove_path(path)
        folder.rmdir()
