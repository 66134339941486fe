"""Bodies of responses; the OpenAPI document is generated from them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from syncos_jax.studio.bodies import Status, Verdict


class Error(BaseModel):
    """What is wrong, what to do, and the field it is about."""

    message: str
    remedy: str
    field: str | None
    fields: list[Error] | None = None


class ErrorAnswer(BaseModel):
    """The body of every response with status 400 or above."""

    error: Error


class VideoError(BaseModel):
    """Why a video failed."""

    code: str
    message: str
    remedy: str


class CommentAnswer(BaseModel):
    """An entry of a take's review history; `time` is a time of the video, in seconds."""

    action: Literal["approve", "reject", "reopen", "comment"]
    by: str
    at: str
    comment: str
    time: float | None


class TakeAnswer(BaseModel):
    """One take of a video. `decided_at` is UTC in ISO 8601.

    `published` is the address of the file that carries the approval, where the studio signs.
    """

    take: int
    seed: int
    status: Status
    seconds: float | None
    device_minutes: float
    content: str | None
    thumbnail: str | None
    published: str | None
    verdict: Verdict
    by: str | None
    comment: str | None
    decided_at: str | None
    history: list[CommentAnswer]


class VideoAnswer(BaseModel):
    """A video and its state.

    `step` and `steps` are those of the take in progress, `seconds_left` and `progress` (percent)
    those of all takes; times are Unix times in seconds.
    """

    id: str
    object: Literal["video"]
    model: str
    title: str
    prompt: str
    seconds: str | None
    size: str | None
    status: Status
    progress: int
    place: int | None
    phase: Literal["loading", "compiling", "sampling", "decoding", "writing"] | None
    phase_seconds: float | None
    step: int
    steps: int | None
    seconds_left: float | None
    device_minutes: float
    error: VideoError | None
    created_at: int
    started_at: int | None
    completed_at: int | None
    expires_at: None
    template: str | None
    variables: dict[str, Any] | None
    scenario: dict[str, Any]
    seed: int
    label: str | None
    watermark: bool | None
    preview: str | None
    takes: list[TakeAnswer]


class VideosAnswer(BaseModel):
    """Videos, newest first; pass `last_id` as `after` for more."""

    object: Literal["list"]
    data: list[VideoAnswer]
    has_more: bool
    first_id: str | None
    last_id: str | None


class WarningAnswer(BaseModel):
    """Something to look at in a take; `time` in seconds, null for the whole."""

    kind: str
    text: str
    time: float | None


class TakeWarnings(BaseModel):
    """Warnings about a take."""

    take: int
    warnings: list[WarningAnswer]


class MetricValue(BaseModel):
    """A metric of one take, and whether it is the best of all."""

    text: str
    best: bool


class MetricAnswer(BaseModel):
    """A metric of all takes, in their order."""

    label: str
    help: str
    values: list[MetricValue]


class StillAnswer(BaseModel):
    """A frame as a data URI; `time` in seconds."""

    time: float
    src: str


class TakeStills(BaseModel):
    """Stills of an event in one take; `reading` is what the tracker saw there."""

    take: int
    reading: str
    stills: list[StillAnswer]


class EventStills(BaseModel):
    """Stills of an event in all takes."""

    prompt: str
    takes: list[TakeStills]


class ReportAnswer(BaseModel):
    """Metrics, warnings and stills of a video's completed takes."""

    takes: list[TakeWarnings]
    metrics: list[MetricAnswer]
    events: list[EventStills]


class PictureAnswer(BaseModel):
    """An uploaded picture; `content` is its address."""

    id: str
    object: Literal["picture"]
    width: int
    height: int
    bytes: int
    content: str


class DeletedAnswer(BaseModel):
    """A deleted video."""

    id: str
    object: Literal["video.deleted"]
    deleted: bool


class PlannedEventAnswer(BaseModel):
    """An event; `cut` holds the words of its prompt beyond the text encoder's limit."""

    prompt: str
    seconds: float
    frames: int
    cut: str | None


class PlanAnswer(BaseModel):
    """The cost of a video. `calls` and `estimated_seconds` cover all takes, the rest one take.

    `known` is false if this model and size have not run here yet: the first run compiles.
    """

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
    """Limits of a video; `picture_bytes` is None for models that take no pictures."""

    events: int
    seconds: float
    takes: int
    prompt_tokens: int | None
    prompt_characters: int
    picture_bytes: int | None
    size: SizeLimits


class Defaults(BaseModel):
    """Values used where a scenario specifies none."""

    steps: int
    guidance: float
    strength: float | None
    seed: int


class PresetAnswer(BaseModel):
    """A named set of settings."""

    name: str
    settings: dict[str, int | float | None]


class RateAnswer(BaseModel):
    """The team's price of a device hour."""

    per_hour: float
    currency: str


class MarkingAnswer(BaseModel):
    """How videos are marked: `signer` signs Content Credentials; `watermark` by default."""

    signer: str | None
    watermark: bool


class ModelAnswer(BaseModel):
    """The model, its limits and defaults.

    `vocabulary` lists the words it was trained on by kind, if they are few; `devices` is the number
    of devices that make one take.
    """

    name: str
    family: str
    width: int
    height: int
    fps: float
    clip_frames: int
    limits: Limits
    defaults: Defaults
    presets: list[PresetAnswer]
    vocabulary: dict[str, list[str]] | None
    devices: int
    rate: RateAnswer | None
    marking: MarkingAnswer


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


class TemplateDecisions(BaseModel):
    """Decided takes of a template."""

    name: str
    decided: int
    approved: int


class EvidenceAnswer(BaseModel):
    """What the decisions say about one value of a variable or setting (``sampler.NAME``).

    `rate` is the posterior mean of the approval rate, from `low` to `high` its 95 % credible
    interval, and `best` the posterior probability that no other value is better.
    """

    factor: str
    value: str | bool | int | float | None
    approved: int
    decided: int
    rate: float
    low: float
    high: float
    best: float
    proposed: bool


class LessonsAnswer(BaseModel):
    """What the decisions say about one template; `templates` lists those with decided takes."""

    templates: list[TemplateDecisions]
    template: str | None
    decided: int
    approved: int
    evidence: list[EvidenceAnswer]
    proposals: dict[str, str | bool | int | float | None]
    trials: list[dict[str, str | bool | int | float | None]]


class StoryEvent(BaseModel):
    """An event of a split story."""

    prompt: str
    seconds: float


class StoryAnswer(BaseModel):
    """A story split into what stays the same and what happens."""

    model_config = ConfigDict(populate_by_name=True)

    global_prompt: str = Field(alias="global")
    events: list[StoryEvent]
    by: Literal["rules", "model"]
