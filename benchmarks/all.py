"""Measures everything that can be measured on this machine; a short table comes last.

    python benchmarks/all.py                 # everything: CPU or GPU, whatever JAX finds
    python benchmarks/all.py --quick         # tiny sizes and few repetitions, to see that it runs
    python benchmarks/all.py --only compare,startup

Writes benchmarks/results/KIND-OF-DEVICE.md and .json (--out elsewhere); a part that is not run
keeps what the files say of it. Each measurement is a process of its own. The machine should be
idle: on one that is not, even the ratios mean little.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compare
import profiling
import startup

from syncos_jax.bench import report
from syncos_jax.bench.device import Peak
from syncos_jax.bench.measure import Measurement
from syncos_jax.files import replacing

HERE = Path(__file__).parent
PARTS = ("bench", "compare", "profiling", "startup")
_MACHINE = """
import json
from syncos_jax.bench import device
print(json.dumps([device.kind(), device.machine()]))
"""


@dataclass(frozen=True)
class Step:
    """One process: the part it belongs to, its name there, and the command without --json."""

    part: str
    name: str
    command: tuple[str, ...]


def steps(gpu: bool, quick: bool) -> list[Step]:
    """What is run on a machine with or without an accelerator."""
    repeat = "2" if quick else "9"

    def bench(name: str, *more: str) -> Step:
        syncos = str(Path(sys.executable).with_name("syncos"))
        return Step("bench", name, (syncos, "bench", "--model", name, "--repeat", repeat, *more))

    def script(part: str, name: str, *more: str) -> Step:
        return Step(part, name, (sys.executable, str(HERE / f"{part}.py"), *more))

    short = "--steps 2 --iterations 1 --t-min 400 --repeat 2 --frames 8".split()
    if quick:
        return [
            bench("tiny", "--what", "unet,text", "--guided"),
            script("compare", "tiny", "--model", "tiny", *short),
            script("profiling", "tiny", "--model", "tiny", "--what", "unet", "--repeat", "2"),
            script("startup", "demo", "--repeat", "1"),
        ]
    result = [
        bench("tiny"),
        bench("demo", "--frames", "48"),
        script("compare", "tiny", "--model", "tiny"),
        script("compare", "demo", "--model", "demo"),
        script("profiling", "demo", "--model", "demo"),
        script("startup", "demo"),
    ]
    if gpu:
        full = "--dtype bfloat16 --batch 1".split()
        # A few steps: at 13 calls each, they say as much as fifty.
        few = "--frames 64 --steps 4 --t-min 700 --iterations 2 --repeat 3".split()
        torch = "--device cuda --compile default --channels-last".split()
        result += [
            bench("videocrafter2", *full, "--frames", "64"),
            script("compare", "modelscope", "--model", "modelscope", *full, *few, *torch),
            script("profiling", "videocrafter2", "--model", "videocrafter2", *full),
        ]
    return result


def run(step: Step, folder: Path) -> dict[str, Any]:
    """Runs one step; its JSON."""
    target = folder / f"{step.part}-{step.name}.json"
    print(f"--- {step.part} {step.name}", file=sys.stderr, flush=True)
    command = [*step.command, "--json", str(target)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"error: {step.part} {step.name} ended with {done.returncode}")
    values = json.loads(target.read_text(encoding="utf-8"))
    values["date"] = time.strftime("%Y-%m-%d")
    return values


def summary(results: dict[str, Any]) -> str:
    """The short table: what the goals are about."""
    rows = []
    for name, values in results.get("bench", {}).items():
        for m in values["measurements"]:
            if m["what"] in ("unet", "call", "row") or m["name"].endswith("in all"):
                share = f"{100 * m['share']:.0f} % of the measured peak" if m["share"] else ""
                rows.append(
                    (f"{name}: {m['name']}, {m['unit']}", report.duration(m["median"]), share)
                )
    for name, values in results.get("compare", {}).items():
        for r in values["results"]:
            rows.append(
                (
                    f"{name}: {r['what']} against {r['against']}",
                    f"{r['ratio']:.2f} times as fast",
                    f"{r['ratio_processor']:.2f} in processor time, latents differ by "
                    f"{r['difference']:.0e}",
                )
            )
    for name, values in results.get("startup", {}).items():
        cold, *warm = values["starts"]
        for kind, some in (("cold", [cold]), ("warm", warm)):
            if some:
                seconds = statistics.median(one["to first row"] for one in some)
                most = f"median of {len(some)}" if len(some) > 1 else ""
                rows.append(
                    (f"{name}: {kind} start to the first row", report.duration(seconds), most)
                )
    return report.markdown(("what", "measured", ""), rows)


def details(results: dict[str, Any]) -> str:
    """All tables, with the command and the date of each."""
    text = ""
    for part in PARTS:
        for name, values in results.get(part, {}).items():
            text += f"\n## {part}: {name}\n\n`{values['command']}`, {values['date']}, "
            text += f"{values['others_busy'] or 0:g} cores busy with other programs at the end"
            if "peak" in values:
                text += f"; {report.peak_line(Peak(**values['peak']))}"
            text += "\n\n"
            if part == "bench":
                lines = [report.row(Measurement(**m)) for m in values["measurements"]]
                text += report.markdown(report.HEADER, lines)
            elif part == "compare":
                text += compare.table(values)
            elif part == "profiling":
                for what, kinds in values["profiles"].items():
                    text += f"{what}, {values['clips']} clips, {values['dtype']}:\n\n"
                    text += profiling.table(kinds) + "\n"
            else:
                text += startup.table(values)
    return text


def document(results: dict[str, Any]) -> str:
    """The Markdown file."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    text = f"# Measured on: {machine['device']}, {machine['cores']} cores\n\n"
    text += f"`{results['command']}`; {versions}; Python {machine['python']}.\n\n"
    if machine["platform"] == "cpu":
        text += "A shared machine with a CPU: the ratios count, not the seconds.\n\n"
    busy = [
        f"{part} {name}"
        for part in PARTS
        for name, values in results.get(part, {}).items()
        if machine["platform"] == "cpu" and (values["others_busy"] or 0) > 0.1 * values["cores"]
    ]
    if busy:
        text += f"Other programs were running at the end of {', '.join(busy)}: to be repeated.\n\n"
    return text + summary(results) + details(results)


def main(given: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, few repetitions")
    parser.add_argument("--only", default=",".join(PARTS), help="some of these parts")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    options = parser.parse_args(given)
    parts = options.only.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"--only: {unknown[0]!r} is none of {', '.join(PARTS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    # In a process that ends: one that goes on would keep an accelerator's memory to itself.
    found = subprocess.run([sys.executable, "-c", _MACHINE], stdout=subprocess.PIPE, check=True)
    kind, machine = json.loads(found.stdout.splitlines()[-1])
    name = kind + ("-quick" if options.quick else "")
    target = options.out / f"{name}.json"
    results: dict[str, Any] = {}
    if target.is_file():
        results = json.loads(target.read_text(encoding="utf-8"))
    results.update(command=report.command(), machine=machine)
    with tempfile.TemporaryDirectory() as folder:
        for step in steps(machine["platform"] != "cpu", options.quick):
            if step.part in parts:
                results.setdefault(step.part, {})[step.name] = run(step, Path(folder))
                report.write_json(target, results)  # what was measured is not lost
    with replacing(options.out / f"{name}.md") as part:
        part.write_text(document(results), encoding="utf-8")
    print(f"{options.out / name}.md, .json\n")
    print(summary(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
