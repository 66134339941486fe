"""The paper's Tables 1 to 3 (arXiv 2503.08605), and whether their order of methods holds here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiment.intervals import Estimate, difference, verdict


@dataclass(frozen=True)
class Column:
    """A measure of the paper and what stands for it here.

    Attributes:
        name: in the paper's tables.
        measure: ours (see `syncos_jax.metrics.catalogue`); None where there is none.
        better: 1 where more is better, -1 where less is.
        note: how ours differs.
    """

    name: str
    measure: str | None
    better: int = 1
    note: str = ""


COLUMNS = {
    "SC": Column(
        "subject consistency",
        "subject_consistency",
        note="VBench's formula over the tracked subject's colour and shape, not DINO's features",
    ),
    "BC": Column(
        "background consistency",
        "background_consistency",
        note="VBench's formula over the colours around the subject, not CLIP's features",
    ),
    "MS": Column("motion smoothness", None, note="needs a network for frame interpolation"),
    "DD": Column(
        "dynamic degree",
        "movement",
        note="what VBench's rule counts, by degrees (nearly every video here counts as moving), "
        "over the frame-difference stand-in for RAFT's flow",
    ),
    "#Sc": Column("number of scenes", "scenes", -1, "PySceneDetect's content score"),
    "AQ": Column("aesthetic quality", None, note="needs a network of taste"),
    "IQ": Column("imaging quality", None, note="needs a network of taste"),
    "G": Column(
        "global prompt fidelity",
        "global_fidelity",
        note="how closely the frames match the global prompt by the tracker, not CLIP's cosine",
    ),
    "L": Column(
        "local prompt fidelity",
        "local_fidelity",
        note="the same for the events' prompts; for a motion its speed",
    ),
    "PF": Column("prompt fidelity", "fidelity", note="the same of both"),
}
"""The paper's columns."""

TABLES: dict[str, dict[str, dict[str, float]]] = {
    "Table 1, CogVideoX-2B": {
        "co_denoising": {"SC": 81.34, "BC": 89.46, "MS": 98.32, "DD": 50.00, "#Sc": 2.292,
                         "AQ": 60.09, "IQ": 58.52, "G": 0.324, "L": 0.351},
        "fifo": {"SC": 83.54, "BC": 90.72, "MS": 98.04, "DD": 70.83, "#Sc": 1.938,
                 "AQ": 59.59, "IQ": 63.18, "G": 0.323, "L": 0.327},
        "syncos": {"SC": 88.92, "BC": 94.57, "MS": 98.21, "DD": 85.42, "#Sc": 1.208,
                   "AQ": 63.37, "IQ": 67.43, "G": 0.341, "L": 0.354},
    },
    "Table 1, Open-Sora Plan v1.3": {
        "co_denoising": {"SC": 85.15, "BC": 92.63, "MS": 98.93, "DD": 43.75, "#Sc": 2.458,
                         "AQ": 61.44, "IQ": 57.19, "G": 0.319, "L": 0.337},
        "fifo": {"SC": 89.14, "BC": 94.34, "MS": 98.19, "DD": 27.08, "#Sc": 1.125,
                 "AQ": 60.26, "IQ": 61.23, "G": 0.327, "L": 0.331},
        "syncos": {"SC": 90.19, "BC": 94.78, "MS": 99.06, "DD": 58.33, "#Sc": 1.646,
                   "AQ": 63.79, "IQ": 60.19, "G": 0.328, "L": 0.345},
    },
    "Table 2, ablations": {
        "syncos": {"SC": 0.864, "BC": 0.927, "AQ": 0.643, "PF": 0.381},
        "no_t_min": {"SC": 0.724, "BC": 0.854, "AQ": 0.632, "PF": 0.373},
        "no_grounded_timestep": {"SC": 0.803, "BC": 0.899, "AQ": 0.638, "PF": 0.364},
        "no_fixed_noise": {"SC": 0.817, "BC": 0.904, "AQ": 0.643, "PF": 0.382},
        "no_structure": {"SC": 0.837, "BC": 0.903, "AQ": 0.663, "PF": 0.362},
    },
    "Table 3, stages": {
        "co_denoising": {"SC": 80.46, "BC": 91.14, "MS": 98.55, "DD": 97.92, "#Sc": 1.229,
                         "AQ": 53.36, "IQ": 58.42, "G": 0.318, "L": 0.348},
        "refinement_only": {"SC": 78.88, "BC": 91.63, "MS": 97.70, "DD": 14.58, "#Sc": 21.33,
                            "AQ": 45.56, "IQ": 42.27, "G": 0.305, "L": 0.300},
        "syncos": {"SC": 82.70, "BC": 91.85, "MS": 98.24, "DD": 100.0, "#Sc": 1.042,
                   "AQ": 54.56, "IQ": 65.53, "G": 0.325, "L": 0.348},
    },
}  # fmt: skip
"""Table -> our name of the method -> column -> the figure as printed."""


@dataclass(frozen=True)
class Comparison:
    """One pair of rows of a table, in one column.

    Attributes:
        table, column: where.
        first, second: the methods; ``syncos`` is the first of its pairs.
        paper: the paper's figures of the two.
        ours: our means of the two over the videos that both have, or None.
        difference: first minus second of ours, with its interval.
        result: see `experiment.intervals.verdict`.
    """

    table: str
    column: str
    first: str
    second: str
    paper: tuple[float, float]
    ours: tuple[float, float] | None
    difference: Estimate | None
    result: str

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            **vars(self),
            "paper": list(self.paper),
            "ours": list(self.ours) if self.ours else None,
            "difference": self.difference.to_dict() if self.difference else None,
        }


def compare(values: Mapping[str, Mapping[str, Mapping[Any, float | None]]]) -> list[Comparison]:
    """Every pair of rows that the paper sets apart, against the same pair of ours.

    Args:
        values: measure -> method -> video -> value.

    Returns:
        In the paper's order; without the pairs whose figures are equal there, and without the
        columns for which nothing is measured here.
    """
    found = []
    for table, rows in TABLES.items():
        names = sorted(rows, key=lambda name: name != "syncos")
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        if table.startswith("Table 2"):  # the ablations are not set against one another
            pairs = [pair for pair in pairs if pair[0] == "syncos"]
        for first, second in pairs:
            for column in rows[first]:
                measure, paper = (
                    COLUMNS[column].measure,
                    (rows[first][column], rows[second][column]),
                )
                if measure is None or paper[0] == paper[1]:
                    continue
                of = values.get(measure, {})
                a, b = of.get(first, {}), of.get(second, {})
                apart = difference(a, b)
                both = [k for k in a if a[k] is not None and b.get(k) is not None]
                means = _mean(a, both), _mean(b, both)
                found.append(
                    Comparison(
                        table,
                        column,
                        first,
                        second,
                        paper,
                        means if both else None,
                        apart,
                        verdict(paper[0] - paper[1], apart),
                    )
                )
    return found


def _mean(values: Mapping[Any, float | None], keys: list[Any]) -> float:
    chosen = [value for key in keys if (value := values[key]) is not None]
    return sum(chosen) / len(chosen) if chosen else float("nan")
