"""How a command ends on an error: one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from syncos_jax.errors import Argument, InputError, Terminated
from syncos_jax.runs import progress

FAILED = 1
BAD_INPUT = 2
TERMINATED = 75
"""After SIGTERM: EX_TEMPFAIL of sysexits.h, "try again later"; the same command resumes."""
INTERRUPTED = 130


def fail(message: str | InputError) -> None:
    """Prints one line on stderr."""
    sys.stderr.write("error: " + " ".join(str(message).split()) + "\n")


@contextmanager
def exit_on_error(report: Callable[[str | InputError], None] = fail) -> Iterator[None]:
    """Turns errors that a user can act on into one line and an exit code, without a traceback.

    InputError and OSError (no space, no permission) exit with 2, a device out of memory with 1,
    Ctrl-C with 130, SIGTERM (where it is handled) with 75.

    Args:
      report: prints the line.
    """
    try:
        yield
    except InputError as error:
        report(error)
        raise SystemExit(_exit_now(BAD_INPUT)) from None
    except OSError as error:
        report(oserror_line(error))
        raise SystemExit(_exit_now(BAD_INPUT)) from None
    except KeyboardInterrupt as stop:
        raise SystemExit(_exit_now(_interrupted(stop, report))) from None
    except (AssertionError, RuntimeError) as error:  # RuntimeError: the base class of XLA's errors
        found = _known(error)
        if found is None:
            raise
        report(found)
        raise SystemExit(BAD_INPUT if _is_no_platform(error) else FAILED) from None


def oserror_line(error: OSError) -> str:
    """An OSError as one line: the file, if it has one, and the reason."""
    place = f"{error.filename}: " if error.filename else ""
    reason = error.strerror or (None if error.errno is None else os.strerror(error.errno))
    return f"{place}{reason or ' '.join(map(str, error.args)) or type(error).__name__}"


def _known(error: BaseException) -> str | InputError | None:
    """What to print for an error of JAX or of a run; None for any other."""
    if "jax" not in sys.modules:
        return None
    from syncos_jax.sampling.devices import no_platform
    from syncos_jax.sampling.failures import DeviceMemoryError

    missing = no_platform(error)
    if missing is not None:
        return missing
    if isinstance(error, DeviceMemoryError):  # says how many windows would fit
        return str(error)
    if "RESOURCE_EXHAUSTED" in str(error):
        few = (Argument("windows_per_call", "auto"), " or fewer windows per call")
        return InputError("out of memory on the device", remedy=("use ", *few))
    return None


def _is_no_platform(error: BaseException) -> bool:
    from syncos_jax.sampling.devices import no_platform

    return no_platform(error) is not None


def _interrupted(stop: KeyboardInterrupt, report: Callable[[str | InputError], None]) -> int:
    terminated = isinstance(stop, Terminated)
    how_to_resume = f"; {stop}" if str(stop) else ""
    verb = "terminated" if terminated else "interrupted"
    report(f"{verb}; no partial files are left{how_to_resume}")
    return TERMINATED if terminated else INTERRUPTED


def _exit_now(code: int) -> int:
    """Ends the process here if a thread is inside a compiled program or waits for other processes
    and cannot be stopped; else returns `code`."""
    hosts = sys.modules.get("syncos_jax.sampling.hosts")
    if progress.abandoned or getattr(hosts, "joining", False):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
