"""What the commands share: errors as one line in the words of the command line, exit codes.

The library's errors name Python arguments (`syncos_jax.errors.Argument`). `OPTIONS` says which
option each of them is; `flag` words an argument as that option.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from syncos_jax.errors import MISSING, Argument, InputError
from syncos_jax.runs import exits
from syncos_jax.runs.exits import BAD_INPUT, FAILED, INTERRUPTED, TERMINATED

__all__ = ["BAD_INPUT", "FAILED", "INTERRUPTED", "OPTIONS", "TERMINATED", "fail", "user_errors"]

MAX_ERRORS = 20
"""Errors printed for one input."""

OPTIONS = {
    "fps": "--fps",
    "frames": "--frames",
    "guidance": "--guidance",
    "label": "--label",
    "negative": "--negative",
    "seed": "--seed",
    "steps": "--steps",
    "strength": "--strength",
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
    "token": "$SYNCOS_STUDIO_TOKEN",
    "text_encoder": "--text-encoder",
    "tokenizer": "--tokenizer",
    "transformer": "--transformer",
    "transformer_2": "--transformer-2",
    "vae": "--vae",
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


def fail(message: str | InputError) -> None:
    """One line on stderr for each error."""
    if isinstance(message, InputError):
        for error in message.all_errors[:MAX_ERRORS]:
            exits.fail(error.line(flag))
        if len(message.all_errors) > MAX_ERRORS:
            exits.fail(f"... and {len(message.all_errors) - MAX_ERRORS} more")
    else:
        exits.fail(message)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns what a user can do something about into one line and an exit code, without a trace."""
    with exits.exit_on_error(fail):
        yield
