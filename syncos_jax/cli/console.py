"""What the commands share: errors as one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from syncos_jax.errors import InputError, Terminated
from syncos_jax.runs import progress

FAILED = 1
BAD_INPUT = 2
TERMINATED = 75
"""After SIGTERM: EX_TEMPFAIL of sysexits.h, "try again later"; the same command goes on."""
INTERRUPTED = 130


def fail(message: str) -> None:
    """One line on stderr."""
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns what a user can do something about into one line and an exit code, without a trace.

    InputError and OSError (no space, no permission) exit with 2, a device out of memory with 1,
    Ctrl-C with 130, SIGTERM (where it is handled) with 75.
    """
    try:
        yield
    except InputError as error:
        fail(str(error))
        raise typer.Exit(BAD_INPUT) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        fail(f"{place}{error.strerror or error}")
        raise typer.Exit(BAD_INPUT) from None
    except KeyboardInterrupt as stop:
        ended = isinstance(stop, Terminated)
        how_to_go_on = f"; {stop}" if str(stop) else ""
        said = "terminated" if ended else "interrupted"
        fail(f"{said}; no half-written file is left{how_to_go_on}")
        code = TERMINATED if ended else INTERRUPTED
        if progress.abandoned:  # a thread is inside the compiled program and cannot be stopped
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        raise typer.Exit(code) from None
    except RuntimeError as error:  # the class of XLA's own errors
        if str(error).startswith("out of memory: "):  # a run's own, which says what would fit
            fit = getattr(error, "fit", None)
            number = "auto, or fewer" if fit is None else f"{fit.windows}, or auto"
            fail(f"{error}; give --windows-per-call {number}")
        elif "RESOURCE_EXHAUSTED" in str(error):
            fail("out of memory on the device; take --windows-per-call auto, or fewer windows")
        else:
            raise
        raise typer.Exit(FAILED) from None
