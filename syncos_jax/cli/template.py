"""``syncos template``: templates that learn from a team's decisions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from syncos_jax.cli.console import user_errors
from syncos_jax.errors import InputError

if TYPE_CHECKING:
    from syncos_jax.studio.learn import Lessons

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Improve templates by the decisions of a team.",
    epilog="""[bold]Examples[/bold]

syncos template learn videos

syncos template learn videos --template story.yaml --out better.yaml

syncos template learn videos --export dataset
""",
)


@app.callback()
def _group() -> None:
    """Improve templates by the decisions of a team."""


@app.command("learn")
def learn(
    folder: Annotated[
        Path, typer.Argument(help="Folder of decided videos of one template.", metavar="DIR")
    ],
    template: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The template to improve.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write a template with the proposed values; .yaml or .json.",
            show_default=False,
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Copy the approved videos to a new folder, with captions.jsonl, for training.",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[
        int,
        typer.Option(min=0, max=20, metavar="N", help="Combinations to propose for next takes."),
    ] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which values of variables and settings lead to approval.

    A value is proposed only where the decisions carry it: with 95 % confidence over everything
    compared. Decisions are made in syncos studio or with syncos review approve and reject.
    """
    with user_errors():
        from syncos_jax.files import check_writable, replacing
        from syncos_jax.files.documents import read_mapping, to_text
        from syncos_jax.studio import learn as learning

        if (out is None) != (template is None):
            raise InputError("--out and --template go together: the new template and its source")
        if out is not None:
            check_writable(out)
        decisions = learning.read_decisions(folder)
        if not decisions:
            raise InputError(
                "no decided videos with metadata files",
                place=folder,
                remedy="approve or reject some in syncos studio or with syncos review",
            )
        lessons = learning.learn(decisions, trials)
        if as_json:
            report = dataclasses.asdict(lessons) | {"proposals": lessons.proposals}
            typer.echo(json.dumps(report, indent=1))
        else:
            _print(lessons)
        if out is not None and template is not None:
            text = to_text(learning.learned_template(read_mapping(template), lessons), out.suffix)
            with replacing(out) as temporary:
                temporary.write_text(text, encoding="utf-8")
            typer.echo(f"{out}: template with the proposed values", err=True)
        if export is not None:
            count = learning.export_approved(decisions, export)
            typer.echo(f"{export}: {count} approved videos and captions.jsonl", err=True)


def _print(lessons: Lessons) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    console.print(f"{lessons.approved} of {lessons.decided} decided videos approved")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("factor", "value", "approved", "rate", "95 % interval", "best", "proposed"):
        table.add_column(column, overflow="fold")
    for each in lessons.evidence:
        table.add_row(
            each.factor,
            str(each.value),
            f"{each.approved} of {each.decided}",
            f"{each.rate:.2f}",
            f"{each.interval[0]:.2f} to {each.interval[1]:.2f}",
            f"{100 * each.best:.1f} %",
            "yes" if each.proposed else "",
        )
    if lessons.evidence:
        console.print(table)
    else:
        console.print("no variable or setting has two values with three decisions each")
    for trial in lessons.trials:
        console.print("try next: " + ", ".join(f"{name}={value}" for name, value in trial.items()))
