"""``python examples/demo_model train``, ``distil`` and ``evaluate``; ``--help`` shows options."""

import sys
from pathlib import Path

import typer

sys.path.insert(0, str(Path(__file__).parents[1]))

from demo_model.distil import main as distil
from demo_model.evaluate import main as evaluate
from demo_model.train import main as train

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.command("train")(train)
app.command("distil")(distil)
app.command("evaluate")(evaluate)
app()
