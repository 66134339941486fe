"""Errors whose text is meant for the person at the keyboard."""

from __future__ import annotations


class InputError(ValueError):
    """Something that was handed in cannot be used.

    The message is one line: it names the place (file, key, argument), what stands there, what was
    expected and what to do. The command line prints it after ``error:`` and exits with code 2,
    without a traceback. Line breaks in the message are folded into spaces, so that a message that
    quotes foreign text stays one line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM, as a cluster sends before it takes the machine back).

    The message says what has been saved. Like `KeyboardInterrupt` not an ``Exception``, so that
    nothing on the way takes it for a failure.
    """
