"""Bodies of requests; the OpenAPI document is generated from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from syncos_jax.scenario.parts import EXPECTED
from syncos_jax.scenario.variables import MAX_PROMPT, MAX_VARIABLES

MAX_TITLE = 200
MAX_STORY = 20_000
PICTURE = r"^p[0-9a-f]{32}$"
"""Id of an uploaded picture."""
TAKE = r"^v[0-9a-f]{16}/[1-9]\d{0,3}$"
"""A take of a video, as scenarios name it."""
_IN = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Status = Literal["queued", "in_progress", "cancelling", "completed", "failed", "cancelled"]
Verdict = Literal["approved", "rejected", "undecided"]
Scalar = (
    Annotated[str, Field(max_length=MAX_PROMPT)]
    | bool
    | Annotated[int, Field(ge=-(10**15), le=10**15)]
    | float
)
Seed = Annotated[int, Field(ge=0, lt=2**32)]

_EVENT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["prompt"],
    "properties": {
        "prompt": {"type": "string", "minLength": 1, "maxLength": MAX_PROMPT},
        "negative": {"type": "string", "maxLength": MAX_PROMPT},
        "seconds": {"type": "number", "exclusiveMinimum": 0},
        "frames": {"type": "integer", "minimum": 1},
        "image": {"type": "string", "pattern": PICTURE},
    },
}
_SCENARIO = {
    "type": "object",
    "description": "What a scenario file holds, without variables: `global`, `events`, `sampler` "
    "and the rest.",
    "required": ["events"],
    "properties": {
        "global": {"type": "string", "maxLength": MAX_PROMPT, "description": EXPECTED["global"]},
        "negative": {"type": "string", "maxLength": MAX_PROMPT},
        "events": {"type": "array", "minItems": 1, "items": _EVENT},
        "sampler": {"type": "object", "description": EXPECTED["sampler"]},
        "seed": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
        "size": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        "image": {"type": "string", "pattern": PICTURE, "description": "Picture to begin with."},
        "end_image": {"type": "string", "pattern": PICTURE, "description": "Picture to end with."},
        "extend": {"type": "string", "pattern": TAKE, "description": "Take to continue."},
        "redo": {
            "type": "object",
            "description": "Events of a take to make again.",
            "additionalProperties": False,
            "required": ["video", "events"],
            "properties": {
                "video": {"type": "string", "pattern": TAKE},
                "events": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            },
        },
    },
}


class SettingsBody(BaseModel):
    """Settings that replace those of the scenario; null keeps them.

    `label` is drawn on every frame; `watermark` hides the run's id in them.
    """

    model_config = _IN

    steps: int | None = None
    guidance: float | None = None
    strength: float | None = None
    size: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    negative: Annotated[str, Field(max_length=MAX_PROMPT)] | None = None
    label: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    watermark: bool | None = None


class VideoBody(BaseModel):
    """A video to generate: from a scenario, a template with variables, or a prompt.

    `prompt`, `model`, `seconds` and `size` are those of OpenAI's video API: `a | b` in a prompt
    makes one event of each part, and `seconds` is the length of the whole video. `image` is an
    uploaded picture that the video begins with.
    """

    model_config = _IN

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_STORY)] | None = None
    model: Annotated[str, Field(max_length=MAX_TITLE)] | None = None
    seconds: float | Annotated[str, Field(max_length=20)] | None = None
    size: Annotated[str, Field(pattern=r"^\d{1,5}x\d{1,5}$")] | None = None
    scenario: Annotated[dict[str, Any], Field(json_schema_extra=_SCENARIO)] | None = None
    template: Annotated[str, Field(min_length=1, max_length=MAX_TITLE)] | None = None
    variables: Annotated[dict[str, Scalar], Field(max_length=MAX_VARIABLES)] | None = None
    image: Annotated[str, Field(pattern=PICTURE)] | None = None
    settings: SettingsBody | None = None
    takes: Annotated[int, Field(ge=1, le=1000)] = 1
    seed: Seed | None = None
    title: Annotated[str, Field(max_length=MAX_TITLE)] | None = None


class DecisionBody(BaseModel):
    """A decision about a take, or without a verdict a comment, at a time of the video or not."""

    model_config = _IN

    take: Annotated[int, Field(ge=1, le=1000)]
    verdict: Verdict | None = None
    by: Annotated[str, Field(max_length=1000)]
    comment: Annotated[str, Field(max_length=20_000)] = ""
    time: Annotated[float, Field(ge=0, le=1e6)] | None = None


class TakesBody(BaseModel):
    """Further takes of a video."""

    model_config = _IN

    count: Annotated[int, Field(ge=1, le=1000)] = 1


class MoveBody(BaseModel):
    """A new position in the queue; 1 is next."""

    model_config = _IN

    place: Annotated[int, Field(ge=1, le=10**6)]


class VariableBody(BaseModel):
    """A variable of a new template, put in place of `text` wherever it occurs in the prompts."""

    model_config = _IN

    name: Annotated[str, Field(max_length=100)]
    text: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT)]
    description: Annotated[str, Field(max_length=200)] = ""


class TemplateBody(BaseModel):
    """A video whose scenario is saved under a name, with variables."""

    model_config = _IN

    name: Annotated[str, Field(max_length=MAX_TITLE)]
    video: Annotated[str, Field(max_length=100)]
    variables: Annotated[list[VariableBody], Field(max_length=MAX_VARIABLES)] = []


class LearnedBody(BaseModel):
    """A template to improve by the decisions, and the name of the new one."""

    model_config = _IN

    template: Annotated[str, Field(min_length=1, max_length=MAX_TITLE)]
    name: Annotated[str, Field(max_length=MAX_TITLE)]


class StoryBody(BaseModel):
    """A story to be split into events."""

    model_config = _IN

    story: Annotated[str, Field(min_length=1, max_length=MAX_STORY)]
    events: Annotated[int, Field(ge=1, le=64)] | None = None
