"""``python benchmarks/experiment --help``."""

import sys
from pathlib import Path

import typer

sys.path.insert(0, str(Path(__file__).parents[1]))

from experiment.command import experiment

typer.run(experiment)
