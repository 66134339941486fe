"""From a scenario to a video: text, latents, frames."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from syncos_jax.errors import InputError
from syncos_jax.pipeline.video import Video
from syncos_jax.sampling.devices import Parallel, Spread
from syncos_jax.sampling.noise import seed_words
from syncos_jax.sampling.run import Progress, Run
from syncos_jax.sampling.sampler import SynCoS, sample, start
from syncos_jax.sampling.tape import Tape, make_tape
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.scenario import Scenario
from syncos_jax.scenario.conditioning import window_prompts

if TYPE_CHECKING:
    from syncos_jax.pipeline.plan import Plan
    from syncos_jax.runs.checkpoint import Checkpoint

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


def embeds_fps(model: Any) -> bool:
    """Whether the UNet is told the frame rate."""
    return getattr(getattr(model.unet, "config", None), "fps_embedding", False)


def _mixed(features: jax.Array, weights: np.ndarray) -> jax.Array:
    """Text features ``[N, S, D]``: rows of `features` ``[P, S, D]``, mixed by `weights` ``[N, P]``.

    A window with one prompt has its features bit for bit.
    """
    mixed = features[weights.argmax(axis=1)]
    for window in np.flatnonzero((weights > 0).sum(axis=1) > 1):
        total = jnp.zeros(features.shape[1:], jnp.float32)
        for prompt in np.flatnonzero(weights[window]):
            total += jnp.float32(weights[window, prompt]) * features[prompt].astype(jnp.float32)
        mixed = mixed.at[window].set(total.astype(mixed.dtype))
    return mixed


class Pipeline:
    """A model with all that stands around it; ``pipeline(scenario)`` is a ``Video``.

    The steps can be had one by one: ``layout``, ``settings``, ``conditioning``, ``latents`` and
    ``decode``.

    Attributes:
        model: config, schedule and networks, as ``load_model`` gives them.
    """

    def __init__(
        self, model: Any, *, mesh: Mesh | None = None, parallel: Parallel = "shard_map"
    ) -> None:
        """
        Args:
            model: as ``load_model`` gives it.
            mesh: devices (``make_mesh``) that share the windows of each call and the frames to
                decode; None for JAX's default device.
            parallel: how they are driven: ``"shard_map"`` or ``"pmap"``.

        Raises InputError where mesh or parallel are none.
        """
        self.model = model
        self.mesh = mesh
        self.parallel = parallel
        self._spread = None if mesh is None else Spread(mesh, parallel)
        place = self._spread.place if self._spread else (lambda weights: weights)
        graphdef, unet = nnx.split(model.unet)
        self._denoiser, self._unet = _Denoiser(graphdef), place(unet)
        graphdef, text = nnx.split(model.text_encoder)
        self._text = graphdef, place(text)
        graphdef, vae = nnx.split(model.vae)
        self._vae = graphdef, place(vae)

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | os.PathLike[str] = "demo",
        dtype: Any = None,
        *,
        mesh: Mesh | None = None,
        parallel: Parallel = "shard_map",
    ) -> Pipeline:
        """Loads the built-in model ``"demo"`` or a folder that ``syncos convert`` wrote.

        Args:
            name_or_dir: the name or the folder.
            dtype: in which the networks compute; None for bfloat16 on accelerators and float32
                on CPU.
            mesh: devices that share the work; each gets a copy of the weights.
            parallel: how they are driven: ``"shard_map"`` or ``"pmap"``.

        Raises InputError where there is no such model.
        """
        from syncos_jax.pipeline.load import load_model

        where = {} if mesh is None else {"mesh": mesh}
        return cls(load_model(name_or_dir, dtype, **where), mesh=mesh, parallel=parallel)

    def __call__(
        self,
        scenario: Scenario,
        sampler: Any = None,
        seed: int | None = None,
        progress: Progress | None = None,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    ) -> Video:
        """Makes the video of a scenario.

        Args:
            scenario: what it shows.
            sampler: settings (``SynCoS(...)``, ``CoDenoising(...)``); None for the scenario's, or
                where it has none, SynCoS with the model's own steps and guidance.
            seed: None for the scenario's.
            progress: called with (rows done, rows in all) while the sampler runs.
            checkpoint: a folder in which the run keeps its state, so that the same call goes on
                where a process died; at the end it holds the latents, and is yours to delete. Or an
                open `syncos_jax.runs.checkpoint.Checkpoint`, which says how often.

        Raises InputError where the scenario does not fit the model, or the folder holds another
        run.
        """
        latents = self.latents(scenario, sampler, seed, progress, checkpoint)
        return self.video(scenario, self.decode(latents))

    def layout(self, scenario: Scenario) -> WindowLayout:
        """The windows that cover the scenario's frames; InputError for less than one window."""
        config = self.model.config
        frames = scenario.total_frames(config.fps)
        window = scenario.window or config.window
        if frames < window:
            raise InputError(
                f"events: are {frames} frames together, but the model {config.name!r} makes clips "
                f"of {window}; make them at least {window} frames "
                f"({window / (scenario.fps or config.fps):g} seconds) in all"
            )
        stride = scenario.stride or min(config.stride, window)
        if stride > window:
            raise InputError(
                f"stride: is {stride}, but a window has {window} frames; give at most "
                f"{window}, and less where windows are to overlap"
            )
        return WindowLayout(frames=frames, window=window, stride=stride)

    def settings(self, scenario: Scenario) -> Any:
        """The scenario's sampler settings, with the model's steps and guidance as defaults."""
        defaults = {"steps": self.model.config.steps, "guidance": self.model.config.guidance}
        return scenario.settings(**defaults) or SynCoS(**defaults)

    def frame_size(self, scenario: Scenario) -> tuple[int, int]:
        """Height and width in pixels of the video's frames: the scenario's, or the model's own."""
        config = self.model.config
        if scenario.size is None:
            return config.height, config.width
        width, height = scenario.size
        return height, width

    def frame_shape(self, scenario: Scenario) -> tuple[int, int, int]:
        """``(H, W, C)`` of a latent frame: the smallest that the UNet can halve as often as it
        does, and that covers the video's frame; what is too much is cut off after decoding."""
        config = self.model.config
        levels = getattr(getattr(config, "unet", None), "block_out_channels", (1,))
        step = config.latent_factor * 2 ** (len(levels) - 1)
        factor = step // config.latent_factor
        height, width = self.frame_size(scenario)
        if scenario.size is None:
            return (
                height // config.latent_factor,
                width // config.latent_factor,
                config.latent_channels,
            )
        return -(-height // step) * factor, -(-width // step) * factor, config.latent_channels

    def check(self, scenario: Scenario) -> None:
        """Raises InputError where the scenario does not fit the model; costs nothing."""
        self.settings(scenario)
        window_prompts(scenario, self.layout(scenario), self.model.config.fps)

    def tape(self, scenario: Scenario, sampler: Any = None, seed: int | None = None) -> Tape:
        """The run as rows, as `latents` plays it; arguments as in a call."""
        key = jax.random.key(scenario.seed if seed is None else seed)
        sampler = sampler or self.settings(scenario)
        return make_tape(self.layout(scenario), self.model.schedule, sampler, seed_words(key))

    def plan(self, scenario: Scenario, sampler: Any = None, seed: int | None = None) -> Plan:
        """What a call with these arguments would do, and what it would cost; nothing is run.

        Raises InputError where the call itself would.
        """
        from syncos_jax.pipeline.plan import make_plan

        seed = scenario.seed if seed is None else seed
        return make_plan(self, scenario, sampler or self.settings(scenario), seed)

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the networks' weights, as loaded."""
        from syncos_jax.runs.record import hash_weights

        return hash_weights({"unet": self._unet, "text": self._text[1], "vae": self._vae[1]})

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
        rate, ``fps [N]``. A window between two events has a mixture of their prompts' features.
        """
        of = window_prompts(scenario, layout, self.model.config.fps)
        text = self.encode([*of.prompts, *of.negatives])
        cond = {"text": _mixed(text[: len(of.prompts)], of.weights)}
        uncond = {"text": _mixed(text[len(of.prompts) :], of.negative_weights)}
        if embeds_fps(self.model):
            rate = self.model.config.fps
            cond["fps"] = uncond["fps"] = jnp.full(layout.count, rate, jnp.float32)
        return cond, uncond

    def latents(
        self,
        scenario: Scenario,
        sampler: Any = None,
        seed: int | None = None,
        progress: Progress | None = None,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    ) -> jax.Array:
        """Samples the long video's scaled latents ``[F, H/f, W/f, C]``; arguments as in a call."""
        if checkpoint is None:
            given = self._arguments(scenario, sampler, seed)
            return sample(self._denoiser, **given, progress=progress)
        from syncos_jax.runs.checkpoint import Checkpoint
        from syncos_jax.runs.fingerprint import fingerprint

        if not isinstance(checkpoint, Checkpoint):
            with Checkpoint(checkpoint, fingerprint(self, scenario, sampler, seed)) as opened:
                return self.latents(scenario, sampler, seed, progress, opened)
        kept = checkpoint.latents()
        if kept is not None:
            return jnp.asarray(kept)
        return checkpoint.play(self.start(scenario, sampler, seed), progress)

    def start(self, scenario: Scenario, sampler: Any = None, seed: int | None = None) -> Run:
        """The run of a scenario before its first row; arguments as in a call."""
        return start(self._denoiser, **self._arguments(scenario, sampler, seed))

    def _arguments(self, scenario: Scenario, sampler: Any, seed: int | None) -> dict[str, Any]:
        """What `sample` is given."""
        layout = self.layout(scenario)
        cond, uncond = self.conditioning(scenario, layout)
        return {
            "cond": cond,
            "uncond": uncond,
            "params": self._unet,
            "layout": layout,
            "frame_shape": self.frame_shape(scenario),
            "schedule": self.model.schedule,
            "sampler": sampler or self.settings(scenario),
            "key": jax.random.key(scenario.seed if seed is None else seed),
            "mesh": self.mesh,
            "parallel": self.parallel,
        }

    def decode(
        self, latents: jax.Array, batch: int | None = None, progress: Progress | None = None
    ) -> np.ndarray:
        """Frames uint8 ``[F, H, W, 3]`` of scaled latents, ``batch`` at a time.

        Args:
            latents: ``[F, H/f, W/f, C]``, as ``latents`` gives them.
            batch: frames decoded together; None for as many as make about a million pixels on
                each device.
            progress: called with (frames done, frames in all).
        """
        config = self.model.config
        height, width = (side * config.latent_factor for side in latents.shape[1:3])
        spread = self._spread
        devices = spread.devices_here if spread else 1
        if batch is None:  # of each device
            batch = devices * max(1, _DECODED_PIXELS_PER_CALL // (height * width))
        total = len(latents)
        batch = -(-min(batch, total) // devices) * devices
        unscaled = np.asarray(latents) / np.float32(config.latent_scale)
        frames = np.empty((total, height, width, 3), np.uint8)
        for first in range(0, total, batch):
            part = unscaled[first : first + batch]
            count = len(part)  # the last part is filled up, so that one shape is compiled
            part = np.pad(part, ((0, batch - count), (0, 0), (0, 0), (0, 0)), mode="edge")
            if spread:
                images = spread.gathered(_decode(*self._vae, spread.divide(part)))
            else:
                images = _decode(*self._vae, part)
            frames[first : first + count] = np.asarray(images)[:count]
            if progress is not None:
                progress(first + count, total)
        return frames

    def video(self, scenario: Scenario, frames: np.ndarray) -> Video:
        """Decoded ``frames``, cut to the scenario's size (from the middle), with its frame rate,
        events and title."""
        height, width = self.frame_size(scenario)
        top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
        frames = frames[:, top : top + height, left : left + width]
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
