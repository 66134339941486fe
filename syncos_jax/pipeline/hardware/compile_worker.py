"""Subprocess of `compile_in_subprocess`: reads a JSON question, prints the report as JSON."""

from __future__ import annotations

import json
import sys

from syncos_jax.errors import InputError
from syncos_jax.pipeline.hardware.compile import report
from syncos_jax.pipeline.hardware.compile_client import ANSWER
from syncos_jax.pipeline.hardware.targets import parse
from syncos_jax.sampling.sampler_dict import sampler_from_dict
from syncos_jax.scenario import Scenario


def main() -> None:
    """Reads the question from standard input."""
    question = json.load(sys.stdin)
    sampler = question["sampler"]
    try:
        answer = report(
            parse(question["target"]),
            question["model"],
            Scenario.from_dict(question["scenario"]),
            dtype=question["dtype"],
            sampler=None if sampler is None else sampler_from_dict(sampler),
            weights_over=question["weights_over"],
            decode=question["decode"],
        ).to_dict()
    except InputError as error:
        answer = {"error": str(error)}
    except Exception as error:  # whatever JAX or a compiler raises, in one line
        why = " ".join(str(error).split())[:300]
        answer = {"error": f"{question['target']}: {type(error).__name__}: {why}"}
    print(ANSWER + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
