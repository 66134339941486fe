"""The clean latent of a finished run, saved with its run and its SHA-256."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from syncos_jax.files import replacing
from syncos_jax.files.atomic import save_array
from syncos_jax.files.versioned import FileFormat

LATENTS, ABOUT_LATENTS = "latents.npy", "latents.json"
ABOUT = FileFormat("syncos_jax.run.latents", "the hash of a run's latents", "remove it")


def write(folder: Path, run: str, latents: Any) -> None:
    """Writes latents to a folder, then which run they belong to and their hash; raises OSError."""
    with io.BytesIO() as buffer:
        save_array(buffer, np.asarray(latents))
        raw = buffer.getvalue()
    with replacing(folder / LATENTS) as temporary:
        temporary.write_bytes(raw)
    about = {"run": run, "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    ABOUT.write(folder / ABOUT_LATENTS, about)


def read(folder: Path, run: str) -> np.ndarray | None:
    """The latents in a folder; None if there are none, or not exactly those that `run` wrote."""
    path = folder / LATENTS
    try:
        about = ABOUT.read(folder / ABOUT_LATENTS)
        if about.get("run") != run or not path.is_file():  # opening a FIFO would wait for ever
            return None
        if path.stat().st_size != about.get("bytes"):
            return None
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() != about.get("sha256"):
            return None
        return np.load(io.BytesIO(raw), allow_pickle=False)
    except (OSError, ValueError):  # InputError is a ValueError
        return None
