"""Options that select what to generate: a scenario file with variables and seeds, or prompts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from syncos_jax.cli import input_options
from syncos_jax.errors import InputError
from syncos_jax.scenario.comments import comments_behind_text

if TYPE_CHECKING:
    from syncos_jax.scenario.scenario import Scenario
    from syncos_jax.scenario.template import Take

ScenarioFile = Annotated[
    Path | None,
    typer.Argument(help="Scenario file (YAML or JSON).", metavar="SCENARIO", show_default=False),
]
Values = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="NAME=VALUE,...",
        help="Set a template variable; several comma-separated values generate "
        "several videos. Write \\, for a comma in a value, and * for all "
        "allowed values.",
        show_default=False,
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(metavar="N,N,...", help="One video per seed; 0-4 for 0 to 4."),
]
Takes = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1000,
        metavar="N",
        help=("N videos with consecutive seeds, starting at the scenario's (or --seed)."),
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=2**32 - 1,
        help="Random seed. Default: the scenario's.",
        metavar="N",
        show_default=False,
    ),
]
Lora = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE[:STRENGTH]",
        help="A LoRA to merge into the model's weights as they are loaded; NETWORK=FILE for one "
        "network alone, such as transformer_2. Can be repeated. Default: the scenario's.",
        show_default=False,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help=("'demo', or a model folder; append @int8 to quantize the denoiser."),
        metavar="NAME|DIR",
    ),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        help="Sampler: syncos, co_denoising, refinement_only, flowlong, "
        "freenoise, chained or fifo. Default: the scenario's.",
        metavar="NAME",
        show_default=False,
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Strength of the synchronisation, from 0 (co-denoising) to 1 "
        "(full). Replaces the other settings of the syncos sampler.",
        metavar="X",
        show_default=False,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Denoising steps. Default: the scenario's or the model's.",
        metavar="N",
        show_default=False,
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        help="Guidance scale. Default: the scenario's or the model's.",
        metavar="X",
        show_default=False,
    ),
]
Negative = Annotated[
    str | None,
    typer.Option(
        "--negative",
        metavar="TEXT",
        help="Negative prompt. Default: the scenario's.",
        show_default=False,
    ),
]
Frames = Annotated[
    int | None,
    typer.Option(
        "--frames",
        min=1,
        metavar="N",
        help="Length of the video in frames; events keep their proportions. Default: the "
        "scenario's.",
        show_default=False,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="WxH",
        help="Width and height in pixels. Default: the scenario's or the model's.",
        show_default=False,
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        "--fps",
        metavar="X",
        help="Frames per second. Default: the scenario's or the model's.",
        show_default=False,
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="Instead of a scenario: a text file with one prompt per line (lines "
        "starting with '# ' are comments), or a .csv, .tsv, .json or .jsonl "
        "with prompt and optionally seconds, frames, negative. Prompts may have times "
        "('[00:00-00:10] ...', '0: ...', start and end columns, .srt); see docs/guide.md.",
        show_default=False,
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        metavar="'A | B | C'",
        help="Instead of a scenario: prompts separated by |.",
        show_default=False,
    ),
]
Global = Annotated[
    str | None,
    typer.Option(
        "--global",
        metavar="TEXT",
        help="With --prompt or --prompts: what stays the same throughout. "
        "Without it, each prompt has to describe everything.",
        show_default=False,
    ),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        metavar="X",
        help=("With --prompt or --prompts: length of each event. Default: 2."),
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
    """The videos that the options select; raises InputError for options that conflict."""
    from syncos_jax.scenario.prompt_files import read_prompt_file
    from syncos_jax.scenario.prompts import from_prompts, split_prompts
    from syncos_jax.scenario.scenario import braces_doubled
    from syncos_jax.scenario.template import Template, parse_values
    from syncos_jax.scenario.timed_prompts import read_lines

    given = {"SCENARIO": scenario, "--prompts": prompts, "--prompt": prompt}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        if not named:
            raise InputError("nothing to generate: pass a scenario file, --prompts or --prompt")
        raise InputError(f"{' and '.join(named)} cannot be combined")
    if seeds is not None and takes is not None:
        raise InputError("--seeds and --takes cannot be combined")
    if seeds is not None and seed is not None:
        raise InputError("--seed and --seeds cannot be combined")
    if scenario is not None:
        for name, value in (("--global", global_prompt), ("--seconds", seconds)):
            if value is not None:
                raise InputError(f"{name} needs --prompt or --prompts")
        template = Template.from_file(scenario)
        say_comments([scenario])
    else:
        if values:
            raise InputError("--set needs a scenario file")
        texts: list[Any]
        if prompts is not None:
            held = read_prompt_file(prompts)
            texts = list(held.events)
            _say(held.notes)
        elif timed := read_lines("--prompt", prompt or ""):
            texts = list(timed[0])
            _say(timed[1])
        else:
            texts = list(split_prompts(prompt or ""))
        story = from_prompts(texts, global_prompt or "", seconds)
        template = Template(braces_doubled(story.to_dict()))
    chosen = parse_values(values or [])
    wanted = read_seeds(seeds) if seeds is not None else None if seed is None else [seed]
    if takes is not None:
        first = wanted[0] if wanted else template.expand(chosen)[0].scenario.seed
        wanted = [(first + index) % 2**32 for index in range(takes)]  # after the last comes 0
    found = template.expand(chosen, wanted)
    say_foreign_syntax(take.scenario for take in found)
    return found


def say_foreign_syntax(scenarios: Iterable[Scenario]) -> None:
    """Prints a note for each prompt weight and LoRA tag of other tools."""
    from syncos_jax.scenario.timed_prompts import foreign_syntax

    texts: dict[str, None] = {}
    for scenario in scenarios:
        texts |= dict.fromkeys((scenario.global_prompt, scenario.negative))
        texts |= dict.fromkeys(event.prompt for event in scenario.events)
    _say(foreign_syntax(list(texts))[:_MOST_NOTES])


_MOST_NOTES = 20


def say_comments(files: Iterable[Path]) -> None:
    """Prints a note for each text in scenario files that YAML ends at a ``#``."""
    notes = [note for file in dict.fromkeys(files) for note in comments_behind_text(file)]
    more = len(notes) - _MOST_NOTES
    _say(notes[:_MOST_NOTES] + ([f"... and {more} more notes"] if more > 0 else []))


def _say(notes: Iterable[str]) -> None:
    for note in notes:
        typer.echo(f"note: {' '.join(note.split())}", err=True)


def with_sampler(takes: list[Take], name: str | None, changes: Mapping[str, Any]) -> list[Take]:
    """The takes with another sampler, or with the settings that are not None replaced."""
    changed = [take.scenario.with_sampler(name, **changes) for take in takes]
    return [
        dataclasses.replace(take, scenario=scenario)
        for take, scenario in zip(takes, changed, strict=True)
    ]


def with_video(
    takes: list[Take],
    negative: str | None,
    frames: int | None,
    size: str | None,
    fps: float | None,
    inputs: Mapping[str, Path | str | bool | None] | None = None,
) -> list[Take]:
    """The takes with another negative prompt, length, frame size, frame rate, or other pictures,
    clips and sounds (`image`, `end_image`, `extend`, `join`, `redo`, `fit`, `audio`,
    `loop_audio`)."""
    from syncos_jax.scenario.lengths import with_frames
    from syncos_jax.scenario.scenario import Scenario

    given: dict[str, Any] = {
        "negative": negative,
        "size": None if size is None else list(read_size(size)),
    }
    given |= {"fps": fps, **input_options.read(inputs or {})}
    changes = {key: value for key, value in given.items() if value is not None}
    changed = []
    for take in takes:
        scenario = take.scenario
        if changes:
            scenario = Scenario.from_dict({**scenario.to_dict(), **changes})
        if frames is not None:
            scenario = with_frames(scenario, frames)
        changed.append(dataclasses.replace(take, scenario=scenario))
    return changed


def with_lora(takes: list[Take], lora: list[str] | None) -> list[Take]:
    """The takes with these LoRAs in place of the scenario's; None for the scenario's."""
    if lora is None:
        return takes
    from syncos_jax.scenario.scenario import Scenario

    return [
        dataclasses.replace(
            take, scenario=Scenario.from_dict({**take.scenario.to_dict(), "lora": lora})
        )
        for take in takes
    ]


def lora_of(scenarios: Iterable[Scenario]) -> tuple[str, ...]:
    """The LoRAs that scenarios name; InputError where they are not the same for all."""
    found = list(dict.fromkeys(scenario.lora for scenario in scenarios))
    if len(found) > 1:
        named = " and ".join(", ".join(lora) or "none" for lora in found[:2])
        raise InputError(
            f"the scenarios name different LoRAs: {named}",
            place="lora",
            remedy="run the command once for each",
        )
    return found[0] if found else ()


def read_size(text: str) -> tuple[int, int]:
    """``"576x320"`` -> ``(576, 320)``; raises InputError."""
    found = re.fullmatch(r"\s*0*(\d{1,5})\s*[xX×*]\s*0*(\d{1,5})\s*", text)
    if not found or "0" in found.groups():
        raise InputError(
            argument="size", expected="WIDTHxHEIGHT in pixels, such as 576x320", value=text
        )
    return int(found[1]), int(found[2])


def read_seeds(text: str) -> list[int]:
    """``"0,2,5-7"`` -> ``[0, 2, 5, 6, 7]``."""
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,10})(?:\s*-\s*(\d{1,10}))?\s*", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last < 2**32 or last - first >= 1000:
            raise InputError(
                f"--seeds must be integers from 0 to {2**32 - 1}, such as 0,1,2 or 0-4 (at most "
                f"1000), got {part!r}"
            )
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def named_outputs(out: Path, takes: list[Take]) -> list[Path]:
    """The output path of each take: `out`, or ``out-beach-seed1.mp4`` if there are several."""
    if len(takes) == 1:
        return [with_ending(out, "")]
    return [with_ending(out, f"-{take.name}") for take in takes]


def with_ending(path: Path, text: str) -> Path:
    """``out.mp4`` -> ``out-beach.mp4``; raises InputError if the path has no file name."""
    if not path.name:
        raise InputError("is a folder", place=path, remedy="add a file name")
    return path.with_name(f"{path.stem}{text}{path.suffix}")
