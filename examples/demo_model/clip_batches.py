"""Batches of clips that the UNet is trained on, and the order in which motion is taught."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from demo_model.known import KNOWN_SHARE, TURNING_SHARE, Turn, known_frames
from demo_model.train_frames import Captions
from demo_model.world import Scene
from demo_model.world.objects import SCENERY
from syncos_jax.metrics.world import COLOURS, OPPOSITE
from syncos_jax.models.tokenizer import PromptTokenizer

KNOWN_AFTER = 16_000  # clips


class Batch(NamedTuple):
    """A step's clips.

    Attributes:
        latents: ``[B, F, h, w, C]`` float32, unscaled.
        ids: tokens of the captions ``[B, S]``.
        noisy: 1 for clips to be trained on at high noise, else 0: ``[B]`` float32.
        known: 1 for frames that are known, else 0: ``[B, F]`` float32.
    """

    latents: Any
    ids: Any
    noisy: Any
    known: Any


def lesson(clips: int) -> tuple[float, int]:
    """The curriculum: which share of a batch is its noisy lesson, and how many colours that knows.

    ``clips`` is how many have been seen.

    What moves where shows in the noisiest clips, and only together with the colour and the place:
    averaged over those a motion changes no latent value, so that there is nothing to begin with.
    The lesson therefore begins with one colour on one background, where the motion is learned
    first; what is learned there carries over to four pairs, and to all of them.
    """
    share = 0.65 - 0.45 * min(1.0, max(0.0, (clips - 9600) / 6400))
    colours = 1 if clips < 4000 else 2 if clips < 6400 else 3 if clips < 8000 else len(COLOURS)
    return share, colours


def pair_ranks(scenes: list[Scene]) -> np.ndarray:
    """0 for the first colour on the first background, 1 for the first two on the first two, ..."""
    number = {name: i for names in (COLOURS, SCENERY) for i, name in enumerate(names)}
    return np.array([max(number[s.colour], number[s.background]) for s in scenes])


def reversed_scene(scene: Scene) -> Scene:
    """The scene as its caption calls it when the clip is played backwards."""
    return dataclasses.replace(scene, motion=OPPOSITE[scene.motion])


def clip_batches(
    banks: tuple[tuple[np.ndarray, list[Scene]], tuple[np.ndarray, list[Turn]]],
    tokenizer: PromptTokenizer,
    size: int,
    seed: tuple[int, ...],
    seen: int = 0,
) -> Iterator[Batch]:
    """Random clips, half of them backwards, with freshly worded captions, one in ten empty.

    ``banks`` are unscaled latents ``[N, F, h, w, C]`` of scenes, and of turns; ``seen`` is how
    many clips the curriculum counts as seen already. Once it has taught all motions, some clips
    have known frames.
    """
    (latents, scenes), (turned, turns) = banks
    rng = np.random.default_rng(seed)
    captions = Captions(tokenizer, rng)
    rank = pair_ranks(scenes)
    order = np.argsort(rank, kind="stable")
    while True:
        share, colours = lesson(seen)
        noisy = rng.random(size) < share
        taught = max(1, int((rank < colours).sum()))
        chosen = rng.integers(len(scenes), size=size)
        chosen[noisy] = order[rng.integers(taught, size=int(noisy.sum()))]
        # Backwards it is a clip of the opposite motion: twice the bank for nothing.
        backwards = rng.random(size) < 0.5
        shown = [
            reversed_scene(scenes[i]) if back else scenes[i]
            for i, back in zip(chosen, backwards, strict=True)
        ]
        clips = latents[chosen].astype(np.float32)
        known = np.zeros(clips.shape[:2], np.float32)
        if seen >= KNOWN_AFTER:
            for i in np.flatnonzero(rng.random(size) < KNOWN_SHARE):
                known[i] = known_frames(rng, known.shape[1])
                if rng.random() < TURNING_SHARE:
                    number = int(rng.integers(len(turns)))
                    _, after, count = turns[number]
                    clips[i], known[i] = turned[number], np.arange(known.shape[1]) < count
                    shown[i] = reversed_scene(after) if backwards[i] else after
        clips[backwards], known[backwards] = clips[backwards, ::-1], known[backwards, ::-1]
        yield Batch(clips, captions(shown), noisy.astype(np.float32), known)
        seen += size
