"""What there is to measure in a model: its networks, one row of a tape, a whole video."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.experiments.bench import flops
from syncos_jax.experiments.bench.device import seconds
from syncos_jax.experiments.bench.measure import Measurement, Work, measure, summarise
from syncos_jax.models.unet_clip.model import UNetClip
from syncos_jax.pipeline import Pipeline
from syncos_jax.sampling.settings import Settings
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.scenario import Event, Scenario

KINDS = ("unet", "vae", "text", "row", "video")


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured of a model.

    Attributes:
        model: with its networks.
        frames: of the long video.
        batch: windows in a call of the network.
        guided: the kinds of calls of the UNet: guided ones are of twice the clips.
        sampler: of the row and of the whole video, with ``batch`` in it.
    """

    model: UNetClip
    frames: int
    batch: int
    guided: tuple[bool, ...]
    sampler: Settings

    @property
    def layout(self) -> WindowLayout:
        """The windows of the long video."""
        config = self.model.config
        return WindowLayout(frames=self.frames, window=config.window, stride=config.stride)

    @property
    def latent(self) -> tuple[int, int, int]:
        """``(H, W, C)`` of a latent frame."""
        config = self.model.config
        factor = config.latent_factor
        return config.height // factor, config.width // factor, config.latent_channels

    def unet_flops(self, clips: int) -> int:
        """Of one call of the UNet on `clips` clips."""
        config = self.model.config
        height, width, _ = self.latent
        return flops.unet(
            config.unet,
            batch=clips,
            frames=config.window,
            height=height,
            width=width,
            tokens=config.text.tokens,
        )


@partial(jax.jit, static_argnums=0)
def apply_unet(graphdef: Any, params: Any, x: Any, t: Any, text: Any, fps: Any) -> jax.Array:
    """One call of the network."""
    return nnx.merge(graphdef, params)(x, t, text, fps=fps)


@partial(jax.jit, static_argnums=0)
def apply_vae(graphdef: Any, params: Any, latents: jax.Array) -> jax.Array:
    """Decoding."""
    return nnx.merge(graphdef, params).decode(latents)


@partial(jax.jit, static_argnums=0)
def apply_text(graphdef: Any, params: Any, ids: jax.Array) -> jax.Array:
    """Encoding prompts."""
    return nnx.merge(graphdef, params)(ids)


def normal(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    """Gaussian numbers drawn on the host, float32."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def unet_work(case: Case, guided: bool) -> Work:
    """A call of the UNet, on both halves of the guidance where `guided`."""
    config = case.model.config
    clips = case.batch * (2 if guided else 1)
    graphdef, params = nnx.split(case.model.unet)
    fps = jnp.full(clips, config.fps, jnp.float32) if config.unet.fps_embedding else None
    arguments = (
        params,
        normal((clips, config.window, *case.latent)),
        jnp.full(clips, 500.0, jnp.float32),
        normal((clips, config.text.tokens, config.unet.text_features), 1),
        fps,
    )
    return Work(
        name=f"unet {_guidance(guided)}",
        what="unet",
        lower=lambda: apply_unet.lower(graphdef, *arguments),
        call=lambda program: program(*arguments),
        flops=case.unet_flops(clips),
        unit=f"{clips} clips" if clips > 1 else "1 clip",
    )


def vae_work(case: Case) -> Work:
    """Decoding as many frames as the pipeline decodes together, at most a clip's."""
    config = case.model.config
    frames = max(1, min(config.window, 2**20 // (config.height * config.width)))
    graphdef, params = nnx.split(case.model.vae)
    latents = normal((frames, *case.latent))
    return Work(
        name="vae decode",
        what="vae",
        lower=lambda: apply_vae.lower(graphdef, params, latents),
        call=lambda program: program(params, latents),
        flops=flops.vae_decode(
            config.vae, frames=frames, height=case.latent[0], width=case.latent[1]
        ),
        unit=f"{frames} frames" if frames > 1 else "1 frame",
    )


def text_work(case: Case, prompts: int = 8) -> Work:
    """Encoding `prompts` prompts."""
    config = case.model.config.text
    graphdef, params = nnx.split(case.model.text_encoder)
    drawn = np.random.default_rng(0).integers(config.vocabulary, size=(prompts, config.tokens))
    ids = jnp.asarray(drawn, jnp.int32)
    return Work(
        name="text encoder",
        what="text",
        lower=lambda: apply_text.lower(graphdef, params, ids),
        call=lambda program: program(params, ids),
        flops=flops.text(config, prompts=prompts),
        unit=f"{prompts} prompts",
    )


def scenario(case: Case, events: int = 4) -> Scenario:
    """A video of `events` events, of nothing in particular."""
    lengths = [len(part) for part in np.array_split(np.arange(case.frames), events)]
    return Scenario(
        global_prompt="a red ball on a green meadow",
        events=[
            Event(prompt=f"the ball moves {i}", frames=length)
            for i, length in enumerate(lengths)
            if length
        ],
    )


def row_work(case: Case) -> Work:
    """One row of the tape as the command line plays it: assemble, call the network, update."""
    run = Pipeline(case.model).start(scenario(case), case.sampler, seed=0)
    carry, row, clips = run.carry, 0, run.tape.clips_per_call

    def call(program: Any) -> Any:
        nonlocal carry, row
        bounds = np.int32(row), np.int32(row + 1)
        carry, _ = program(carry, run.rows, run.rounds, *bounds, run.inputs)
        row = (row + 1) % run.total  # after the last row from the start again
        return carry.predictions

    return Work(
        name="tape row",
        what="row",
        lower=run.lower,
        call=call,
        flops=case.unet_flops(clips),
        unit=f"{clips} clips",
    )


def measure_video(case: Case, *, repeat: int, peak_flops: float | None) -> Iterator[Measurement]:
    """The whole video from its text to its frames: sampling, decoding, and both."""
    pipeline = Pipeline(case.model)
    story = scenario(case)
    sampling: list[float] = []
    decoding: list[float] = []
    request = pipeline.prepare(story, case.sampler, 0)
    rows, clips = request.summary.rows, request.summary.clips
    watch = lambda done, total: None  # noqa: E731  as the command line plays it, in parts

    for _ in range(1 + repeat):
        latents: list[jax.Array] = []
        sampling.append(
            seconds(lambda: latents.append(pipeline.latents(request, progress=watch)))  # noqa: B023
        )
        decoding.append(seconds(lambda: pipeline.decode(latents[0])))  # noqa: B023
    config = case.model.config
    name = f"video {case.sampler.name}"
    calls = f"{case.frames} frames, {rows} calls"
    network = clips * case.unet_flops(1)
    decoder = flops.vae_decode(
        config.vae, frames=case.frames, height=case.latent[0], width=case.latent[1]
    )
    for part, times, operations in (
        ("sampling", sampling, network),
        ("decoding", decoding, decoder),
        ("in all", [s + d for s, d in zip(sampling, decoding, strict=True)], network + decoder),
    ):
        yield summarise(
            f"{name}: {part}",
            "video",
            calls if part == "sampling" else f"{case.frames} frames",
            times[0],
            times[1:],
            flops=operations,
            peak_flops=peak_flops,
        )


def jobs(
    case: Case, kinds: Sequence[str], *, repeat: int, peak_flops: float | None
) -> list[tuple[str, Callable[[], list[Measurement]]]]:
    """What is to be measured, by name, in an order that a reader expects.

    Args:
        case: the model and its sizes.
        kinds: some of `KINDS`.
        repeat: timed calls; a third of it for the whole video.
        peak_flops: of the device, for the share.
    """

    def job(make: Callable[..., Work], *arguments: Any) -> Callable[[], list[Measurement]]:
        return lambda: [measure(make(case, *arguments), repeat=repeat, peak_flops=peak_flops)]

    def video() -> list[Measurement]:
        return list(measure_video(case, repeat=max(1, repeat // 3), peak_flops=peak_flops))

    known = {
        "unet": [(f"unet {_guidance(guided)}", job(unet_work, guided)) for guided in case.guided],
        "vae": [("vae", job(vae_work))],
        "text": [("text", job(text_work))],
        "row": [("row", job(row_work))],
        "video": [("video", video)],
    }
    return [named for kind in KINDS if kind in kinds for named in known[kind]]


def _guidance(guided: bool) -> str:
    return "guided" if guided else "unguided"
