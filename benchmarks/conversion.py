"""Memory and time of converting networks of published sizes, with random weights.

    python benchmarks/conversion.py open-sora-plan-1.3
    python benchmarks/conversion.py open-sora-plan-1.3 --only text_encoder --layers 6
    python benchmarks/conversion.py ltx-2.3 --only transformer --layers 12

Writes each network as a safetensors file of bfloat16, as it is published, then runs
``syncos convert --only`` in a process of its own. Needs twice the network on the disk (--folder).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from syncos_jax.bench import report
from syncos_jax.models import saved
from syncos_jax.models.ltx.settings import LTXConfig
from syncos_jax.models.open_sora_plan.settings import OpenSoraPlanConfig
from syncos_jax.models.weights import leaves
from syncos_jax.weights_convert import ltx_tables, open_sora_plan_tables, t5
from syncos_jax.weights_convert.table import AnyTable

GIB = 2**30
RESULTS = Path(__file__).parent / "results" / "conversion.json"
HEADER = ("model", "network", "parameters", "file", "seconds", "of CPU", "peak memory", "bound")
_BLOCK = 2**22

OPEN_SORA_PLAN = {
    "transformer": {
        "_class_name": "OpenSoraT2V_v1_3",
        "num_attention_heads": 24,
        "attention_head_dim": 96,
        "in_channels": 8,
        "num_layers": 32,
        "cross_attention_dim": 2304,
        "attention_bias": True,
        "activation_fn": "gelu-approximate",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "caption_channels": 4096,
        "sparse1d": True,
        "sparse_n": 4,
    },
    "vae": {
        "_class_name": "WFVAEModel",
        "norm_type": "layernorm",
        "t_interpolation": "trilinear",
        "encoder_energy_flow_hidden_size": 128,
    },
    "text_encoder": {
        "model_type": "mt5",
        "d_model": 4096,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
    },
}
LTX = {
    "transformer": {
        "_class_name": "LTX2VideoTransformer3DModel",
        "num_layers": 48,
        "cross_attention_dim": 4096,
        "use_prompt_embeddings": False,
        "gated_attn": True,
        "cross_attn_mod": True,
        "audio_cross_attn_mod": True,
        "rope_type": "split",
    }
}
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "open-sora-plan-1.3": (OpenSoraPlanConfig(name=""), OPEN_SORA_PLAN),
    "ltx-2.3": (LTXConfig(name=""), LTX),
}
TABLES: dict[tuple[str, str], AnyTable] = {
    ("open_sora_plan", "transformer"): open_sora_plan_tables.TRANSFORMER,
    ("open_sora_plan", "vae"): open_sora_plan_tables.VAE,
    ("open_sora_plan", "text_encoder"): t5.T5,
    ("ltx", "transformer"): ltx_tables.TRANSFORMER,
}
# A process counts what the one that started it had in memory; between them stands a small one.
BETWEEN = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=sys.stderr)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
sys.exit(code)
"""


def tensors(config: Any, name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a network's tensors in its file."""
    table = TABLES[config.family, name]
    for path, leaf in leaves(saved.build(name, config, np.float32)).items():
        key, shape = table.key(path), tuple(leaf.shape)
        layer, _, tensor = key.rpartition(".")
        # Some layers of the file hold their convolution.
        key = next(
            name
            for name in (key, f"{layer}.conv.{tensor}")
            if [target.path for target in table.targets(name)] == [path]
        )
        (target,) = table.targets(key)
        for given in _layouts(shape):
            try:
                if target.transform(np.broadcast_to(np.uint8(0), given)).shape == shape:
                    yield key, given
                    break
            except ValueError:
                continue
        else:
            raise AssertionError((key, shape))


def _layouts(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Shapes of PyTorch that could become this one of ours."""
    if len(shape) == 2:
        yield shape[1], shape[0] // 4, 2, 2  # patches of two by two
        yield shape[1], shape[0]
        yield shape[1], shape[0], 1, 1, 1
    if len(shape) == 4:
        yield shape[3], shape[2], *shape[:2]
    yield shape


def write_random(path: Path, shapes: list[tuple[str, tuple[int, ...]]]) -> int:
    """A safetensors file of bfloat16 with random values; its number of values."""
    header: dict[str, Any] = {}
    offset = 0
    for key, shape in shapes:
        size = 2 * math.prod(shape)
        places = [offset, offset + size]
        header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": places}
        offset += size
    text = json.dumps(header).encode()
    block = (0.02 * np.random.default_rng(0).standard_normal(_BLOCK, np.float32)).astype(
        ml_dtypes.bfloat16
    )
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        left = offset // 2
        while left > 0:
            block[:left].tofile(file)
            left -= _BLOCK
    return offset // 2


def measured(config: Any, name: str, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Writes a network, converts it, and what that took."""
    source = folder / name
    source.mkdir()
    (source / "config.json").write_text(json.dumps(settings))
    path = source / "diffusion_pytorch_model.safetensors"
    if name == "text_encoder":
        path = source / "model.safetensors"
    count = write_random(path, list(tensors(config, name)))
    convert = [
        sys.executable,
        "-c",
        "from syncos_jax.cli import main; main()",
        "convert",
        str(folder),
    ]
    convert += ["--only", name, "--out", str(folder / "out")]
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", BETWEEN, *convert], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = time.monotonic() - begin
    cpu, peak = map(float, done.stdout.split())
    size = path.stat().st_size
    path.unlink()
    return {
        "parameters": count,
        "file": size,
        "seconds": seconds,
        "cpu": cpu,
        "peak": peak,
        "bound": 1.2 * size + GIB,
        "date": time.strftime("%Y-%m-%d"),
    }


def row(key: str, entry: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    model, network = key.split(" ", 1)
    sizes = (f"{entry[name] / GIB:.2f} GiB" for name in ("file", "peak", "bound"))
    file, peak, bound = sizes
    times = (f"{entry['seconds']:.0f}", f"{entry['cpu']:.0f}")
    return (model, network, f"{entry['parameters']:,}", file, *times, peak, bound)


def main(given: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--only", help="one network")
    parser.add_argument("--layers", type=int, help="that many layers instead of all")
    parser.add_argument("--folder", help="where there is room; default: the temporary folder")
    options = parser.parse_args(given)
    config, networks = MODELS[options.model]
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name in networks if options.only is None else (options.only,):
        settings, sized = networks[name], config
        title = f"{options.model} {name}"
        if options.layers is not None:
            field = {"text_encoder": "text"}.get(name, name)
            fewer = dataclasses.replace(getattr(config, field), layers=options.layers)
            sized = dataclasses.replace(config, **{field: fewer})
            title += f", {options.layers} of {settings['num_layers']} layers"
            settings = {**settings, "num_layers": options.layers}
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            results[title] = measured(sized, name, settings, Path(folder))
        report.write_json(RESULTS, results)
        rows = [row(key, entry) for key, entry in sorted(results.items())]
        text = "# Memory and time of conversion\n\n`python benchmarks/conversion.py`, bfloat16.\n"
        text += "The bound is 1.2 times the file and 1 GiB.\n\n" + report.markdown(HEADER, rows)
        RESULTS.with_suffix(".md").write_text(text, encoding="utf-8")
        print(text, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
