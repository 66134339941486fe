"""The words of a prompt that the text encoder does not see."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import jax

from syncos_jax.scenario import Scenario

if TYPE_CHECKING:
    from syncos_jax.models.family import Model

_tokenizing = threading.Lock()


def lost_words(model: Model, scenario: Scenario) -> tuple[str | None, ...]:
    """Of each event, the words that the text encoder does not see; None where it sees them all.

    Raises InputError where two prompts are the same to it.
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
            with _warnings("syncos_jax.models") as found:
                read([text])
            said = found[0].args if found else None
            lost[text] = str(said[-1]) if isinstance(said, tuple) and said else None
    return tuple(lost[text] for text in scenario.prompts())


@contextmanager
def _warnings(name: str) -> Iterator[list[logging.LogRecord]]:
    """Collects what a logger and those below it warn of, in this thread."""
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
