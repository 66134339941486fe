"""Reads drawn objects off pixels: the nearest of many drawn examples, without a network.

A frame's place is the background image nearest to it; what differs from that is the subject. Its
coverage and brightness, centred and in units of its own radius, are compared with examples.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from demo_model.world.objects import BRIGHTEST, DARKEST, OBJECTS, scenery
from demo_model.world.render import render
from demo_model.world.scene import DRAWN_OBJECTS, Scene, Subjects, sample_scene
from syncos_jax.metrics.world import COLOURS, SIZE
from syncos_jax.metrics.world.blobs import dilate, main_blob, median_colour, smooth, square
from syncos_jax.metrics.world.tracker import Track, judge, motion, track

EXAMPLES = 40  # of each object
_APART = 40.0  # a subject's pixel is at least this far from the background (0..441)
_SMALLEST = 60  # pixels of a subject
_POINTS = 18  # of the grid on which subjects are compared, along a side
_SPAN = 2.2  # the grid reaches this many radii (of the disc of equal area) to each side


class Seen(NamedTuple):
    """What each of ``F`` frames shows; -1 (and NaN) where there is no subject.

    Attributes:
        shape, colour, background: int ``[F]``, indices into ``OBJECTS``, ``COLOURS``, ``SCENERY``.
        x, y, size: float ``[F]``, centroid, and radius of the disc of the subject's area, px.
        visible: bool ``[F]``.
    """

    shape: np.ndarray
    colour: np.ndarray
    background: np.ndarray
    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    visible: np.ndarray


def recognise(frames: np.ndarray) -> Seen:
    """Read object, colour, place and position off frames uint8 ``[F, 64, 64, 3]``."""
    features, colour, place, position, visible = _look(frames)
    examples, labels = _examples()
    distance = square(examples)[None] - 2 * features @ examples.T
    shape = labels[distance.argmin(axis=1)]
    x, y, size = (np.where(visible, values, np.nan) for values in position)
    found = np.where(visible, shape, -1), np.where(visible, colour, -1)
    return Seen(*found, place, x, y, size, visible)


def see(frames: np.ndarray, subjects: Subjects) -> Seen | Track:
    """What frames show, by the reader of these subjects' world; for `tracker.motion`, too."""
    return recognise(frames) if subjects.objects else track(frames)


def judge_clip(clip: np.ndarray, scene: Scene, subjects: Subjects) -> dict[str, bool]:
    """Whether a clip uint8 ``[F, 64, 64, 3]`` shows each attribute of its scene."""
    if not subjects.objects:
        return judge(clip, scene.attributes)
    seen = recognise(clip)
    right = {"motion": motion(seen) == scene.motion}
    for name, values in subjects.attributes.items():
        if name != "motion":
            found = np.bincount(getattr(seen, name) + 1, minlength=1 + len(values))
            right[name] = int(found.argmax()) - 1 == values.index(getattr(scene, name))
    return right


@lru_cache(maxsize=1)
def _examples() -> tuple[np.ndarray, np.ndarray]:
    """Features of drawn frames, float32 ``[n, D]``, and their objects, ``[n]``."""
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(len(OBJECTS)), EXAMPLES)
    scenes = [sample_scene(rng, DRAWN_OBJECTS, shape=OBJECTS[label]) for label in labels]
    frames = render([scene.at(int(rng.integers(8))) for scene in scenes], 1)[:, 0]
    return _look(frames)[0], labels


def _look(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple, np.ndarray]:
    """Features ``[F, D]``, colours, places, (x, y, radius), and whether there is a subject."""
    values = frames.astype(np.float32)
    apart = np.stack([np.sqrt(square(values - image)) for image in scenery()])
    place = np.minimum(apart, 80).mean(axis=(2, 3)).argmin(axis=0)
    ground = scenery()[place]
    blob = main_blob(square(smooth(values - ground)) > _APART**2)
    area = blob.sum(axis=(1, 2))
    safe = np.maximum(area, 1)
    axis = np.arange(SIZE, dtype=np.float32)
    x, y = blob.sum(axis=1) @ axis / safe, blob.sum(axis=2) @ axis / safe
    radius = np.sqrt(safe / np.pi).astype(np.float32)
    colour = _colours(values, blob)
    paint = np.asarray(list(COLOURS.values()), np.float32)[colour][:, None, None, :]
    light = (values * paint).sum(axis=-1) / square(paint)
    light = (light.clip(0, BRIGHTEST) - DARKEST) / (BRIGHTEST - DARKEST)
    soft = dilate(blob) * (np.sqrt(square(values - ground)) / _APART).clip(0, 1)
    planes = np.stack([soft, soft * light.clip(-0.5, 1)], axis=1)
    features = [_around(*each) for each in zip(planes, x, y, radius, strict=True)]
    return np.stack(features), colour, place, (x, y, radius), area >= _SMALLEST


def _colours(values: np.ndarray, blob: np.ndarray) -> np.ndarray:
    """The colour nearest to each blob's median, bright or dark: indices into ``COLOURS``."""
    median = median_colour(values, blob)
    shades = np.linspace(DARKEST, BRIGHTEST, 12, dtype=np.float32)
    palette = np.asarray(list(COLOURS.values()), np.float32)
    candidates = np.minimum(shades[:, None, None] * palette, 255)
    nearest: np.ndarray = square(median[:, None, None] - candidates[None]).min(axis=1).argmin(1)
    return nearest


def _around(planes: np.ndarray, x: float, y: float, radius: float) -> np.ndarray:
    """Planes ``[2, 64, 64]`` on a grid around a subject: ``[2 * _POINTS ** 2]``."""
    offsets = np.linspace(-_SPAN, _SPAN, _POINTS, dtype=np.float32) * radius
    grid = np.meshgrid(y + offsets, x + offsets, indexing="ij")
    sampled = [ndimage.map_coordinates(plane, grid, order=1, mode="constant") for plane in planes]
    return np.concatenate([plane.ravel() for plane in sampled]).astype(np.float32)
