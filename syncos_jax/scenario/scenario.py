"""The scenario: a global prompt, and events that follow one another."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from syncos_jax.errors import InputError
from syncos_jax.files import replacing
from syncos_jax.files.documents import read_mapping, to_text
from syncos_jax.files.text import all_errors, did_you_mean
from syncos_jax.scenario.lora_files import LoraFile
from syncos_jax.scenario.parts import (
    EXPECTED,
    FORM,
    MAX_EVENTS,
    MAX_FRAMES,
    MAX_WINDOW,
    Event,
    FilePath,
    Loras,
    Override,
    Pixels,
    Prompt,
    Redo,
)
from syncos_jax.scenario.variables import filled, located, read_variables

_KEPT = (
    "steps",
    "guidance",
    "guidance_2",
    "boundary",
    "shift",
    "guidance_t_min",
    "guidance_t_max",
    "windows_per_call",
    "solver",
)
"""Settings that carry over to another sampler that has them."""
INPUTS = ("image", "end_image", "extend", "join", "redo", "reference", "fit", "audio", "loop_audio")
"""Keys of what is given of a video: pictures, clips, sounds."""


class Scenario(BaseModel):
    """What a long video shows, as read from a scenario file.

    Attributes:
        global_prompt: what stays the same throughout (subject, place, style); ``global`` in files.
        negative: negative prompt; empty for the model's own unconditional input.
        events: what happens, in order.
        sampler: ``name`` and settings of the sampler; None for the model's default.
        seed: seed of all noise and of the choice of windows.
        fps: frames per second; None for the model's.
        stride: latent frames from one window to the next; None for the model's.
        window: frames of a window; None for the clip length the model was trained on.
        throwaway: leading latent frames of each window but the first whose prediction is
            discarded, for causal autoencoders, whose first latent frame starts a scene.
        size: width and height of a frame in pixels; None for the size the model was trained on.
        crossfade: windows at each change of event whose conditioning interpolates both events'.
        overrides: prompts for ranges of the video; later ones take precedence.
        structured: condition each window on "global, local" (SynCoS); False for the local prompt
            alone (the paper's ablation).
        image, end_image: pictures that are the first and the last frame: paths.
        extend: path of a video; the events follow it, from its last frames (half a window at most).
        join: whether the result begins with the extended video; False for the events alone.
        redo: events to make again in a video; all other frames stay.
        audio: path of a file with sound, the soundtrack, in place of that of `extend` or `redo`. It
            begins with the first frame and is cut at the end; after a shorter one comes silence.
        loop_audio: whether a shorter one is repeated instead.
        reference: whether windows that hold no given frame see the last one before them, so that
            the subject stays that of the picture; None for as the model was trained.
        lora: LoRA files that are merged into the model's weights when it is loaded,
            ``[NETWORK=]FILE[:STRENGTH]`` each.
        fit: how pictures and clips of another shape are fitted: "cover" fills the frame and crops,
            "contain" adds bars.

    `from_file` and `from_dict` raise InputError; the constructor raises pydantic's ValidationError.
    """

    model_config = FORM

    global_prompt: Prompt = Field(default="", alias="global")
    negative: Prompt = ""
    events: tuple[Event, ...] = Field(strict=False)
    sampler: dict[str, Any] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    fps: Annotated[float, Field(ge=0.01, le=240)] | None = None
    stride: Annotated[int, Field(ge=1, le=MAX_FRAMES)] | None = None
    window: Annotated[int, Field(ge=1, le=MAX_WINDOW)] | None = None
    throwaway: Annotated[int, Field(ge=0, le=MAX_WINDOW)] = 0
    size: tuple[Pixels, Pixels] | None = Field(default=None, strict=False)
    crossfade: Annotated[int, Field(ge=0, le=MAX_FRAMES)] = 0
    overrides: Annotated[tuple[Override, ...], Field(max_length=MAX_EVENTS)] = Field(
        default=(), strict=False
    )
    structured: bool = True
    image: FilePath | None = None
    end_image: FilePath | None = None
    extend: FilePath | None = None
    join: bool = True
    redo: Redo | None = None
    audio: FilePath | None = None
    loop_audio: bool = False
    fit: Literal["cover", "contain"] = "cover"
    reference: bool | None = None
    lora: Loras = Field(default=(), strict=False)

    @field_validator("events", mode="before")
    @classmethod
    def _some_events(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise InputError(value=value, expected=EXPECTED["events"])
        if not 1 <= len(value) <= MAX_EVENTS:
            raise InputError(
                f"has {len(value)} entries",
                expected=f"1 to {MAX_EVENTS}, each with prompt and seconds",
            )
        return value

    @field_validator("sampler")
    @classmethod
    def _plain_settings(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None:
            return None
        if not isinstance(value.get("name"), str):
            raise InputError("has no name", expected=EXPECTED["sampler"])
        for key, setting in value.items():
            listed = key in ("timesteps", "sigmas") and isinstance(setting, list | tuple)
            for one in setting if listed else [setting]:
                if not isinstance(one, bool | int | float | str | None):
                    raise InputError(argument=key, expected="a number or a word", value=setting)
            if isinstance(setting, float) and not math.isfinite(setting):
                raise InputError(argument=key, expected="a finite number", value=setting)
        return value

    @field_validator("lora")
    @classmethod
    def _named_files(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            LoraFile.parse(text)
        return value

    @model_validator(mode="after")
    def _one_beginning(self) -> Scenario:
        named = [name for name in ("image", "extend", "redo") if getattr(self, name) is not None]
        if len(named) > 1:
            raise InputError(
                f"{' and '.join(named)} each give the beginning of the video",
                remedy="keep one of them",
            )
        for name, needed in (("join", "extend"), ("loop_audio", "audio")):
            if name in self.model_fields_set and getattr(self, needed) is None:
                raise InputError(f"{name} has no effect without {needed}", remedy="remove it")
        return self

    @property
    def input_files(self) -> list[str]:
        """Paths of the pictures, clips and sounds that the scenario names."""
        redo = self.redo.video if self.redo is not None else None
        paths = [self.extend, redo, self.image, *(e.image for e in self.events), self.end_image]
        paths.append(self.audio)
        return [path for path in paths if path is not None]

    def relative_to(self, folder: str | os.PathLike[str]) -> Scenario:
        """The scenario with relative paths of pictures, clips, sounds and LoRAs from `folder`."""

        def placed(path: str | None) -> str | None:
            return None if path is None else str(Path(folder) / path)

        if not self.input_files and not self.lora:
            return self
        events = [e.model_copy(update={"image": placed(e.image)}) for e in self.events]
        redo = self.redo and self.redo.model_copy(update={"video": placed(self.redo.video)})
        names = ("image", "end_image", "extend", "audio")
        paths = {name: placed(getattr(self, name)) for name in names}
        lora = tuple(str(LoraFile.parse(text).within(Path(folder))) for text in self.lora)
        changes = {**paths, "events": tuple(events), "redo": redo, "lora": lora}
        return self.model_copy(update=changes)

    def with_inputs(self, **given: Any) -> Scenario:
        """The same scenario with other pictures, clips or sounds: the keys of `INPUTS`.

        Raises:
            InputError: an unknown key, or a bad value.
        """
        for name in given:
            if name not in INPUTS:
                raise InputError(f"unknown argument {name!r}{did_you_mean(name, INPUTS)}")
        values = {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}
        changes = {k: v for k, v in values.items() if v is not None}
        return Scenario.from_dict({**self.to_dict(), **changes}) if changes else self

    @model_validator(mode="after")
    def _says_what_stays(self) -> Scenario:
        if self.structured and not self.global_prompt:
            raise InputError(
                "is missing",
                place="global",
                expected=EXPECTED["global"],
                remedy="to use the local prompts alone, set structured: false",
            )
        return self

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scenario:
        """Builds a scenario from `data`, the mapping in a scenario file.

        Raises:
            InputError: keys or values that are wrong, all of them; an unknown sampler.
        """
        if not isinstance(data, Mapping):
            raise InputError(argument="data", expected="a mapping of keys to values", value=data)
        if "variables" in data:
            raise InputError(
                "only templates have variables",
                place="variables",
                remedy="use Template.from_dict(...).fill()",
            )
        try:
            scenario = cls.model_validate(dict(data))
        except ValidationError as error:
            raise InputError.together(all_errors(error, EXPECTED, _KEYS)) from error
        scenario.settings()
        return scenario

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Scenario:
        """Reads a YAML or JSON file.

        In a file, ``{name}`` is a variable, here replaced by its default (`Template` sets other
        values), and ``{{`` and ``}}`` are braces.

        Raises:
            InputError: names the file and the keys that are wrong.
        """
        data = read_mapping(path)
        with located(str(path)):
            variables = read_variables(data.pop("variables", None))
            scenario = cls.from_dict(filled(data, variables, {})[0])
        return scenario.relative_to(Path(path).parent)

    def to_dict(self) -> dict[str, Any]:
        """The mapping that `from_dict` reads; keys at their defaults are omitted."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file that `from_file` reads: JSON for the extension .json, else YAML."""
        text = to_text(braces_doubled(self.to_dict()), Path(path).suffix)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def settings(self, **defaults: Any) -> Any:
        """The sampler's settings, over `defaults`; None where the scenario names no sampler.

        Raises:
            InputError: an unknown sampler or setting, or a bad value.
        """
        if self.sampler is None:
            return None
        from syncos_jax.sampling.sampler_dict import sampler_from_dict

        try:
            return sampler_from_dict({**defaults, **self.sampler})
        except InputError as error:
            raise error.in_key("sampler") from None

    def with_sampler(self, name: str | None = None, **settings: Any) -> Scenario:
        """The same scenario with another sampler, or with some settings replaced.

        Settings that are None stay as they are. Another sampler keeps steps, guidance with its
        interval, windows per call and solver, as far as it has them.

        Raises:
            InputError: an unknown sampler or setting, or a bad value.
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
        """The negative prompt of each event."""
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
                    remedy=f"use at least {1 / rate:g}",
                )
        if ends[-1] > MAX_FRAMES:
            raise InputError(
                f"the video has {ends[-1]} frames, more than {MAX_FRAMES}",
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
    """The text "global, local", with its two parts.

    Where it has more tokens than the text encoder takes, the global part is truncated: it is the
    same in all windows, while the local part distinguishes the events.

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
    """Escapes braces for a file, where a single brace begins a variable."""
    if isinstance(value, str):
        return value.replace("{", "{{").replace("}", "}}")
    if isinstance(value, dict):
        return {key: braces_doubled(item) for key, item in value.items()}
    return [braces_doubled(item) for item in value] if isinstance(value, list) else value


_KEYS = {
    "": [*(field.alias or name for name, field in Scenario.model_fields.items()), "variables"],
    "events": list(Event.model_fields),
    "overrides": list(Override.model_fields),
    "redo": list(Redo.model_fields),
}
