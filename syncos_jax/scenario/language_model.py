"""Asks a language model at an OpenAI-compatible address to split a story."""

from __future__ import annotations

import json
import math
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from syncos_jax.errors import InputError
from syncos_jax.files.text import short
from syncos_jax.scenario.split import MAX_EVENTS, SECONDS, Story
from syncos_jax.scenario.variables import MAX_PROMPT

KEY = "SYNCOS_LLM_KEY"
"""The environment variable that holds the key, where the server requires one."""
MAX_BYTES = 1_000_000
TIMEOUT_SECONDS = 60.0

INSTRUCTION = """\
You prepare stories for a model that makes videos. It is shown the same "global" text for the whole
video, and beside it one "prompt" at a time, in order. It has no memory of earlier prompts.

Answer with one JSON object and nothing else:
{"global": "...", "events": [{"prompt": "...", "seconds": 2}, ...]}

- "global": who or what is seen, with the looks that must not change, and the place, light and
  style. Nothing that happens. One phrase of at most 25 words.
- each "prompt": one thing that can be seen happening, in the present tense, in at most 15 words.
  Name the subject each time as "global" names it; write no pronouns, no "then", no camera terms
  that the story does not have.
- keep the order of the story; leave out thoughts, dialogue and whatever cannot be seen.
- "seconds": how long it takes to see it, from 1 to 8.
- write in the language of the story.
"""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(frozen=True)
class ModelSplitter:
    """Splits stories by a language model.

    Attributes:
        url: of the API, as ``http://127.0.0.1:11434/v1``; ``/chat/completions`` is requested.
        model: its name there.
        timeout: seconds to wait.

    The key, if the server requires one, is read from the environment (`KEY`).
    """

    url: str
    model: str
    timeout: float = TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                argument="llm",
                expected="an address such as http://127.0.0.1:8000/v1",
                value=self.url,
            )

    def __call__(self, story: str, events: int | None = None) -> Story:
        """The story in parts; raises InputError where there is no usable answer."""
        wanted = f"Split it into {events} events.\n\n" if events else ""
        body = {
            "model": self.model,
            "temperature": 0,
            "messages": [
                {"role": "system", "content": INSTRUCTION},
                {"role": "user", "content": f"{wanted}The story:\n\n{story}"},
            ],
        }
        return read_answer(self._ask(body), self.url)

    def _ask(self, body: dict[str, Any]) -> str:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = os.environ.get(KEY)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers
        )
        opener = urllib.request.build_opener(_NoRedirects)
        try:
            with opener.open(request, timeout=self.timeout) as answer:
                raw = answer.read(MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            raise self._failed(f"answers {error.code} {error.reason}") from error
        except (OSError, ValueError) as error:  # no such host, refused, too slow
            reason = getattr(error, "reason", None) or error
            raise self._failed(f"cannot be reached ({reason})") from error
        if len(raw) > MAX_BYTES:
            raise self._failed("answers with more than a megabyte")
        try:
            text = json.loads(raw)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise self._failed("does not answer as OpenAI's API does") from error
        if not isinstance(text, str):
            raise self._failed("answers without text")
        return text

    def _failed(self, what: str) -> InputError:
        return InputError(
            f"the language model {what}",
            place=self.url,
            remedy=f"check the server and {KEY}, or split by rules",
        )


def read_answer(text: str, url: str = "") -> Story:
    """The story in a model's answer, whatever else it has written around it; raises InputError."""
    found = _first_object(text)
    events = found.get("events") if found else None
    shared = found.get("global") if found else None
    if not isinstance(shared, str) or not isinstance(events, list):
        raise InputError(
            f"the language model returned no list of events: {short(text)}",
            place=url or None,
            remedy="use another model, or split by rules",
        )
    parts = [part for event in events[:MAX_EVENTS] if (part := _event(event)) is not None]
    if not parts:
        raise InputError(
            "the language model found no events",
            place=url or None,
            remedy="add detail to the story, or split by rules",
        )
    return Story(" ".join(shared.split())[:MAX_PROMPT], tuple(parts), "model")


def _event(event: Any) -> tuple[str, float] | None:
    prompt = event.get("prompt") if isinstance(event, dict) else event
    if not isinstance(prompt, str) or not prompt.strip():
        return None
    seconds = event.get("seconds") if isinstance(event, dict) else None
    good = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    length = float(seconds) if good and math.isfinite(seconds) else SECONDS  # type: ignore[arg-type]
    return " ".join(prompt.split())[:MAX_PROMPT], min(max(length, 0.5), 60.0)


def _first_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in a text that has ``events``."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    for _ in range(100):
        if at < 0:
            return None
        try:
            found, _ = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and "events" in found:
            return found
        at = text.find("{", at + 1)
    return None
