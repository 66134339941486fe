"""What the models' programs take of accelerators that are not there: compiled, not measured.

    python benchmarks/compiled.py                                  # everything: hours of one core
    python benchmarks/compiled.py --models videocrafter2 --targets h100:1 --videos window

Writes benchmarks/results/compiled.md and .json; what is not compiled this time stays as it was.
Needs the compilers: pip install ".[tpu-compiler,cuda]".
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from syncos_jax.bench import report
from syncos_jax.errors import InputError
from syncos_jax.files import replacing
from syncos_jax.pipeline.hardware import Report, compile_in_subprocess, parse, roofline
from syncos_jax.pipeline.hardware.report import from_dict
from syncos_jax.scenario import Scenario

RESULTS = Path(__file__).parent / "results"
MODELS = ("videocrafter2", "cogvideox-2b", "wan2.1-1.3b", "open-sora-plan-1.3", "ltx-2.3")
TARGETS = ("v5e:1", "v5e:8", "v6e:1", "v6e:8", "v5p:8", "h100:1", "h100:8")
_CLIPS = {
    "videocrafter2": 16,
    "cogvideox-2b": 49,
    "wan2.1-1.3b": 81,
    "open-sora-plan-1.3": 93,
    "ltx-2.3": 121,
}
_LONG = {**{model: 4 * (frames - 1) + 1 for model, frames in _CLIPS.items()}, "videocrafter2": 64}
FRAMES = {"window": _CLIPS, "long": _LONG}
"""Frames of one clip, and of a video four times as long."""
WEIGHTS_OVER = {("ltx-2.3", "v6e:8"): 4}
"""Devices that a model's weights are divided over, where one has too little memory for all."""
PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "nvidia-cudnn-cu12")
HEADER = (
    "model", "hardware", "frames", "windows a call", "beside weights", "in all", "fits", "work",
    "moved", "counted", "exchanged", "a row, at least", "bound by", "the run, at least", "date",
)  # fmt: skip


def compiled(model: str, target: str, frames: int) -> dict[str, Any]:
    """One entry: the report, or why there is none."""
    events = [{"prompt": "it rolls", "frames": frames}]
    story = Scenario.from_dict({"global": "a ball", "events": events})
    begin = time.monotonic()
    try:
        over = WEIGHTS_OVER.get((model, target), 1)
        made = compile_in_subprocess(target, model, story, weights_over=over)
        values: dict[str, Any] = {"report": made.to_dict()}
    except InputError as error:
        values = {"error": str(error)}
    seconds = round(time.monotonic() - begin)
    return {**values, "frames": frames, "date": time.strftime("%Y-%m-%d"), "seconds": seconds}


def row(entry: dict[str, Any], model: str, target: str) -> tuple[str, ...]:
    """A line of the table."""
    head = (model, target, str(entry["frames"]))
    if "error" in entry:
        return (*head, f"not compiled: {entry['error'][:120]}", *[""] * 10, entry["date"])
    found: Report = from_dict(entry["report"])
    run = found.run
    line = roofline(run, parse(target))
    exchanged = sum(moved for _, moved in run.exchanged.values())
    over = found.weights_over
    return (
        *(model, f"{target}, weights over {over}" if over > 1 else target, str(entry["frames"])),
        str(run.windows),
        f"{run.memory.temporary / 2**30:.1f} GiB",
        f"{run.memory.total / 2**30:.1f} GiB",
        "yes" if run.fits else "no",
        f"{run.flops / 1e12:.1f} TFLOP",
        f"{run.bytes / 1e9:.0f} GB",
        f"{run.counted / 1e9:.0f} GB",
        f"{exchanged / 1e6:.0f} MB",
        report.duration(line.seconds),
        line.bound,
        report.duration(found.seconds),
        entry["date"],
    )


def document(results: dict[str, Any]) -> str:
    """The Markdown file."""
    text = "# Compiled for accelerators that are not there\n\n"
    text += "`python benchmarks/compiled.py`; "
    text += ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    text += (
        ". Nothing of this was run. bfloat16, SynCoS as published, all figures of one device; what "
        "the columns mean stands in docs/accelerators.md.\n\n"
    )
    rows = [row(entry, *key.split(" ")[:2]) for key, entry in sorted(results["programs"].items())]
    return text + report.markdown(HEADER, rows)


def main(given: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--videos", default=",".join(FRAMES), help="window, long")
    options = parser.parse_args(given)
    target = RESULTS / "compiled.json"
    results: dict[str, Any] = {"programs": {}}
    if target.is_file():
        results = json.loads(target.read_text(encoding="utf-8"))
    results["versions"] = dict(results.get("versions", {}))
    for name in PACKAGES:
        try:
            results["versions"][name] = version(name)
        except PackageNotFoundError:
            continue
    for model in options.models.split(","):
        for hardware in options.targets.split(","):
            for video in options.videos.split(","):
                print(f"--- {model} {hardware} {video}", file=sys.stderr, flush=True)
                entry = compiled(model, hardware, FRAMES[video][model])
                results["programs"][f"{model} {hardware} {video}"] = entry
                report.write_json(target, results)  # what was compiled is not lost
                with replacing(RESULTS / "compiled.md") as part:
                    part.write_text(document(results), encoding="utf-8")
    print(document(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
