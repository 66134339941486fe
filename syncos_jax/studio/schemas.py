"""Bodies of requests and answers; the OpenAPI document is made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from syncos_jax.scenario.scenario import EXPECTED
from syncos_jax.scenario.variables import MAX_PROMPT, MAX_VARIABLES

MAX_TITLE = 200
MAX_STORY = 20_000
_IN = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Status = Literal["queued", "running", "cancelling", "done", "failed", "cancelled"]
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
    },
}


class SettingsBody(BaseModel):
    """What is laid over the scenario; what is missing or null is left alone."""

    model_config = _IN

    steps: int | None = None
    guidance: float | None = None
    strength: float | None = None
    size: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    negative: Annotated[str, Field(max_length=MAX_PROMPT)] | None = None


class VideoBody(BaseModel):
    """A video to make: of a scenario, or of a template and its variables."""

    model_config = _IN

    scenario: Annotated[dict[str, Any], Field(json_schema_extra=_SCENARIO)] | None = None
    template: Annotated[str, Field(min_length=1, max_length=MAX_TITLE)] | None = None
    variables: Annotated[dict[str, Scalar], Field(max_length=MAX_VARIABLES)] | None = None
    settings: SettingsBody | None = None
    takes: Annotated[int, Field(ge=1, le=1000)] = 1
    seed: Seed | None = None
    title: Annotated[str, Field(max_length=MAX_TITLE)] | None = None


class DecisionBody(BaseModel):
    """What somebody thinks of a take."""

    model_config = _IN

    take: Annotated[int, Field(ge=1, le=1000)]
    verdict: Verdict
    by: Annotated[str, Field(max_length=1000)]
    comment: Annotated[str, Field(max_length=20_000)] = ""


class TemplateBody(BaseModel):
    """A video whose scenario is kept under a name."""

    model_config = _IN

    name: Annotated[str, Field(max_length=MAX_TITLE)]
    video: Annotated[str, Field(max_length=100)]


class StoryBody(BaseModel):
    """A story to be split into events."""

    model_config = _IN

    story: Annotated[str, Field(min_length=1, max_length=MAX_STORY)]
    events: Annotated[int, Field(ge=1, le=64)] | None = None


class Error(BaseModel):
    """What is wrong, what to do, and the field it is about."""

    message: str
    remedy: str
    field: str | None
    fields: list[Error] | None = None


class ErrorAnswer(BaseModel):
    """The body of every answer from 400 on."""

    error: Error


class VideoError(BaseModel):
    """Why a video failed."""

    message: str
    remedy: str


class TakeAnswer(BaseModel):
    """One take of a video."""

    take: int
    seed: int
    status: Status
    seconds: float | None
    content: str | None
    thumbnail: str | None
    verdict: Verdict
    by: str | None
    comment: str | None


class VideoAnswer(BaseModel):
    """A video and where it stands. ``step`` and ``steps`` are of the take that is being made,
    ``seconds_left`` is of all takes."""

    id: str
    title: str
    status: Status
    place: int | None
    phase: Literal["loading", "compiling", "sampling", "decoding", "writing"] | None
    step: int
    steps: int | None
    seconds_left: float | None
    error: VideoError | None
    created: str
    started: str | None
    ended: str | None
    template: str | None
    variables: dict[str, Any] | None
    scenario: dict[str, Any]
    seed: int
    preview: str | None
    takes: list[TakeAnswer]


class VideosAnswer(BaseModel):
    """Videos, the newest first; `next` goes on with ``after``."""

    items: list[VideoAnswer]
    next: str | None


class PlannedEventAnswer(BaseModel):
    """An event, and the words of its prompt that the text encoder does not see."""

    prompt: str
    seconds: float
    frames: int
    cut: str | None


class PlanAnswer(BaseModel):
    """What making a video would take. ``calls`` and ``estimated_seconds`` are of all takes, the
    rest is of one."""

    frames: int
    seconds: float
    windows: int
    calls: int
    memory_bytes: int
    estimated_seconds: float | None
    events: list[PlannedEventAnswer]
    scenario: dict[str, Any]


class SizeLimits(BaseModel):
    """Of a side of a frame, pixels."""

    minimum: int
    maximum: int
    multiple: int


class Limits(BaseModel):
    """What a video may have, at most."""

    events: int
    seconds: float
    takes: int
    prompt_tokens: int | None
    prompt_characters: int
    size: SizeLimits


class Defaults(BaseModel):
    """What stands where a scenario says nothing."""

    steps: int
    guidance: float
    strength: float | None
    seed: int


class ModelAnswer(BaseModel):
    """The model that makes the videos."""

    name: str
    family: str
    width: int
    height: int
    fps: float
    clip_frames: int
    limits: Limits
    defaults: Defaults


class VariableAnswer(BaseModel):
    """A variable of a template."""

    name: str
    kind: Literal["text", "number", "integer", "choice"]
    description: str
    default: str | bool | int | float | None
    choices: list[str | bool | int | float] | None
    minimum: float | None
    maximum: float | None
    max_length: int | None


class TemplateAnswer(BaseModel):
    """A template and its variables."""

    name: str
    description: str
    variables: list[VariableAnswer]


class TemplatesAnswer(BaseModel):
    """All templates, by name."""

    items: list[TemplateAnswer]


class NameAnswer(BaseModel):
    """The name of what was saved."""

    name: str


class StoryEvent(BaseModel):
    """An event of a split story."""

    prompt: str
    seconds: float


class StoryAnswer(BaseModel):
    """A story in parts: what is the same all through, and what happens."""

    model_config = ConfigDict(populate_by_name=True)

    global_prompt: str = Field(alias="global")
    events: list[StoryEvent]
    by: Literal["rules", "model"]
