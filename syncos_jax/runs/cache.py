"""Compiled programs kept on disk, so that the next start does not compile again.

JAX's persistent compilation cache in a folder of our own, kept as `programs` does: several
processes may be at it, and what a killed one leaves costs one compilation. The command line
switches it on; importing this package changes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from syncos_jax.files import cache_folder
from syncos_jax.runs import programs

MAX_BYTES = 2 * 2**30
"""The oldest programs go when the folder would be larger: the demo model's are some 10 MB a shape,
those of VideoCrafter2 some 100 MB."""


def programs_folder() -> Path:
    """Where compiled programs are kept: ``programs`` in `syncos_jax.files.cache_folder`."""
    return cache_folder() / "programs"


def keep_programs(folder: Path | None = None, max_bytes: int = MAX_BYTES) -> Path | None:
    """From here on, compiled programs are kept in `folder` and looked for there.

    Only programs for this very device, with the same versions and flags, are found again.

    Args:
        folder: default: `programs_folder`. A folder that ``JAX_COMPILATION_CACHE_DIR`` or the
            caller's own JAX configuration names has precedence, with its own limits.
        max_bytes: the programs that were not used for the longest time are removed beyond that.

    Returns:
        The folder, or None where it cannot be written (programs are then not kept).
    """
    import jax

    # Typed loosely: JAX makes these attributes at run time.
    config: Any = jax.config
    if config.jax_compilation_cache_dir:
        return Path(config.jax_compilation_cache_dir)
    folder = programs_folder() if folder is None else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError:
        return None
    config.update("jax_compilation_cache_dir", str(folder))
    if not programs.use(folder, max_bytes):
        config.update("jax_compilation_cache_max_size", -1)  # JAX's own limit does not heal
    # By default JAX keeps only what took a second to compile; here many small programs together
    # are what a second start would wait for.
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


def size(folder: Path) -> int:
    """Bytes of the programs in `folder`."""
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())


class Watch:
    """Counts programs from when it is made.

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
