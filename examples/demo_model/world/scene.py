"""What can be in a clip of the captioned world, and how a clip is drawn at random.

One subject (a shape in a colour) stands on one background and makes one motion. Lengths are in
pixels of the 64 x 64 frame; x runs to the right, y runs down.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from demo_model.world.objects import OBJECTS, SCENERY
from syncos_jax.errors import InputError
from syncos_jax.metrics.world import ATTRIBUTES, CLIP_FRAMES, SHAPES, SIZE

#: Unit step (x, y) of each motion that moves the subject.
DIRECTIONS: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}

RATIO_RANGE = (1.5, 2.0)  # larger size over smaller size, first frame against last
MARGIN = 0.9  # the centre keeps at least this many nominal radii from every edge
OBJECT_MARGIN = 1.15  # so do those of drawn objects


@dataclass(frozen=True)
class Subjects:
    """How large the subjects of random scenes are, and how far they go.

    Attributes:
        size: range of the nominal radius of a subject that moves, px.
        grown: largest nominal radius that growth reaches, px; where a ratio is too large for it,
            the smallest size grows past it.
        travel: range of the distance from the first frame of a clip to the last, px.
        objects: drawn objects in six places, not plain shapes on four backgrounds.
    """

    size: tuple[float, float]
    grown: float
    travel: tuple[float, float]
    objects: bool = False

    @property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        """Attribute -> the values that scenes of these subjects have."""
        return ATTRIBUTES | ({"shape": OBJECTS, "background": SCENERY} if self.objects else {})


SMALL_SUBJECTS = Subjects(size=(8.0, 16.0), grown=18.0, travel=(16.0, 28.0))
#: Shapes differ in far fewer pixels than colours do: a model learns larger ones much sooner.
LARGE_SUBJECTS = Subjects(size=(13.0, 18.0), grown=22.0, travel=(16.0, 26.0))
#: Objects have more detail than shapes.
DRAWN_OBJECTS = Subjects(size=(14.0, 17.0), grown=22.0, travel=(14.0, 22.0), objects=True)

_ALLOWED = ATTRIBUTES | {"shape": SHAPES + OBJECTS, "background": SCENERY}


@dataclass(frozen=True)
class Scene:
    """One clip: its four attributes and the subject's start.

    Attributes:
        shape, colour, background, motion: names from the tuples of this module.
        x, y: centre of the subject in the first frame, px.
        size: nominal radius of the subject in the first frame, px.
        amount: over one clip of ``CLIP_FRAMES`` frames, the distance in px for a motion that
            moves the subject, the ratio (> 1) of larger to smaller size for grow and shrink.
    """

    shape: str
    colour: str
    background: str
    motion: str
    x: float = 32.0
    y: float = 32.0
    size: float = 12.0
    amount: float = 20.0

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            if value not in allowed:
                raise InputError(f"{name} {value!r} is not one of {', '.join(allowed)}")
        for name in ("x", "y", "size", "amount"):
            if not np.isfinite(getattr(self, name)):
                raise InputError(f"{name} must be a finite number, not {getattr(self, name)!r}")
        if self.size <= 0 or self.amount <= 0:
            raise InputError(f"size and amount must be > 0, not {self.size} and {self.amount}")

    @property
    def attributes(self) -> dict[str, str]:
        """The names of what it shows."""
        return {name: getattr(self, name) for name in ATTRIBUTES}

    def path(self, frames: int = CLIP_FRAMES) -> np.ndarray:
        """Centre and size in every frame: float32 ``[frames, 3]`` of x, y, size, px."""
        time = np.arange(frames, dtype=np.float32) / (CLIP_FRAMES - 1)
        step_x, step_y = DIRECTIONS.get(self.motion, (0, 0))
        rate = {"grow": np.log(self.amount), "shrink": -np.log(self.amount)}.get(self.motion, 0.0)
        x = self.x + step_x * self.amount * time
        y = self.y + step_y * self.amount * time
        return np.stack([x, y, self.size * np.exp(rate * time)], axis=1).astype(np.float32)

    def at(self, frame: int) -> Scene:
        """The scene whose first frame is this one's frame ``frame``."""
        x, y, size = (float(value) for value in self.path(frame + 1)[frame])
        return replace(self, x=x, y=y, size=size)


def sample_scene(
    rng: np.random.Generator, subjects: Subjects = SMALL_SUBJECTS, **fixed: Any
) -> Scene:
    """Draw a scene at random.

    Args:
        rng: source of randomness.
        subjects: how large they are, and how far they go.
        **fixed: fields of ``Scene`` that are not drawn. Positions drawn for a fixed size,
            motion or amount still keep the subject inside the frame.

    Raises:
        InputError: a name in ``fixed`` is not a field of ``Scene``, or a value is not allowed.
    """
    known = [field.name for field in fields(Scene)]
    unknown = sorted(set(fixed) - set(known))
    if unknown:
        raise InputError(f"a scene has no field {unknown[0]!r}; it has {', '.join(known)}")
    values: dict[str, Any] = {
        name: allowed[int(rng.integers(len(allowed)))]
        for name, allowed in subjects.attributes.items()
    }
    values.update(fixed)
    moves = values["motion"] in DIRECTIONS
    if "amount" not in fixed:
        values["amount"] = float(rng.uniform(*(subjects.travel if moves else RATIO_RANGE)))
    if "size" not in fixed:
        low, high = subjects.size
        if values["motion"] == "grow":
            high = subjects.grown / values["amount"]
        elif values["motion"] == "shrink":
            low, high = low * values["amount"], subjects.grown
        values["size"] = float(rng.uniform(low, max(low, high)))
    largest = values["size"] * (values["amount"] if values["motion"] == "grow" else 1.0)
    margin = min((OBJECT_MARGIN if subjects.objects else MARGIN) * largest, SIZE / 2)
    step = DIRECTIONS.get(values["motion"], (0, 0))
    for name, direction in zip("xy", step, strict=True):
        if name not in fixed:
            travel = direction * values["amount"]
            low = margin + max(0.0, -travel)
            high = SIZE - margin - max(0.0, travel)
            middle = (low + high) / 2
            values[name] = float(rng.uniform(min(low, middle), max(high, middle)))
    return Scene(**values)
