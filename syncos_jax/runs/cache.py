"""Compiled programs stored on disk, so that the next start does not compile again.

JAX's persistent compilation cache in a folder of our own (`programs`). The command line enables it;
importing this package changes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.files import cache_folder
from syncos_jax.runs import programs

MAX_BYTES = 2 * 2**30
"""Size limit of the folder: about 10 MB per shape of the demo model, 100 MB of VideoCrafter2."""


def programs_folder() -> Path:
    """Where compiled programs are stored: ``programs`` in `syncos_jax.files.cache_folder`."""
    return cache_folder() / "programs"


def keep_programs(folder: Path | None = None, max_bytes: int = MAX_BYTES) -> Path | None:
    """From now on, compiled programs are stored in `folder` and looked up there.

    Only programs for this kind of device, with the same versions and flags, are found again.

    Args:
        folder: default: `programs_folder`. A folder named by ``JAX_COMPILATION_CACHE_DIR`` or the
            caller's own JAX configuration takes precedence, with its own limits.
        max_bytes: size limit; the least recently used programs are removed.

    Returns:
        The folder, or None if it cannot be written (programs are then not stored).
    """
    import jax

    # Typed loosely: JAX makes these attributes at run time.
    config: Any = jax.config
    if config.jax_compilation_cache_dir:
        return Path(config.jax_compilation_cache_dir)
    try:
        folder = programs_folder() if folder is None else folder
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)
    except (OSError, InputError):
        return None
    config.update("jax_compilation_cache_dir", str(folder))
    if programs.use(folder, max_bytes) is None:
        config.update("jax_compilation_cache_max_size", -1)  # JAX's own limit breaks for good
    # By default JAX stores only what took a second to compile; here many small programs add up.
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


def size(folder: Path) -> int:
    """Bytes of the programs in `folder`."""
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())


class Watch:
    """Counts programs from its creation on.

    Attributes:
        found: read from the folder.
        compiled: not found there, and compiled.
    """

    def __init__(self) -> None:
        import jax

        self.found = self.compiled = 0
        jax.monitoring.register_event_listener(self._count)

    def _count(self, event: str, **_: Any) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            self.found += 1
        elif event == "/jax/compilation_cache/cache_misses":
            self.compiled += 1


def failed(folder: Path) -> int:
    """How many programs of this process could not be stored in `folder`."""
    found = programs.in_use(folder)
    return 0 if found is None else found.failed
