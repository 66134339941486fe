"""A whole experiment: run it, and write what it found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiment.methods import Method, choose
from experiment.runner import Task
from experiment.suite import KINDS, SUBSET, Case, load_suite
from experiment.tables import summarise, to_markdown
from syncos_jax.errors import Argument, InputError
from syncos_jax.files import replacing
from syncos_jax.files.text import did_you_mean
from syncos_jax.pipeline import Pipeline
from syncos_jax.pipeline.versions import device_of, versions

SUBSET_SEEDS = 2
SUBSET_STEPS = 25
SEEDS = 3


def choose_cases(names: Sequence[str] | None, subset: bool) -> list[Case]:
    """Scenarios of the suite by id or kind, the subset, or all 58.

    Raises InputError for a name that is neither, and where both are asked for.
    """
    suite = load_suite()
    if subset:
        if names is not None:
            raise InputError(
                (Argument("subset"), " and ", Argument("names"), " cannot be combined"),
                remedy="pass one of them",
            )
        return [suite[name] for name in SUBSET]
    if names is None:
        return list(suite.values())
    wanted: list[str] = []
    for name in names:
        wanted += [c.id for c in suite.values() if c.kind == name] if name in KINDS else [name]
    for name in wanted:
        if name not in suite:
            close = did_you_mean(name, [*KINDS, *suite])
            kinds = f"kinds are {', '.join(KINDS)}, each with numbers (open-00)"
            raise InputError(f"no scenario {name!r}{close if 'mean' in close else f'; {kinds}'}")
    return choose(wanted, suite, "scenario")


def of_lengths(cases: Sequence[Case], text: str | None) -> list[Case]:
    """Each scenario in the lengths, in clips, that ``5,10,20`` says; as they are for None.

    Raises InputError for anything but positive integers, and for scenarios of a fixed length.
    """
    if text is None:
        return list(cases)
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not _positive(part)]
    if wrong:
        raise InputError(f"lengths {text!r}: {wrong[0]!r} is not a positive integer; give 5,10,20")
    clips = [int(part) for part in parts]
    return [case.lengthened(count) for count in dict.fromkeys(clips) for case in cases]


def seeds_by_method(text: str, methods: Sequence[str], first: int = 0) -> dict[str, range]:
    """What ``2`` or ``2,syncos=4`` says: two seeds of every method, and four of ``syncos``.

    Args:
        text: a number for all methods, and after it numbers for some.
        methods: the names of all.
        first: the first seed of each.

    Raises InputError for anything but positive integers, and for unknown methods.
    """
    common, *others = (part.strip() for part in text.split(","))
    counts = dict.fromkeys(methods, _seed_count(common, text))
    for part in others:
        name, _, count = part.partition("=")
        if name not in counts:
            close = did_you_mean(name, list(counts))
            raise InputError(f"seeds {text!r}: {name!r} is none of the methods{close}")
        counts[name] = _seed_count(count, text)
    return {name: range(first, first + count) for name, count in counts.items()}


def _seed_count(text: str, whole: str) -> int:
    if not _positive(text):
        raise InputError(
            f"seeds {whole!r}: {text!r} is not a positive integer; give one for all methods, and "
            "after it those of some: 2,syncos=4"
        )
    return int(text)


def _positive(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) > 0


def read_pairs(text: str | None, methods: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of methods to compare.

    Args:
        text: ``A:B,C:D``, or None.
        methods: of the experiment.

    Raises:
        InputError: not a pair, or not two of the methods.
    """
    pairs = []
    for part in [] if text is None else text.split(","):
        first, _, second = (word.strip() for word in part.partition(":"))
        if not first or not second or first == second:
            raise InputError(f"pairs {text!r}: {part!r} is not a pair of methods; give A:B,C:D")
        for name in (first, second):
            if name not in methods:
                close = did_you_mean(name, list(methods))
                raise InputError(f"pairs {text!r}: {name!r} is none of the methods{close}")
        pairs.append((first, second))
    return pairs


def with_common(methods: Sequence[Method], model: Any, **values: Any) -> list[Method]:
    """The methods with the model's steps and guidance where neither `values` nor they say any."""
    given = [method.with_common(**values) for method in methods]
    own = model.steps, model.guidance
    return [dataclasses.replace(m, settings=m.settings.resolved(*own)) for m in given]


def about(pipeline: Pipeline, tasks: Sequence[Task], command: str) -> dict[str, Any]:
    """What an experiment was run on and with; stands in ``results.json`` and above the tables."""
    config = getattr(pipeline.model, "config", None)
    return {
        "command": command,
        "model": pipeline.model.name,
        "weights": tasks[0].key["weights"][:16],
        "training": dict(getattr(config, "notes", {}) or {}).get("training", {}),
        "device": device_of(pipeline.placement),
        "dtype": pipeline.model.dtype,
        "scenarios": list(dict.fromkeys(task.case.id for task in tasks)),
        "seeds": sorted({task.seed for task in tasks}),
        "steps": sorted({task.method.settings.steps for task in tasks}),
        "guidance": sorted({task.method.settings.guidance for task in tasks}),
        "versions": {**versions(), "scipy": version("scipy")},
    }


def write_results(
    out: Path,
    tasks: Sequence[Task],
    records: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    plots: bool = True,
    pairs: Sequence[tuple[str, str]] = (),
) -> list[Path]:
    """Writes ``results.json``, ``tables.md`` and the plots; returns their paths.

    Args:
        out: the experiment's folder.
        tasks: of the experiment.
        records: of those that are finished, at least one.
        facts: from `about`.
        plots: whether to draw.
        pairs: of methods whose difference is asked for; see `read_pairs`.
    """
    summary = summarise(records, facts, len(tasks), pairs)
    names: list[str] = []
    if plots:
        from experiment.plots import draw

        names = draw(summary, records, out)
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    for name, content in (("results.json", text), ("tables.md", to_markdown(summary, names))):
        with replacing(out / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return [out / name for name in ("tables.md", "results.json", *names)]
