"""What a team's decisions say about a template: which values lead to approval.

Each decided video is one observation: approved or not, with the values of its template's variables
and its settings. A Bayesian logistic regression (normal priors, Laplace approximation; Bishop,
Pattern Recognition and Machine Learning, section 4.5) separates the factors, so that a value that
only ever came together with a good one is not credited for it. A value is proposed where it
is the best of its factor with high posterior probability, corrected for the number of values that
were compared. What to try next is drawn from the posterior (Thompson, Biometrika 25, 1933).
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.files import replacing
from syncos_jax.runs.metadata import metadata_path, read_metadata
from syncos_jax.studio.review.approvals import file_sha256, read_reviews
from syncos_jax.studio.review.takes import find_videos

ERROR_RATE = 0.05
"""Probability of any proposal where no value matters."""
_EFFECT_SCALE = 1.5  # standard deviation of a value's effect, in log odds
_BASE_SCALE = 3.0
_FEWEST = 3  # decisions on a value
_DRAWS = 8_000
_NOT_SETTINGS = ("seed",)

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Decision:
    """One decided video.

    Attributes:
        video: its file.
        approved: the decision that holds now.
        factors: variable or ``sampler.NAME`` -> value.
        metadata: its metadata file.
    """

    video: Path
    approved: bool
    factors: Mapping[str, Value]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """What the decisions say about one value of one factor.

    Attributes:
        factor, value: what it is about.
        approved, decided: counts.
        rate: posterior mean of the approval rate, by itself (Jeffreys' prior).
        interval: its 95 % credible interval.
        best: posterior probability that no other value of the factor is better, all other factors
            equal.
        proposed: whether that is enough to recommend it.
    """

    factor: str
    value: Value
    approved: int
    decided: int
    rate: float
    interval: tuple[float, float]
    best: float
    proposed: bool


@dataclass(frozen=True)
class Lessons:
    """What was learned.

    Attributes:
        decided, approved: videos.
        evidence: by factor and value, only of factors with two or more values decided often enough.
        trials: combinations of values to try next, each drawn from the posterior.
    """

    decided: int
    approved: int
    evidence: tuple[Evidence, ...]
    trials: tuple[Mapping[str, Value], ...]

    @property
    def proposals(self) -> dict[str, Value]:
        """Factor -> the value that the evidence recommends."""
        return {e.factor: e.value for e in self.evidence if e.proposed}


def read_decisions(folder: Path) -> list[Decision]:
    """The decided videos of a folder, with their metadata files.

    Raises:
        InputError: no such folder, no videos, or a damaged file of decisions or metadata.
    """
    reviews = read_reviews(folder)
    found = []
    for video in find_videos(folder):
        if reviews.decision(video.name) is None or not metadata_path(video).exists():
            continue
        status = reviews.status(video.name, file_sha256(video))
        if status in ("approved", "rejected"):
            metadata = read_metadata(metadata_path(video))
            found.append(Decision(video, status == "approved", factors_of(metadata), metadata))
    return found


def factors_of(metadata: Mapping[str, Any]) -> dict[str, Value]:
    """Variables of the template and settings of the sampler, nested ones with dots."""
    template = metadata.get("template") or {}
    return dict(template.get("values") or {}) | _flat(metadata.get("sampler") or {}, "sampler")


def learn(decisions: Sequence[Decision], trials: int = 3, seed: int = 0) -> Lessons:
    """What the decisions say; nothing is proposed where they do not carry it.

    Args:
        decisions: of one template, as `read_decisions` gives them.
        trials: number of combinations to try next.
        seed: of the draws.
    """
    levels = _levels(decisions)
    approved = np.array([d.approved for d in decisions], float)
    rng = np.random.default_rng(seed)
    draws = _posterior_draws(decisions, levels, approved, rng)
    compared = sum(len(values) for values in levels.values())
    evidence: list[Evidence] = []
    column = 0
    for factor, values in levels.items():
        own = draws[:, column : column + len(values)]
        column += len(values)
        best = np.bincount(own.argmax(axis=1), minlength=len(values)) / len(own)
        for value, probability in zip(values, best, strict=True):
            chosen = np.array([_key(d.factors.get(factor)) == _key(value) for d in decisions])
            count, yes = int(chosen.sum()), int(approved[chosen].sum())
            rate, interval = _rate(yes, count, rng)
            proposed = bool(probability >= 1 - ERROR_RATE / compared)
            evidence.append(
                Evidence(factor, value, yes, count, rate, interval, float(probability), proposed)
            )
    return Lessons(
        len(decisions),
        int(approved.sum()),
        tuple(evidence),
        _trials(levels, draws, trials),
    )


def learned_template(data: Mapping[str, Any], lessons: Lessons) -> dict[str, Any]:
    """A template with the proposed values as its defaults and settings.

    Args:
        data: what the template's file holds.
        lessons: whose proposals are taken.

    Raises:
        InputError: nothing is proposed.
    """
    if not lessons.proposals:
        raise InputError(
            f"{lessons.decided} decisions do not favour any value enough for a new template",
            remedy="decide on more takes; the table shows how far the evidence goes",
        )
    made = json.loads(json.dumps(data))
    for factor, value in lessons.proposals.items():
        if not factor.startswith("sampler."):
            given = made.get("variables", {}).get(factor)
            whole = given if isinstance(given, dict) else {}
            made.setdefault("variables", {})[factor] = {**whole, "default": value}
            continue
        *parents, name = factor.split(".")
        place = made
        for parent in parents:
            if not isinstance(place.get(parent), dict):
                place[parent] = (
                    {"name": place[parent]} if isinstance(place.get(parent), str) else {}
                )
            place = place[parent]
        place[name] = value
    if isinstance(made.get("sampler"), dict):
        made["sampler"] = {"name": "syncos", **made["sampler"]}
    return made


def export_approved(decisions: Sequence[Decision], folder: Path) -> int:
    """Writes approved videos and ``captions.jsonl`` (file, prompts, seed), for later training.

    Returns:
        The number of videos.

    Raises:
        InputError: the folder is not empty.
        OSError: it cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError("is not empty", place=folder, remedy="choose a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for decision in decisions:
        if not decision.approved:
            continue
        shutil.copy2(decision.video, folder / decision.video.name)
        lines.append(caption(decision, decision.video.name))
    with replacing(folder / "captions.jsonl") as temporary:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        temporary.write_text(text, encoding="utf-8")
    return len(lines)


def caption(decision: Decision, file: str) -> dict[str, Any]:
    """The line of ``captions.jsonl`` about a video, which the dataset holds as `file`."""
    metadata = decision.metadata
    return {
        "file": file,
        "global": metadata.get("title", ""),
        "events": [
            {key: event.get(key) for key in ("prompt", "start", "stop")}
            for event in metadata.get("events", ())
        ],
        "seed": metadata.get("seed"),
        "fps": metadata.get("video", {}).get("fps"),
    }


def _flat(settings: Mapping[str, Any], prefix: str) -> dict[str, Value]:
    flat: dict[str, Value] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}.{name}")
        elif name not in _NOT_SETTINGS and (value is None or isinstance(value, str | int | float)):
            flat[f"{prefix}.{name}"] = value
    return flat


def _key(value: Value) -> str:
    return json.dumps(value)


def _levels(decisions: Sequence[Decision]) -> dict[str, list[Value]]:
    """Factor -> its values with decisions enough; factors of one such value are left out.

    Of factors that always change together only the first one stands: they cannot be distinguished.
    """
    names = dict.fromkeys(name for d in decisions for name in d.factors)
    levels: dict[str, list[Value]] = {}
    patterns: set[tuple[int, ...]] = set()
    for name in names:
        keys = [_key(d.factors.get(name)) for d in decisions]
        counts = Counter(keys)
        values = {
            key: d.factors.get(name)
            for key, d in zip(keys, decisions, strict=True)
            if counts[key] >= _FEWEST
        }
        order = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        pattern = tuple(order[key] for key in keys)
        if len(values) > 1 and pattern not in patterns:
            patterns.add(pattern)
            levels[name] = list(values.values())
    return levels


def _posterior_draws(
    decisions: Sequence[Decision],
    levels: Mapping[str, Sequence[Value]],
    approved: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws of every value's effect in log odds, ``[draws, values]``."""
    columns = [(name, _key(value)) for name, values in levels.items() for value in values]
    design = np.array(
        [[1.0, *(_key(d.factors.get(n)) == k for n, k in columns)] for d in decisions]
    ).reshape(len(decisions), 1 + len(columns))
    precision = np.diag([_BASE_SCALE**-2, *[_EFFECT_SCALE**-2] * len(columns)])
    weights = np.zeros(1 + len(columns))
    for _ in range(50):  # Newton's method on a log-concave posterior
        rates = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (approved - rates) - precision @ weights
        curvature = precision + (design.T * (rates * (1 - rates))) @ design
        step = np.linalg.solve(curvature, gradient)
        weights += step * min(1.0, 2.0 / (np.abs(step).max() + 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    factor = np.linalg.cholesky(np.linalg.inv(curvature))
    draws = weights + rng.standard_normal((_DRAWS, len(weights))) @ factor.T
    return draws[:, 1:]


def _rate(yes: int, count: int, rng: np.random.Generator) -> tuple[float, tuple[float, float]]:
    draws = rng.beta(yes + 0.5, count - yes + 0.5, _DRAWS)
    low, high = np.quantile(draws, [0.025, 0.975])
    return (yes + 0.5) / (count + 1), (float(low), float(high))


def _trials(
    levels: Mapping[str, Sequence[Value]], draws: np.ndarray, count: int
) -> tuple[dict[str, Value], ...]:
    """Combinations, each the best one of its own draw; every one once."""
    possible = math.prod(len(values) for values in levels.values()) if levels else 0
    found: dict[str, dict[str, Value]] = {}
    for draw in draws:
        if len(found) >= min(count, possible):
            break
        trial, column = {}, 0
        for name, values in levels.items():
            trial[name] = values[int(draw[column : column + len(values)].argmax())]
            column += len(values)
        found.setdefault(json.dumps(trial), trial)
    return tuple(found.values())
