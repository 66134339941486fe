"""A story in parts: what is the same all through (the global prompt), and what happens (events).

Rules do it offline; a language model at an OpenAI-compatible address does it better. The idea of
having a model write the structured prompt is the paper's (arXiv 2503.08605, Fig. 8); the
instruction is our own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from syncos_jax.errors import InputError
from syncos_jax.scenario.variables import MAX_PROMPT

MAX_STORY = 20_000
MAX_EVENTS = 64
SECONDS = 2.0
"""Of an event whose length nobody gave."""

_SENTENCE = re.compile(r"(?<=[.!?;])[\"'”’)]*\s+|(?<=[。！？])|\n+")
_THEN = re.compile(
    r"\s*(?:,|;)?\s*\b(?:and then|and finally|and after that|after which|and afterwards|then)\b"
    r",?\s+"
    r"|、?(?:そして|それから|その後|次に|最後に)、?",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"^(?:first|firstly|at first|to begin with|next|then|now|later|suddenly|soon|meanwhile|finally|"
    r"at last|at the end|in the end|after that|afterwards|after a while|once more)\b,?\s+"
    r"|^(?:最初に|まず|次に|それから|そして|その後|やがて|最後に)、?",
    re.IGNORECASE,
)
_STATE = re.compile(
    r"^(?:there (?:is|are|was|were)\s+)?"
    r"(?P<subject>(?:(?:a|an|the|one|two|three|some|our|my)\s+)?[\w' -]+?)"
    r"\s+(?:is|are|was|were|lies|lie|sits|sit|stands|stand|rests|waits|lives|lay|sat|stood)"
    r"\s+(?P<place>(?:in|on|at|by|near|under|over|inside|beside|behind|above|below)\b.*)$",
    re.IGNORECASE,
)
_THERE = re.compile(r"^there (?:is|are|was|were)\s+(?P<all>.+)$", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:a|an|one|the)\s+", re.IGNORECASE)
_PRONOUN = re.compile(r"^(?:it|he|she|they)\b(?!')", re.IGNORECASE)
_NOUN_PHRASE = re.compile(
    r"^(?:a|an|the)\s+(?:[\w'-]+\s+){0,4}?[\w'-]+?(?=\s+(?:[\w'-]+(?:s|ed))\b)", re.IGNORECASE
)
_PLACE = re.compile(
    r"\b(?:in|on|at|over|under|across|along|through|beside|near)\s+(?:a|an|the)\s+[\w' -]+$",
    re.IGNORECASE,
)
_END = " \t\n.,;:!?。、！？"


@dataclass(frozen=True)
class Story:
    """A story in parts.

    Attributes:
        global_prompt: what is the same all through.
        events: (local prompt, seconds) of each event, in order.
        by: what split it.
    """

    global_prompt: str
    events: tuple[tuple[str, float], ...]
    by: Literal["rules", "model"]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        events = [{"prompt": prompt, "seconds": seconds} for prompt, seconds in self.events]
        return {"global": self.global_prompt, "events": events, "by": self.by}

    def scenario(self) -> dict[str, Any]:
        """The mapping that a scenario file holds."""
        return {key: value for key, value in self.to_dict().items() if key != "by"}


def split_story(
    story: str,
    events: int | None = None,
    model: Callable[[str, int | None], Story] | None = None,
) -> Story:
    """Splits a story into a global prompt and events.

    Args:
        story: 1 to 20000 characters.
        events: how many; None for as many as the story has.
        model: `syncos_jax.scenario.language_model.ModelSplitter`; None for rules.

    Raises InputError where there is nothing to split, or the model gives no answer.
    """
    text = story.strip()
    if not text:
        raise InputError("is empty", argument="story", remedy="write what happens")
    if len(text) > MAX_STORY:
        raise InputError(
            f"has {len(text)} characters", argument="story", expected=f"at most {MAX_STORY}"
        )
    if events is not None and not 1 <= events <= MAX_EVENTS:
        raise InputError(argument="events", expected=f"from 1 to {MAX_EVENTS}", value=events)
    return model(text, events) if model is not None else by_rules(text, events)


def by_rules(story: str, events: int | None = None) -> Story:
    """Sentences, and what "then" parts, are events; an opening that says what there is, is the
    global prompt. Arguments and errors as `split_story`."""
    clauses: list[str] = []
    going_on: set[str] = set()  # those that a sentence goes on with: "... and then drinks"
    for sentence in _SENTENCE.split(story):
        parts = [part for piece in _THEN.split(sentence) if (part := _clean(piece))]
        clauses += parts
        going_on.update(parts[1:])
    if not clauses:
        raise InputError("has no words", argument="story", remedy="write what happens")
    shared, subject, clauses = _opening(clauses)
    named = [_named(clause, subject, clause in going_on) for clause in clauses]
    wanted = min(events or len(named), MAX_EVENTS)
    prompts = _merged(named, wanted) if wanted < len(named) else named
    return Story(shared[:MAX_PROMPT], tuple((p[:MAX_PROMPT], SECONDS) for p in prompts), "rules")


def _clean(text: str) -> str:
    text = " ".join(text.split()).strip(_END + "\"'“”‘’")
    previous = None
    while previous != text:  # "And then, suddenly, ..."
        previous, text = text, _LEAD.sub("", text)
    return re.sub(r"^and\s+", "", text, flags=re.IGNORECASE)


def _opening(clauses: list[str]) -> tuple[str, str, list[str]]:
    """The global prompt, its subject, and the clauses that are events."""
    first, rest = clauses[0], clauses[1:]
    state = _STATE.match(first)
    there = _THERE.match(first)
    if rest and (state or there):
        if state:
            subject = _lower(_THERE.sub(r"\g<all>", state["subject"]))
            return f"{subject} {state['place']}", _bare(subject), rest
        assert there is not None
        thing = _lower(there["all"])
        return thing, _bare(re.split(r"\s+(?:in|on|at|by|near|under)\s+", thing)[0]), rest
    noun = _NOUN_PHRASE.match(first)
    if noun is None:
        return first, "", clauses
    subject, place = _lower(noun[0]), _PLACE.search(first)
    return f"{subject} {place[0]}" if place else subject, _bare(subject), clauses


def _lower(text: str) -> str:
    """With a small first letter, but for what begins with two capitals."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _bare(subject: str) -> str:
    return _ARTICLE.sub("", subject)


def _named(clause: str, subject: str, goes_on: bool) -> str:
    """A clause that begins with a pronoun, or goes on with a verb, says who does it."""
    if subject and _PRONOUN.match(clause):
        clause = _PRONOUN.sub(f"the {subject}", clause, count=1)
    elif subject and goes_on and re.match(r"^(?!its\b|his\b|this\b)[a-z]+s(?:\s|$)", clause):
        clause = f"the {subject} {clause}"
    return _lower(clause)


def _merged(clauses: list[str], count: int) -> list[str]:
    """As many as `count`, neighbours joined, each about as many of them."""
    edges = [round(index * len(clauses) / count) for index in range(count + 1)]
    return [", ".join(clauses[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
