"""``syncos`` and its commands; each command has its own file."""

from __future__ import annotations

import codecs
import io
import sys
from typing import Annotated

import typer

from syncos_jax.cli import (
    batch,
    bench,
    compile,
    convert,
    credentials,
    evaluate,
    experiment,
    generate,
    info,
    plan,
    review,
    scenario,
    studio,
    template,
    verify,
)
from syncos_jax.cli.command import Commands
from syncos_jax.cli.console import INTERRUPTED
from syncos_jax.version import __version__

app = Commands(
    help="Generate long multi-event videos with models trained on short clips.\n\n"
    "Write a scenario (what stays the same, what happens), then run:\n\n"
    "syncos generate scenario.yaml --out out.mp4"
)
app.command("generate", epilog=generate.EXAMPLES)(generate.generate)
app.add_typer(batch.app, name="batch")
app.command("plan", epilog=plan.EXAMPLES)(plan.plan)
app.add_typer(scenario.app, name="scenario")
app.add_typer(template.app, name="template")
app.command("convert", epilog=convert.EXAMPLES)(convert.convert)
app.command("info", epilog=info.EXAMPLES)(info.info)
app.command("evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
experiment.register(app)
app.command("bench", epilog=bench.EXAMPLES)(bench.bench)
app.command("compile", epilog=compile.EXAMPLES)(compile.compile)
app.add_typer(review.app, name="review")
app.command("verify", epilog=verify.EXAMPLES)(verify.verify)
app.add_typer(credentials.app, name="credentials")
app.command("studio", epilog=studio.EXAMPLES)(studio.studio)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"syncos {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


_PLAIN = str.maketrans("×━┃·–—…°äöüß", "x=|.--.oaous")


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What terminals without Unicode show instead of a character that they lack."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end].translate(_PLAIN)
    return "".join(char if char.isascii() else "?" for char in lost), error.end


def main() -> None:
    """Entry point of the ``syncos`` command."""
    codecs.register_error("syncos", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="syncos")
    try:
        app()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
