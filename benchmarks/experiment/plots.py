"""The plots of an experiment, as PNG; matplotlib is imported when they are made."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiment.methods import DIAL, METHODS
from syncos_jax.errors import Argument, InputError
from syncos_jax.files import replacing
from syncos_jax.metrics.catalogue import METRICS
from syncos_jax.sampling.samplers import FULL_STRENGTH

BARS = (
    "coherence",
    "subject_consistency",
    "background_consistency",
    "motion_right",
    "global_fidelity",
    "movement",
)


def need_matplotlib() -> None:
    """Raises InputError, with what to install, where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError(
            "plots need matplotlib",
            remedy=(
                "pip install 'syncos-jax[experiments]', or pass ",
                Argument("plots", False),
            ),
        ) from None


def draw(summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]], out: Path) -> list[str]:
    """Writes ``methods.png``, ``cost.png``, ``similarity.png`` and ``drift.png`` into ``out``, and
    ``dial.png`` where there are methods of `SynCoS.dial`.

    Returns:
        The names of the files written.
    """
    need_matplotlib()
    from matplotlib.figure import Figure

    def save(figure: Figure, name: str) -> str:
        with replacing(out / name) as temporary:
            figure.savefig(temporary, format="png", dpi=110)
        return name

    methods = summary["methods"]
    names = [save(_bars(methods), "methods.png"), save(_cost(methods), "cost.png")]
    if len(_dialled(methods)) > 1:
        names.append(save(_dial(methods), "dial.png"))
    example = _example(records)
    if example:
        names.append(save(_similarity(example), "similarity.png"))
    if any(record["report"] for record in records):
        names.append(save(_drift(records), "drift.png"))
    return names


def title(name: str) -> str:
    """How a method is called in plots."""
    return METHODS[name].title if name in METHODS else name


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _colours(names: Sequence[str]) -> dict[str, Any]:
    from matplotlib import colormaps

    palette = colormaps["tab10"]
    return {name: palette(index % 10) for index, name in enumerate(names)}


def _errors(of: Mapping[str, Any]) -> tuple[float, float]:
    if of["low"] is None:
        return 0.0, 0.0
    return max(0.0, of["mean"] - of["low"]), max(0.0, of["high"] - of["mean"])


def _bars(methods: Mapping[str, Any]) -> Any:
    figure = _figure(11, 1.2 + 0.55 * len(methods) + 2)
    colours = _colours(list(methods))
    for place, name in enumerate(BARS, start=1):
        axes = figure.add_subplot(2, 3, place)
        shown = [m for m in methods if methods[m]["measures"][name]]
        end = 1.0
        for row, method in enumerate(shown):
            of = methods[method]["measures"][name]
            low, high = _errors(of)
            end = max(end, of["mean"] + high)  # movement is no share
            axes.barh(row, of["mean"], xerr=[[low], [high]], color=colours[method], capsize=3)
        axes.set_yticks(range(len(shown)), [title(m) for m in shown] if place % 3 == 1 else [])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.02 * end)
        axes.set_title(METRICS[name].title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Means with 95 % bootstrap intervals over videos", fontsize=10)
    return figure


def _cost(methods: Mapping[str, Any]) -> Any:
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = _figure(7, 5)
    axes = figure.add_subplot()
    colours = _colours(list(methods))
    for name, of in methods.items():
        value, cost = of["measures"]["coherence"], of["clips"]
        if not value:
            continue
        x = of["relative_cost"] or cost["mean"]
        low, high = _errors(value)
        axes.errorbar(
            x, value["mean"], yerr=[[low], [high]], fmt="o", color=colours[name], capsize=3
        )
        axes.annotate(
            title(name), (x, value["mean"]), textcoords="offset points", xytext=(7, 5), fontsize=8
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    relative = any(of["relative_cost"] for of in methods.values())
    axes.set_xlabel(
        "clips predicted by the network"
        + (", over those of co-denoising" if relative else " for a video")
    )
    axes.set_ylabel("coherence")
    axes.margins(x=0.2)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _dialled(methods: Mapping[str, Any]) -> list[tuple[float, str]]:
    """Strengths and names of the methods that are on the dial; co-denoising is 0."""
    found = {}
    for name in methods:
        with contextlib.suppress(ValueError):  # a method of the user's own, such as dial_slow
            if name.startswith(DIAL):
                found[float(name.removeprefix(DIAL))] = name
    if found and "co_denoising" in methods:
        found.setdefault(0.0, "co_denoising")
    return sorted(found.items())


def _dial(methods: Mapping[str, Any]) -> Any:
    figure = _figure(10, 4.2)
    dialled = _dialled(methods)
    held, different = figure.subplots(1, 2)

    def line(axes: Any, label: str, of: Any) -> None:
        points = [(strength, of(methods[name])) for strength, name in dialled]
        points = [(strength, value) for strength, value in points if value]
        if not points:
            return
        errors = np.transpose([_errors(value) for _, value in points])
        means = [value["mean"] for _, value in points]
        axes.errorbar(
            [s for s, _ in points], means, yerr=errors, marker="o", capsize=3, label=label
        )

    for name in ("coherence", "open_same", "motion_right"):
        line(held, METRICS[name].title, lambda of, name=name: of["measures"][name])
    line(different, "of seeds", lambda of: of["diversity_of_seeds"])
    line(different, "choices of seeds (entropy)", lambda of: of["entropy_of_choices"])
    line(different, "of one video's events", lambda of: of["measures"]["diversity_events"])
    published = methods.get("syncos")
    if published and published["measures"]["coherence"]:
        held.axhline(published["measures"]["coherence"]["mean"], color="C0", ls=":", lw=1)
        held.annotate(
            f"coherence as published, at {published['relative_cost'] or 0:.2g} times the calls",
            (0.0, published["measures"]["coherence"]["mean"]),
            textcoords="offset points",
            xytext=(0, 4),
            fontsize=7,
            color="C0",
        )
    for axes, name in ((held, "consistency"), (different, "diversity")):
        axes.axvline(FULL_STRENGTH, color="0.6", ls="--", lw=1, label="SynCoS(strength=1.0)")
        axes.set_xlabel("strength (0 is co-denoising)")
        axes.set_ylabel(name)
        axes.legend(fontsize=8, frameon=False)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _example(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """All methods' videos of the first scenario and seed that most methods have, a scenario that
    leaves the colour open where there is one."""
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for record in records:
        if record["report"]:
            found.setdefault((record["scenario"], record["seed"]), []).append(record)
    if not found:
        return []
    return max(found.values(), key=lambda of: (len(of), of[0]["kind"] == "open"))


def _similarity(example: Sequence[Mapping[str, Any]]) -> Any:
    columns = min(4, len(example))
    rows = -(-len(example) // columns)
    figure = _figure(2.6 * columns + 0.9, 2.8 * rows + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False)
    image = None
    for place in axes.flat[len(example) :]:
        place.set_visible(False)
    for place, record in zip(axes.flat, example, strict=False):
        matrix = np.asarray(record["report"]["similarity"])
        image = place.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
        place.set_title(title(record["method"]), fontsize=9)
        place.tick_params(labelsize=7)
    figure.colorbar(image, ax=axes, shrink=0.8, label="similarity of two frames")
    first = example[0]
    prompt = first["key"]["scenario"].get("global", "")
    figure.suptitle(f"{first['scenario']}, seed {first['seed']}: {prompt}", fontsize=10)
    return figure


def _drift(records: Sequence[Mapping[str, Any]]) -> Any:
    """Mean over the videos of the length that most have."""
    lengths = [len(r["report"]["drift"]) for r in records if r["report"]]
    length = max(set(lengths), key=lengths.count)
    curves: dict[str, list[list[float]]] = {}
    for record in records:
        if record["report"] and len(record["report"]["drift"]) == length:
            curves.setdefault(record["method"], []).append(record["report"]["drift"])
    figure = _figure(7, 4)
    axes = figure.add_subplot()
    colours = _colours(list(curves))
    for name, of in curves.items():
        axes.plot(np.mean(of, axis=0), color=colours[name], label=title(name))
    axes.set_xlabel("frame")
    axes.set_ylabel("similarity to the first event")
    axes.set_title(f"Mean over the videos of {length} frames", fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
