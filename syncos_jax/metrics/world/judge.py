"""Compares what the tracker reads off a video of the demo world with its prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.metrics.drift import repetition
from syncos_jax.metrics.world.attributes import ATTRIBUTES
from syncos_jax.metrics.world.tracker import Track, fidelity, read, track
from syncos_jax.metrics.world.words import COLOUR_WORDS, MOVES, PLACES, ROLLS, SHAPE_WORDS

LASTING = ("colour", "shape", "background")
"""Attributes that a frame has by itself, and that can therefore hold."""


@dataclass(frozen=True)
class Expected:
    """What one event should show; None leaves an attribute open.

    Attributes:
        start, stop: its frames, ``start .. stop-1``.
        motion, colour, shape, background: names of `syncos_jax.metrics.world`.
    """

    start: int
    stop: int
    motion: str | None = None
    colour: str | None = None
    shape: str | None = None
    background: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise InputError(f"an event of frames {self.start} to {self.stop} is empty")
        for name, allowed in ATTRIBUTES.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise InputError(f"{name} {value!r} is not one of {', '.join(allowed)}")

    @property
    def specified_attributes(self) -> dict[str, str]:
        """The attributes that are not None, and their values."""
        values = {name: getattr(self, name) for name in ATTRIBUTES}
        return {name: value for name, value in values.items() if value is not None}


def expected_from_prompt(local: str, overall: str = "") -> dict[str, str | None]:
    """The attributes of the world that a prompt names, by the words of its captions.

    Args:
        local: the event's prompt; it takes precedence.
        overall: the global prompt.

    Returns:
        ``motion, colour, shape, background``: a name, or None where the prompts do not specify it
        (or the first prompt that does names more than one).
    """
    found: dict[str, str | None] = {}
    for attribute, pattern in _patterns().items():
        found[attribute] = None
        for text in (local, overall):
            names = {name for name, words in pattern.items() if words.search(text.lower())}
            if names:
                found[attribute] = names.pop() if len(names) == 1 else None
                break
    return found


@lru_cache(maxsize=1)
def _patterns() -> dict[str, dict[str, re.Pattern[str]]]:
    moves = {
        motion: [word for pair in (*pairs, ROLLS.get(motion, ())) for word in pair]
        for motion, pairs in MOVES.items()
    }
    words: dict[str, Mapping[str, Sequence[str]]] = {
        "motion": moves,
        "colour": COLOUR_WORDS,
        "shape": SHAPE_WORDS,
        "background": PLACES,
    }
    return {
        attribute: {
            name: re.compile(rf"\b(?:{'|'.join(map(re.escape, options))})\b")
            for name, options in names.items()
        }
        for attribute, names in words.items()
    }


def majority_share(values: np.ndarray) -> float:
    """Share of frames with the most frequent value; unknown values (-1) never count.

    Args:
        values: int ``[F]``, an attribute of a `Track`.
    """
    known = values[values >= 0]
    return float(np.bincount(known, minlength=1).max() / len(values))


def judge_video(
    frames: np.ndarray, events: Sequence[Expected], found: Track | None = None
) -> dict[str, Any]:
    """Compare a video of the demo world with what it should show.

    Args:
        frames: uint8 ``[F, 64, 64, 3]``.
        events: in order; they cover the frames.
        found: the tracker's result, if there is one already.

    Returns:
        A mapping of plain values:

        * ``events``: of each ``start, stop, expected, seen, right, fidelity``; the last two have
          only the specified attributes.
        * ``right``: attribute -> share of the events that specify it and show it.
        * ``global_right``: the same over all attributes that every event specifies alike (the
          global prompt), ``local_right`` over all other specified ones, above all the motion. None
          if there are none.
        * ``fidelity``: ``global``, ``local`` and ``all`` together: the same by degrees, 0 to 1
          (see `syncos_jax.metrics.world.tracker.fidelity`).
        * ``held``: attribute -> share of frames with its most frequent value, for colour, shape
          and background where they are meant to stay. A frame without a visible subject has no
          colour and no shape.
        * ``coherence``: the mean of ``held``; None where everything is meant to change.
        * ``open_same``: attribute -> whether the last event shows the same as the first, for those
          that no event specifies; False where either shows none.
        * ``visible``: share of frames with a visible subject.
        * ``repetition``: of the subject's motion (`syncos_jax.metrics.drift.repetition`).

    Raises:
        InputError: the events do not cover the frames.
    """
    seen = track(frames) if found is None else found
    total = len(seen.visible)
    edges = [event.start for event in events] + [total]
    if not events or edges[0] != 0 or [event.stop for event in events] != edges[1:]:
        raise InputError(
            f"the events do not cover the video's {total} frames in order: "
            f"{', '.join(f'{event.start}-{event.stop}' for event in events) or 'there are none'}"
        )
    judged = [_judge_event(event, seen) for event in events]
    same = {
        name: getattr(events[0], name)
        for name in ATTRIBUTES
        if len({getattr(event, name) for event in events}) == 1
    }
    lasting = [name for name in LASTING if name in same]
    held = {name: majority_share(getattr(seen, name)) for name in lasting}
    fixed = {name for name, value in same.items() if value is not None and name != "motion"}
    everywhere = [(name, ok) for event in judged for name, ok in event["right"].items()]
    degrees = [(name, of) for event in judged for name, of in event["fidelity"].items()]
    first, last = judged[0]["seen"], judged[-1]["seen"]
    return {
        "events": judged,
        "right": {
            name: _share([ok for other, ok in everywhere if other == name])
            for name in ATTRIBUTES
            if any(other == name for other, _ in everywhere)
        },
        "global_right": _share([ok for name, ok in everywhere if name in fixed]),
        "local_right": _share([ok for name, ok in everywhere if name not in fixed]),
        "fidelity": {
            "global": _share([of for name, of in degrees if name in fixed]),
            "local": _share([of for name, of in degrees if name not in fixed]),
            "all": _share([of for _, of in degrees]),
        },
        "held": held,
        "coherence": _share(list(held.values())),
        "open_same": {
            name: first[name] is not None and first[name] == last[name]
            for name in lasting
            if same[name] is None
        },
        "visible": float(seen.visible.mean()),
        "repetition": repetition(
            np.stack([seen.x, seen.y, seen.size], axis=1), [event.start for event in events]
        ),
    }


def _judge_event(event: Expected, seen: Track) -> dict[str, Any]:
    shows = read(seen, event.start, event.stop)
    wanted = event.specified_attributes
    close = fidelity(seen, wanted, event.start, event.stop)
    return {
        "start": event.start,
        "stop": event.stop,
        "expected": wanted,
        "seen": shows,
        "right": {name: shows[name] == value for name, value in wanted.items()},
        "fidelity": {name: round(value, 4) for name, value in close.items()},
    }


def _share(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
