"""The clips that the UNet is trained on: drawn and encoded once, then dealt out in batches."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from syncos_jax.demo.world import (
    BACKGROUNDS,
    COLOURS,
    OPPOSITE,
    Scene,
    caption,
    render,
    sample_scene,
)
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet_clip.vae import AutoencoderKL

EMPTY_CAPTIONS = 0.1  # what guidance needs an unconditional model for


class Batch(NamedTuple):
    """A step's clips.

    Attributes:
        latents: ``[B, F, h, w, C]`` float32, unscaled.
        ids: tokens of the captions ``[B, S]``.
        noisy: 1 for clips to be trained on at high noise, else 0: ``[B]`` float32.
    """

    latents: np.ndarray
    ids: np.ndarray
    noisy: np.ndarray


def lesson(step: int) -> tuple[float, int]:
    """The curriculum: which share of a batch is its noisy lesson, and how many colours that knows.

    ``step`` counts from the lesson's beginning; before it, it is negative.

    What moves where shows in the noisiest clips, and only together with the colour and the place:
    averaged over those a motion changes no latent value, so that there is nothing to begin with.
    The lesson therefore begins with one colour on one background, where the motion is learned in
    some hundred steps; what is learned there carries over to four pairs, and to all of them.
    """
    if step < 0:
        return 0.2, len(COLOURS)
    share = 0.65 - 0.45 * min(1.0, max(0.0, (step - 600) / 400))
    colours = 1 if step < 250 else 2 if step < 400 else 3 if step < 500 else len(COLOURS)
    return share, colours


def encode_bank(
    vae: AutoencoderKL, clips: int, seed: int, file: Path
) -> tuple[np.ndarray, list[Scene]]:
    """Draw scenes and encode them once: latents ``[clips, F, h, w, C]`` float16, unscaled."""
    rng = np.random.default_rng(seed + 1)
    scenes = [sample_scene(rng) for _ in range(clips)]
    if file.is_file():
        latents = np.load(file)
        if len(latents) == clips:
            return latents, scenes
    graph, params = nnx.split(vae)
    encode = jax.jit(lambda params, images: nnx.merge(graph, params).encode(images)[0])
    out, step = [], 32
    for start in range(0, clips, step):
        part = scenes[start : start + step]
        images = render(part).astype(np.float32) / np.float32(127.5) - 1
        latents = encode(params, images.reshape(-1, *images.shape[2:]))
        out.append(np.asarray(latents, np.float16).reshape(*images.shape[:2], *latents.shape[1:]))
        if start % 4096 == 0:
            print(f"encoded {start} of {clips} clips", flush=True)
    latents = np.concatenate(out)
    np.save(file, latents)
    return latents, scenes


def batches(
    latents: np.ndarray,
    scenes: list[Scene],
    tokenizer: PromptTokenizer,
    size: int,
    seed: tuple[int, int],
    lesson_at: int = 0,
) -> Iterator[Batch]:
    """Random clips, half of them backwards, with freshly worded captions, one in ten empty.

    ``latents [N, F, h, w, C]`` are unscaled, of ``scenes``; ``seed`` is a seed and the step to
    begin at, ``lesson_at`` the step at which the lesson begins.
    """
    rng = np.random.default_rng(seed)
    known: dict[str, np.ndarray] = {}
    # 0 for the first colour on the first background, 1 for the first two on the first two, ...
    number = {name: i for names in (COLOURS, BACKGROUNDS) for i, name in enumerate(names)}
    rank = np.array([max(number[s.colour], number[s.background]) for s in scenes])
    order = np.argsort(rank, kind="stable")
    step = seed[1]
    while True:
        share, colours = lesson(step - lesson_at)
        noisy = rng.random(size) < share
        taught = max(1, int((rank < colours).sum()))
        chosen = rng.integers(len(scenes), size=size)
        chosen[noisy] = order[rng.integers(taught, size=int(noisy.sum()))]
        # Backwards it is a clip of the opposite motion: twice the bank for nothing.
        backwards = rng.random(size) < 0.5
        words = []
        for i, back in zip(chosen, backwards, strict=True):
            scene = scenes[i]
            if back:
                scene = dataclasses.replace(scene, motion=OPPOSITE[scene.motion])
            words.append("" if rng.random() < EMPTY_CAPTIONS else caption(scene, rng))
        for text in words:
            if text not in known:
                known[text] = tokenizer([text])[0]
        clips = latents[chosen].astype(np.float32)
        clips[backwards] = clips[backwards, ::-1]
        ids = np.stack([known[text] for text in words])
        yield Batch(clips, ids, noisy.astype(np.float32))
        step += 1
