"""What the commands share: errors as one line in the words of the command line, exit codes.

The library's errors name Python arguments (`syncos_jax.errors.Argument`). `OPTIONS` says which
option each of them is; `flag` words an argument as that option.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from syncos_jax.errors import MISSING, Argument, InputError
from syncos_jax.runs import exits
from syncos_jax.runs.exits import BAD_INPUT, FAILED, INTERRUPTED, TERMINATED

__all__ = ["BAD_INPUT", "FAILED", "INTERRUPTED", "OPTIONS", "TERMINATED", "fail", "user_errors"]

OPTIONS = {
    "windows_per_call": "--windows-per-call",
    "by": "--by",
    "checkpoint_every": "--checkpoint-every",
    "comment": "--comment",
    "config": "--config",
    "dtype": "--dtype",
    "ema=True": "--ema",
    "force=True": "--force",
    "format": "--format",
    "join_timeout": "--join-timeout",
    "host": "--host",
    "key": "--key",
    "link=True": "--link",
    "llm": "--llm",
    "llm_model": "--llm-model",
    "lora": "--lora",
    "model": "--model",
    "motion": "--motion",
    "names": "--scenarios",
    "only": "--only",
    "original": "--from",
    "out": "--out",
    "plots=False": "--no-plots",
    "preview_every": "--preview-every",
    "prompts": "--prompt",
    "queue": "--queue",
    "ray": "--ray",
    "metadata=None": "--no-sidecar",
    "resume=False": "--no-resume",
    "scale": "--scale",
    "shard": "--shard",
    "size": "--size",
    "subset": "--subset",
    "token": "--token",
    "tokenizer": "--tokenizer",
    "values": "--set",
    "weights_over": "--weights-over",
    "window": "--window",
    "workers": "--workers",
}
"""Argument of the library, or argument with its value -> option of the command line."""


def flag(argument: Argument) -> str:
    """An argument as its option: ``Argument("only", "unet")`` becomes ``--only unet``."""
    name, value = argument
    if value is MISSING:
        return OPTIONS.get(name, str(argument))
    if f"{name}={value}" in OPTIONS:
        return OPTIONS[f"{name}={value}"]
    if name not in OPTIONS:
        return str(argument)
    if isinstance(value, dict):  # an option takes a mapping as NAME=VALUE
        return " ".join(f"{OPTIONS[name]} {key}={item}" for key, item in value.items())
    return f"{OPTIONS[name]} {value}"


_ARGUMENT = re.compile(r"`(\w+)(?:=([^`]*))?`")
_ITEM = re.compile(r"\{'(\w+)': (.*)\}")  # of a mapping, which an option takes as NAME=VALUE


def worded(message: str) -> str:
    """A message of the library for the command line: `` `only=unet` `` becomes ``--only unet``."""

    def option(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        if value is not None and f"{name}={value}" in OPTIONS:
            return OPTIONS[f"{name}={value}"]
        if name not in OPTIONS:
            return match[0]
        if value is None:
            return OPTIONS[name]
        return f"{OPTIONS[name]} " + _ITEM.sub(r"\1=\2", value)

    return _ARGUMENT.sub(option, message)


def fail(message: str | InputError) -> None:
    """One line on stderr for each error."""
    if isinstance(message, InputError):
        for error in message.all_errors:
            exits.fail(worded(error.line(flag)))
    else:
        exits.fail(worded(message))


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns what a user can do something about into one line and an exit code, without a trace."""
    with exits.exit_on_error(fail):
        yield
