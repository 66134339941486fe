"""Ours against PyTorch: the same weights, the same work, the same run; ratios and differences.

    python benchmarks/compare.py --model demo
    python benchmarks/compare.py --model tiny --compile default
    python benchmarks/compare.py --model modelscope --device cuda --dtype bfloat16 --batch 1 \\
        --frames 64 --compile default --channels-last

Both get the same noise and are timed in turns, after a warm-up, with as many threads; on a CPU ours
also with a device for each core (syncos generate --devices all). "tiny" and
"modelscope" have random weights. On a machine that is busy otherwise the ratios mean nothing:
torch's threads wait for one another, spinning, which costs processor time as well. Only on one core
(taskset -c 0 python benchmarks/compare.py) does processor time say something there. Exits with 1
where float32 latents differ by more than 1e-3.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_reference

from syncos_jax.bench import device, report
from syncos_jax.bench.networks import RANDOM, bench_model
from syncos_jax.bench.work import Case, scenario
from syncos_jax.models.unet_clip.model import unet_clip
from syncos_jax.pipeline import Pipeline
from syncos_jax.pipeline.load import model_folder
from syncos_jax.sampling import CoDenoising, SamplerConfig, SynCoS, noise, sample
from syncos_jax.sampling.devices import make_mesh, provide_cpu_devices
from syncos_jax.weights_convert.diffusers_folder import write_networks

TOLERANCE = 1e-3
HEADER = ("what", "ours", "against", "theirs", "ratio", "ratio, processor time", "difference")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo", help="demo, tiny, modelscope, or a folder")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of torch")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--frames", type=int, help="of the long video (default: 6 clips)")
    parser.add_argument("--batch", type=int, help="windows in a call (default: all)")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=5, help="of SynCoS, at each step")
    parser.add_argument("--t-min", type=float, default=800.0)
    parser.add_argument("--repeat", type=int, default=5, help="calls timed, after a warm-up")
    parser.add_argument(
        "--devices",
        type=int,
        help="of ours, for a second run of each video (default: on a CPU one "
        "for each core, else 1)",
    )
    parser.add_argument("--compile", help="also torch.compile in this mode, such as default")
    parser.add_argument("--channels-last", action="store_true", help="also channels-last weights")
    parser.add_argument("--only", default="unet,co_denoising,syncos", help="some of these")
    parser.add_argument("--json", type=Path, help="also write everything there")
    return parser.parse_args(given)


def diffusers_folder(name: str, model: Any, temporary: Path) -> Path:
    """Where diffusers can load the model's UNet and schedule from."""
    folder = temporary if name in RANDOM else model_folder(name)
    if (folder / "unet" / "config.json").is_file():
        return folder
    write_networks(temporary, model.config, {"unet": model.unet})
    return temporary


class Comparison:
    """Both sides' inputs and runs. Latents of ours are ``F H W C``, of theirs ``C F H W``."""

    def __init__(self, options: argparse.Namespace, temporary: Path) -> None:
        self.options = options
        self.model = unet_clip(bench_model(options.model, options.dtype))
        frames = options.frames or 6 * self.model.geometry.window
        case = Case(self.model, frames, 1, (True,), CoDenoising(steps=options.steps))
        self.layout = case.layout
        self.batch = min(options.batch or self.layout.count, self.layout.count)
        self.shape = (frames, *case.latent)
        self.key = jax.random.key(0)
        self.pipeline = Pipeline(self.model)
        self.spread: dict[str, Pipeline] = {}
        if self.devices > 1:
            mesh = make_mesh(self.devices)
            other = bench_model(options.model, options.dtype)  # with weights on these devices
            self.spread[f"ours, {self.devices} devices"] = Pipeline(other, mesh=mesh)
        request = self.pipeline.prepare(scenario(case), CoDenoising(steps=options.steps))
        table = self.pipeline.conditioning(request)
        self.cond, self.uncond = (
            jax.tree.map(lambda leaf, index=index: leaf[index], table)
            for index in request.cond_index
        )
        if "fps" in self.cond:
            raise SystemExit("error: diffusers' UNet has no frame rate; give --model modelscope")
        self.start = self._draw(noise.INITIAL)
        self.problem = torch_reference.Problem(
            starts=[int(start) for start in self.layout.starts],
            window=self.layout.window,
            steps=options.steps,
            guidance=float(self.model.guidance),
            batch=self.batch,
            text=self._torch(self.cond["text"]),
            no_text=self._torch(self.uncond["text"]),
        )
        self.folder = diffusers_folder(options.model, self.model, temporary)

    @property
    def devices(self) -> int:
        """Of our second run of each video."""
        if self.options.devices is not None:
            return self.options.devices
        return jax.device_count() if jax.default_backend() == "cpu" else 1

    def _draw(self, number: int) -> np.ndarray:
        frames, *frame_shape = self.shape
        drawn = noise.frame_noise(
            self.key, np.uint32(number), frames=frames, frame_shape=tuple(frame_shape)
        )
        return np.asarray(drawn)

    def _torch(self, value: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(value, np.float32)).to(self.options.device)

    def _settings(self, name: str) -> SamplerConfig:
        o = self.options
        common: dict[str, Any] = {
            "steps": o.steps,
            "guidance": float(self.model.guidance),
            "batch": self.batch,
        }
        if name == "co_denoising":
            return CoDenoising(**common)
        return SynCoS(**common, t_min=o.t_min, iterations=o.iterations, learning_rate=0.05)

    def ours(self, name: str, pipeline: Pipeline | None = None) -> Callable[[], np.ndarray]:
        """A run of ours, result on the host."""
        pipeline = pipeline or self.pipeline
        if name == "unet":
            x, t, text = self._unet_inputs()
            unet = jax.jit(self.model.denoiser)
            return lambda: np.asarray(unet(self.model.params, x, t, {"text": text}))
        settings = self._settings(name)
        return lambda: np.asarray(
            sample(
                self.model.denoiser,
                self.cond,
                uncond=self.uncond,
                params=pipeline.model.params,
                mesh=pipeline.placement.mesh,
                layout=self.layout,
                frame_shape=self.shape[1:],
                schedule=self.model.schedule,
                sampler=settings,
                key=self.key,
                latents=self.start,
            )
        )

    def theirs(self, name: str, network: torch_reference.Network) -> Callable[[], np.ndarray]:
        """The same run in torch, result on the host in our layout."""
        if name == "unet":
            x, t, text = (self._torch(value) for value in self._unet_inputs())
            x = x.permute(0, 4, 1, 2, 3).contiguous()

            def call() -> np.ndarray:
                with torch.inference_mode():
                    return network(x, t, text).permute(0, 2, 3, 4, 1).cpu().numpy()

            return call
        loops = torch_reference.Sampler(network, self.folder, self.problem)
        start = self._torch(np.moveaxis(self.start, -1, 0))
        if name == "co_denoising":
            return lambda: np.moveaxis(loops.co_denoise(start).cpu().numpy(), 0, -1)
        settings = self._settings(name)
        refinement = settings.refinement
        assert refinement is not None and refinement.t_min is not None
        if not any(t > refinement.t_min for t in loops.timesteps):
            raise SystemExit(
                f"error: SynCoS would refine nothing: no step of {loops.timesteps} is above "
                f"--t-min {refinement.t_min:g}; give a lower one, or more --steps"
            )
        draws = [
            np.moveaxis(self._draw(noise.baseline_draw(i)), -1, 0)
            for i in range(self.options.steps)
        ]
        coupling = torch_reference.Coupling(
            t_min=refinement.t_min,
            iterations=refinement.iterations,
            learning_rate=refinement.learning_rate,
            weight_decay=refinement.weight_decay,
            noise=self._torch(np.stack(draws)),
        )
        return lambda: np.moveaxis(loops.syncos(start, coupling).cpu().numpy(), 0, -1)

    def _unet_inputs(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        clips = 2 * self.batch
        config = self.model.config
        x = np.random.default_rng(0).standard_normal(
            (clips, self.layout.window, *self.shape[1:]), np.float32
        )
        text = jnp.concatenate([self.cond["text"][: self.batch], self.uncond["text"][: self.batch]])
        assert text.shape[2] == config.unet.text_features
        return jnp.asarray(x), jnp.full(clips, 501.0, jnp.float32), text

    def networks(self) -> dict[str, torch_reference.Network]:
        """torch's variants by name."""
        o = self.options
        common: dict[str, Any] = {"device": o.device, "dtype": getattr(torch, o.dtype)}
        variants = {"torch eager": {}}
        if o.channels_last:
            variants["torch eager, channels-last"] = {"channels_last": True}
        if o.compile:
            variants[f"torch.compile {o.compile}"] = {"compiled": o.compile}
        return {
            name: torch_reference.load_unet(self.folder, **common, **extra)
            for name, extra in variants.items()
        }


def take_turns(
    runs: dict[str, Callable[[], Any]], repeat: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Times each run `repeat` times, in turns, every second round backwards.

    Returns:
        Seconds on the clock, and seconds of processor time, by name.
    """
    wall: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeat):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            begin, busy = time.perf_counter(), time.process_time()
            runs[name]()
            wall[name].append(time.perf_counter() - begin)
            processor[name].append(time.process_time() - busy)
    return wall, processor


def compare(options: argparse.Namespace, temporary: Path) -> dict[str, Any]:
    """Everything, as plain values."""
    torch.set_num_threads(device.cores())
    comparison = Comparison(options, temporary)
    networks = comparison.networks()
    results = []
    for name in options.only.split(","):
        ours = {"ours": comparison.ours(name)}
        if name != "unet":
            ours |= {label: comparison.ours(name, p) for label, p in comparison.spread.items()}
        runs = ours | {
            label: comparison.theirs(name, network) for label, network in networks.items()
        }
        latents = {}
        for label, run in runs.items():  # the warm-up, which compiles
            say(f"{name}: warming up {label}")
            latents[label] = run()
        say(f"{name}: {options.repeat} turns")
        wall, processor = take_turns(runs, options.repeat)
        for own, label in itertools.product(ours, networks):
            results.append(
                {
                    "what": name + own.removeprefix("ours"),
                    "against": label,
                    "ours": statistics.median(wall[own]),
                    "theirs": statistics.median(wall[label]),
                    "ratio": statistics.median(wall[label]) / statistics.median(wall[own]),
                    "ratio_processor": statistics.median(processor[label])
                    / statistics.median(processor[own]),
                    "spread_ours": device.spread(wall[own]),
                    "spread_theirs": device.spread(wall[label]),
                    "difference": float(np.abs(latents[own] - latents[label]).max()),
                    "largest": float(np.abs(latents[label]).max()),
                }
            )
    return {
        "command": report.command(),
        **device.machine(),
        "torch_device": torch.cuda.get_device_name() if options.device == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "model": comparison.model.name,
        "dtype": options.dtype,
        "latents": list(comparison.shape),
        "windows": comparison.layout.count,
        "batch": comparison.batch,
        "steps": options.steps,
        "iterations": options.iterations,
        "t_min": options.t_min,
        "results": results,
    }


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def table(values: dict[str, Any]) -> str:
    """The results in Markdown."""
    rows = [
        (
            f"{values['model']} {r['what']}",
            report.duration(r["ours"]),
            r["against"],
            report.duration(r["theirs"]),
            f"{r['ratio']:.2f}",
            f"{r['ratio_processor']:.2f}",
            f"{r['difference']:.1e} of {r['largest']:.3g}",
        )
        for r in values["results"]
    ]
    return report.markdown(HEADER, rows)


def main(given: list[str] | None = None) -> int:
    """The command."""
    options = arguments(given)
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")  # the other half is torch's
    provide_cpu_devices(options.devices)
    with tempfile.TemporaryDirectory() as temporary:
        values = compare(options, Path(temporary))
    print(table(values))
    if (busy := values["others_busy"] or 0) > 0.1 * values["cores"] and options.device == "cpu":
        print(f"Others kept {busy} cores busy at the end: the ratios are not to be quoted.")
    if options.json:
        report.write_json(options.json, values)
    differs = [r for r in values["results"] if r["difference"] > TOLERANCE * max(1, r["largest"])]
    if differs and options.dtype == "float32":
        print(f"error: latents differ: {differs[0]['what']}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
