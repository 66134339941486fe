"""What to make: a scenario file with its variables and seeds, or plain prompts.

The options stand here once, for every command that takes them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from syncos_jax.errors import InputError
from syncos_jax.scenario.comments import comments_behind_text

if TYPE_CHECKING:
    from syncos_jax.scenario.template import Take

ScenarioFile = Annotated[
    Path | None,
    typer.Argument(
        help="The scenario: a YAML or JSON file.", metavar="SCENARIO", show_default=False
    ),
]
Values = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="NAME=VALUE,...",
        help="Value of a variable; several values, parted by commas, make several videos. A comma "
        "in a value is written \\\\, and * stands for all allowed values.",
        show_default=False,
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(metavar="N,N,...", help="One video for each seed; 0-4 for 0 to 4."),
]
Takes = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1000,
        metavar="N",
        help="N videos of different seeds: the scenario's (or --seed) and the next ones.",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0, max=2**32 - 1, help="Instead of the scenario's.", metavar="N", show_default=False
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="'demo', or the folder of a converted model; @int8 behind it quantizes the denoiser.",
        metavar="NAME|DIR",
    ),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        help="Instead of the scenario's: syncos, co_denoising, refinement_only, flowlong, "
        "freenoise or fifo.",
        metavar="NAME",
        show_default=False,
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="How much synchronisation: 0 none (co-denoising), 1 full. Takes the place of the "
        "syncos sampler's own settings.",
        metavar="X",
        show_default=False,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Denoising steps, instead of the scenario's.", metavar="N", show_default=False
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(help="How strongly to follow the prompts.", metavar="X", show_default=False),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="In place of a scenario: a text file with a prompt, an event, on each line (lines "
        "that begin with '# ' are comments), or a .csv, .tsv, .json or .jsonl with prompt and, if "
        "need be, seconds, frames and negative.",
        show_default=False,
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        metavar="'A | B | C'",
        help="In place of a scenario: prompts, parted by |.",
        show_default=False,
    ),
]
Global = Annotated[
    str | None,
    typer.Option(
        "--global",
        metavar="TEXT",
        help="With --prompt and --prompts: what is the same all through. Without it each prompt "
        "has to say everything.",
        show_default=False,
    ),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        metavar="X",
        help="With --prompt and --prompts: length of each event (default 2).",
        show_default=False,
    ),
]


def collect(
    scenario: Path | None,
    values: list[str] | None = None,
    seed: int | None = None,
    seeds: str | None = None,
    takes: int | None = None,
    prompts: Path | None = None,
    prompt: str | None = None,
    global_prompt: str | None = None,
    seconds: float | None = None,
) -> list[Take]:
    """The videos that the options ask for; InputError where they contradict one another."""
    from syncos_jax.scenario.prompt_files import read_prompt_file
    from syncos_jax.scenario.prompts import from_prompts, split_prompts
    from syncos_jax.scenario.scenario import braces_doubled
    from syncos_jax.scenario.template import Template, parse_values

    given = {"SCENARIO": scenario, "--prompts": prompts, "--prompt": prompt}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        found = f"both {' and '.join(named)} are given" if named else "there is nothing to make"
        raise InputError(f"{found}; give one of a scenario file, --prompts FILE or --prompt TEXT")
    if seeds is not None and takes is not None:
        raise InputError("both --seeds and --takes are given; leave one of them out")
    if seeds is not None and seed is not None:
        raise InputError("both --seed and --seeds are given; leave one of them out")
    if scenario is not None:
        for name, value in (("--global", global_prompt), ("--seconds", seconds)):
            if value is not None:
                raise InputError(f"{name} goes with --prompt or --prompts, not with a scenario")
        template = Template.from_file(scenario)
        say_comments([scenario])
    else:
        if values:
            raise InputError("--set goes with a scenario file, not with --prompt or --prompts")
        texts: list[Any]
        if prompts is not None:
            held = read_prompt_file(prompts)
            texts = list(held.events)
            _say(held.notes)
        else:
            texts = list(split_prompts(prompt or ""))
        story = from_prompts(texts, global_prompt or "", seconds)
        template = Template(braces_doubled(story.to_dict()))
    chosen = parse_values(values or [])
    wanted = read_seeds(seeds) if seeds is not None else None if seed is None else [seed]
    if takes is not None:
        first = wanted[0] if wanted else template.expand(chosen)[0].scenario.seed
        wanted = [(first + index) % 2**32 for index in range(takes)]  # after the last comes 0
    return template.expand(chosen, wanted)


_MOST_NOTES = 20


def say_comments(files: Iterable[Path]) -> None:
    """Says which texts of scenario files YAML ends at a ``#``; for every command that reads."""
    notes = [note for file in dict.fromkeys(files) for note in comments_behind_text(file)]
    more = len(notes) - _MOST_NOTES
    _say(notes[:_MOST_NOTES] + ([f"and {more} more of the kind"] if more > 0 else []))


def _say(notes: Iterable[str]) -> None:
    for note in notes:
        typer.echo(f"note: {' '.join(note.split())}", err=True)


def with_sampler(takes: list[Take], name: str | None, changes: Mapping[str, Any]) -> list[Take]:
    """The takes with another sampler, or with those of its settings that are not None."""
    changed = [take.scenario.with_sampler(name, **changes) for take in takes]
    return [
        dataclasses.replace(take, scenario=scenario)
        for take, scenario in zip(takes, changed, strict=True)
    ]


def read_seeds(text: str) -> list[int]:
    """``"0,2,5-7"`` -> ``[0, 2, 5, 6, 7]``."""
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,10})(?:\s*-\s*(\d{1,10}))?\s*", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last < 2**32 or last - first >= 1000:
            raise InputError(
                f"--seeds: {part!r} is no seed; give whole numbers from 0 to {2**32 - 1}, such as "
                "0,1,2 or 0-4 (at most 1000)"
            )
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def named_outputs(out: Path, takes: list[Take]) -> list[Path]:
    """A path for each take: ``out`` itself, or ``out-beach-seed1.mp4`` where there are several."""
    if len(takes) == 1:
        return [with_ending(out, "")]
    return [with_ending(out, f"-{take.name}") for take in takes]


def with_ending(path: Path, text: str) -> Path:
    """``out.mp4`` -> ``out-beach.mp4``; InputError where the path has no name."""
    if not path.name:
        raise InputError(f"{path} is a folder; give the name of a file in it")
    return path.with_name(f"{path.stem}{text}{path.suffix}")
