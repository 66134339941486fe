"""A request: a video to be made, with everything that follows from its scenario, derived once.

`prepare` derives it from a scenario, a model and the devices. Plan, metadata, checkpoint, batch and
run read it and derive nothing again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.media.sound import Soundtrack
from syncos_jax.models.family import Model
from syncos_jax.pipeline.completed_scenario import with_loras
from syncos_jax.pipeline.known_frames import known_latents
from syncos_jax.pipeline.known_inputs import InputFile, KnownInputs, inputs_for
from syncos_jax.pipeline.soundtrack import read_sound
from syncos_jax.pipeline.versions import device_of, versions
from syncos_jax.sampling.call_schedule import CallSchedule, CallSummary
from syncos_jax.sampling.methods import conditioning_layout, make_call_schedule, make_method
from syncos_jax.sampling.noise import seed_words, video_key
from syncos_jax.sampling.placement import Placement
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.sampler_dict import sampler_to_dict
from syncos_jax.sampling.samplers import SynCoS
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.scenario import Scenario
from syncos_jax.scenario.conditioning import WindowPrompts, window_prompts


@dataclass(frozen=True, eq=False)
class Request:
    """A video to be made; `Pipeline.prepare` makes it.

    Attributes:
        scenario: what it shows.
        sampler: the settings, completed with the model's defaults.
        seed: of noise and random minibatches.
        model: makes the video.
        placement: the devices.
        sampled: number of video frames that are sampled: those of the events, after the frames of
            the clip that they extend.
        fps: video frames per second.
        height, width: of the frames, pixels.
        layout: the windows, in latent frames.
        prompts: what each window is conditioned on.
        schedule: the noise schedule, the model's for clips of this size.
        cond_index: rows of the table of conditionings, of the prompts, with guidance of the
            negative ones and, for perturbed guidance, of the prompts in the perturbed denoiser, of
            each window (for diagonal denoising of each latent frame): int32 ``[N]`` each.
        prompt_weights: which mixture of `prompts.prompts`, and behind them of `prompts.negatives`,
            each row of the table is: float32 ``[K, P + Q]``.
        perturbed: rows of the table for the perturbed denoiser, bool ``[K]``.
        frame_shape: ``(h, w, C)`` of a latent frame.
        call_schedule: the network calls of the run.
        requested: the settings before the windows per call were lowered to fit the memory; None if
            they were not.
        known: frames that the scenario gives; None for none.
        sound: the soundtrack; None for none.
        sound_file: where it comes from.
    """

    scenario: Scenario
    sampler: SamplerConfig
    seed: int
    model: Model
    placement: Placement
    sampled: int
    fps: float
    height: int
    width: int
    layout: WindowLayout
    prompts: WindowPrompts
    schedule: NoiseSchedule
    cond_index: tuple[np.ndarray, ...]
    prompt_weights: np.ndarray
    perturbed: np.ndarray
    frame_shape: tuple[int, int, int]
    call_schedule: CallSchedule
    requested: SamplerConfig | None = None
    known: KnownInputs | None = None
    sound: Soundtrack | None = None
    sound_file: InputFile | None = None

    @property
    def before(self) -> int:
        """Frames of the extended clip, which come before those of the events."""
        return 0 if self.known is None else len(self.known.before)

    @property
    def lead(self) -> int:
        """Sampled frames before those of the events."""
        return 0 if self.known is None else self.known.lead

    @property
    def frames(self) -> int:
        """Frames of the whole video."""
        return self.before + self.sampled - self.lead

    @property
    def files(self) -> tuple[InputFile, ...]:
        """The pictures, clips and sounds that are given."""
        own = () if self.known is None else self.known.files
        return own if self.sound_file is None else (*own, self.sound_file)

    @cached_property
    def summary(self) -> CallSummary:
        """Number of calls, samples and updates of the run."""
        return self.call_schedule.describe()

    @property
    def key(self) -> jax.Array:
        """PRNG key of the noise."""
        return video_key(self.seed)

    def conditioning_shapes(self, count: int) -> Any:
        """Shapes and dtypes of what the denoiser is conditioned on for so many samples."""
        cond = self.model.conditioning_shapes(count)
        more = self.window_conditioning_shapes(count)
        return {**cond, **more} if more else cond

    def window_conditioning_shapes(self, count: int) -> dict[str, Any]:
        """The part of it that depends on a window's place."""
        window, shape = self.layout.window, self.frame_shape
        return self.model.window_conditioning_shapes(count, window, shape)

    @cached_property
    def conditioning_key(self) -> tuple:
        """Requests with equal keys have equal tables of conditionings."""
        of = self.prompts
        rows = self.prompt_weights.tobytes(), self.perturbed.tobytes()
        return (tuple(of.prompts), tuple(of.negatives), *rows, self.fps)

    @cached_property
    def program(self) -> tuple:
        """Identifies the compiled program: requests of one pipeline with equal values share it, and
        can be made side by side."""
        rule = None
        if self.known is not None:
            rule = known_latents(self.known, self.model, self.layout.frames)[1]
        method = make_method(self.layout, self.schedule, self.sampler, self.call_schedule, rule)
        return method, self.frame_shape, self.prompt_weights.shape[0], self.call_schedule.structure

    @property
    def few_steps_warnings(self) -> tuple[str, ...]:
        """What to say where few-step weights are sampled otherwise than they are meant to be."""
        few, sampler = self.model.few_steps, self.sampler
        if few is None or sampler.steps is None or sampler.guidance is None:
            return ()
        return tuple(few.warnings(sampler.steps, sampler.guidance))

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """Each event with its prompts, frames and seconds, in plain values."""
        texts, negatives = self.scenario.prompts(), self.scenario.negatives()
        rows, start = [], self.before
        for index, count in enumerate(self.scenario.event_frames(self.model.geometry.fps)):
            rows.append(
                {
                    "index": index,
                    "prompt": self.scenario.events[index].prompt,
                    "text": texts[index],
                    "negative": negatives[index],
                    "start": start,
                    "stop": start + count,
                    "start_seconds": start / self.fps,
                    "stop_seconds": (start + count) / self.fps,
                }
            )
            start += count
        return rows

    @property
    def spans(self) -> list[dict[str, Any]]:
        """`events`, after a row without a prompt for the clip that they extend."""
        if not self.before:
            return self.events
        span = {"start": 0, "stop": self.before, "start_seconds": 0.0}
        span["stop_seconds"] = self.before / self.fps
        return [{"index": -1, "prompt": "", "text": "", "negative": "", **span}, *self.events]

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What determines the state of the run, in plain values.

        Neither the number of devices nor windows per call lowered to fit their memory count.
        """
        scenario = self.scenario.to_dict()
        device, found = device_of(self.placement), versions()
        return {
            "scenario": _without_paths(scenario),
            "sampler": sampler_to_dict(self.requested or self.sampler),
            "seed": self.seed,
            "model": {
                "name": self.model.name,
                "weights_sha256": self.model.weights_sha256,
                "dtype": self.model.dtype,
                "schedule": self.schedule.identity,
            },
            "layout": asdict(self.layout),
            "known": None if self.known is None else self.known.identity,
            "sound": None if self.sound_file is None else self.sound_file.sha256,
            "frame_shape": list(self.frame_shape),
            "versions": {name: found[name] for name in ("syncos_jax", "jax", "jaxlib")},
            "device": {name: device[name] for name in ("platform", "kind")},
        }


def _without_paths(scenario: dict[str, Any]) -> dict[str, Any]:
    """A scenario's mapping without sampler and seed, and without where files are: their hashes
    decide."""
    left_out = ("sampler", "seed", "image", "end_image", "extend", "audio", "redo")
    made = {key: value for key, value in scenario.items() if key not in left_out}
    made["events"] = [{k: v for k, v in e.items() if k != "image"} for e in scenario["events"]]
    return made | ({"redo": scenario["redo"]["events"]} if "redo" in scenario else {})


def prepare(
    model: Model,
    placement: Placement,
    scenario: Scenario,
    sampler: SamplerConfig | None = None,
    seed: int | None = None,
) -> Request:
    """Derives everything that follows from a scenario.

    Args:
        model: makes the video.
        placement: the devices.
        scenario: what it shows.
        sampler: settings in place of the scenario's; None for those, or if it has none, SynCoS.
            Fields that are None take the model's default.
        seed: in place of the scenario's.

    Raises:
        InputError: the scenario does not fit the model.
    """
    geometry, scenario = model.geometry, with_loras(model, scenario)
    settings = _settings(model, sampler if sampler is not None else scenario.settings())
    seed = scenario.seed if seed is None else seed
    width, height = scenario.size or (geometry.width, geometry.height)
    fps = float(scenario.fps or geometry.fps)
    frames = scenario.total_frames(geometry.fps)
    known = inputs_for(model, scenario, settings, frames, (height, width))
    lead, before = (0, 0) if known is None else (known.lead, len(known.before))
    sound, sound_file = read_sound(scenario, before + frames, fps)
    layout = _layout(model, scenario, lead + frames)
    if scenario.throwaway and (settings.lookahead is not None or settings.chained):
        raise InputError(
            f"applies to fused windows, but the sampler {settings.name} fuses none",
            place="throwaway",
            remedy="remove it",
        )
    each = conditioning_layout(layout, settings)
    of_windows = _prompts(model, scenario, layout, lead)
    of_each = of_windows if each is layout else _prompts(model, scenario, each, lead)
    cond_index, prompt_weights, perturbed = _table(of_each, _kinds(settings))
    cells = geometry.latent_size(height, width, exact=scenario.size is None)
    schedule = model.schedule_for((layout.window, *cells))
    call_schedule = make_call_schedule(
        layout,
        schedule,
        settings,
        seed_words(video_key(seed)),
        cond_index=cond_index,
        num_shards=placement.num_clip_shards,
    )
    return Request(
        scenario=scenario,
        sampler=settings,
        seed=seed,
        model=model,
        placement=placement,
        sampled=lead + frames,
        fps=fps,
        height=height,
        width=width,
        layout=layout,
        prompts=of_windows,
        schedule=schedule,
        cond_index=cond_index,
        prompt_weights=prompt_weights,
        perturbed=perturbed,
        frame_shape=(*cells, geometry.channels),
        call_schedule=call_schedule,
        known=known,
        sound=sound,
        sound_file=sound_file,
    )


def _settings(model: Model, sampler: SamplerConfig | None) -> SamplerConfig:
    """Settings completed with the model's defaults; SynCoS where there are none."""
    given = sampler or SynCoS()
    for name in ("guidance_2", "boundary"):
        if getattr(given, name) is not None and model.boundary is None:
            raise InputError(
                f"the model {model.name!r} has but one denoising network",
                argument=name,
                value=getattr(given, name),
                remedy="leave it out",
            )
    settings = given.resolved(
        model.steps,
        model.guidance,
        model.perturbed_guidance,
        guidance_2=model.guidance_2,
        boundary=model.boundary,
        guidance_rescale=model.guidance_rescale,
    )
    if settings.perturbed_guidance and model.perturbed_guidance is None:
        raise InputError(
            f"the family {model.family!r} has no perturbed denoiser",
            argument="perturbed_guidance",
            value=settings.perturbed_guidance,
            remedy="leave it out",
        )
    return settings


def _layout(model: Model, scenario: Scenario, frames: int) -> WindowLayout:
    """The windows that cover the frames."""
    geometry = model.geometry
    window = geometry.window
    if scenario.window is not None:
        window = geometry.latents(scenario.window)
    shortest = geometry.frames(window)
    if frames < shortest:
        seconds = shortest / (scenario.fps or geometry.fps)
        raise InputError(
            f"{frames} frames in all, but the model {model.name!r} makes clips of {shortest}",
            place="events",
            remedy=f"make them at least {shortest} frames ({seconds:g} seconds) long in all",
        )
    stride = scenario.stride or min(geometry.stride, window)
    if stride > window:
        raise InputError(
            place="stride",
            value=stride,
            expected=f"at most the window's {window} frames, and less for windows that overlap",
        )
    if stride > window - scenario.throwaway:
        raise InputError(
            place="throwaway",
            value=scenario.throwaway,
            expected=f"at most the overlap, {window - stride} frames (windows of {window}, stride "
            f"{stride})",
            remedy="give less, or a smaller stride",
        )
    latents = geometry.latents(frames)
    return WindowLayout(
        frames=latents, window=window, stride=stride, drop_leading=scenario.throwaway
    )


def _prompts(model: Model, scenario: Scenario, layout: WindowLayout, lead: int) -> WindowPrompts:
    centers = np.maximum(model.geometry.first_frame(layout.centers) - lead, 0)
    return window_prompts(scenario, layout, model.geometry.fps, centers)


def _kinds(settings: SamplerConfig) -> int:
    """Kinds of conditionings: prompts, for guidance negative prompts, and those of the perturbed
    denoiser."""
    if settings.perturbed_guidance:
        return 3
    return 1 if {settings.guidance, settings.guidance_2} <= {1.0, None} else 2


def _table(of: WindowPrompts, kinds: int) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """`Request.cond_index`, `Request.prompt_weights` and `Request.perturbed`, of one kind (prompt),
    two (negative prompt) or three."""
    entries, prompts = of.weights.shape
    count = prompts + of.negative_weights.shape[1]
    each = np.zeros((kinds, entries, count + 1), np.float32)  # the last column: whether perturbed
    each[0, :, :prompts] = of.weights
    each[1:2, :, prompts:count] = of.negative_weights
    each[2:, :, :prompts] = of.weights
    each[2:, :, count] = 1.0
    rows, index = np.unique(each.reshape(-1, count + 1), axis=0, return_inverse=True)
    # Scenarios of a few prompts more or less share a compiled program.
    size = min(kinds * entries, max(16, 1 << (len(rows) - 1).bit_length()))
    rows = np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])
    cond_index = tuple(index.reshape(kinds, -1).astype(np.int32))
    return cond_index, np.ascontiguousarray(rows[:, :count]), rows[:, count] > 0
