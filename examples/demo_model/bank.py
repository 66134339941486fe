"""Scenes that are drawn and encoded once, for the UNet to be trained on."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from flax import nnx

from demo_model.world import render
from syncos_jax.files import replacing
from syncos_jax.models.unet_clip.vae import AutoencoderKL

TOGETHER = 256  # frames
S = TypeVar("S")


def encode_bank(
    vae: AutoencoderKL,
    scenes: list[S],
    frames: int,
    file: Path,
    draw: Callable[[list[S], int], np.ndarray] = render,
) -> np.ndarray:
    """Latents ``[n, frames, h, w, C]`` float16, unscaled, of scenes, kept in ``file``.

    The file is used again where it holds these scenes, encoded by this encoder. ``draw`` makes
    frames uint8 ``[n, frames, H, W, 3]`` of scenes.
    """
    graph, params = nnx.split(vae)
    weights = nnx.state(vae, lambda path, _: path[0] in ("encoder", "quant_conv"))
    digest = hashlib.sha256(repr((frames, scenes)).encode())
    for leaf in jax.tree.leaves(weights):
        digest.update(np.asarray(leaf).tobytes())
    if file.is_file():
        with np.load(file) as held:
            if str(held["digest"]) == digest.hexdigest():
                return held["latents"]
    encode = jax.jit(lambda params, images: nnx.merge(graph, params).encode(images)[0])
    out, step = [], TOGETHER // frames
    for start in range(0, len(scenes), step):
        images = draw(scenes[start : start + step], frames).astype(np.float32)
        latents = encode(params, images.reshape(-1, *images.shape[2:]) / np.float32(127.5) - 1)
        out.append(np.asarray(latents, np.float16).reshape(*images.shape[:2], *latents.shape[1:]))
        if start // step % 32 == 0:
            print(f"encoded {start} of {len(scenes)} scenes", flush=True)
    everything = np.concatenate(out)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as part, part.open("wb") as stream:
        np.savez(stream, latents=everything, digest=digest.hexdigest())
    return everything
