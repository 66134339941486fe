"""The command-line framework: plain help that fits any terminal, usage errors in one line."""

from __future__ import annotations

import copy
import difflib
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from syncos_jax.cli.console import fail
from syncos_jax.errors import InputError

UsageError: Any = typer.BadParameter.__base__
ClickException: Any = UsageError.__base__

HELP = ["-h", "--help"]

OLD_NAMES = {"--batch": "--windows-per-call", "--beside": "--compare-with", "--token": ""}
"""Options of the release before, still accepted but not shown -> their new name."""

ELSEWHERE = {
    "--num-inference-steps": "--steps",
    "--num_inference_steps": "--steps",
    "--sample-steps": "--steps",
    "--guidance-scale": "--guidance",
    "--guidance_scale": "--guidance",
    "--cfg": "--guidance",
    "--cfg-scale": "--guidance",
    "--negative-prompt": "--negative",
    "--negative_prompt": "--negative",
    "--num-frames": "--frames",
    "--num_frames": "--frames",
    "--length": "--frames",
    "--duration": "--seconds",
    "--width": "--size",
    "--height": "--size",
    "--resolution": "--size",
    "--output": "--out",
    "--outdir": "--out",
    "--save-file": "--out",
    "--ckpt": "--model",
    "--checkpoint": "--model",
    "--model-path": "--model",
    "--scheduler": "--sampler",
    "--batch-size": "--windows-per-call",
    "--gpus": "--devices",
    "--num-gpus": "--devices",
    "--silent": "--quiet",
}
"""What other programs call an option -> what it is called here."""


class Command(TyperCommand):
    """A command whose help lists its options by topic, never cut, in plain ASCII."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, options, and the options of each topic."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            shown = copy.copy(param)
            shown.opts = [name for name in param.opts if name not in OLD_NAMES]
            record = shown.get_help_record(ctx)
            if record is not None and shown.opts:
                kind = "Arguments" if param.param_type_name == "argument" else "Options"
                topic = getattr(param, "rich_help_panel", None) or kind
                groups.setdefault(topic, []).append(record)
        for topic, records in groups.items():
            if records:
                with formatter.section(topic):
                    formatter.write_dl(records)
        above = getattr(ctx.parent, "command", None)
        if isinstance(above, Group) and above.default == self.name:
            above.format_commands(ctx.parent, formatter)

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """The usage line, without the name of a default command."""
        above = getattr(ctx.parent, "command", None)
        is_default = isinstance(above, Group) and above.default == self.name
        path = ctx.parent.command_path if is_default else ctx.command_path
        formatter.write_usage(path, " ".join(self.collect_usage_pieces(ctx)))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Examples, line for line."""
        _write_epilog(self, formatter)


class Group(TyperGroup):
    """Commands below one name; usage errors are one line with exit code 2."""

    default: str | None = None
    """The command to run if the first word is not a command."""
    default_help = False
    """Whether ``--help`` alone shows the help of that command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the default command in front if the first word is not a command."""
        if args and self.default is not None and args[0] not in self.commands:
            if self.default_help or args[0] not in HELP:
                args = [self.default, *args]
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Examples, line for line."""
        _write_epilog(self, formatter)

    def main(  # type: ignore[override]
        self, args: Any = None, *, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        """Runs the command line; the exit code is that of the command."""
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        try:
            code = super().main(args, standalone_mode=False, **extra)
        except ClickException as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()
            else:
                fail(usage_error(error))
            sys.exit(error.exit_code)
        except typer.Abort:
            fail("aborted")
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


class Commands(typer.Typer):
    """The commands of a `Group`."""

    def __init__(self, help: str, epilog: str | None = None, cls: type[Group] = Group) -> None:
        super().__init__(
            cls=cls,
            help=help,
            epilog=epilog,
            no_args_is_help=True,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": HELP},
        )

    def command(self, name: str | None = None, **settings: Any) -> Any:
        """As `typer.Typer.command`, for a `Command`."""
        return super().command(name, cls=Command, **settings)


def usage_error(error: Any) -> InputError:
    """The error for a command line that does not parse, as any other error of an input."""
    ctx = getattr(error, "ctx", None)
    remedy = f"see {ctx.command_path} --help" if ctx is not None else None
    option = getattr(error, "option_name", None)
    param = getattr(error, "param", None)
    message = str(error.message).rstrip(".")
    if option is not None and message.startswith("No such option"):
        near = _suggested(option, ctx)
        return InputError(f"unknown option {option}", remedy=near or remedy)
    if option is not None:
        return InputError(_lower(message), remedy=remedy)
    if param is not None:
        if param.param_type_name == "option":
            name = max((name for name in param.opts if name not in OLD_NAMES), key=len)
        else:
            name = param.metavar or str(param.name).upper()
        if type(error).__name__ == "MissingParameter":
            return InputError(f"{name} is missing", remedy=remedy)
        return InputError(_lower(message), place=name, remedy=remedy)
    return InputError(_lower(message), remedy=remedy)


def _suggested(option: str, ctx: Any) -> str | None:
    known = [
        name
        for param in (ctx.command.get_params(ctx) if ctx is not None else ())
        for name in (*param.opts, *param.secondary_opts)
        if name not in OLD_NAMES and name.startswith("--") and not getattr(param, "hidden", False)
    ]
    meant = ELSEWHERE.get(option.partition("=")[0].lower())
    if meant in known:
        return f"did you mean {meant}?"
    close = difflib.get_close_matches(option, known, n=1, cutoff=0.7)
    return f"did you mean {close[0]}?" if close else None


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _write_epilog(command: Any, formatter: Any) -> None:
    if command.epilog:
        formatter.write_paragraph()
        for line in command.epilog.strip().splitlines():
            formatter.write(f"{line}\n")
