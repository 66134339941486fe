"""``syncos plan``: preview a video and its cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from syncos_jax.cli import hardware, input_options, scenario_options
from syncos_jax.cli.console import user_errors
from syncos_jax.cli.words import amount, duration, size
from syncos_jax.errors import InputError

if TYPE_CHECKING:
    from syncos_jax.pipeline.plan import Cost, Plan, PlannedWindow

EXAMPLES = """Examples:
  syncos plan examples/red_ball.yaml
  syncos plan examples/template.yaml --set place='*' --takes 3
  syncos plan story.yaml --model converted/videocrafter2 --json > plan.json
  syncos plan story.yaml --model cogvideox-2b --on v5e:8
"""

_SHOWN = 40


def plan(
    scenario: scenario_options.ScenarioFile = None,
    model: scenario_options.Model = "demo",
    values: scenario_options.Values = None,
    seed: scenario_options.Seed = None,
    seeds: scenario_options.Seeds = None,
    takes: scenario_options.Takes = None,
    prompts: scenario_options.Prompts = None,
    prompt: scenario_options.Prompt = None,
    global_prompt: scenario_options.Global = None,
    seconds: scenario_options.Seconds = None,
    lora: scenario_options.Lora = None,
    sampler: scenario_options.Sampler = None,
    strength: scenario_options.Strength = None,
    steps: scenario_options.Steps = None,
    guidance: scenario_options.Guidance = None,
    negative: scenario_options.Negative = None,
    frames: scenario_options.Frames = None,
    size: scenario_options.Size = None,
    fps: scenario_options.Fps = None,
    image: input_options.Image = None,
    end_image: input_options.EndImage = None,
    extend: input_options.Extend = None,
    join: input_options.Join = None,
    redo: input_options.Redo = None,
    reference: input_options.Reference = None,
    fit: input_options.Fit = None,
    audio: input_options.Audio = None,
    loop_audio: input_options.LoopAudio = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--windows-per-call",
            "--batch",
            min=1,
            help="Windows per network call.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    on: hardware.On = None,
    weights_over: hardware.WeightsOver = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Preview a video: windows, prompts, network calls, memory, time.

    Each window is conditioned on the event that contains its middle frame. The time estimate is
    based on the last similar run on this machine.

    With --on, compiles for hardware you don't have, which takes minutes, and reports whether it
    fits, windows per call, memory, FLOPs, bytes and a roofline lower bound of the time.
    """
    with user_errors():
        from syncos_jax.runs.generate_video import json_line

        found = scenario_options.collect(
            scenario, values, seed, seeds, takes, prompts, prompt, global_prompt, seconds
        )
        changes = {
            "steps": steps,
            "guidance": guidance,
            "strength": strength,
            "windows_per_call": batch,
        }
        inputs = {
            "image": image,
            "end_image": end_image,
            "extend": extend,
            "join": join,
            "redo": redo,
            "reference": reference,
            "fit": fit,
            "audio": audio,
            "loop_audio": loop_audio,
        }
        found = scenario_options.with_sampler(found, sampler, changes)
        found = scenario_options.with_video(found, negative, frames, size, fps, inputs)
        found = scenario_options.with_lora(found, lora)
        loras = scenario_options.lora_of(take.scenario for take in found)
        if on is not None:
            hardware.plan_on(on, model, found, weights_over, as_json)
            return
        if weights_over != 1:
            raise InputError("--weights-over needs --on")
        from syncos_jax.pipeline import Pipeline
        from syncos_jax.pipeline.load import check_steps
        from syncos_jax.runs.job import check_files

        check_files(take.scenario for take in found)
        check_steps(model, [take.scenario.settings() for take in found])
        pipeline = Pipeline.from_pretrained(model, lora=loras)
        plans = [pipeline.plan(take.scenario) for take in found]
        if as_json:
            data = [
                {"take": take.name, "values": dict(take.values), **one.to_dict()}
                for take, one in zip(found, plans, strict=True)
            ]
            typer.echo(json_line(data if len(data) > 1 else data[0]))
            return
        _print(plans, [take.name for take in found])


def _print(plans: list[Plan], names: list[str]) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    shown: list[dict[str, Any]] = []
    for plan, name in zip(plans, names, strict=True):
        content = {**plan.to_dict(), "seed": None}
        if name:
            again = ", same plan as above" if content in shown else ""
            console.print(f"{name}: seed {plan.seed}{again}", style="bold")
        if content not in shown:  # the plan does not depend on the seed
            _print_one(console, plan)
            shown.append(content)
    if len(plans) > 1:
        costs = [plan.cost for plan in plans]
        rows = sum(cost.calls for cost in costs)
        # The model is loaded once; equal programs are compiled once.
        known = [cost.seconds - cost.seconds_start for cost in costs if cost.seconds is not None]
        start = max(cost.seconds_start for cost in costs)
        spent = f", about {duration(sum(known) + start)}" if len(known) == len(costs) else ""
        console.print(f"{len(plans)} videos: {rows:,} calls of the network{spent}", style="bold")


def _print_one(console: Any, plan: Plan) -> None:
    sampler = plan.sampler
    console.print(
        f"{plan.frames} frames of {plan.width}×{plan.height}, {plan.seconds:g} s at {plan.fps:g} "
        f"frames per second{_enlarged(plan)}; {len(plan.windows)} windows of {plan.window}, "
        f"stride {plan.stride}; "
        f"{sampler['name']}, {sampler['steps']} steps, guidance {sampler['guidance']:g}",
        soft_wrap=True,
    )
    if plan.few_steps:
        console.print(f"distilled weights: {plan.few_steps}", soft_wrap=True)
    for lora in plan.loras:
        changed = ", ".join(f"{count} weights of {name}" for name, count in lora["changes"].items())
        console.print(
            f"LoRA: {lora['file']}, strength {lora['strength']:g}, changes {changed}",
            soft_wrap=True,
        )
    for file in plan.inputs:
        where = f"frames {file.start}-{file.stop - 1}"
        if file.stop - file.start == 1:
            where = f"frame {file.start}"
        elif file.start < 0:
            where = f"{-file.start} frames before the first"
        console.print(f"{file.role}: {file.path}, {where}, {file.note}", soft_wrap=True)
    console.print(_events(plan))
    console.print(_windows(plan, min(32, console.width // 3)))
    for line in _cost(plan.cost):
        console.print(line, soft_wrap=True)
    for warning in plan.warnings:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)


def _enlarged(plan: Plan) -> str:
    from syncos_jax.runs.job import default_scale

    scale = default_scale(plan.height, plan.width)
    return f", written at {plan.width * scale}×{plan.height * scale}" if scale > 1 else ""


def _events(plan: Plan) -> Any:
    from rich.table import Table

    table = Table("event", "frames", "seconds", "windows", "prompt", box=None, pad_edge=False)
    for event in plan.events:
        table.add_row(
            str(event.index),
            f"{event.start}-{event.stop - 1}",
            f"{event.start_seconds:g}-{event.stop_seconds:g}",
            str(event.windows),
            event.text + (f"  (not: {event.negative})" if event.negative else ""),
        )
    return table


def _windows(plan: Plan, width: int) -> Any:
    from rich.table import Column, Table

    bar = Column("", no_wrap=True, min_width=width)
    table = Table("window", "frames", "middle", bar, "conditioned on", box=None, pad_edge=False)
    # Of many windows, the first and last; --json has all of them.
    half = _SHOWN // 2
    left_out = range(half, len(plan.windows) - half) if len(plan.windows) > _SHOWN else range(0)
    for window in plan.windows:
        if window.index in left_out:
            if window.index == left_out.start:
                table.add_row("...", "", "", "", f"{len(left_out)} more (see --json)")
            continue
        table.add_row(
            str(window.index),
            f"{window.start}-{window.stop - 1}",
            str(window.middle),
            picture(window, plan.frames, width),
            _conditioned(window, plan),
        )
    return table


def picture(window: PlannedWindow, frames: int, width: int) -> str:
    """A window as a bar within the video, with its middle frame marked: ``..==|==...``."""
    cells = ["·"] * width
    first, last = window.start * width // frames, -(-window.stop * width // frames)
    cells[first:last] = "━" * (last - first)
    cells[window.middle * width // frames] = "┃"
    return "".join(cells)


def _conditioned(window: PlannedWindow, plan: Plan) -> str:
    if window.override is not None:
        return f"override {window.override}: {window.prompts[0][0]}"
    if len(window.prompts) == 1:
        return f"event {window.event}"
    events = {event.text: event.index for event in reversed(plan.events)}
    return " + ".join(f"{share:.0%} event {events[text]}" for text, share in window.prompts)


def _cost(cost: Cost) -> list[str]:
    lines = [
        f"calls    {cost.calls:,} network calls of {cost.samples_per_call} samples "
        f"({cost.windows:,} window predictions, {cost.samples:,} samples; {cost.steps} steps, "
        f"{cost.passes} passes over all windows, {cost.optimizer_steps} optimizer steps)",
        f"FLOPs    {amount(cost.flops, 'FLOP')}: {amount(cost.flops_per_call, 'FLOP')} per call, "
        f"{amount(cost.flops_decode_frame, 'FLOP')} per decoded frame",
        f"memory   at most {size(cost.memory_bytes)}: weights {size(cost.weights_bytes)}, latents "
        f"and optimizer {size(cost.state_bytes)}, one call {size(cost.call_bytes)} before fusion",
    ]
    if cost.seconds is None or cost.seconds_per_call is None:
        lines.append("time     unknown: no similar run on this machine yet")
    else:
        scaled = f", scaled from {cost.scaled_from} samples per call" if cost.scaled_from else ""
        lines.append(
            f"time     about {duration(cost.seconds)}, {1000 * cost.seconds_per_call:.0f} ms per "
            f"call, from the last similar run on this machine{scaled}"
        )
    return lines
