"""From a scenario to a video: text, latents, frames."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.progress import Progress
from syncos_jax.sampler import SynCoS, sample
from syncos_jax.scenario import Scenario
from syncos_jax.video import Video
from syncos_jax.windows import WindowLayout

_PROMPTS_PER_CALL = 8
_DECODED_PIXELS_PER_CALL = 2**20


@dataclass(frozen=True)
class _Denoiser:
    """The UNet as ``sample`` wants it. Two of the same architecture are equal: traced once."""

    graphdef: Any

    def __call__(self, params: Any, x: jax.Array, t: jax.Array, cond: Any) -> jax.Array:
        return nnx.merge(self.graphdef, params)(x, t, cond["text"], fps=cond.get("fps"))


@partial(jax.jit, static_argnums=0)
def _encode(graphdef: Any, params: Any, ids: jax.Array) -> jax.Array:
    return nnx.merge(graphdef, params)(ids)


@partial(jax.jit, static_argnums=0)
def _decode(graphdef: Any, params: Any, latents: jax.Array) -> jax.Array:
    images = nnx.merge(graphdef, params).decode(latents)
    return jnp.round((jnp.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)


class Pipeline:
    """A model with all that stands around it; ``pipeline(scenario)`` is a ``Video``.

    The steps can be had one by one: ``layout``, ``settings``, ``conditioning``, ``latents`` and
    ``decode``.

    Attributes:
        model: config, schedule and networks, as ``load_model`` gives them.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        graphdef, self._unet = nnx.split(model.unet)
        self._denoiser = _Denoiser(graphdef)
        self._text = nnx.split(model.text_encoder)
        self._vae = nnx.split(model.vae)

    @classmethod
    def from_pretrained(
        cls, name_or_dir: str | os.PathLike[str] = "demo", dtype: Any = None
    ) -> Pipeline:
        """Loads the built-in model ``"demo"`` or a folder that ``syncos convert`` wrote.

        Args:
            name_or_dir: the name or the folder.
            dtype: in which the networks compute; None for bfloat16 on accelerators and float32
                on CPU.

        Raises InputError where there is no such model.
        """
        from syncos_jax.models import load_model

        return cls(load_model(name_or_dir) if dtype is None else load_model(name_or_dir, dtype))

    def __call__(
        self,
        scenario: Scenario,
        sampler: Any = None,
        seed: int | None = None,
        progress: Progress | None = None,
    ) -> Video:
        """Makes the video of a scenario.

        Args:
            scenario: what it shows.
            sampler: settings (``SynCoS(...)``, ``CoDenoising(...)``); None for the scenario's, or
                where it has none, SynCoS with the model's own steps and guidance.
            seed: None for the scenario's.
            progress: called with (rows done, rows in all) while the sampler runs.

        Raises InputError where the scenario does not fit the model.
        """
        latents = self.latents(scenario, sampler, seed, progress)
        return self.video(scenario, self.decode(latents))

    def layout(self, scenario: Scenario) -> WindowLayout:
        """The windows that cover the scenario's frames; InputError for less than one window."""
        config = self.model.config
        frames = scenario.total_frames(config.fps)
        if frames < config.window:
            raise InputError(
                f"events: are {frames} frames together, but the model {config.name!r} makes clips "
                f"of {config.window}; make them at least {config.window} frames "
                f"({config.window / (scenario.fps or config.fps):g} seconds) in all"
            )
        stride = scenario.stride or config.stride
        if stride > config.window:
            raise InputError(
                f"stride: is {stride}, but a window has {config.window} frames; give at most "
                f"{config.window}, and less where windows are to overlap"
            )
        return WindowLayout(frames=frames, window=config.window, stride=stride)

    def settings(self, scenario: Scenario) -> Any:
        """The scenario's sampler settings, with the model's steps and guidance as defaults."""
        defaults = {"steps": self.model.config.steps, "guidance": self.model.config.guidance}
        return scenario.settings(**defaults) or SynCoS(**defaults)

    def encode(self, prompts: list[str]) -> jax.Array:
        """Text features ``[n, S, D]`` of ``prompts``; equal prompts are encoded once."""
        unique = list(dict.fromkeys(prompts))
        ids = np.asarray(self.model.tokenizer(unique), np.int32)
        rows = -(-len(ids) // _PROMPTS_PER_CALL) * _PROMPTS_PER_CALL
        ids = np.pad(ids, ((0, rows - len(ids)), (0, 0)), mode="edge")
        parts = [_encode(*self._text, part) for part in np.split(ids, rows // _PROMPTS_PER_CALL)]
        row = {prompt: index for index, prompt in enumerate(unique)}
        return jnp.concatenate(parts)[np.asarray([row[prompt] for prompt in prompts])]

    def conditioning(self, scenario: Scenario, layout: WindowLayout) -> tuple[Any, Any]:
        """What each window is conditioned on, and what guidance leads away from.

        Two mappings of the same structure: ``text [N, S, D]`` and, where the UNet embeds the frame
        rate, ``fps [N]``.
        """
        frames = scenario.event_frames(self.model.config.fps)
        events = np.asarray(layout.event_of_window(frames))
        text = self.encode([*scenario.prompts(), scenario.negative])
        cond = {"text": text[events]}
        uncond = {"text": jnp.broadcast_to(text[-1], cond["text"].shape)}
        if getattr(getattr(self.model.unet, "config", None), "fps_embedding", False):
            cond["fps"] = uncond["fps"] = jnp.full(len(events), self.model.config.fps, jnp.float32)
        return cond, uncond

    def latents(
        self,
        scenario: Scenario,
        sampler: Any = None,
        seed: int | None = None,
        progress: Progress | None = None,
    ) -> jax.Array:
        """Samples the long video's scaled latents ``[F, H/f, W/f, C]``; arguments as in a call."""
        config = self.model.config
        layout = self.layout(scenario)
        sampler = sampler or self.settings(scenario)
        cond, uncond = self.conditioning(scenario, layout)
        factor = config.latent_factor
        latents = sample(
            self._denoiser,
            cond,
            uncond=uncond,
            params=self._unet,
            layout=layout,
            frame_shape=(config.height // factor, config.width // factor, config.latent_channels),
            schedule=self.model.schedule,
            sampler=sampler,
            key=jax.random.key(scenario.seed if seed is None else seed),
            progress=progress,
        )
        if not bool(jnp.isfinite(latents).all()):
            raise InputError(
                "the sampling diverged: its result is not finite; lower the sampler's "
                "learning_rate, iterations or guidance"
            )
        return latents

    def decode(
        self, latents: jax.Array, batch: int | None = None, progress: Progress | None = None
    ) -> np.ndarray:
        """Frames uint8 ``[F, H, W, 3]`` of scaled latents, ``batch`` at a time.

        Args:
            latents: ``[F, H/f, W/f, C]``, as ``latents`` gives them.
            batch: frames decoded together; None for as many as make about a million pixels.
            progress: called with (frames done, frames in all).
        """
        config = self.model.config
        if batch is None:
            batch = max(1, _DECODED_PIXELS_PER_CALL // (config.height * config.width))
        total = len(latents)
        batch = min(batch, total)
        unscaled = np.asarray(latents) / np.float32(config.latent_scale)
        frames = np.empty((total, config.height, config.width, 3), np.uint8)
        for start in range(0, total, batch):
            part = unscaled[start : start + batch]
            count = len(part)  # the last part is filled up, so that one shape is compiled
            part = np.pad(part, ((0, batch - count), (0, 0), (0, 0), (0, 0)), mode="edge")
            frames[start : start + count] = np.asarray(_decode(*self._vae, part))[:count]
            if progress is not None:
                progress(start + count, total)
        return frames

    def video(self, scenario: Scenario, frames: np.ndarray) -> Video:
        """Decoded ``frames`` with the scenario's frame rate, events and title."""
        fps = self.model.config.fps
        lengths = scenario.event_frames(fps)
        starts = np.cumsum([0, *lengths[:-1]]).tolist()
        texts = [event.prompt for event in scenario.events]
        return Video(
            frames=frames,
            fps=float(scenario.fps or fps),
            events=tuple(zip(starts, texts, strict=True)),
            title=scenario.global_prompt,
        )
