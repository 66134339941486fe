"""``syncos experiment``: methods × scenarios × seeds, tables and plots.

``python benchmarks/experiment`` runs it, too.
"""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from syncos_jax.cli.console import user_errors
from syncos_jax.runs.progress import Phases, interruptible

if TYPE_CHECKING:
    from experiment.methods import Method
    from experiment.runner import Task

EXAMPLES = """[bold]Examples[/bold]

syncos experiment --subset --out runs/subset

syncos experiment --methods syncos,co_denoising --scenarios open --seeds 5 --out runs/open

syncos experiment --methods co_denoising,syncos --dial 0.25,0.5,1 --scenarios open --out runs/dial

syncos experiment --settings mine.yaml --methods co_denoising,few --scenarios open --out runs/few

where mine.yaml holds, as a scenario's sampler does:

few: {name: syncos, t_min: 700, iterations: 2, windows_per_step: 4}

syncos experiment --methods co_denoising,fifo,syncos --pairs fifo:syncos --seeds 5 --out runs/fifo
"""


def experiment(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="The folder of the results.")
    ],
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Some of co_denoising, fifo, flowlong, freenoise, chained, syncos, no_structure, "
            "no_grounded_timestep, no_fixed_noise, no_t_min, refinement_only, and those of "
            "--settings. Default: all.",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Methods of your own: a YAML or JSON file of name: sampler settings.",
            show_default=False,
        ),
    ] = None,
    dial: Annotated[
        str | None,
        typer.Option(
            metavar="X,...",
            help="Also SynCoS's dial at these strengths (0 to 1), as methods dial_X; draws the "
            "curve of consistency and diversity.",
            show_default=False,
        ),
    ] = None,
    scenarios: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Scenarios of the suite (open-03), or kinds: motion, background, colour, size, "
            "open, long, bare. Default: all 58.",
            show_default=False,
        ),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="CLIPS,...",
            help="Each scenario in these lengths, with a motion for each clip, in place of its "
            "own: how videos change over time. Of motion, open, long and bare.",
            show_default=False,
        ),
    ] = None,
    subset: Annotated[
        bool,
        typer.Option(
            "--subset",
            help="6 scenarios of 32 frames, by default with 2 seeds and 25 steps: with "
            "all methods about an hour on two CPU cores.",
        ),
    ] = False,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N[,NAME=N...]",
            help="Videos of each method and scenario, and after it of some methods: 2,syncos=4. "
            "Default: 3.",
            show_default=False,
        ),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            metavar="A:B,...",
            help="Pairs of methods whose differences are listed, over the videos that both have.",
            show_default=False,
        ),
    ] = None,
    first_seed: Annotated[
        int, typer.Option(min=0, max=2**31, metavar="N", help="The first seed.")
    ] = 0,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="'demo', or the folder of a converted model; @int8 behind it quantizes the "
            "denoiser.",
            metavar="NAME|DIR",
        ),
    ] = "demo",
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Denoising steps of every method. Default: the model's.",
            show_default=False,
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Guidance of every method. Default: the model's.", show_default=False
        ),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Optimiser steps at a timestep, for every method that refines.",
            show_default=False,
        ),
    ] = None,
    refine_snr: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0,
            help="Refine where the signal-to-noise ratio is below this, in place of the t_min of "
            "every method that has one. The published 850 is 0.024 in Stable Diffusion's "
            "schedule.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(metavar="N", help="Windows in one call of the network.", show_default=False),
    ] = None,
    videos: Annotated[bool, typer.Option("--videos", help="Keep every video as .mp4.")] = False,
    plots: Annotated[bool, typer.Option(help="Draw plots (needs matplotlib).")] = True,
    cache: Annotated[
        bool,
        typer.Option(
            help="Keep compiled programs in $SYNCOS_CACHE (else ~/.cache/syncos_jax) for the next "
            "start."
        ),
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be run and what it costs, and stop.")
    ] = False,
) -> None:
    """Compare methods on the suite of scenarios, as the paper does.

    Runs methods × scenarios × seeds and writes tables.md, results.json and plots, with bootstrap
    intervals and the paper's order of methods against ours.

    Every finished video is a file in DIR: the same command resumes where it stopped, and more
    methods, scenarios or seeds add to what is there.
    """
    if "experiment" not in sys.modules:
        sys.path.insert(0, str(Path(__file__).parents[1]))
    with user_errors():
        from experiment.study import (
            SEEDS,
            SUBSET_SEEDS,
            SUBSET_STEPS,
            choose_cases,
            of_lengths,
            read_pairs,
            seeds_by_method,
        )
        from syncos_jax.errors import InputError

        given = {name: value for name, value in locals().items() if name in _FLAGS}
        chosen = _methods(methods, settings, dial)
        cases = of_lengths(choose_cases(_names(scenarios), subset), lengths)
        if plots and not dry_run:
            from experiment.plots import need_matplotlib

            need_matplotlib()
        if out.exists() and not out.is_dir():
            raise InputError(f"{out}: is not a folder; --out names the folder of the results")
        count = seeds or str(SUBSET_SEEDS if subset else SEEDS)
        names = [method.name for method in chosen]
        own_seeds = seeds_by_method(count, names, first_seed)
        compared = read_pairs(pairs, names)
        common: dict[str, Any] = {
            "steps": SUBSET_STEPS if steps is None and subset else steps,
            "guidance": guidance,
            "iterations": iterations,
            "refine_snr": refine_snr,
            "batch": batch,
        }
        phases = Phases()
        with phases.phase("load"):
            from experiment.runner import plan, run
            from experiment.study import about, with_common, write_results
            from syncos_jax.pipeline import Pipeline
            from syncos_jax.runs.cache import keep_programs

            if cache:
                keep_programs()
            pipeline = Pipeline.from_pretrained(model)
            ready = with_common(chosen, pipeline.model, **common)
            tasks = plan(pipeline, ready, cases, own_seeds)
        _print_plan(phases, tasks)
        if dry_run:
            return
        out.mkdir(parents=True, exist_ok=True)
        with phases.phase("videos", "clips") as progress:
            work = partial(
                run, pipeline, tasks, out, say=phases.say, progress=progress, videos=videos
            )
            records = interruptible(work)
        with phases.phase("write"):
            facts = about(pipeline, tasks, _command(given))
            written = write_results(out, tasks, records, facts, plots, compared)
        typer.echo("\n".join(str(path) for path in written))


_FLAGS = (
    "out",
    "methods",
    "settings",
    "dial",
    "scenarios",
    "lengths",
    "subset",
    "seeds",
    "pairs",
    "first_seed",
    "model",
    "steps",
    "guidance",
    "iterations",
    "refine_snr",
    "batch",
)


def _command(given: dict[str, Any]) -> str:
    """The command that makes the same results."""
    words = ["syncos", "experiment"]
    for name in _FLAGS:
        value = given[name]
        if value in (None, False) or (name, value) in (("first_seed", 0), ("model", "demo")):
            continue
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words.append(str(value))
    return shlex.join(words)


def _methods(names: str | None, settings: Path | None, dial: str | None) -> list[Method]:
    """Those that --methods, --settings and --dial name."""
    from experiment.methods import METHODS, choose, dial_methods, read_methods
    from syncos_jax.errors import InputError

    known = dict(METHODS)
    if settings is not None:
        own = read_methods(settings)
        both = sorted(set(own) & set(known))
        if both:
            raise InputError(f"{settings}: {both[0]}: is a built-in method; choose another name")
        known |= own
    of_strengths = {} if dial is None else dial_methods(_strengths(dial))
    chosen = choose(_names(names), known | of_strengths, "method")
    return chosen + [method for method in of_strengths.values() if method not in chosen]


def _strengths(text: str) -> list[float]:
    from syncos_jax.errors import InputError

    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(
            f"--dial: {text!r} is not a list of numbers; give strengths such as 0.25,0.5,1"
        ) from None


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _print_plan(phases: Phases, tasks: list[Task]) -> None:
    clips: Counter[str] = Counter()
    for task in tasks:
        clips[task.method.name] += task.clips
    scenarios = len({task.case.id for task in tasks})
    seeds = len({task.seed for task in tasks})
    phases.say(
        f"{len(tasks)} videos: {len(clips)} methods, {scenarios} scenarios, {seeds} seeds; "
        f"{sum(clips.values()):,} clips to predict"
    )
    for name, count in clips.items():
        phases.say(f"  {name:<22}{count:>9,} clips")
