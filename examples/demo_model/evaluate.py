"""Measure a demo model by what its videos show: ``python examples/demo_model evaluate --help``.

The tracker reads shape, colour, background and motion off the pixels. Clips tell whether the
model follows its prompt; long videos with the colour left open tell how well a sampler holds it.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
import typer
from flax import nnx

from demo_model.sheet import write_sheet
from demo_model.world import (
    LARGE_SUBJECTS,
    SMALL_SUBJECTS,
    Scene,
    Subjects,
    prompt,
    render,
    sample_scene,
)
from demo_model.world.captions import motion_prompt, still_prompt
from demo_model.world.recognise import judge_clip, see
from syncos_jax.metrics.world import CLIP_FRAMES, MOTIONS
from syncos_jax.metrics.world.judge import majority_share
from syncos_jax.models.unet_clip.model import unet_clip
from syncos_jax.models.unet_clip.vae import AutoencoderKL
from syncos_jax.pipeline import Pipeline
from syncos_jax.runs.exits import exit_on_error
from syncos_jax.sampling import CoDenoising, SynCoS, make_mesh
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.scenario import Scenario

ATTRIBUTES = ("colour", "background", "motion", "shape")
EVENTS = 4
SHOWN = 63


def clips_right(
    pipeline: Pipeline,
    clips: int,
    guidance: float,
    steps: int,
    seed: int,
    sheet: Path | None = None,
) -> dict[str, float]:
    """Share of clips that show what their prompt says, by attribute, and in all four.

    The clips are sampled together: windows that do not overlap are independent clips. The first
    `SHOWN` of them go into the picture ``sheet``, if one is given.
    """
    rng = np.random.default_rng(seed)
    subjects = drawn_subjects(pipeline)
    scenes = [sample_scene(rng, subjects) for _ in range(clips)]
    scenario = Scenario.from_dict(
        {
            "events": [{"prompt": prompt(scene), "frames": CLIP_FRAMES} for scene in scenes],
            "structured": False,
            "stride": CLIP_FRAMES,
        }
    )
    settings = CoDenoising(steps=steps, guidance=guidance, windows_per_call=min(32, clips))
    frames = pipeline(scenario, sampler=settings, seed=seed).frames
    made = frames.reshape(clips, CLIP_FRAMES, *frames.shape[1:])
    if sheet is not None:
        write_sheet(sheet, made[:SHOWN], [prompt(scene) for scene in scenes[:SHOWN]])
    return _right(made, scenes, subjects)


def autoencoder_right(pipeline: Pipeline, clips: int, seed: int) -> dict[str, float]:
    """The same of drawn clips that went through the autoencoder and back: the most there can be."""
    rng = np.random.default_rng(seed)
    subjects = drawn_subjects(pipeline)
    scenes = [sample_scene(rng, subjects) for _ in range(clips)]
    encode, model = nnx.jit(AutoencoderKL.encode), unet_clip(pipeline.model)
    latents = [
        encode(model.vae, jnp.asarray(clip, jnp.float32) / 127.5 - 1)[0] for clip in render(scenes)
    ]
    frames = pipeline.decode(
        jnp.concatenate(latents) * unet_clip(pipeline.model).config.latent_scale
    )
    return _right(frames.reshape(clips, CLIP_FRAMES, *frames.shape[1:]), scenes, subjects)


def drawn_subjects(pipeline: Pipeline) -> Subjects:
    """The subjects that a demo model was trained on, as its notes tell."""
    noted = unet_clip(pipeline.model).config.notes.get("subjects")
    if noted is None:  # older than the note
        return SMALL_SUBJECTS
    sizes = tuple(noted["size"]), noted["grown"], tuple(noted["travel"])
    return Subjects(*sizes, objects=noted.get("objects", False))


def _right(clips: np.ndarray, scenes: list[Scene], subjects: Subjects) -> dict[str, float]:
    verdicts = [
        judge_clip(clip, scene, subjects) for clip, scene in zip(clips, scenes, strict=True)
    ]
    right = {name: float(np.mean([v[name] for v in verdicts])) for name in ATTRIBUTES}
    return right | {"all": float(np.mean([all(v.values()) for v in verdicts]))}


def open_colour_scenario(seed: int, subjects: Subjects = LARGE_SUBJECTS) -> Scenario:
    """Four events of one clip's length; no prompt names the colour."""
    rng = np.random.default_rng(seed)
    shapes, backgrounds = (subjects.attributes[name] for name in ("shape", "background"))
    shape = shapes[int(rng.integers(len(shapes)))]
    background = backgrounds[int(rng.integers(len(backgrounds)))]
    motions = rng.permutation(MOTIONS)[:EVENTS]
    return Scenario.from_dict(
        {
            "global": still_prompt(shape, None, background),
            "events": [
                {"prompt": motion_prompt(str(m), shape), "frames": CLIP_FRAMES} for m in motions
            ],
        }
    )


def colour_held(
    pipeline: Pipeline, settings: SamplerConfig, seeds: Iterable[int]
) -> dict[str, Any]:
    """Share of all frames on the video's most frequent colour, mean over videos.

    Frames in which no subject is visible count as not on it.
    """
    shares, subjects = [], drawn_subjects(pipeline)
    for seed in seeds:
        video = pipeline(open_colour_scenario(seed, subjects), sampler=settings, seed=seed)
        shares.append(majority_share(see(video.frames, subjects).colour))
    return {"mean": float(np.mean(shares)), "videos": shares}


@exit_on_error()
def main(
    model: Annotated[str, typer.Option(help="demo, or a model's folder.")] = "demo",
    clips: Annotated[int, typer.Option(help="Clips with every attribute in the prompt.")] = 128,
    videos: Annotated[int, typer.Option(help="Long videos with the colour left open.")] = 12,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 50,
    guidance: Annotated[float | None, typer.Option(help="Scale; default: the model's.")] = None,
    seed: Annotated[int, typer.Option(help="Of prompts and noise.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help=f"Write a PNG of the first {SHOWN} clips and prompts.")
    ] = None,
) -> None:
    """Measure how well a demo model follows its prompts, and how well samplers keep a colour."""
    pipeline = Pipeline.from_pretrained(model, mesh=make_mesh())
    scale = unet_clip(pipeline.model).config.guidance if guidance is None else guidance
    common: Mapping[str, Any] = {"steps": steps, "guidance": scale}
    figures: dict[str, Any] = {"model": model, "clips": clips, "videos": videos, **common}
    if clips:
        figures["right"] = clips_right(pipeline, clips, scale, steps, seed, sheet)
        print(json.dumps(figures["right"]), flush=True)
        figures["autoencoder"] = autoencoder_right(pipeline, min(clips, 48), seed)
        print(f"autoencoder alone: {json.dumps(figures['autoencoder'])}", flush=True)
    if videos:
        samplers: dict[str, SamplerConfig] = {
            "co-denoising": CoDenoising(**common),
            "SynCoS, published settings": SynCoS(**common),
            "SynCoS, fast": SynCoS(strength=1.0, **common),
        }
        figures["colour held"] = {}
        for name, settings in samplers.items():
            held = colour_held(pipeline, settings, range(seed, seed + videos))
            figures["colour held"][name] = held
            print(f"{name}: {held['mean']:.3f}", flush=True)
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
