"""``syncos experiment``: the command lies in ``benchmarks/experiment`` of the source tree."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Annotated, Any

import typer

import syncos_jax
from syncos_jax.cli.console import user_errors
from syncos_jax.errors import InputError

COMMAND = Path(syncos_jax.__file__).resolve().parents[1] / "benchmarks/experiment/command.py"


def missing(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="...", hidden=True)] = None,
) -> None:
    """Compare methods on a suite of scenarios; needs the source tree."""
    with user_errors():
        raise InputError(
            "`syncos experiment` is not part of the installed package",
            remedy="run it in a clone of the repository, after pip install -e '.[experiments]'",
        )


def register(app: typer.Typer) -> None:
    """Add the command to ``app``; without a source tree, one that says where it is."""
    spec = spec_from_file_location("syncos_experiment_command", COMMAND)
    if not COMMAND.is_file() or spec is None or spec.loader is None:
        lenient = {"ignore_unknown_options": True}
        app.command("experiment", context_settings=lenient)(missing)
        return
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)
    app.command("experiment", epilog=module.EXAMPLES)(module.experiment)
