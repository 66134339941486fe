"""Errors that are shown to the user in one line."""

from __future__ import annotations

import copy
import os
import reprlib
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, NamedTuple, TypeVar


class _Missing(Enum):
    MISSING = "missing"  # a member of an enum stays the same object through pickle


MISSING: Any = _Missing.MISSING
"""Stands for "no value was given"; `None` is a value."""


class Argument(NamedTuple):
    """A Python argument that a text mentions; each front end words it its own way.

    Attributes:
      name: the argument, such as ``"resume"``.
      value: the value to pass, or `MISSING` to name the argument alone.
    """

    name: str
    value: Any = MISSING

    def __str__(self) -> str:
        """The argument as Python code: `` `resume=False` ``."""
        if self.value is MISSING:
            return f"`{self.name}`"
        value = self.value
        return f"`{self.name}={value if isinstance(value, str | os.PathLike) else short(value)}`"


class Phrase(str):
    """Text that mentions arguments: a str as users of the library read it, which a front end can
    word its own way. ::

        Phrase("pass ", Argument("resume", False), " to start over")
        # pass `resume=False` to start over
    """

    parts: tuple[str | Argument, ...]

    def __new__(cls, *parts: str | Argument) -> Phrase:
        made = super().__new__(cls, "".join(map(str, parts)))
        made.parts = tuple(
            inner for one in parts for inner in (one.parts if isinstance(one, Phrase) else (one,))
        )
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Copied and pickled with its parts."""
        return self.parts


Text = str | Argument | tuple[str | Argument, ...]
"""Plain text, one argument, or the parts of a `Phrase`."""

_LISTED = 4  # errors that one line lists
_Error = TypeVar("_Error", bound="InputError")
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60
_repr.maxdict = _repr.maxlist = _repr.maxlevel = 3


def short(value: Any) -> str:
    """``repr(value)``, cut to a few dozen characters, however large or nested the value is."""
    try:
        return _repr.repr(value)
    except ValueError:  # an integer of more than 4300 digits
        return "a very large number"


class InputError(ValueError):
    """An input that cannot be used: an argument, a file, a key in a file.

    The error carries data. `str` gives one line for users of the library; the command line and the
    studio word arguments as options and form fields (`text`). ::

        InputError(argument="steps", expected="an integer from 1 to 1000", value=0)
        # steps must be an integer from 1 to 1000, got 0
        InputError("no such file", place="scenario.yaml", remedy="check the path")
        # scenario.yaml: no such file; check the path
        InputError("unknown key 'stepz'", place=("scenario.yaml", "sampler"),
                   expected="one of steps, guidance")
        # scenario.yaml: sampler: unknown key 'stepz', expected one of steps, guidance
        InputError("exists and is not empty", place=out,
                   remedy=("pass ", Argument("force", True), " to replace it"))
        # out: exists and is not empty; pass `force=True` to replace it

    Errors made by `together` are listed after what they share, the first four of them:
    ``scenario.yaml: 2 errors: (1) ...; (2) ...``.

    Args:
      what: what is wrong; may be left out where `argument` or `place` and `expected` say it.
      place: where: a file, a key in it (``"events[1].prompt"``), or a tuple of these from the
        outermost inwards.
      argument: name of the argument at fault.
      value: what was given; shown in short form.
      expected: what may be given, without a verb: ``"an integer from 1 to 1000"``.
      remedy: what to do, as an instruction.

    Attributes:
      what, argument, value, expected, remedy: as passed (`value` is `MISSING` where none was).
      place: a tuple of str.
      all_errors: every error it stands for; one, itself, unless made by `together`.
    """

    def __init__(
        self,
        what: Text = "",
        *,
        place: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
        argument: str | None = None,
        value: Any = MISSING,
        expected: Text | None = None,
        remedy: Text | None = None,
    ) -> None:
        super().__init__(what)
        self.what = _phrase(what)
        if place is None:
            place = ()
        elif isinstance(place, str | os.PathLike):
            place = (place,)
        self.place = tuple(os.fspath(part) for part in place)
        self.argument = argument
        self.value = value
        self.expected = None if expected is None else _phrase(expected)
        self.remedy = None if remedy is None else _phrase(remedy)
        self._together: tuple[InputError, ...] = ()

    @classmethod
    def together(cls, errors: Iterable[InputError]) -> InputError:
        """One error that stands for several; the error itself where there is one."""
        each = tuple(one for error in errors for one in error.all_errors)
        if len(each) == 1:
            return each[0]
        made = InputError(f"{len(each)} errors")
        made._together = each
        return made

    @property
    def all_errors(self) -> tuple[InputError, ...]:
        """The errors that this one stands for, in order."""
        return self._together or (self,)

    @property
    def first_error(self) -> InputError:
        """The first of `all_errors`."""
        return self.all_errors[0]

    def within(self: _Error, *place: str | os.PathLike[str]) -> _Error:
        """The same error in an outer place, such as the file that was read."""
        made = copy.copy(self)
        made.place = (*(os.fspath(part) for part in place), *self.place)
        made._together = tuple(one.within(*place) for one in self._together)
        return made

    def inside(self: _Error, place: str | os.PathLike[str]) -> _Error:
        """The same error without its outermost place, if that is `place`."""
        return self._beyond(1) if self.place[:1] == (os.fspath(place),) else self

    def in_key(self: _Error, key: str = "") -> _Error:
        """The same error in a document: the argument at fault becomes a key below `key`."""
        made = copy.copy(self)
        place = ".".join(filter(None, (key, self.argument, *self.place)))
        made.place = (place,) if place else ()
        made.argument = None
        made._together = tuple(one.in_key(key) for one in self._together)
        return made

    def _beyond(self: _Error, count: int) -> _Error:
        made = copy.copy(self)
        made.place = self.place[count:]
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled by its attributes, whatever arguments a subclass takes."""
        return _restored, (type(self), self.args, self.__dict__.copy())

    def text(self, words: Callable[[Argument], str] = str, *, subject: str | None = None) -> str:
        """The error in one line, without the remedy.

        Args:
          words: gives the words for an argument.
          subject: what to call the argument or place at fault; None for its own name.
        """
        if self._together:
            shared = os.path.commonprefix([one.place for one in self._together])
            each = [one._beyond(len(shared)).line(words) for one in self._together[:_LISTED]]
            lines = [f"({n}) {line}" for n, line in enumerate(each, 1)]
            if len(self._together) > _LISTED:
                lines.append("...")
            return ": ".join([*shared, f"{len(self._together)} errors: {'; '.join(lines)}"])
        subjects = list(self.place)
        if self.argument is not None:
            subjects.append(self.argument if words is str else words(Argument(self.argument)))
        if subject is not None:
            subjects = [subject]
        what = worded(self.what, words)
        got = "" if self.value is MISSING else f", got {short(self.value)}"
        expected = "" if self.expected is None else worded(self.expected, words)
        if not what:
            return _line(f"{': '.join(subjects)} must be {expected}{got}")
        expected = f", expected {expected}" if expected else ""
        return _line(": ".join([*subjects, what]) + got + expected)

    def line(self, words: Callable[[Argument], str] = str) -> str:
        """`text` and the remedy, in one line; `words` as there."""
        remedy = "" if self.remedy is None else _line(worded(self.remedy, words))
        return self.text(words) + (f"; {remedy}" if remedy else "")

    def __str__(self) -> str:
        return self.line()


def _restored(kind: type[_Error], args: tuple[Any, ...], state: dict[str, Any]) -> _Error:
    made = kind.__new__(kind, *args)
    made.args = args
    made.__dict__.update(state)
    return made


def worded(text: str, words: Callable[[Argument], str]) -> str:
    """`text` with the arguments that it mentions worded by `words`."""
    parts = text.parts if isinstance(text, Phrase) else (text,)
    return "".join(words(part) if isinstance(part, Argument) else part for part in parts)


def _phrase(text: Text) -> str:
    if isinstance(text, str):
        return text
    return Phrase(text) if isinstance(text, Argument) else Phrase(*text)


def _line(text: str) -> str:
    """Foreign text may hold line breaks; a message is one line."""
    return " ".join(text.split())


class Terminated(KeyboardInterrupt):
    """The process was asked to stop (SIGTERM, which clusters send before they preempt a machine).

    The message says what has been saved. It is a `KeyboardInterrupt`, not an `Exception`, so that
    no handler on the way takes it for a failure.
    """
