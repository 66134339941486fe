"""What the demo world's clips show: the names of its attributes, and its sizes.

One subject (a shape in a colour) stands on one background and makes one motion.
"""

from __future__ import annotations

CLIP_FRAMES = 8
SIZE = 64
FPS = 8

SHAPES: tuple[str, ...] = ("ball", "box", "triangle", "star")
BACKGROUNDS: tuple[str, ...] = ("meadow", "beach", "night", "snow")
MOTIONS: tuple[str, ...] = ("left", "right", "up", "down", "grow", "shrink")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 25, 35),
    "yellow": (255, 225, 20),
    "blue": (25, 60, 235),
    "purple": (145, 25, 190),
    "cyan": (20, 205, 215),
    "pink": (255, 110, 190),
}

#: What a motion is when it is played backwards.
OPPOSITE: dict[str, str] = {
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    "grow": "shrink",
    "shrink": "grow",
}

#: Attribute name -> its allowed values.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "background": BACKGROUNDS,
    "motion": MOTIONS,
}
