"""The scenario: one global prompt, and the events that happen one after the other."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from syncos_jax.errors import InputError
from syncos_jax.files import replacing
from syncos_jax.files.documents import read_mapping, to_text
from syncos_jax.files.text import all_errors, short
from syncos_jax.scenario.variables import MAX_PROMPT, filled, located, read_variables

MAX_FRAMES = 1_000_000
MAX_SECONDS = 86_400
MAX_WINDOW = 1_000
MAX_EVENTS = 10_000

EXPECTED = {
    "global": f"text (at most {MAX_PROMPT} characters): what is the same all through the video",
    "negative": "text: what the video should not show",
    "events": "a list of one or more events, each {prompt: TEXT, seconds: NUMBER}",
    "prompt": f"text (1 to {MAX_PROMPT} characters): what happens in this event",
    "seconds": f"a number of seconds above 0 and at most {MAX_SECONDS}",
    "frames": f"a whole number of frames from 1 to {MAX_FRAMES}",
    "sampler": "a mapping such as {name: syncos, steps: 50}",
    "seed": "a whole number from 0 to 4294967295",
    "fps": "a number of frames per second from 0.01 to 240",
    "stride": "a whole number of frames, at least 1",
    "throwaway": "a whole number of latent frames, 0 or more",
    "window": f"a whole number of frames from 1 to {MAX_WINDOW}",
    "structured": "true or false",
    "crossfade": "a whole number of windows, 0 or more",
    "size": "[width, height] in pixels, whole numbers from 8 to 8192",
    "overrides": "a list of {prompt: TEXT, seconds: [FROM, TO]}, or with frames: [FROM, TO]",
    "overrides.prompt": f"text (1 to {MAX_PROMPT} characters): what happens in this stretch",
    "overrides.seconds": "two numbers [FROM, TO], 0 or more, of seconds",
    "overrides.frames": "two whole numbers [FROM, TO], 0 or more; TO is the first frame after it",
}

_KEPT = ("steps", "guidance", "guidance_t_min", "guidance_t_max", "windows_per_call", "solver")
"""Of a sampler's settings, those that another one takes over where it has them."""

_Prompt = Annotated[str, Field(max_length=MAX_PROMPT)]
_FORM = ConfigDict(
    frozen=True,
    extra="forbid",
    strict=True,
    populate_by_name=True,
    allow_inf_nan=False,
    str_strip_whitespace=True,
)


_Second = Annotated[float, Field(strict=True, ge=0, le=MAX_SECONDS)]
_Frame = Annotated[int, Field(strict=True, ge=0, le=MAX_FRAMES)]
_Pixels = Annotated[int, Field(strict=True, ge=8, le=8192)]


class Event(BaseModel):
    """Something that happens, and for how long: ``seconds`` or ``frames``, one of the two.

    ``negative`` is what guidance leads away from in this event; None for the scenario's.
    """

    model_config = _FORM

    prompt: Annotated[_Prompt, Field(min_length=1)]
    negative: _Prompt | None = None
    seconds: Annotated[float, Field(gt=0, le=MAX_SECONDS)] | None = None
    frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)] | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Event:
        if self.seconds is None and self.frames is None:
            raise ValueError("has no length; give seconds or frames")
        if self.seconds is not None and self.frames is not None:
            raise ValueError("has both seconds and frames; remove one of the two")
        return self

    def length(self, fps: float) -> float:
        """Length of this event at `fps` frames per second, in frames, not rounded."""
        if self.frames is not None:
            return float(self.frames)
        assert self.seconds is not None
        return self.seconds * fps


class Override(BaseModel):
    """Another prompt for a stretch of the video: ``seconds`` or ``frames``, ``(from, to)``.

    Windows whose middle frame lies in it, ``from <= middle < to``, have this local prompt in place
    of their event's.
    """

    model_config = _FORM

    prompt: Annotated[_Prompt, Field(min_length=1)]
    seconds: tuple[_Second, _Second] | None = Field(default=None, strict=False)
    frames: tuple[_Frame, _Frame] | None = Field(default=None, strict=False)

    @model_validator(mode="after")
    def _one_stretch(self) -> Override:
        if (self.seconds is None) == (self.frames is None):
            both = "both seconds and frames; remove one of the two"
            none = "no stretch; give seconds: [FROM, TO] or frames: [FROM, TO]"
            raise ValueError("has " + (none if self.seconds is None else both))
        start, stop = self.seconds or self.frames or (0, 0)
        if stop <= start:
            raise ValueError(f"is [{start:g}, {stop:g}], which is empty; give TO above FROM")
        return self

    def stretch(self, fps: float) -> tuple[int, int]:
        """``(start, stop)`` in frames at ``fps`` frames per second."""
        if self.frames is not None:
            return self.frames
        assert self.seconds is not None
        start, stop = (math.floor(second * fps + 0.5) for second in self.seconds)
        return start, stop


class Scenario(BaseModel):
    """What a long video shows, as read from a scenario file.

    Attributes:
        global_prompt: what is the same all through (subject, place, style); ``global`` in files.
        negative: what guidance leads away from; empty for the model's own "no prompt".
        events: what happens, in order.
        sampler: ``name`` and settings of the sampler; None for the model's own choice.
        seed: from which all randomness comes.
        fps: frames per second; None for the model's own.
        stride: frames from one window to the next; None for the model's own.
        window: frames of a window; None for the model's own, which is what it was trained on.
        throwaway: latent frames at the beginning of each window but the first whose prediction is
            thrown away: for models that are causal in time, to which a clip's first latent frame is
            the beginning of a scene.
        size: width and height of a frame in pixels; None for the model's own, which is what it
            was trained on.
        crossfade: windows at each change of event whose conditioning is a mixture of both events'.
        overrides: other prompts for stretches of the video; a later one takes precedence.
        structured: condition each window on "global, local" (SynCoS) and not on the local prompt
            alone (the paper's ablation).

    ``from_file`` and ``from_dict`` raise InputError with one line for the user; the constructor
    raises pydantic's own ValidationError.
    """

    model_config = _FORM

    global_prompt: _Prompt = Field(default="", alias="global")
    negative: _Prompt = ""
    events: tuple[Event, ...] = Field(strict=False)
    sampler: dict[str, Any] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    fps: Annotated[float, Field(ge=0.01, le=240)] | None = None
    stride: Annotated[int, Field(ge=1, le=MAX_FRAMES)] | None = None
    window: Annotated[int, Field(ge=1, le=MAX_WINDOW)] | None = None
    throwaway: Annotated[int, Field(ge=0, le=MAX_WINDOW)] = 0
    size: tuple[_Pixels, _Pixels] | None = Field(default=None, strict=False)
    crossfade: Annotated[int, Field(ge=0, le=MAX_FRAMES)] = 0
    overrides: Annotated[tuple[Override, ...], Field(max_length=MAX_EVENTS)] = Field(
        default=(), strict=False
    )
    structured: bool = True

    @field_validator("events", mode="before")
    @classmethod
    def _some_events(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise ValueError(f"is {short(value)}, but expected {EXPECTED['events']}")
        if not 1 <= len(value) <= MAX_EVENTS:
            count = f"{len(value)} events" if value else "no event"
            raise ValueError(f"has {count}; give 1 to {MAX_EVENTS}, each with prompt and seconds")
        return value

    @field_validator("sampler")
    @classmethod
    def _plain_settings(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None:
            return None
        if not isinstance(value.get("name"), str):
            raise ValueError(f"has no name; expected {EXPECTED['sampler']}")
        for key, setting in value.items():
            if not isinstance(setting, bool | int | float | str | None):
                raise ValueError(f"{key} is {short(setting)}, but expected a number or a word")
            if isinstance(setting, float) and not math.isfinite(setting):
                raise ValueError(f"{key} is {setting}, but expected a finite number")
        return value

    @model_validator(mode="after")
    def _says_what_stays(self) -> Scenario:
        if self.structured and not self.global_prompt:
            raise ValueError(
                f"global: is missing; expected {EXPECTED['global']} (or, for a video of local "
                "prompts alone, set structured: false)"
            )
        return self

    # -- reading and writing ---------------------------------------------------------------------

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scenario:
        """Builds a scenario from the mapping that a file holds; raises InputError."""
        if not isinstance(data, Mapping):
            raise InputError(f"a scenario is a mapping of keys to values, not {short(data)}")
        if "variables" in data:
            raise InputError("variables: are for a template; use Template.from_dict(...).fill()")
        try:
            scenario = cls.model_validate(dict(data))
        except ValidationError as error:
            raise InputError.together(all_errors(error, EXPECTED, _KEYS)) from error
        scenario.settings()
        return scenario

    @classmethod
    def findings(cls, data: Mapping[str, Any]) -> list[str]:
        """All that `from_dict` would find wrong with the keys of a mapping, one line each."""
        try:
            cls.model_validate(dict(data))
        except ValidationError as error:
            return [str(one) for one in all_errors(error, EXPECTED, _KEYS)]
        return []

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Scenario:
        """Reads a YAML or JSON file; raises InputError with the file and the key in question.

        In a file ``{name}`` stands for a variable, here for its default (`Template` gives it other
        values), and ``{{`` and ``}}`` for braces.
        """
        data = read_mapping(path)
        with located(str(path)):
            variables = read_variables(data.pop("variables", None))
            return cls.from_dict(filled(data, variables, {})[0])

    def to_dict(self) -> dict[str, Any]:
        """The mapping that ``from_dict`` takes; keys at their defaults are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file that ``from_file`` reads: JSON where it ends in .json, else YAML."""
        text = to_text(braces_doubled(self.to_dict()), Path(path).suffix)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    # -- what the sampler needs ------------------------------------------------------------------

    def settings(self, **defaults: Any) -> Any:
        """The sampler's settings object; ``defaults`` stand where the scenario says nothing.

        None where the scenario names no sampler. Raises InputError for an unknown sampler or
        setting, or a value that does not fit.
        """
        if self.sampler is None:
            return None
        from syncos_jax.sampling.sampler_dict import sampler_from_dict

        try:
            return sampler_from_dict({**defaults, **self.sampler})
        except InputError as error:
            raise error.in_key("sampler") from None

    def with_sampler(self, name: str | None = None, **settings: Any) -> Scenario:
        """The same scenario with another sampler, or with some of its settings replaced.

        Settings that are None stay as they are. Another sampler takes over steps, guidance with its
        interval, windows per call and solver, as far as it has them. Raises InputError as
        ``settings`` does.
        """
        from syncos_jax.sampling.sampler_config import current_names
        from syncos_jax.sampling.sampler_dict import (
            merge_sampler_dict,
            sampler_fields,
            sampler_from_dict,
        )

        settings = {k: v for k, v in current_names(settings).items() if v is not None}
        if name is None and not settings:
            return self
        old = current_names(self.sampler or {})
        if name is None or name == old.get("name", "syncos"):
            new: dict[str, Any] = {"name": "syncos", **merge_sampler_dict(old, settings)}
        else:
            kept = [key for key in _KEPT if key in old and key in sampler_fields(name)]
            new = {"name": name, **{key: old[key] for key in kept}}
        new.update(settings)
        try:
            sampler_from_dict(new)
        except InputError as error:
            if error.argument in settings:
                raise
            raise error.in_key("sampler") from None
        return self.model_copy(update={"sampler": new})

    def prompts(self) -> list[str]:
        """The conditioning text of each event: "global, local", or the local prompt alone."""
        return [self.text(event.prompt) for event in self.events]

    def text(self, local: str) -> str:
        """The conditioning text of a local prompt: "global, local", or the local prompt alone.

        Where the two are joined, the text knows where its local part begins (`StructuredPrompt`).
        """
        return StructuredPrompt(self.global_prompt, local) if self.structured else local

    def negatives(self) -> list[str]:
        """What guidance leads away from, for each event."""
        return [
            self.negative if event.negative is None else event.negative for event in self.events
        ]

    def event_frames(self, fps: float) -> list[int]:
        """Frames of each event; the scenario's own `fps` takes precedence over the argument.

        Boundaries are rounded, not lengths: each is at most half a frame off, however many events
        come before it.

        Raises:
            InputError: an event has no frame of its own, or the video is too long.
        """
        rate = self.fps or fps
        ends = [math.floor(end + 0.5) for end in self.boundaries(rate)]
        frames = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        for index, (event, count) in enumerate(zip(self.events, frames, strict=True)):
            if count < 1:
                raise InputError(
                    f"is {event.length(rate):g} frames at {rate:g} fps, and none after rounding",
                    place=f"events[{index}].seconds",
                    value=event.seconds,
                    remedy=f"give at least {1 / rate:g}",
                )
        if ends[-1] > MAX_FRAMES:
            raise InputError(
                f"{ends[-1]} frames in all, more than {MAX_FRAMES}",
                place="events",
                remedy="shorten them",
            )
        return frames

    def boundaries(self, fps: float) -> list[float]:
        """Where each event ends at `fps` frames per second, in frames, not rounded."""
        lengths = [event.length(fps) for event in self.events]
        return [math.fsum(lengths[: index + 1]) for index in range(len(lengths))]

    def total_frames(self, fps: float) -> int:
        """Frames of the whole video."""
        return sum(self.event_frames(fps))


class StructuredPrompt(str):
    """The text "global, local", which knows its two parts.

    Where a text encoder has fewer tokens than it needs, the global part gives way: it is the same
    in all windows, while the local part is what tells the events apart.

    Attributes:
        shared: the global part.
        local: the local part.
    """

    shared: str
    local: str

    def __new__(cls, shared: str, local: str) -> StructuredPrompt:
        text = super().__new__(cls, f"{shared}, {local}")
        text.shared, text.local = shared, local
        return text

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return self.shared, self.local


def braces_doubled(value: Any) -> Any:
    """Texts as they stand in a file, where a single brace begins a variable."""
    if isinstance(value, str):
        return value.replace("{", "{{").replace("}", "}}")
    if isinstance(value, dict):
        return {key: braces_doubled(item) for key, item in value.items()}
    return [braces_doubled(item) for item in value] if isinstance(value, list) else value


_KEYS = {
    "": [*(field.alias or name for name, field in Scenario.model_fields.items()), "variables"],
    "events": list(Event.model_fields),
    "overrides": list(Override.model_fields),
}
