"""English captions of scenes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

import numpy as np

from demo_model.world.objects import PLACE_WORDS, SUBJECT_WORDS
from demo_model.world.scene import SMALL_SUBJECTS, Scene, Subjects, sample_scene
from syncos_jax.errors import InputError
from syncos_jax.metrics.world import ATTRIBUTES
from syncos_jax.metrics.world.words import (
    ANY_SHAPE,
    COLOUR_WORDS,
    moves_of,
    with_article,
)

T = TypeVar("T")

#: How often a caption leaves each attribute open.
OPEN_RATES = {"colour": 0.25, "background": 0.10, "shape": 0.10, "motion": 0.05}
STRUCTURED_RATE = 0.63  # of the captions that tell the motion: the form "{global}, {local}"
CANONICAL_RATE = 0.45  # each choice of words takes the first one at least this often
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
    named = {name: name not in leave_open and rng.random() >= rate
            for name, rate in OPEN_RATES.items()}  # fmt: skip
    noun = _pick(rng, SUBJECT_WORDS[scene.shape] if named["shape"] else ANY_SHAPE)
    colour = _pick(rng, COLOUR_WORDS[scene.colour]) if named["colour"] else ""
    subject = with_article(f"{colour} {noun}".strip())
    place = _pick(rng, PLACE_WORDS[scene.background]) if named["background"] else ""
    if not named["motion"]:
        return f"{subject} {place}".strip()
    does, doing = _pick(rng, moves_of(scene.motion, scene.shape if named["shape"] else None))
    if rng.random() < STRUCTURED_RATE:
        head = noun.split()[-1]
        actor = "it" if not named["shape"] and rng.random() < 0.5 else _pick(
            rng, (f"the {head}", "it")
        )  # fmt: skip
        return f"{subject} {place}".strip() + f", {actor} {does}"
    template = TEMPLATES[int(rng.integers(len(TEMPLATES)))]
    text = template.format(subject=subject, does=does, doing=doing, place=place)
    return text.strip().removeprefix(", ")


def still_prompt(shape: str, colour: str | None, background: str) -> str:
    """The canonical global prompt of a shape or an object: "a red cat on a green meadow"."""
    noun = SUBJECT_WORDS[shape][0]
    subject = with_article(noun if colour is None else f"{COLOUR_WORDS[colour][0]} {noun}")
    return f"{subject} {PLACE_WORDS[background][0]}"


def motion_prompt(motion: str, shape: str) -> str:
    """The canonical local prompt of a shape or an object: "the cat rises"."""
    return f"the {SUBJECT_WORDS[shape][0]} {moves_of(motion, shape)[0][0]}"


def prompt(scene: Scene) -> str:
    """The structured prompt that names all of a scene."""
    subject = still_prompt(scene.shape, scene.colour, scene.background)
    return f"{subject}, {motion_prompt(scene.motion, scene.shape)}"


def captions_corpus(
    n: int = 20_000, seed: int = 0, subjects: Subjects = SMALL_SUBJECTS
) -> list[str]:
    """The distinct captions among ``n`` random ones, in order of appearance; deterministic."""
    rng = np.random.default_rng(seed)
    return list(dict.fromkeys(caption(sample_scene(rng, subjects), rng) for _ in range(n)))
