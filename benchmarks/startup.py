"""How long `syncos generate` takes to its first row: a cold start, and starts after it.

    python benchmarks/startup.py
    python benchmarks/startup.py --model models/videocrafter2 --scenario story.yaml

Each start is a process of its own, with a cache of compiled programs that is empty at first. A
start counts from the process's beginning to the first row done; its parts are listed separately.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from syncos_jax.bench import device, report

HEADER = ("start", "to first row", "imports", "load", "text", "first row", "processor", "compiled")


class _Enough(Exception):
    """The first row is done."""


def start(model: str, scenario: Path, devices: str, begin: float) -> dict[str, float]:
    """One start in this process: what generate does up to its first row; seconds of its parts.

    `begin` is when the process was started, by ``time.time()``.
    """
    spent = {}
    last = begin

    def done(name: str) -> None:
        nonlocal last
        now = time.time()
        spent[name] = now - last
        last = now

    from syncos_jax.cli.devices import read_devices
    from syncos_jax.pipeline import Pipeline
    from syncos_jax.runs.cache import Watch, keep_programs
    from syncos_jax.sampling.devices import make_mesh, provide_cpu_devices
    from syncos_jax.scenario import Scenario

    keep_programs()
    watch = Watch()
    done("imports")
    provide_cpu_devices(read_devices(devices))
    pipeline = Pipeline.from_pretrained(model, mesh=make_mesh(read_devices(devices)))
    done("load")
    story = Scenario.from_file(scenario)
    request = pipeline.prepare(story)
    pipeline.conditioning(request)
    done("text")

    def stop(row: int, total: int) -> None:
        raise _Enough

    try:
        pipeline.latents(request, progress=stop)
    except _Enough:
        pass
    done("first row")
    return {
        "to first row": time.time() - begin,
        **spent,
        "processor": time.process_time(),
        "compiled": watch.compiled,
        "found": watch.found,
    }


def starts(model: str, scenario: Path, devices: str, count: int) -> list[dict[str, float]]:
    """A cold start and `count` warm ones."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "SYNCOS_CACHE": folder}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        for number in range(1 + count):
            print("cold start" if number == 0 else "warm start", file=sys.stderr, flush=True)
            command = [sys.executable, __file__, "--model", model, "--scenario", str(scenario)]
            command += ["--devices", devices, "--one", repr(time.time())]
            output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            results.append(json.loads(output.stdout.splitlines()[-1]))
    return results


def main(given: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    examples = Path(__file__).parent.parent / "examples"
    parser.add_argument("--model", default="demo")
    parser.add_argument("--scenario", type=Path, default=examples / "red_ball.yaml")
    parser.add_argument("--devices", default="all", help="as of syncos generate (default: all)")
    parser.add_argument("--repeat", type=int, default=3, help="warm starts")
    parser.add_argument("--json", type=Path, help="also write everything there")
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.one is not None:
        print(json.dumps(start(options.model, options.scenario, options.devices, options.one)))
        return 0
    results = starts(options.model, options.scenario, options.devices, options.repeat)
    values: dict[str, Any] = {
        "command": report.command(),
        **device.machine(),
        "model": options.model,
        "starts": results,
    }
    print(table(values))
    if options.json:
        report.write_json(options.json, values)
    return 0


def table(values: dict[str, Any]) -> str:
    """The starts in Markdown."""
    rows = []
    for number, result in enumerate(values["starts"]):
        name = "cold" if number == 0 else "warm"
        seconds = [f"{result[key]:.2f} s" for key in HEADER[1:-1]]
        rows.append((name, *seconds, f"{result['compiled']:.0f}"))
    return report.markdown(HEADER, rows)


if __name__ == "__main__":
    sys.exit(main())
