"""How a command ends on an error: one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from syncos_jax.errors import InputError, Terminated
from syncos_jax.runs import progress

FAILED = 1
BAD_INPUT = 2
TERMINATED = 75
"""After SIGTERM: EX_TEMPFAIL of sysexits.h, "try again later"; the same command goes on."""
INTERRUPTED = 130


def fail(message: str | InputError) -> None:
    """One line on stderr."""
    message = str(message)
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")


@contextmanager
def exit_on_error(report: Callable[[str | InputError], None] = fail) -> Iterator[None]:
    """Turns what a user can do something about into one line and an exit code, without a trace.

    InputError and OSError (no space, no permission) exit with 2, a device out of memory with 1,
    Ctrl-C with 130, SIGTERM (where it is handled) with 75.

    Args:
      report: prints the line.
    """
    try:
        yield
    except InputError as error:
        report(error)
        raise SystemExit(_at_once(BAD_INPUT)) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        report(f"{place}{error.strerror or error}")
        raise SystemExit(_at_once(BAD_INPUT)) from None
    except KeyboardInterrupt as stop:
        raise SystemExit(_at_once(_interrupted(stop, report))) from None
    except AssertionError as error:
        _report_platform(error, report)
        raise
    except RuntimeError as error:  # the class of XLA's own errors
        _report_platform(error, report)
        if str(error).startswith("out of memory: "):  # a run's own, which says what would fit
            report(str(error))
        elif "RESOURCE_EXHAUSTED" in str(error):
            report("out of memory on the device; take `batch=auto`, or fewer windows")
        else:
            raise
        raise SystemExit(FAILED) from None


def _report_platform(error: BaseException, report: Callable[[str | InputError], None]) -> None:
    """Ends with one line where JAX has no device of the platform that it was told to use."""
    if "jax" not in sys.modules:
        return
    from syncos_jax.sampling.devices import no_platform

    said = no_platform(error)
    if said is not None:
        report(said)
        raise SystemExit(BAD_INPUT) from None


def _interrupted(stop: KeyboardInterrupt, report: Callable[[str | InputError], None]) -> int:
    terminated = isinstance(stop, Terminated)
    how_to_go_on = f"; {stop}" if str(stop) else ""
    verb = "terminated" if terminated else "interrupted"
    report(f"{verb}; no half-written file is left{how_to_go_on}")
    return TERMINATED if terminated else INTERRUPTED


def _at_once(code: int) -> int:
    """Ends the process here where a thread is inside a compiled program, or waits for other
    processes, and cannot be stopped; returns `code` otherwise."""
    hosts = sys.modules.get("syncos_jax.sampling.hosts")
    if progress.abandoned or getattr(hosts, "joining", False):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
