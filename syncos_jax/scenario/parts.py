"""The parts of a scenario: events, redone events, overrides; what each key takes."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from syncos_jax.errors import InputError
from syncos_jax.scenario.variables import MAX_PROMPT

MAX_FRAMES = 1_000_000
MAX_SECONDS = 86_400
MAX_WINDOW = 1_000
MAX_EVENTS = 10_000
MAX_LORAS = 100

EXPECTED = {
    "global": f"text (at most {MAX_PROMPT} characters): what stays the same throughout the video",
    "negative": "text: what the video must not show",
    "events": "a list of one or more events, each {prompt: TEXT, seconds: NUMBER}",
    "prompt": f"text (1 to {MAX_PROMPT} characters): what happens in this event",
    "seconds": f"a number of seconds above 0 and at most {MAX_SECONDS}",
    "frames": f"an integer from 1 to {MAX_FRAMES}, in frames",
    "image": "the path of a picture: the first frame, or of an event its first frame",
    "end_image": "the path of a picture: the last frame",
    "extend": "the path of a video that the new one continues",
    "join": "true (write the extended video and what is new) or false (only what is new)",
    "reference": "true or false: whether all windows see the last given frame before them",
    "audio": "the path of a file with sound: the soundtrack",
    "loop_audio": "true (repeat a short soundtrack) or false (then silence)",
    "redo": "{video: PATH, events: [NUMBERS]}: make these events again",
    "redo.video": "the path of a video as long as the scenario's events",
    "redo.events": "a list of one or more numbers of events, from 1",
    "lora": "a list of LoRA files, each [NETWORK=]FILE[:STRENGTH]",
    "fit": "cover (fill the frame) or contain (add bars)",
    "sampler": "a mapping such as {name: syncos, steps: 50}",
    "seed": "an integer from 0 to 4294967295",
    "fps": "a number of frames per second from 0.01 to 240",
    "stride": "an integer of at least 1, in latent frames",
    "throwaway": "an integer of at least 0, in latent frames",
    "window": f"an integer from 1 to {MAX_WINDOW}, in frames",
    "structured": "true or false",
    "crossfade": "an integer of at least 0, in windows",
    "size": "[width, height] in pixels, integers from 8 to 8192",
    "overrides": "a list of {prompt: TEXT, seconds: [FROM, TO]}, or with frames: [FROM, TO]",
    "overrides.prompt": f"text (1 to {MAX_PROMPT} characters): what happens in this range",
    "overrides.seconds": "[FROM, TO], two numbers of at least 0, in seconds",
    "overrides.frames": "[FROM, TO], two integers of at least 0; frame TO is not included",
}

Prompt = Annotated[str, Field(max_length=MAX_PROMPT)]
FORM = ConfigDict(
    frozen=True,
    extra="forbid",
    strict=True,
    populate_by_name=True,
    allow_inf_nan=False,
    str_strip_whitespace=True,
)


MAX_PATH = 4096
FilePath = Annotated[str, Field(min_length=1, max_length=MAX_PATH)]
Loras = Annotated[tuple[FilePath, ...], Field(max_length=MAX_LORAS)]
Second = Annotated[float, Field(strict=True, ge=0, le=MAX_SECONDS)]
Frame = Annotated[int, Field(strict=True, ge=0, le=MAX_FRAMES)]
Pixels = Annotated[int, Field(strict=True, ge=8, le=8192)]


class Event(BaseModel):
    """Something that happens, with its length.

    Attributes:
        prompt: what happens.
        negative: negative prompt for this event; None for the scenario's.
        seconds, frames: the length; exactly one of the two is given.
        image: a picture that the event begins with; None for none.
    """

    model_config = FORM

    prompt: Annotated[Prompt, Field(min_length=1)]
    negative: Prompt | None = None
    seconds: Annotated[float, Field(gt=0, le=MAX_SECONDS)] | None = None
    frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)] | None = None
    image: FilePath | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Event:
        if self.seconds is None and self.frames is None:
            raise InputError("has no length", remedy="add seconds or frames")
        if self.seconds is not None and self.frames is not None:
            raise InputError("has both seconds and frames", remedy="remove one of the two")
        return self

    def length(self, fps: float) -> float:
        """Length of this event at `fps` frames per second, in frames, not rounded."""
        if self.frames is not None:
            return float(self.frames)
        assert self.seconds is not None
        return self.seconds * fps


class Redo(BaseModel):
    """Events to make again in a video that exists; everything else stays as it is.

    Attributes:
        video: path of the video; as long as the scenario's events.
        events: numbers of the events to make again, from 1.
    """

    model_config = FORM

    video: Annotated[str, Field(min_length=1, max_length=MAX_PATH)]
    events: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = Field(
        strict=False
    )


def read_redo(text: str) -> dict[str, Any]:
    """``"ball.mp4:2,3"`` -> the mapping of the key ``redo``; raises InputError."""
    video, colon, events = text.rpartition(":")
    if not (colon and video) or not re.fullmatch(r"\d{1,6}(,\d{1,6})*", events):
        raise InputError(argument="redo", expected="VIDEO:EVENTS such as ball.mp4:2,3", value=text)
    return {"video": video, "events": [int(number) for number in events.split(",")]}


class Override(BaseModel):
    """A local prompt for a range of the video.

    Windows whose middle frame lies in it, ``from <= middle < to``, use this prompt instead of their
    event's.

    Attributes:
        prompt: what happens.
        seconds, frames: the range ``(from, to)``; exactly one of the two is given.
    """

    model_config = FORM

    prompt: Annotated[Prompt, Field(min_length=1)]
    seconds: tuple[Second, Second] | None = Field(default=None, strict=False)
    frames: tuple[Frame, Frame] | None = Field(default=None, strict=False)

    @model_validator(mode="after")
    def _one_stretch(self) -> Override:
        if (self.seconds is None) == (self.frames is None):
            if self.seconds is not None:
                raise InputError("has both seconds and frames", remedy="remove one of the two")
            raise InputError("has no range", remedy="add seconds: [FROM, TO] or frames: [FROM, TO]")
        start, stop = self.seconds or self.frames or (0, 0)
        if stop <= start:
            raise InputError(f"the range [{start:g}, {stop:g}] is empty", expected="TO above FROM")
        return self

    def stretch(self, fps: float) -> tuple[int, int]:
        """``(start, stop)`` in frames at `fps` frames per second."""
        if self.frames is not None:
            return self.frames
        assert self.seconds is not None
        start, stop = (math.floor(second * fps + 0.5) for second in self.seconds)
        return start, stop
