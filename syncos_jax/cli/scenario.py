"""``syncos scenario``: create, check and show scenario files; split a story."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from syncos_jax.cli import run_options, scenario_options
from syncos_jax.cli.command import Commands
from syncos_jax.cli.console import BAD_INPUT, fail, user_errors
from syncos_jax.errors import InputError

if TYPE_CHECKING:
    from syncos_jax.scenario.scenario import Scenario
    from syncos_jax.scenario.template import Take, Template

EXAMPLES = """Examples:
  syncos scenario new story.yaml
  syncos scenario check story.yaml
  syncos scenario show story.yaml --set place=beach,meadow
  syncos scenario split story.txt --out story.yaml
"""

_SHOWN = 40

app = Commands("Create, check and show scenario files.", EXAMPLES)

_NEW = """\
# yaml-language-server: $schema={schema}
# A long video: what stays the same, and what happens.
# Preview: syncos plan {name}
global: a red ball on a green meadow
negative: ""              # what the video must not show
events:                   # in order; each has seconds or frames
  - {{prompt: the ball rolls to the left, seconds: 2}}
  - {{prompt: the ball grows, seconds: 1.5}}
  - {{prompt: the ball rolls to the right, seconds: 2}}
crossfade: 0              # windows that blend both events at each change
sampler: {{name: syncos}}   # or co_denoising, refinement_only; steps, guidance, ...
seed: 0
"""

_NEW_TEMPLATE = """\
# yaml-language-server: $schema={schema}
# A template: {{name}} is a variable, {{{{ and }}}} are literal braces.
# Several videos: syncos generate {name} --set place=meadow,beach --takes 3
variables:
  product: {{default: red ball, description: what is shown}}
  place:
    default: a green meadow
    allowed: [a green meadow, a sandy beach, white snow]
  pace: 2                 # seconds of each event
global: "a {{product}} on {{place}}"
negative: ""
events:
  - {{prompt: "the {{product}} rolls to the left", seconds: "{{pace}}"}}
  - {{prompt: "the {{product}} grows", seconds: "{{pace}}"}}
sampler: {{name: syncos}}
seed: 0
"""


@app.command("new")
def new(
    file: Annotated[Path, typer.Argument(help="YAML file to write.", metavar="FILE")],
    template: Annotated[
        bool, typer.Option("--template", help="Write a template with variables.")
    ] = False,
    schema: Annotated[
        str | None,
        typer.Option(
            help="Schema for completion in editors. Default: scenario.schema.json, written next to "
            "the file.",
            metavar="FILE|URL",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write an example scenario to start from. Existing files are never replaced."""
    with user_errors():
        from syncos_jax.files import replacing
        from syncos_jax.scenario.schema import SCHEMA_PATH

        if file.suffix.lower() not in (".yaml", ".yml"):
            raise InputError("the extension must be .yaml or .yml", place=file)
        if file.exists():
            raise InputError("already exists", place=file, remedy="choose another name")
        text = _NEW_TEMPLATE if template else _NEW
        with replacing(file) as temporary:
            filled = text.format(schema=schema or SCHEMA_PATH.name, name=file.name)
            temporary.write_text(filled, encoding="utf-8")
        beside = file.parent / SCHEMA_PATH.name
        if schema is None and not beside.exists():
            with replacing(beside) as temporary:
                temporary.write_bytes(SCHEMA_PATH.read_bytes())
        typer.echo(f"{file}: written; preview it with: syncos plan {file}")


@app.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(help="Scenario files.", metavar="FILE...")],
    values: scenario_options.Values = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|DIR",
            help=("Also report prompts that are too long for this model's text encoder."),
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check scenario files: print all errors, or a summary and the prompts.

    The exit code is 2 if any file is invalid. To check a file against a model (lengths, windows):
    syncos plan FILE --model DIR.
    """
    wrong = False
    for file in files:
        try:
            said, prompts = _checked(file, values or [], model)
            typer.echo(f"{file}: {said}")
            for line in prompts:
                typer.echo(f"  {line}")
            scenario_options.say_comments([file])
        except InputError as error:
            fail(error)
            wrong = True
    if wrong:
        raise typer.Exit(BAD_INPUT)


@app.command("show")
def show(
    scenario: Annotated[Path, typer.Argument(help="The scenario file.", metavar="SCENARIO")],
    values: scenario_options.Values = None,
    seed: scenario_options.Seed = None,
    seeds: scenario_options.Seeds = None,
    takes: scenario_options.Takes = None,
) -> None:
    """Print a file's scenarios as YAML, with variables filled in."""
    with user_errors():
        for take in scenario_options.collect(scenario, values, seed, seeds, takes):
            if take.count > 1:
                typer.echo(f"--- # {take.name}")
            typer.echo(_as_yaml(take.scenario), nl=False)


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    with user_errors():
        from syncos_jax.scenario.schema import SCHEMA_PATH

        typer.echo(SCHEMA_PATH.read_text(encoding="utf-8"), nl=False)


@app.command("split")
def split(
    story: Annotated[
        Path,
        typer.Argument(help="Text file with the story; - for standard input.", metavar="FILE"),
    ],
    events: Annotated[
        int | None,
        typer.Option(min=1, max=64, metavar="N", help="Number of events.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Scenario file to write. Default: print it.",
            show_default=False,
        ),
    ] = None,
    llm: run_options.LanguageModel = None,
    llm_model: run_options.LanguageModelName = None,
) -> None:
    """Split a story into a global prompt and events."""
    with user_errors():
        from syncos_jax.files.documents import read_text
        from syncos_jax.scenario.language_model import ModelSplitter
        from syncos_jax.scenario.scenario import Scenario
        from syncos_jax.scenario.split import split_story

        if (llm is None) != (llm_model is None):
            raise InputError("--llm and --llm-model must be passed together")
        if out is not None and out.exists():
            raise InputError("already exists", place=out, remedy="choose another name")
        model = ModelSplitter(llm, llm_model) if llm and llm_model else None
        text = sys.stdin.read() if str(story) == "-" else read_text(story)
        scenario = Scenario.from_dict(split_story(text, events, model).scenario())
        if out is None:
            typer.echo(_as_yaml(scenario), nl=False)
            return
        scenario.save(out)
        typer.echo(f"{out}: written; preview it with: syncos plan {out}")


def _as_yaml(scenario: Scenario) -> str:
    from syncos_jax.files.documents import to_text
    from syncos_jax.scenario.scenario import braces_doubled

    return to_text(braces_doubled(scenario.to_dict()), ".yaml")


def _checked(file: Path, values: list[str], model: str | None) -> tuple[str, list[str]]:
    from syncos_jax.scenario.template import Template, parse_values

    template = Template.from_file(file)
    given = parse_values(values)
    open_ones = [
        name
        for name, variable in template.variables.items()
        if variable.default is None and name not in given
    ]
    for name in open_ones:  # any value will do to check the rest
        allowed = template.variables[name].allowed
        given[name] = [allowed[0] if allowed else name]
    try:
        takes = template.expand(given)
    except InputError as error:
        if not open_ones:
            raise
        hint = " ".join(f"--set {name}=..." for name in open_ones)
        raise InputError.together(
            [
                *error.all_errors,
                InputError("variables without defaults", place=file, remedy=f"add {hint}"),
            ]
        ) from None
    if model is not None:
        _check_against(takes, model)
    scenario = takes[0].scenario
    prompts = [f"global: {scenario.global_prompt}"] if scenario.global_prompt else []
    prompts += [f"negative: {scenario.negative}"] if scenario.negative else []
    prompts += [f"{index}: {event.prompt}" for index, event in enumerate(scenario.events)]
    if len(prompts) > _SHOWN:
        prompts = [*prompts[:_SHOWN], f"... and {len(prompts) - _SHOWN} more"]
    return "ok, " + ", ".join(_made(template, takes, open_ones)), prompts


def _check_against(takes: list[Take], model: str) -> None:
    """Warns of prompts that a model truncates; raises InputError if two events become equal."""
    import logging

    from syncos_jax.pipeline.load import load_tokenizer

    logging.basicConfig(format="%(levelname)s: %(message)s".lower(), level=logging.WARNING)
    tokenizer = load_tokenizer(model)
    for take in takes:
        scenario = take.scenario
        tokenizer(list(dict.fromkeys([*scenario.prompts(), *scenario.negatives()])))


def _made(template: Template, takes: list[Take], open_ones: list[str]) -> list[str]:
    from syncos_jax.scenario.variables import as_text

    count = len(takes[0].scenario.events)
    parts = [f"{count} event{'s' if count > 1 else ''}"]
    lengths = [event.seconds for event in takes[0].scenario.events]
    if None not in lengths:
        parts.append(f"{sum(length or 0 for length in lengths):g} s")
    if len(takes) > 1:
        parts.append(f"{len(takes)} videos")
    for name in template.variables:
        unused = "" if name in template.used else " (unused)"
        parts.append(
            f"{name}: required{unused}"
            if name in open_ones
            else f"{name} = {as_text(takes[0].values[name])}{unused}"
        )
    return parts
