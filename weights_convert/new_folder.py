"""A new folder that is there when it is complete, and else not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from syncos_jax.errors import Argument, InputError
from syncos_jax.files.atomic import followed, put_folder, temporary_folder


def check_space(target: Path, needed: int) -> None:
    """InputError where there is no space for `needed` bytes."""
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise InputError(
            f"needs {needed / 2**30:.2f} GiB, only {free / 2**30:.2f} are free", place=target
        )


def check_folder(out: str | os.PathLike[str], force: bool) -> Path:
    """Whether a new folder may be put at `out`; InputError where not."""
    target = Path(out)
    if not target.name:
        raise InputError(argument="out", expected="the name of a new folder", value=str(out))
    if target.exists() and not target.is_dir():
        raise InputError("exists and is not a folder", argument="out", value=str(out))
    if target.is_dir() and any(target.iterdir()) and not force:
        raise InputError(
            "exists and is not empty",
            argument="out",
            value=str(out),
            remedy=("pass ", Argument("force", True), " to replace it"),
        )
    return target


@contextmanager
def building_folder(target: Path, force: bool) -> Iterator[Path]:
    """Yields a temporary folder beside `target`; puts it in place at the end.

    When the body raises, `target` is as it was before and nothing is left beside it. What a killed
    process has left of the same name goes first.
    """
    target = followed(target)
    made = [p for p in (target.parent, *target.parent.parents) if not p.exists()]
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: _remove_empty(made))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(temporary_folder(target))
        except OSError as error:
            raise InputError(
                f"cannot write {target}: {error.strerror or error}; choose another place"
            ) from error
        complete = temporary / "complete"
        try:
            complete.mkdir()
            yield complete
            if force and target.exists():
                put_folder(complete, target, temporary / "old")
            else:
                complete.rename(target)
            made = []
        except OSError as error:  # named after the requested folder, not the temporary one
            raise OSError(
                error.errno, error.strerror or str(error), f"cannot write {target}"
            ) from error


def _remove_empty(folders: list[Path]) -> None:
    """Removes folders that were made for nothing, inner ones first."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
