"""What an experiment found: ``results.json`` and ``tables.md``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiment.intervals import (
    FAILS,
    FEW,
    FEWEST,
    HOLDS,
    NOTHING,
    OPEN,
    Estimate,
    difference,
    estimate,
    share_of_gain,
)
from experiment.paper import COLUMNS, TABLES, compare
from experiment.seeds import collect, diversity_of_seeds, entropy_of_choices
from syncos_jax.metrics.catalogue import METRICS

BASELINE = "co_denoising"
FULL = "syncos"
GAINS = ("coherence", "open_same")

MAIN = (
    "coherence",
    "open_same",
    "subject_consistency",
    "background_consistency",
    "movement",
    "scenes",
    "motion_right",
    "global_fidelity",
    "local_fidelity",
    "visible",
)
"""Measures of the first table; ``results.json`` has all."""

OVER_TIME = (
    "identity",
    "colour_held",
    "colour_drift",
    "chroma_drift",
    "contrast_drift",
    "seam_visibility",
    "repetition",
)
"""Measures of what changes the longer a video is."""


def summarise(
    records: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
    wanted: int,
    pairs: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Everything that the tables and plots show, as plain values.

    Args:
        records: of the finished videos.
        about: what the experiment was run on and with (command, device, versions, model).
        wanted: how many videos it consists of.
        pairs: of methods whose difference is asked for.

    Returns:
        ``about``, ``videos`` (wanted and finished), ``methods`` (each with its sampler, cost,
        failures, and for each measure the mean with its interval, over all and by kind of
        scenario), ``gains`` over co-denoising, ``pairs`` (the first less the second, by measure),
        and ``paper`` (each comparison).
    """
    values = collect(records)
    shared = _of_shared_seeds(records)
    seeds, choices = diversity_of_seeds(shared), entropy_of_choices(shared)
    names = list(dict.fromkeys(record["method"] for record in records))
    kinds = list(dict.fromkeys(record["kind"] for record in records))
    kind_of = {record["scenario"]: record["kind"] for record in records}
    methods = {}
    for name in names:
        own = [record for record in records if record["method"] == name]
        measures = {m: _estimate(values[m][name].values()) for m in METRICS}
        by_kind = {
            kind: {
                m: _estimate(v for key, v in values[m][name].items() if kind_of[key[0]] == kind)
                for m in METRICS
            }
            for kind in kinds
        }
        warm = [record["seconds"] for record in own if not record["compiled"]]
        methods[name] = {
            "sampler": own[0]["key"]["sampler"],
            "structured": own[0]["key"]["structured"],
            "videos": len(own),
            "failed": sum(record["failed"] is not None for record in own),
            "failures": dict(Counter(r["failed"] for r in own if r["failed"])),
            "clips": _estimate([record["clips"] for record in own]),
            "relative_cost": _relative_cost(records, name),
            "median_seconds": float(np.median(warm)) if warm else None,
            "diversity_of_seeds": _estimate(seeds.get(name, {}).values()),
            "entropy_of_choices": _estimate(choices.get(name, {}).values()),
            "measures": measures,
            "by_kind": by_kind,
            "by_length": _by_length(own),
        }
    return {
        "format": "syncos_jax.experiment",
        "version": 2,
        "about": dict(about),
        "videos": {"wanted": wanted, "finished": len(records)},
        "methods": methods,
        "gains": {m: _of_gains(values[m]) for m in GAINS},
        "pairs": [_of_pair(values, *pair) for pair in pairs],
        "paper": [comparison.to_dict() for comparison in compare(values)],
    }


def _by_length(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Frames -> measures of `OVER_TIME`, of one method's videos."""
    measured = [record for record in records if record["report"] is not None]
    found = {}
    for frames in sorted({record["report"]["frames"] for record in measured}):
        own = [r["measures"] for r in measured if r["report"]["frames"] == frames]
        found[str(frames)] = {m: _estimate(each.get(m) for each in own) for m in OVER_TIME}
    return found


def _of_shared_seeds(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records of the seeds that every method has: diversity grows with their number."""
    by_method: dict[str, set[int]] = {}
    for record in records:
        by_method.setdefault(record["method"], set()).add(record["seed"])
    shared = set.intersection(*by_method.values()) if by_method else set()
    return [record for record in records if record["seed"] in shared]


def _of_gains(values: Mapping[str, Mapping[Any, float | None]]) -> dict[str, Any]:
    """Each method's gain over co-denoising, and how much that is of SynCoS's."""
    base, full = values.get(BASELINE), values.get(FULL)
    found: dict[str, Any] = {}
    for name, own in values.items():
        gain = difference(own, base) if base and name != BASELINE else None
        share = share_of_gain(base, own, full) if base and full else None
        if gain is not None:
            found[name] = {"gain": gain.to_dict(), "share": share.to_dict() if share else None}
    return found


def _of_pair(values: Mapping[str, Any], first: str, second: str) -> dict[str, Any]:
    """Each measure of one method less that of another, over the videos that both have."""
    of = {m: difference(v.get(first, {}), v.get(second, {})) for m, v in values.items()}
    found = {m: apart.to_dict() for m, apart in of.items() if apart is not None}
    return {"first": first, "second": second, "measures": found}


def _estimate(values: Any) -> dict[str, Any] | None:
    found = estimate([value for value in values if value is not None])
    return found.to_dict() if found else None


def _relative_cost(records: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Clips predicted, over those of co-denoising for the same videos."""
    base = {(r["scenario"], r["seed"]): r["clips"] for r in records if r["method"] == BASELINE}
    own = {(r["scenario"], r["seed"]): r["clips"] for r in records if r["method"] == name}
    both = [key for key in own if key in base]
    return sum(own[key] for key in both) / sum(base[key] for key in both) if both else None


def to_markdown(summary: Mapping[str, Any], plots: Sequence[str] = ()) -> str:
    """``tables.md``."""
    methods, videos = summary["methods"], summary["videos"]
    parts = ["# Methods on the suite of scenarios", _about(summary)]
    if videos["finished"] < videos["wanted"]:
        parts.append(
            f"**Not complete: {videos['finished']} of {videos['wanted']} videos.** The same "
            "command resumes."
        )
    parts.append("## Methods")
    parts.append(
        "Means with 95 % bootstrap intervals over videos (scenario and seed). Cost is clips "
        "predicted by the network, over co-denoising's."
    )
    header = ["method", "videos", "cost", "s a video", *(METRICS[m].title for m in MAIN)]
    rows = [
        [
            f"`{name}`",
            _videos(of),
            _number(of["relative_cost"]),
            _number(of["median_seconds"], 1),
            *(_interval(of["measures"][m]) for m in MAIN),
        ]
        for name, of in methods.items()
    ]
    parts.append(_table(header, rows))
    parts.append("\n".join(f"* {METRICS[m].title}: {METRICS[m].says}." for m in MAIN))
    parts += _gains(summary["gains"])
    parts += _pairs(summary["pairs"])
    parts += _over_time(methods)
    parts += _by_kind(methods)
    parts += _diversity(methods)
    parts += _paper(summary["paper"], methods)
    failures = [
        f"* `{name}`: {count} times: {text}"
        for name, of in methods.items()
        for text, count in of["failures"].items()
    ]
    if failures:
        parts += ["## Videos that failed", "\n".join(failures)]
    parts += [f"![{name}]({name})" for name in plots]
    return "\n\n".join(parts) + "\n"


def _about(summary: Mapping[str, Any]) -> str:
    about = summary["about"]
    lines = [f"```bash\n{about['command']}\n```", ""]
    lines += [
        f"* {name}: {_plain(value)}" for name, value in about.items() if name not in ("command",)
    ]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items()) or "nothing"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _by_kind(methods: Mapping[str, Any]) -> list[str]:
    kinds = list(next(iter(methods.values()))["by_kind"]) if methods else []
    if len(kinds) < 2:
        return []
    rows = [
        [f"`{name}`", *(_interval(of["by_kind"][kind]["coherence"]) for kind in kinds)]
        for name, of in methods.items()
    ]
    return ["## Coherence by kind of scenario", _table(["method", *kinds], rows)]


def _over_time(methods: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            frames,
            f"`{name}`",
            str(_videos_of(measures)),
            *(_interval(measures[m]) for m in OVER_TIME),
        ]
        for frames in sorted({f for of in methods.values() for f in of["by_length"]}, key=int)
        for name, of in methods.items()
        if (measures := of["by_length"].get(frames)) is not None
    ]
    if not rows:
        return []
    return [
        "## Over time",
        "The same by the length of the video, in frames.",
        _table(["frames", "method", "videos", *(METRICS[m].title for m in OVER_TIME)], rows),
        "\n".join(f"* {METRICS[m].title}: {METRICS[m].says}." for m in OVER_TIME),
    ]


def _videos_of(measures: Mapping[str, Any]) -> int:
    """Videos behind a row: the most that any measure has."""
    return max((of["count"] for of in measures.values() if of is not None), default=0)


def _gains(gains: Mapping[str, Any]) -> list[str]:
    names = list(next(iter(gains.values())))
    if not names:
        return []
    rows = [
        [f"`{name}`"]
        + [
            _interval(gains[m].get(name, {}).get(key), sign=key == "gain")
            for m in GAINS
            for key in ("gain", "share")
        ]
        for name in names
    ]
    header = ["method"]
    for m in GAINS:
        header += [METRICS[m].title, f"share of `{FULL}`'s"]
    return [
        "## Gains over co-denoising",
        "Differences over pairs of videos with the same scenario and seed, and the share that they "
        f"are of the gain of `{FULL}`.",
        _table(header, rows),
    ]


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    if not pairs:
        return []
    rows = [
        [
            f"`{pair['first']}` less `{pair['second']}`",
            *(_interval(pair["measures"].get(m), sign=True) for m in MAIN),
        ]
        for pair in pairs
    ]
    return [
        "## Pairs of methods",
        "Differences over pairs of videos with the same scenario and seed.",
        _table(["methods", *(METRICS[m].title for m in MAIN)], rows),
    ]


def _diversity(methods: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            f"`{name}`",
            _interval(of["diversity_of_seeds"]),
            _interval(of["entropy_of_choices"]),
            _interval(of["measures"]["diversity_events"]),
        ]
        for name, of in methods.items()
    ]
    return [
        "## Diversity",
        "How different videos of the same scenario and different seeds are, and the events of one "
        "video: 1 - mean cosine of the mean pixels. Choices: how evenly the seeds of a scenario "
        "choose what its prompts leave open, the entropy as a share of the most that so many "
        "seeds can have. The first two columns are of the seeds that all methods have; the unit of "
        "their intervals is the scenario.",
        _table(["method", "of seeds", "choices", "of events"], rows),
    ]


def _paper(comparisons: Sequence[Mapping[str, Any]], methods: Mapping[str, Any]) -> list[str]:
    shown = [c for c in comparisons if c["first"] in methods and c["second"] in methods]
    if not shown:
        return []
    parts = [
        "## The paper's order of methods, and ours",
        "A row is a pair of methods and a measure of the paper's tables. "
        f"*{HOLDS}*: our difference has the paper's sign and its interval leaves 0 out; "
        f"*{FAILS}*: the other sign, and 0 left out; "
        f"*{OPEN}*: 0 is in it, so these videos cannot tell; "
        f"*{FEW}*: fewer than {FEWEST} pairs. Differences are over pairs of "
        "videos with the same scenario and seed. The measures are not the paper's own:",
        "\n".join(
            f"* {column.name} ({name}): {column.note}"
            + ("; not measured here" if column.measure is None else "")
            for name, column in COLUMNS.items()
        ),
    ]
    counts = Counter(c["result"] for c in shown)
    words = (HOLDS, OPEN, FAILS, FEW, NOTHING)
    parts.append(", ".join(f"{word}: {counts[word]}" for word in words if counts[word]) + ".")
    for table in TABLES:
        rows = [
            [
                f"`{c['first']}` against `{c['second']}`",
                c["column"],
                f"{c['paper'][0]:g} {'>' if c['paper'][0] > c['paper'][1] else '<'} "
                f"{c['paper'][1]:g}",
                " and ".join(_number(v, 3) for v in c["ours"]) if c["ours"] else "",
                _interval(c["difference"], sign=True),
                c["result"],
            ]
            for c in shown
            if c["table"] == table
        ]
        if rows:
            header = ["methods", "measure", "paper", "here", "difference here", "order"]
            parts += [f"### {table}", _table(header, rows)]
    return parts


def _videos(of: Mapping[str, Any]) -> str:
    return f"{of['videos']}" + (f" ({of['failed']} failed)" if of["failed"] else "")


def _interval(value: Mapping[str, Any] | Estimate | None, sign: bool = False) -> str:
    if value is None:
        return ""
    of = value.to_dict() if isinstance(value, Estimate) else value
    form = "+.3f" if sign else ".3f"
    if of["low"] is None:
        return f"{of['mean']:{form}}"
    return f"{of['mean']:{form}} [{of['low']:{form}}, {of['high']:{form}}]"


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
