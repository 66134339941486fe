"""English captions of scenes, and the canonical prompts of examples and evaluations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

import numpy as np

from syncos_jax.demo.world.scene import ATTRIBUTES, Scene, sample_scene
from syncos_jax.errors import InputError

T = TypeVar("T")

#: How often a caption leaves each attribute open.
OPEN_RATES = {"colour": 0.25, "background": 0.10, "shape": 0.10, "motion": 0.05}
STRUCTURED_RATE = 0.63  # of the captions that tell the motion: the form "{global}, {local}"
CANONICAL_RATE = 0.45  # each choice of words takes the first one at least this often

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
#: Sentences that are not of the structured form; {subject} has its article.
TEMPLATES = (
    "{subject} {does} {place}",
    "{subject} {doing} {place}",
    "{place}, {subject} {does}",
    "{place} {subject} is {doing}",
    "{subject} that {does} {place}",
    "{place}, {subject}, {doing}",
    "a video of {subject} {doing} {place}",
)


def _pick(rng: np.random.Generator, words: Sequence[T]) -> T:
    if rng.random() < CANONICAL_RATE:
        return words[0]
    return words[int(rng.integers(len(words)))]


def _moves(motion: str, shape: str | None) -> tuple[tuple[str, str], ...]:
    roll = (ROLLS[motion],) if shape == "ball" and motion in ROLLS else ()
    return roll + MOVES[motion]


def caption(scene: Scene, rng: np.random.Generator, leave_open: Collection[str] = ()) -> str:
    """Describe a scene in varied English.

    Args:
        scene: what the clip shows.
        rng: source of the choice of words, and of what is left open beyond ``leave_open``.
        leave_open: attributes (``colour``, ``shape``, ``background``, ``motion``) that the
            caption must not tell.

    Returns:
        A caption in lower case without a full stop. About 60 % are of the structured form
        ``"{global}, {local}"`` that the prompts of a long video have.
    """
    unknown = sorted(set(leave_open) - set(ATTRIBUTES))
    if unknown:
        raise InputError(f"{unknown[0]!r} is not one of {', '.join(ATTRIBUTES)}")
    told = {name: name not in leave_open and rng.random() >= rate
            for name, rate in OPEN_RATES.items()}  # fmt: skip
    noun = _pick(rng, SHAPE_WORDS[scene.shape] if told["shape"] else ANY_SHAPE)
    colour = _pick(rng, COLOUR_WORDS[scene.colour]) if told["colour"] else ""
    subject = _with_article(f"{colour} {noun}".strip())
    place = _pick(rng, PLACES[scene.background]) if told["background"] else ""
    if not told["motion"]:
        return f"{subject} {place}".strip()
    does, doing = _pick(rng, _moves(scene.motion, scene.shape if told["shape"] else None))
    if rng.random() < STRUCTURED_RATE:
        head = noun.split()[-1]
        actor = "it" if not told["shape"] and rng.random() < 0.5 else _pick(
            rng, (f"the {head}", "it")
        )  # fmt: skip
        return f"{subject} {place}".strip() + f", {actor} {does}"
    template = TEMPLATES[int(rng.integers(len(TEMPLATES)))]
    text = template.format(subject=subject, does=does, doing=doing, place=place)
    return text.strip().removeprefix(", ")


def _with_article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def global_prompt(
    shape: str | None, colour: str | None = None, background: str | None = None
) -> str:
    """The canonical global prompt: subject and place, "a red ball on a green meadow".

    ``None`` leaves an attribute open; an open shape is called "thing".
    """
    _check(shape=shape, colour=colour, background=background)
    noun = ANY_SHAPE[0] if shape is None else SHAPE_WORDS[shape][0]
    subject = _with_article(noun if colour is None else f"{COLOUR_WORDS[colour][0]} {noun}")
    return subject if background is None else f"{subject} {PLACES[background][0]}"


def local_prompt(motion: str, shape: str | None = None) -> str:
    """The canonical local prompt, "the ball rolls to the left"; "it grows" for an open shape."""
    _check(motion=motion, shape=shape)
    actor = "it" if shape is None else f"the {SHAPE_WORDS[shape][0]}"
    return f"{actor} {_moves(motion, shape)[0][0]}"


def _check(**values: str | None) -> None:
    for name, value in values.items():
        if value is not None and value not in ATTRIBUTES[name]:
            raise InputError(f"{name} {value!r} is not one of {', '.join(ATTRIBUTES[name])}")


def captions_corpus(n: int = 20_000, seed: int = 0) -> list[str]:
    """The distinct captions among ``n`` random ones, in order of appearance; deterministic."""
    rng = np.random.default_rng(seed)
    return list(dict.fromkeys(caption(sample_scene(rng), rng) for _ in range(n)))
