"""Clips of which some frames are known: which frames, and clips whose motion turns.

A model that begins with a picture is trained on clips whose first frame is known; one that extends
a video, on clips whose first frames are; one that replaces an event, on clips known at both ends.
"""

import dataclasses

import numpy as np

from demo_model.world import Scene, Subjects, render, sample_scene
from demo_model.world.scene import MARGIN
from syncos_jax.metrics.world import CLIP_FRAMES, MOTIONS, SIZE

KNOWN_SHARE = 0.5  # of the clips have known frames
# Of those: the first frame, the first few, the last, the first and the last, any.
KINDS = {"first": 0.38, "start": 0.2, "last": 0.14, "ends": 0.16, "any": 0.12}
TURNING_SHARE = 0.3  # of the clips with known frames: another motion before those to be made

Turn = tuple[Scene, Scene, int]
"""A scene, what follows it, and the number of frames of the first."""


def known_frames(rng: np.random.Generator, frames: int = CLIP_FRAMES) -> np.ndarray:
    """A random mask of known frames, float32 ``[frames]``; some are known and some are not."""
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    known = np.zeros(frames, np.float32)
    if kind in ("first", "ends"):
        known[0] = 1
    if kind in ("last", "ends"):
        known[-1] = 1
    if kind == "start":
        known[: int(rng.integers(2, frames - 1))] = 1
    if kind == "any":
        count = int(rng.integers(1, frames - 1))
        known[rng.permutation(frames)[:count]] = 1
    return known


def sample_turn(rng: np.random.Generator, subjects: Subjects, frames: int = CLIP_FRAMES) -> Turn:
    """Draw a clip in which one motion follows another; the subject stays inside the frame."""
    while True:
        first = sample_scene(rng, subjects)
        count = int(rng.integers(1, frames - 1))
        others = [motion for motion in MOTIONS if motion != first.motion]
        motion = others[int(rng.integers(len(others)))]
        amount = sample_scene(rng, subjects, motion=motion).amount
        second = dataclasses.replace(first.at(count), motion=motion, amount=amount)
        x, y, size = second.path(frames - count).T
        margin = np.minimum(MARGIN * size, SIZE / 2)
        inside = [(c >= margin).all() and (c <= SIZE - margin).all() for c in (x, y)]
        if all(inside) and size.max() <= subjects.grown and size.min() >= 0.75 * subjects.size[0]:
            return first, second, count


def render_turns(turns: list[Turn], frames: int = CLIP_FRAMES) -> np.ndarray:
    """Draw clips, uint8 ``[n, frames, 64, 64, 3]``."""
    before = render([first for first, _, _ in turns], frames)
    after = render([second for _, second, _ in turns], frames)
    for clip, rest, (_, _, count) in zip(before, after, turns, strict=True):
        clip[count:] = rest[: frames - count]
    return before
