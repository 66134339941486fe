"""Write the trained networks as the folder that the package ships."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from demo_model.diffusion import SCHEDULE, TextToVideo
from demo_model.sizes import DemoSizes
from syncos_jax.metrics.world import CLIP_FRAMES, FPS, SIZE
from syncos_jax.models.few_steps import FewSteps
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.models.unet_clip.vae import AutoencoderKL
from syncos_jax.weights_convert.diffusers_folder import write_networks

GUIDANCE = 3.0  # all of 256 clips are right with it: python examples/demo_model evaluate
STRIDE = 4


def training_record(folder: Path) -> dict[str, Any]:
    """Steps and last loss of a training, from its log; no steps where it has none."""
    if not (folder / "log.jsonl").is_file():
        return {"steps": 0}
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    last = next(entry for entry in map(json.loads, reversed(lines)) if "loss" in entry)
    return {"steps": last["step"], "loss": round(last["loss"], 5)}


def export(
    folder: Path,
    sizes: DemoSizes,
    networks: TextToVideo,
    vae: AutoencoderKL,
    tokenizer: Path,
    notes: dict[str, Any],
    few_steps: FewSteps | None = None,
) -> None:
    """Write the pipeline folder; an older one in its place is replaced once this is complete.

    Args:
        folder: to write.
        sizes, networks, vae: what was trained; the latents have variance 1 as they are.
        tokenizer: folder of its files.
        notes: see ``ModelConfig``; the world's subjects are added. Where ``stage`` is
            ``autoencoder``, the UNet has learned nothing and is omitted.
        few_steps: how a distilled UNet is sampled; None for another.

    Weights are stored as float16, which changes no picture.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    config = ModelConfig(
        name="demo",
        unet=sizes.unet,
        vae=sizes.vae,
        text=networks.text_encoder.config,
        schedule=SCHEDULE,
        latent_scale=1.0,
        window=CLIP_FRAMES,
        stride=STRIDE,
        fps=FPS,
        height=SIZE,
        width=SIZE,
        steps=50 if few_steps is None else few_steps.steps,
        guidance=GUIDANCE if few_steps is None else few_steps.guidance,
        few_steps={} if few_steps is None else few_steps.to_dict(),
        source="trained by examples/demo_model",
        known_rule="timestep",
        notes=notes | {"subjects": dataclasses.asdict(sizes.subjects)},
    )
    parts: dict[str, nnx.Module] = {
        "unet": networks.unet,
        "vae": vae,
        "text_encoder": networks.text_encoder,
    }
    if notes.get("stage") == "autoencoder":
        del parts["unet"]
    write_networks(part, config, parts, np.float16)
    shutil.copytree(tokenizer, part / "tokenizer")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
