"""The words of the demo world, and its canonical prompts."""

from __future__ import annotations

from syncos_jax.errors import InputError
from syncos_jax.metrics.world.attributes import ATTRIBUTES

SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "circle", "disc"),
    "box": ("box", "square", "block"),
    "triangle": ("triangle", "pyramid"),
    "star": ("star", "five-pointed star"),
}
ANY_SHAPE = ("thing", "object", "shape")
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "bright red"),
    "yellow": ("yellow", "bright yellow"),
    "blue": ("blue", "deep blue"),
    "purple": ("purple", "violet"),
    "cyan": ("cyan", "turquoise"),
    "pink": ("pink", "rosy pink"),
}
PLACES: dict[str, tuple[str, ...]] = {
    "meadow": ("on a green meadow", "on a meadow", "on the grass", "in a green field"),
    "beach": ("on a sandy beach", "on a beach", "on the sand", "at the beach"),
    "night": ("in the night sky", "at night", "in the dark", "in a dark sky"),
    "snow": ("in the snow", "on white snow", "on a snowy field", "in winter snow"),
}
#: Motion -> (third person, participle) pairs.
MOVES: dict[str, tuple[tuple[str, str], ...]] = {
    "left": (
        ("moves to the left", "moving to the left"),
        ("moves left", "moving left"),
        ("goes left", "going left"),
        ("slides to the left", "sliding to the left"),
        ("drifts leftwards", "drifting leftwards"),
    ),
    "right": (
        ("moves to the right", "moving to the right"),
        ("moves right", "moving right"),
        ("goes right", "going right"),
        ("slides to the right", "sliding to the right"),
        ("drifts rightwards", "drifting rightwards"),
    ),
    "up": (
        ("moves up", "moving up"),
        ("rises", "rising"),
        ("goes up", "going up"),
        ("floats upwards", "floating upwards"),
        ("climbs", "climbing"),
    ),
    "down": (
        ("moves down", "moving down"),
        ("falls", "falling"),
        ("goes down", "going down"),
        ("sinks downwards", "sinking downwards"),
        ("drops", "dropping"),
    ),
    "grow": (
        ("grows", "growing"),
        ("gets bigger", "getting bigger"),
        ("becomes larger", "becoming larger"),
        ("expands", "expanding"),
    ),
    "shrink": (
        ("shrinks", "shrinking"),
        ("gets smaller", "getting smaller"),
        ("becomes smaller", "becoming smaller"),
        ("contracts", "contracting"),
    ),
}
#: Only a ball rolls; for it this is the canonical wording.
ROLLS: dict[str, tuple[str, str]] = {
    "left": ("rolls to the left", "rolling to the left"),
    "right": ("rolls to the right", "rolling to the right"),
}


def moves_of(motion: str, shape: str | None) -> tuple[tuple[str, str], ...]:
    """(third person, participle) pairs of a motion, the canonical one first."""
    roll = (ROLLS[motion],) if shape == "ball" and motion in ROLLS else ()
    return roll + MOVES[motion]


def with_article(words: str) -> str:
    """``words`` after "a" or "an"."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def global_prompt(
    shape: str | None, colour: str | None = None, background: str | None = None
) -> str:
    """The canonical global prompt: subject and place, "a red ball on a green meadow".

    ``None`` leaves an attribute open; an open shape is called "thing".
    """
    _check(shape=shape, colour=colour, background=background)
    noun = ANY_SHAPE[0] if shape is None else SHAPE_WORDS[shape][0]
    subject = with_article(noun if colour is None else f"{COLOUR_WORDS[colour][0]} {noun}")
    return subject if background is None else f"{subject} {PLACES[background][0]}"


def local_prompt(motion: str, shape: str | None = None) -> str:
    """The canonical local prompt, "the ball rolls to the left"; "it grows" for an open shape."""
    _check(motion=motion, shape=shape)
    actor = "it" if shape is None else f"the {SHAPE_WORDS[shape][0]}"
    return f"{actor} {moves_of(motion, shape)[0][0]}"


def _check(**values: str | None) -> None:
    for name, value in values.items():
        if value is not None and value not in ATTRIBUTES[name]:
            raise InputError(f"{name} {value!r} is not one of {', '.join(ATTRIBUTES[name])}")
