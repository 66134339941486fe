"""Turns the body of a request into a checked video request, or into errors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from syncos_jax.errors import InputError
from syncos_jax.media.label import render
from syncos_jax.media.marking import Marking
from syncos_jax.runs.job import default_scale
from syncos_jax.sampling.sampler_dict import STRENGTH
from syncos_jax.scenario import Scenario
from syncos_jax.scenario.prompts import from_prompts, split_prompts
from syncos_jax.scenario.template import Template
from syncos_jax.scenario.variables import Variable, used_names
from syncos_jax.studio.api_errors import ApiError, Finding, finding, findings
from syncos_jax.studio.bodies import SettingsBody, VideoBody
from syncos_jax.studio.engine import Engine
from syncos_jax.studio.lost_words import lost_words
from syncos_jax.studio.sources import check_references, resolved, without_paths
from syncos_jax.studio.templates_folder import Templates

if TYPE_CHECKING:
    from syncos_jax.pipeline.request import Request

MAX_FINDINGS = 20
_IN_EVENT = re.compile(r"events\.(\d+)\.(\w+)")


@dataclass(frozen=True)
class VideoRequest:
    """A video to generate.

    Attributes:
        scenario: the scenario, with the settings of the body.
        request: the pipeline's request for the first take.
        lost: per event, the words beyond the text encoder's limit; None if there are none.
        seeds: one per take.
        values: what is stored in the job database.
    """

    scenario: Scenario
    request: Request
    lost: tuple[str | None, ...]
    seeds: tuple[int, ...]
    values: dict[str, Any]


def video_request(body: VideoBody, engine: Engine, templates: Templates) -> VideoRequest:
    """Check a body and prepare its request.

    Raises:
        ApiError: with message, remedy and field of each error.
    """
    limits = engine.settings
    given = [body.scenario, body.template, body.prompt]
    if sum(part is not None for part in given) != 1:
        raise _wrong("send exactly one of scenario, template and prompt")
    if body.model not in (None, limits.model, engine.pipeline.model.name):
        raise _wrong(f"unknown model {body.model[:60]!r}", f"Use {limits.model!r}", "model")
    if body.takes > limits.takes:
        raise _wrong(f"{body.takes} takes are too many", f"Use at most {limits.takes}", "takes")
    template = None if body.template is None else templates.get(body.template)
    if template is None and body.variables:
        raise _wrong("variables need a template", "Remove them", "variables")
    if template is not None:
        data = _filled(template, body.variables or {})
    else:
        data = dict(body.scenario) if body.scenario is not None else _of_prompt(body)
    if body.image is not None:
        data["image"] = body.image
    scenario = _scenario(data, template)
    scenario = _with_settings(scenario, body.settings or SettingsBody())
    seed = scenario.seed if body.seed is None else body.seed
    scenario = scenario.model_copy(update={"seed": seed})
    _check_limits(scenario, engine)
    request = _prepared(scenario, engine)
    _check_marks(body.settings or SettingsBody(), request)
    lost = lost_words(engine.pipeline.model, scenario)
    overlay = body.settings.model_dump(exclude_none=True) if body.settings else None
    title = (body.title or "").strip() or scenario.global_prompt or scenario.events[0].prompt
    values = {
        "title": title[:200],
        "model": limits.model,
        "template": body.template,
        "variables": body.variables if template else None,
        "settings": overlay or None,
        "scenario": scenario.to_dict(),
        "seed": seed,
        "seconds": request.frames / request.fps,
        "size": f"{request.width}x{request.height}",
    }
    seeds = tuple((seed + index) % 2**32 for index in range(body.takes))
    return VideoRequest(scenario, request, lost, seeds, values)


def _prepared(scenario: Scenario, engine: Engine) -> Request:
    """The pipeline's request of a stored scenario."""
    found = scenario
    try:
        if scenario.input_files and not engine.takes_pictures:
            raise InputError("this model takes no pictures or clips", remedy="remove them")
        found = resolved(scenario, engine.settings.folder)
        return engine.pipeline.prepare(found)
    except InputError as error:
        said = finding(error)
        message = without_paths(said.message, scenario, found)
        raise ApiError(422, replace(said, message=message)) from error


def _check_marks(settings: SettingsBody, request: Request) -> None:
    """Raises ApiError where label or watermark do not fit the frames."""
    scale = default_scale(request.height, request.width)
    height, width = request.height * scale, request.width * scale
    try:
        if settings.label is not None:
            render(settings.label, height, width)
    except InputError as error:
        raise ApiError(422, finding(error, "settings.label")) from error
    try:
        Marking(watermark=bool(settings.watermark)).check("take.mp4", height, width)
    except InputError as error:
        raise ApiError(422, finding(error, "settings.watermark")) from error


def _wrong(message: str, remedy: str = "", field: str | None = None) -> ApiError:
    return ApiError(422, Finding(message, remedy, field))


def _of_prompt(body: VideoBody) -> dict[str, Any]:
    """The scenario of an OpenAI-style request: ``"a | b"`` is one event each."""
    assert body.prompt is not None
    try:
        prompts = split_prompts(body.prompt)
        total = None if body.seconds is None else float(body.seconds)
    except InputError as error:
        raise ApiError(422, finding(error, "prompt")) from error
    except ValueError:
        raise _wrong("seconds is not a number", "Use a number above 0", "seconds") from None
    each = None if total is None else total / len(prompts)
    try:
        data = from_prompts(prompts, seconds=each).to_dict()
    except InputError as error:
        raise ApiError(422, finding(error, "seconds" if total is not None else "prompt")) from error
    if body.size is not None:
        data["size"] = [int(side) for side in body.size.split("x")]
    return data


# -- the scenario ----------------------------------------------------------------------------------


def _filled(template: Template, given: Mapping[str, Any]) -> dict[str, Any]:
    """A template's mapping with its variables put in."""
    wrong = [
        found
        for name, variable in template.variables.items()
        if (found := _missing(name, variable, given)) is not None
    ]
    known = {*template.variables, *template.used}
    wrong += [
        Finding(f"there is no variable {name[:60]!r}", "Leave it out", f"variables.{name[:60]}")
        for name in given
        if name not in known
    ]
    if wrong:
        raise ApiError(422, wrong)
    try:
        return replace(template, source=None).fill_data(given)
    except InputError as error:
        raise ApiError(422, findings(error)) from error


def _missing(name: str, variable: Variable, given: Mapping[str, Any]) -> Finding | None:
    value = given.get(name, variable.default)
    field = f"variables.{name}"
    if value is None:
        about = f" ({variable.description})" if variable.description else ""
        return Finding(f"{name} has no value{about}", "Give one", field)
    try:
        variable.accept(value)
    except InputError as error:
        return finding(error.in_key(name), field)
    return None


def _scenario(data: dict[str, Any], template: Template | None) -> Scenario:
    if "variables" in data:
        raise _wrong(
            "the scenario has variables", "Save it as a template, or leave them out", "variables"
        )
    try:
        scenario = Scenario.from_dict(data)
        check_references(scenario)  # a path would name a file of the server
        return scenario
    except InputError as error:
        wrong = [_about_variable(found, template) for found in findings(error)]
        # The first of each field: a variable may be used in many places.
        first = {found.field or found.message: found for found in reversed(wrong)}
        raise ApiError(422, list(reversed(first.values()))[:MAX_FINDINGS]) from error


def _about_variable(found: Finding, template: Template | None) -> Finding:
    """A finding about a place that a variable stands in is about that variable."""
    place = _IN_EVENT.fullmatch(found.field or "")
    if template is None or found.field is None:
        return found
    data: Any = template.data
    if place:
        events = data.get("events")
        index = int(place[1])
        event = events[index] if isinstance(events, list) and index < len(events) else None
        value = event.get(place[2]) if isinstance(event, dict) else None
    else:
        value = data.get(found.field.removeprefix("settings."))
    names = used_names({"value": value}) if isinstance(value, str) else []
    if len(names) != 1:
        return found
    return Finding(found.message, found.remedy, f"variables.{names[0]}")


def _with_settings(scenario: Scenario, settings: SettingsBody) -> Scenario:
    changes: dict[str, Any] = {"steps": settings.steps, "guidance": settings.guidance}
    changes[STRENGTH] = settings.strength
    for name, value in changes.items():
        try:
            scenario = scenario.with_sampler(**{name: value})
        except InputError as error:
            raise ApiError(422, finding(error, f"settings.{name}")) from error
    laid_over = settings.model_dump(include={"size", "negative"}, exclude_none=True)
    if not laid_over:
        return scenario
    return _scenario({**scenario.to_dict(), **laid_over}, None)


# -- limits ----------------------------------------------------------------------------------------


def _check_limits(scenario: Scenario, engine: Engine) -> None:
    """Raises ApiError where a video is larger than this server makes any."""
    limits, geometry = engine.settings, engine.pipeline.model.geometry
    count = len(scenario.events)
    if count > limits.events:
        raise _wrong(f"{count} events are too many", f"Give at most {limits.events}", "events")
    try:
        frames = scenario.total_frames(geometry.fps)
    except InputError as error:
        raise ApiError(422, finding(error)) from error
    if frames > limits.seconds * geometry.fps:
        raise _wrong(
            f"the events are {frames / (scenario.fps or geometry.fps):g} seconds together",
            f"Make them at most {limits.seconds * geometry.fps / (scenario.fps or geometry.fps):g}",
            "events",
        )
    if scenario.size is not None:
        _check_size(scenario.size, engine)
    clips = _most_clips(scenario, frames, engine)
    if clips > limits.clips:
        raise _wrong(
            f"this would take up to {clips} predictions of the network",
            f"Take fewer steps or iterations, or a shorter video: at most {limits.clips}",
            "settings.steps",
        )


def _check_size(size: tuple[int, int], engine: Engine) -> None:
    for side in size:
        if side % engine.multiple or not engine.multiple <= side <= engine.largest:
            raise _wrong(
                f"{size[0]} × {size[1]} pixels cannot be made",
                f"Give numbers from {engine.multiple} to {engine.largest} that {engine.multiple} "
                "divides",
                "settings.size",
            )


def _most_clips(scenario: Scenario, frames: int, engine: Engine) -> int:
    """An upper bound of what a run would take, before its tape is made."""
    model = engine.pipeline.model
    geometry = model.geometry
    settings = scenario.settings()
    steps = getattr(settings, "steps", None) or model.steps
    refinement = getattr(settings, "refinement", None)
    if settings is None:  # SynCoS, which refines at less than half of the steps
        rounds = steps * (1 + 10)
    else:
        rounds = steps * (1 + (refinement.iterations if refinement else 0))
    stride = min(scenario.stride or geometry.stride, scenario.window or geometry.window)
    latents = geometry.latents(frames)
    windows = max(1, math.ceil(latents / max(1, stride)))
    if getattr(settings, "lookahead", None) is not None:  # diagonal: a round for each frame
        return 2 * (latents + steps) * max(1, steps)
    return 2 * rounds * windows
