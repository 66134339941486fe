"""Where the time of the network's call and of a tape's row goes, by kind of operation.

    python benchmarks/profiling.py --model demo
    python benchmarks/profiling.py --model videocrafter2 --batch 1 --trace out/trace

Runs under JAX's profiler and sums up its trace by the names that the networks give to their parts.
An operation that the compiler has fused from several counts as the one it ends with. On a GPU,
XLA's command buffers are off, since within them the profiler cannot tell operations apart. With
--trace, the trace stays there for TensorBoard or Perfetto.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import device_trace

from syncos_jax.bench import device, report
from syncos_jax.bench.networks import RANDOM, bench_model
from syncos_jax.bench.work import Case, call_work, unet_work
from syncos_jax.sampling import CoDenoising

HEADER = ("kind of operation", "ms a call", "share")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo", help="tiny, demo, videocrafter2, or a folder")
    parser.add_argument("--dtype", help="default: bfloat16 on accelerators, float32 on CPU")
    parser.add_argument("--frames", type=int, help="of the long video (default: 6 clips)")
    parser.add_argument("--batch", type=int, help="windows in a call")
    parser.add_argument("--repeat", type=int, default=4, help="calls in the trace")
    parser.add_argument("--what", default="unet,call", help="some of these")
    parser.add_argument("--trace", type=Path, help="keep the trace in this folder")
    parser.add_argument("--json", type=Path, help="also write everything there")
    return parser.parse_args(given)


def profile(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as plain values."""
    model = bench_model(options.model, options.dtype)
    frames = options.frames or 6 * model.geometry.frames(model.geometry.window)
    case = Case(model, frames, 1, (True,), CoDenoising(steps=4))
    batch = options.batch or (1 if options.model in RANDOM[1:] else case.layout.count)
    case = replace(case, batch=batch, sampler=CoDenoising(steps=4, windows_per_call=batch))
    profiles = {}
    for what in options.what.split(","):
        work = unet_work(case, True) if what == "unet" else call_work(case)
        print(f"{work.name}: compiling", file=sys.stderr, flush=True)
        compiled = work.lower().compile()
        device.seconds(lambda: work.call(compiled))  # noqa: B023

        def calls() -> Any:
            return [work.call(compiled) for _ in range(options.repeat)][-1]  # noqa: B023

        print(f"{work.name}: {options.repeat} calls", file=sys.stderr, flush=True)
        spent = device_trace.trace(calls, options.trace)
        kinds = device_trace.by_kind(spent, device_trace.names_of(compiled.as_text()))
        profiles[work.name] = {kind: value / options.repeat for kind, value in kinds.items()}
    return {
        "command": report.command(),
        **device.machine(),
        "model": model.name,
        "dtype": model.dtype,
        "clips": 2 * batch,
        "profiles": profiles,
    }


def table(profile: dict[str, float]) -> str:
    """One profile in Markdown."""
    total = sum(profile.values())
    rows = [
        (kind, f"{1e3 * value:.3g}", f"{100 * value / total:.1f} %")
        for kind, value in profile.items()
    ]
    return report.markdown(HEADER, [*rows, ("together", f"{1e3 * total:.3g}", "100 %")])


def main(given: list[str] | None = None) -> int:
    """The command."""
    options = arguments(given)
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_enable_command_buffer" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_enable_command_buffer=".strip()
    values = profile(options)
    for name, kinds in values["profiles"].items():
        print(f"{values['model']}, {name}, {values['clips']} clips, {values['dtype']}\n")
        print(table(kinds))
    if options.json:
        report.write_json(options.json, values)
    return 0


if __name__ == "__main__":
    sys.exit(main())
