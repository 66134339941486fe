"""The suite: 58 scenarios of the demo world, 48 of them in the kinds of the paper's own 48.

``suite.jsonl`` holds what `make_suite` makes: ``python benchmarks/experiment/suite.py`` writes it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.metrics.world import (
    BACKGROUNDS,
    CLIP_FRAMES,
    COLOURS,
    MOTIONS,
    OPPOSITE,
    SHAPES,
    global_prompt,
    local_prompt,
)
from syncos_jax.metrics.world.judge import Expected
from syncos_jax.metrics.world.words import COLOUR_WORDS, PLACES, SHAPE_WORDS
from syncos_jax.scenario import Scenario

FILE = Path(__file__).with_name("suite.jsonl")

KINDS = {
    "motion": 12,  # everything specified; only the motion changes from event to event
    "background": 8,  # each event names a place of its own
    "colour": 6,  # each event names a colour of its own
    "size": 4,  # grows and shrinks in turn
    "open": 10,  # the global prompt leaves the colour, and every other time the shape, open
    "long": 8,  # 8 times the clip and, every fourth, 16 times; the colour is left open
    "bare": 10,  # the global prompt tells the shape alone: colour and place are left open
}
"""Kind -> how many scenarios of it."""

ENDLESS = ("motion", "open", "long", "bare")
"""Kinds that can be of any length: only the motion changes."""

SUBSET = ("motion-02", "background-00", "colour-01", "size-00", "open-00", "open-03")
"""For a first look: one of each kind that is 32 frames long, two with open attributes."""


@dataclass(frozen=True)
class Case:
    """One scenario of the suite.

    Attributes:
        id: kind and number, such as ``"open-03"``.
        kind: of `KINDS`.
        scenario: what is handed to the sampler, structured; ``unstructured`` is the ablation's.
        expected: what each event should show.
    """

    id: str
    kind: str
    scenario: Scenario
    expected: tuple[Expected, ...]

    @property
    def unstructured(self) -> Scenario:
        """The same with every window conditioned on its local prompt alone."""
        return self.scenario.model_copy(update={"structured": False})

    @property
    def frames(self) -> int:
        """Frames of the video."""
        return self.expected[-1].stop

    def to_dict(self) -> dict[str, Any]:
        """As a line of the suite's file."""
        return {
            "id": self.id,
            "kind": self.kind,
            "scenario": self.scenario.to_dict(),
            "expected": [event.specified_attributes for event in self.expected],
        }

    def lengthened(self, clips: int) -> Case:
        """The same subject and place for so many clips, each with a motion of its own.

        Raises InputError for kinds whose events name colours, places or sizes.
        """
        if self.kind not in ENDLESS:
            raise InputError(
                f"{self.id}: {self.kind} has no more events; lengths are for {', '.join(ENDLESS)}"
            )
        case = _case(self.kind, int(self.id.rpartition("-")[2]), clips)
        return dataclasses.replace(case, id=f"{self.id}x{clips}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Case:
        """The inverse of `to_dict`; InputError where it does not fit together."""
        scenario = Scenario.from_dict(values["scenario"])
        lengths = [event.frames or 0 for event in scenario.events]
        if len(lengths) != len(values["expected"]) or 0 in lengths:
            raise InputError(f"{values['id']}: each event needs frames and what to expect")
        stops = np.cumsum(lengths).tolist()
        starts = [0, *stops[:-1]]
        expected = tuple(
            Expected(start, stop, **attributes)
            for start, stop, attributes in zip(starts, stops, values["expected"], strict=True)
        )
        return cls(values["id"], values["kind"], scenario, expected)


def load_suite() -> dict[str, Case]:
    """The suite of ``suite.jsonl``, by id, in its order."""
    text = FILE.read_text(encoding="utf-8")
    cases = [Case.from_dict(json.loads(line)) for line in text.splitlines()]
    return {case.id: case for case in cases}


def make_suite() -> list[Case]:
    """The suite again; always the same."""
    return [_case(kind, number) for kind, count in KINDS.items() for number in range(count)]


def to_jsonl(cases: Sequence[Case]) -> str:
    """The suite's file."""
    return "".join(json.dumps(case.to_dict(), ensure_ascii=False) + "\n" for case in cases)


def _case(kind: str, number: int, clips: int | None = None) -> Case:
    rng = np.random.default_rng([20250308, list(KINDS).index(kind), number])
    subject: dict[str, str | None] = {
        "shape": SHAPES[number % len(SHAPES)],
        "colour": str(rng.choice(list(COLOURS))),
        "background": str(rng.choice(BACKGROUNDS)),
    }
    events = clips or (4 if kind != "long" else 16 if number % 4 == 3 else 8)
    motions = ["grow", "shrink"] * 2 if kind == "size" else _motions(rng, events)
    if kind == "size" and number % 2:
        motions.reverse()
    changes: list[dict[str, str]] = [{} for _ in motions]
    if kind in ("background", "colour"):
        values = list(PLACES if kind == "background" else COLOUR_WORDS)
        picked = rng.permutation(values)[:events]
        subject[kind] = None
        changes = [{kind: str(value)} for value in picked]
    elif kind in ("open", "long"):
        subject["colour"] = None
        if kind == "open" and number % 2:
            subject["shape"] = None
    elif kind == "bare":
        subject["colour"] = subject["background"] = None
    overall = global_prompt(subject["shape"], subject["colour"], subject["background"])
    shared = {name: value for name, value in subject.items() if value is not None}
    prompts = [
        _local(motion, subject["shape"], change)
        for motion, change in zip(motions, changes, strict=True)
    ]
    return Case.from_dict(
        {
            "id": f"{kind}-{number:02d}",
            "kind": kind,
            "scenario": {
                "global": overall,
                "events": [{"prompt": prompt, "frames": CLIP_FRAMES} for prompt in prompts],
            },
            "expected": [
                {**shared, **change, "motion": motion}
                for motion, change in zip(motions, changes, strict=True)
            ],
        }
    )


def _motions(rng: np.random.Generator, count: int) -> list[str]:
    """No motion twice running, and none a second time before its opposite has undone it, so that
    the subject stays in the picture."""
    chosen: list[str] = []
    for _ in range(count):
        due = {
            motion for motion in MOTIONS if chosen.count(motion) > chosen.count(OPPOSITE[motion])
        }
        free = [m for m in MOTIONS if m not in due and m not in chosen[-1:]]
        chosen.append(str(rng.choice(free)))
    return chosen


def _local(motion: str, shape: str | None, change: dict[str, str]) -> str:
    prompt = local_prompt(motion, shape)
    if "background" in change:
        return f"{PLACES[change['background']][0]}, {prompt}"
    if "colour" in change:
        assert shape is not None
        noun = SHAPE_WORDS[shape][0]
        return prompt.replace(noun, f"{COLOUR_WORDS[change['colour']][0]} {noun}", 1)
    return prompt


def main() -> None:
    """Write the file."""
    FILE.write_text(to_jsonl(make_suite()), encoding="utf-8")
    print(f"{FILE}: {sum(KINDS.values())} scenarios")


if __name__ == "__main__":
    main()
