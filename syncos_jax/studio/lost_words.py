"""The words of a prompt that the text encoder does not see."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import jax

from syncos_jax.scenario import Scenario

if TYPE_CHECKING:
    from syncos_jax.models.family import Model

_tokenizing = threading.Lock()


def lost_words(model: Model, scenario: Scenario) -> tuple[str | None, ...]:
    """Per event, the words of its prompt beyond the text encoder's limit; None if there are none.

    Raises:
        InputError: the text encoder cannot tell two prompts apart.
    """
    texts = [*scenario.prompts(), *scenario.negatives()]
    texts += [scenario.text(override.prompt) for override in scenario.overrides]
    unique = list(dict.fromkeys(texts))
    tokenize = getattr(model, "tokenizer", None)

    def read(prompts: list[str]) -> None:
        if tokenize is not None:
            tokenize(prompts)
        else:
            jax.eval_shape(lambda: model.encode_prompts(prompts))

    with _tokenizing:
        read(unique)
        lost: dict[str, str | None] = {}
        for text in unique[: len(set(scenario.prompts()))]:
            lost[text] = _cut_words(text, read)
    return tuple(lost[text] for text in scenario.prompts())


def _cut_words(text: str, read: Callable[[list[str]], None]) -> str | None:
    """The whole words of a text from the first that does not fit; None if all fit."""
    words = text.split()

    def fits(count: int) -> bool:
        with _warnings("syncos_jax.models") as found:
            read([" ".join(words[:count])])
        return not found

    if fits(len(words)):
        return None
    least, most = 0, len(words)  # `least` words fit, `most` do not
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return " ".join(words[least:])


@contextmanager
def _warnings(name: str) -> Iterator[list[logging.LogRecord]]:
    """Collect the warnings of a logger and those below it, in this thread."""
    records: list[logging.LogRecord] = []
    thread = threading.get_ident()

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                records.append(record)

    handler = Collect()
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
