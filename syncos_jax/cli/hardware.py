"""``--on`` of ``syncos plan`` and ``syncos compile``: compile for absent hardware."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from syncos_jax.cli.words import amount, duration, size

if TYPE_CHECKING:
    from syncos_jax.pipeline.hardware import Compiled, Report
    from syncos_jax.scenario import Scenario

On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="CHIP:N",
        help="Compile for this hardware, which need not be present: v5e, v6e, "
        "v5p (TPUs) or h100, such as v5e:8. MODEL may also be "
        "videocrafter2, cogvideox-2b, cogvideox-5b, wan2.1-1.3b or "
        "wan2.1-14b, without weights.",
        show_default=False,
    ),
]
WeightsOver = Annotated[
    int,
    typer.Option(
        "--weights-over",
        min=1,
        metavar="N",
        help="With --on: split the denoiser's weights over N devices.",
    ),
]


def plan_on(on: str, model: str, takes: Sequence[Any], weights_over: int, as_json: bool) -> None:
    """Prints what the takes' programs need on that hardware."""
    from syncos_jax.pipeline.hardware import compile_in_subprocess
    from syncos_jax.runs.generate_video import json_line

    values = []
    for take in takes:
        report = compile_in_subprocess(on, model, take.scenario, weights_over=weights_over)
        if as_json:
            values.append({"take": take.name, "values": dict(take.values), **report.to_dict()})
            continue
        if take.name:
            typer.echo(take.name)
        for line in lines(report):
            typer.echo(line)
    if as_json:
        typer.echo(json_line(values if len(values) > 1 else values[0]))


def compile_on(on: str, model: str, scenario: Scenario, weights_over: int) -> None:
    """Compiles a scenario's programs for that hardware and prints what they need."""
    from syncos_jax.pipeline.hardware import compile_in_subprocess

    report = compile_in_subprocess(on, model, scenario, weights_over=weights_over)
    for line in lines(report):
        typer.echo(line)
    programs = [report.run, *([report.decode] if report.decode else [])]
    spent = sum(program.compile_seconds for program in programs)
    typer.echo(f"compiled in {duration(spent)}")
    if not all(program.fits for program in programs):
        raise typer.Exit(1)


def lines(report: Report) -> list[str]:
    """A report as lines of text."""
    from syncos_jax.pipeline.hardware import parse

    target = parse(report.target)
    chip, run = target.chip, report.run
    found = [
        f"{target.title}, each {amount(chip.flops, 'FLOP/s')} in bfloat16, "
        f"{amount(chip.bandwidth, 'B/s')}, {size(chip.memory)}; {report.model}, {report.dtype}"
        + (f", weights over {report.weights_over}" if report.weights_over > 1 else "")
    ]
    tried = ", ".join(f"{n} {'fit' if fits else 'do not fit'}" for n, fits in report.tried.items())
    verdict = "fits" if run.fits else "does not fit"
    found.append(f"{verdict}   with {run.windows} windows per call (tried: {tried})")
    if report.advice:
        found.append(f"remedy   {report.advice}")
    found += _program("call", run, report)
    if run.bytes:
        found.append(
            f"run      {run.rows:,} network calls, roofline lower bound {duration(report.seconds)}"
        )
    if report.decode is not None:
        found += _program("decode", report.decode, report)
    return found


def _program(title: str, one: Compiled, report: Report) -> list[str]:
    from syncos_jax.pipeline.hardware import parse, roofline

    memory = one.memory
    found = [
        f"{title:8} {size(memory.total)} on each device: weights {size(memory.weights)}, other "
        f"networks {size(memory.others)}, latents and schedule {size(memory.state)}, program "
        f"{size(memory.temporary)}" + (f" ({one.note})" if one.note else "")
    ]
    if not one.bytes:
        return found
    line = roofline(one, parse(report.target))
    found.append(
        f"         {amount(one.flops, 'FLOP')} and {amount(one.bytes, 'B')} on each device: "
        f"roofline lower bound {1000 * line.seconds:.0f} ms, bound by {line.bound} "
        f"(arithmetic {1000 * line.arithmetic:.0f}, memory {1000 * line.memory:.0f}, collectives "
        f"{1000 * line.exchange:.1f} ms)"
    )
    if one.exchanged:
        kinds = ", ".join(
            f"{kind} {count} times {amount(moved, 'B')}"
            for kind, (count, moved) in one.exchanged.items()
        )
        found.append(f"         collective traffic: {kinds}")
    return found
