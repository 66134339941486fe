"""Runs methods × scenarios × seeds; finished videos are kept."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import syncos_jax
from experiment.methods import Method
from experiment.suite import Case
from syncos_jax.errors import InputError
from syncos_jax.files import replacing
from syncos_jax.metrics.catalogue import metric_values
from syncos_jax.metrics.report import VERSION as METRICS_VERSION
from syncos_jax.metrics.report import evaluate
from syncos_jax.metrics.world import SIZE
from syncos_jax.pipeline import Pipeline
from syncos_jax.pipeline.request import Request
from syncos_jax.sampling.failures import NonFiniteError
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.scenario import Scenario

FORMAT, VERSION = "syncos_jax.experiment.video", 2

Report = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """One video to be made.

    Attributes:
        method, case, seed: of which.
        key: everything that decides what the video shows and how it is measured.
        clips: that the network predicts for it; of a guided window two.
    """

    method: Method
    case: Case
    seed: int
    key: dict[str, Any]
    clips: int

    @property
    def scenario(self) -> Scenario:
        """As this method is given it."""
        return self.case.scenario if self.method.structured else self.case.unstructured

    @property
    def file(self) -> Path:
        """Where its result stands, below the experiment's folder."""
        text = json.dumps(self.key, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return Path("videos") / self.method.name / f"{self.case.id}-seed{self.seed}-{digest}.json"

    @property
    def program(self) -> tuple[Any, ...]:
        """Two tasks with equal ones share a compiled program."""
        sampler = dict(self.key["sampler"])
        return (self.case.frames, json.dumps(sampler, sort_keys=True))


def plan(
    pipeline: Pipeline,
    methods: Sequence[Method],
    cases: Sequence[Case],
    seeds: Sequence[int] | Mapping[str, Sequence[int]],
) -> list[Task]:
    """All videos of an experiment, in the order in which they are made.

    Videos of one length stand together (they share compiled programs); within them seed by seed and
    scenario by scenario, all methods of each, so that what is there at any time is balanced.
    ``seeds`` are those of every method, or of each by its name.

    Raises InputError where a scenario is shorter than the model's clip.
    """
    model = {
        "weights": pipeline.model.weights_sha256,
        "schedule": schedule_sha256(pipeline.model.schedule),
    }
    own = seeds if isinstance(seeds, Mapping) else {method.name: seeds for method in methods}
    in_order = dict.fromkeys(seed for each in own.values() for seed in each)
    tasks = []
    clips: dict[tuple[str, int], int] = {}
    for case in cases:
        for method in methods:
            if (method.name, case.frames) not in clips:
                request = pipeline.prepare(case.scenario, method.settings)
                clips[method.name, case.frames] = request.summary.samples
    for frames in sorted({case.frames for case in cases}):
        for seed in in_order:
            for case in (case for case in cases if case.frames == frames):
                for method in (method for method in methods if seed in own[method.name]):
                    key = _key(model, method, case, seed)
                    tasks.append(Task(method, case, seed, key, clips[method.name, frames]))
    return tasks


def _key(model: dict[str, Any], method: Method, case: Case, seed: int) -> dict[str, Any]:
    scenario = case.scenario if method.structured else case.unstructured
    return {
        "format": FORMAT,
        "version": VERSION,
        "code": syncos_jax.__version__,
        "metrics": METRICS_VERSION,
        **method.to_dict(),
        "scenario": scenario.to_dict(),
        "expected": [event.specified_attributes for event in case.expected],
        "seed": seed,
        **model,
    }


def schedule_sha256(schedule: NoiseSchedule) -> str:
    """SHA-256 of a schedule's rates and prediction type."""
    digest = hashlib.sha256(schedule.prediction.encode())
    for rates in (schedule.signal, schedule.noise):
        digest.update(np.asarray(rates, "<f8").tobytes())
    return digest.hexdigest()


def run(
    pipeline: Pipeline,
    tasks: Sequence[Task],
    out: Path,
    *,
    say: Report = lambda line: None,
    progress: Callable[[int, int], None] | None = None,
    videos: bool = False,
) -> list[dict[str, Any]]:
    """Makes and measures every video that is not there yet.

    Args:
        pipeline: the model.
        tasks: from `plan`.
        out: the experiment's folder. Each finished video is one JSON file in it, written in one
            go, so that a run that is killed loses at most the video it was at.
        say: receives a line for every finished video.
        progress: called with (clips predicted, clips to be predicted).
        videos: also write each video as an .mp4 next to its JSON.

    Returns:
        The record of every task, in their order; `load` reads the same.

    Raises InputError where ``out`` cannot be written.
    """
    missing = [task for task in tasks if read_record(out, task) is None]
    total, done = sum(task.clips for task in missing), 0
    if len(missing) < len(tasks):
        say(f"{len(tasks) - len(missing)} of {len(tasks)} videos are there already")
    compiled: set[Any] = set()
    made: list[dict[str, Any]] = []
    for number, task in enumerate(missing, start=1):
        first = task.program not in compiled
        compiled.add(task.program)
        begin = time.perf_counter()
        record = _make(pipeline, task, out, videos)
        record["seconds"] = time.perf_counter() - begin
        record["compiled"] = first
        _write(out / task.file, record)
        made.append(record)
        done += task.clips
        fresh = len({each.program for each in missing[number:]} - compiled)
        left = _seconds_left(made, total - done, fresh)
        say(
            f"{number}/{len(missing)} {task.method.name}, {task.case.id}, seed {task.seed}: "
            f"{_headline(record)}{record['seconds']:.1f} s{' with compiling' if first else ''}; "
            f"about {_duration(left)} left"
        )
        if progress is not None:
            progress(done, total)
    return load(out, tasks)


def load(out: Path, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """The records of those tasks that are finished."""
    return [record for task in tasks if (record := read_record(out, task)) is not None]


def read_record(out: Path, task: Task) -> dict[str, Any] | None:
    """The task's record; None where there is none, or it is not one of this very task."""
    try:
        record = json.loads((out / task.file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = isinstance(record, dict) and record.get("key") == json.loads(json.dumps(task.key))
    return record if same else None


def _make(pipeline: Pipeline, task: Task, out: Path, videos: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "key": task.key,
        "method": task.method.name,
        "scenario": task.case.id,
        "kind": task.case.kind,
        "seed": task.seed,
        "clips": task.clips,
        "failed": None,
        "measures": None,
        "report": None,
    }
    try:
        request = pipeline.prepare(task.scenario, task.method.settings, task.seed)
        run = pipeline.start(request)
        run.advance()
        latents = run.latents()
        record["clips"] -= run.num_skipped
    except NonFiniteError as error:  # that, too, is a result of the method
        return record | {"failed": str(error)}
    video = pipeline.video(request, pipeline.decode(latents))
    seams = _seams(pipeline, request)
    expected = _expected(task, video.frames)
    record["report"] = evaluate(video.frames, video.fps, expected, seams=seams)
    record["measures"] = metric_values(record["report"])
    if videos:
        target = out / task.file.with_suffix(".mp4")
        target.parent.mkdir(parents=True, exist_ok=True)
        video.save(target, scale=max(1, 256 // min(video.frames.shape[1:3])))
    return record


def _seams(pipeline: Pipeline, request: Request) -> list[int]:
    """The frames behind the end of each window but the last; none where windows have no place."""
    layout = request.layout
    if request.sampler.lookahead is not None:
        return []
    ends = layout.starts[:-1] + layout.window
    return [int(frame) for frame in pipeline.model.geometry.first_frame(ends)]


def _expected(task: Task, frames: np.ndarray) -> Any:
    return task.case.expected if frames.shape[1:3] == (SIZE, SIZE) else None


def _write(path: Path, record: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    text = json.dumps(record, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _seconds_left(made: Sequence[dict[str, Any]], clips: int, programs: int) -> float:
    """From the records made so far: for `clips` more, with `programs` more to compile."""
    warm = [record for record in made if not record["compiled"]] or made
    rate = sum(record["seconds"] for record in warm) / sum(record["clips"] for record in warm)
    extra = [max(0.0, r["seconds"] - rate * r["clips"]) for r in made if r["compiled"]]
    return rate * clips + programs * float(np.mean(extra) if extra else 0.0)


def _headline(record: dict[str, Any]) -> str:
    if record["failed"]:
        return "failed, "
    value = record["measures"]["coherence"]
    return "" if value is None else f"coherence {value:.2f}, "


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
