"""What there is to measure in a model: its networks, one network call of a run, a whole video."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.bench.device import seconds
from syncos_jax.bench.measure import Measurement, Work, measure, summarise
from syncos_jax.errors import InputError
from syncos_jax.models import Model
from syncos_jax.pipeline import Pipeline
from syncos_jax.pipeline.flops import flops
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.scenario import Event, Scenario

KINDS = ("unet", "vae", "text", "call", "video")


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured of a model.

    Attributes:
        model: with its networks.
        frames: of the long video.
        batch: windows in a call of the network.
        guided: the kinds of calls of the network: guided ones are of twice the clips.
        sampler: of the network call and of the whole video, with ``batch`` in it.
    """

    model: Model
    frames: int
    batch: int
    guided: tuple[bool, ...]
    sampler: SamplerConfig

    @property
    def layout(self) -> WindowLayout:
        """The windows of the long video."""
        geometry = self.model.geometry
        return WindowLayout(
            frames=geometry.latents(self.frames), window=geometry.window, stride=geometry.stride
        )

    @property
    def latent(self) -> tuple[int, int, int]:
        """``(H, W, C)`` of a latent frame."""
        geometry = self.model.geometry
        return *geometry.latent_size(geometry.height, geometry.width), geometry.channels

    def call(self, clips: int) -> tuple[Any, tuple[Any, ...]]:
        """The jitted network, and arguments for a call on `clips` clips."""
        x = normal((clips, self.model.geometry.window, *self.latent))
        cond = self.model.encode_prompts([f"the ball moves {i}" for i in range(clips)])
        t = jnp.full(clips, 500.0, jnp.float32)
        return jax.jit(self.model.denoiser), (self.model.params, x, t, cond)

    @cached_property
    def flops_of_clip(self) -> float:
        """Operations of the network on one clip."""
        network, arguments = self.call(1)
        return flops(network, *arguments)

    @cached_property
    def flops_of_frame(self) -> float | None:
        """Operations of decoding one latent frame."""
        decoding = self.model.decoding(self.latent)
        if decoding is None:
            return None
        decode, (static, *arguments) = decoding
        return flops(partial(decode, static), *arguments) / arguments[1].shape[0]


def normal(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    """Gaussian numbers drawn on the host, float32."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def unet_work(case: Case, guided: bool) -> Work:
    """A call of the network, on both halves of the guidance where `guided`."""
    clips = case.batch * (2 if guided else 1)
    network, arguments = case.call(clips)
    return Work(
        name=f"unet {_guidance(guided)}",
        what="unet",
        lower=lambda: network.lower(*arguments),
        call=lambda program: program(*arguments),
        flops=clips * case.flops_of_clip,
        unit=f"{clips} clips" if clips > 1 else "1 clip",
    )


def vae_work(case: Case) -> Work:
    """Decoding one latent frame, or the piece of a stream that is decoded at once."""
    decoding = case.model.decoding(case.latent)
    if decoding is None:
        raise InputError(f"the model {case.model.name!r} cannot decode a single latent frame")
    decode, abstract = decoding
    arguments = jax.tree.map(
        lambda leaf: (
            normal(leaf.shape).astype(leaf.dtype)
            if isinstance(leaf, jax.ShapeDtypeStruct)
            else leaf
        ),
        abstract,
    )
    # The first argument is static; a compiled program is called without it.
    given = list(arguments[1:])
    piece = given[1].shape[0]

    def call(program: Any) -> Any:
        decoded = program(*given)
        if len(given) > 2:  # a stream: what the next piece is given was this one's to give away
            decoded, given[-1] = decoded
        return decoded

    return Work(
        name="vae decode",
        what="vae",
        lower=lambda: decode.lower(*arguments),
        call=call,
        flops=_times(piece, case.flops_of_frame),
        unit="1 latent frame" if piece == 1 else f"{piece} latent frames",
    )


@partial(jax.jit, static_argnums=0)
def _apply(graphdef: Any, params: Any, *inputs: Any) -> Any:
    return nnx.merge(graphdef, params)(*inputs)


def text_work(case: Case, prompts: int = 8) -> Work:
    """Encoding `prompts` prompts."""
    model: Any = case.model
    tokens = model.tokenizer([f"the ball moves {i}" for i in range(prompts)])
    inputs = tokens if isinstance(tokens, tuple) else (tokens,)  # ids, and a mask where it has one
    graphdef, params = nnx.split(model.text_encoder)
    return Work(
        name="text encoder",
        what="text",
        lower=lambda: _apply.lower(graphdef, params, *inputs),
        call=lambda program: program(params, *inputs),
        flops=flops(partial(_apply, graphdef), params, *inputs),
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


def call_work(case: Case) -> Work:
    """Network calls of a run in order, each with its assembly and update.

    FLOPs are those of the samples that a call has on average; padding does not count.
    """
    pipeline = Pipeline(case.model)
    request = pipeline.prepare(scenario(case), case.sampler, 0)
    run = pipeline.start(request)
    carry, call_index, summary = run.carry, 0, request.summary
    clips = summary.samples / summary.calls

    def call(program: Any) -> Any:
        nonlocal carry, call_index
        bounds = np.int32(call_index), np.int32(call_index + 1)
        carry, _ = program(carry, (run.calls, run.updates), bounds, run.inputs)
        call_index = (call_index + 1) % run.num_calls  # after the last call from the start again
        return carry.predictions

    return Work(
        name="network call",
        what="call",
        lower=run.lower,
        call=call,
        flops=_times(clips, case.flops_of_clip),
        unit=f"{clips:.3g} samples in {summary.samples_per_call} slots",
    )


def measure_video(case: Case, *, repeat: int, peak_flops: float | None) -> Iterator[Measurement]:
    """The whole video from its text to its frames: sampling, decoding, and both."""
    pipeline = Pipeline(case.model)
    sampling: list[float] = []
    decoding: list[float] = []
    request = pipeline.prepare(scenario(case), case.sampler, 0)
    summary = request.summary
    watch = lambda done, total: None  # noqa: E731  as the command line plays it, in parts

    for _ in range(1 + repeat):
        latents: list[jax.Array] = []
        sampling.append(
            seconds(lambda: latents.append(pipeline.latents(request, progress=watch)))  # noqa: B023
        )
        decoding.append(seconds(lambda: pipeline.decode(latents[0])))  # noqa: B023
    name = f"video {case.sampler.name}"
    frames = f"{case.frames} frames"
    network = _times(summary.samples, case.flops_of_clip)
    decoder = _times(request.layout.frames, case.flops_of_frame)
    for part, unit, times, count in (
        ("sampling", f"{frames}, {summary.samples} clips", sampling, network),
        ("decoding", frames, decoding, decoder),
        (
            "in all",
            frames,
            [s + d for s, d in zip(sampling, decoding, strict=True)],
            None if network is None or decoder is None else network + decoder,
        ),
    ):
        yield summarise(
            times[1:],
            name=f"{name}: {part}",
            what="video",
            unit=unit,
            first=times[0],
            flops=count,
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
        "call": [("call", job(call_work))],
        "video": [("video", video)],
    }
    return [named for kind in KINDS if kind in kinds for named in known[kind]]


def _times(count: float, flops: float | None) -> float | None:
    return None if flops is None else count * flops


def _guidance(guided: bool) -> str:
    return "guided" if guided else "unguided"
