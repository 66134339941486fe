"""Wan's transformer beside diffusers' on the same random weights, in turns, on this machine.

    python benchmarks/wan_torch.py [--tokens 240 1600] [--repeat 9] [--no-compile]

8 blocks, 512 wide, float32, 512 text tokens. Prints and writes benchmarks/results/wan_torch.md:
medians on the clock, ratios of it and of processor time, and the attention alone in every way that
runs here.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import compare
import jax
import numpy as np
import torch
from diffusers import WanTransformer3DModel
from flax import nnx

from syncos_jax.bench import device, report
from syncos_jax.files import replacing
from syncos_jax.kernels.attention import attention
from syncos_jax.models.layers import AbstractRngs
from syncos_jax.models.wan.config import WanTransformerConfig
from syncos_jax.models.wan.transformer import WanTransformer
from syncos_jax.weights_convert import wan_tables
from syncos_jax.weights_convert.table import fill

RESULT = Path(__file__).parent / "results" / "wan_torch.md"
LAYERS, HEADS, SIZE, INNER, TEXT = 8, 8, 64, 2048, 512
LATENTS = {240: (3, 16, 20), 1600: (4, 40, 40)}
"""Frames, rows and columns of latents, of which four cells are a token."""


def networks() -> tuple[WanTransformer3DModel, WanTransformer]:
    """diffusers' network with random weights, and ours with the same."""
    torch.manual_seed(0)
    theirs = WanTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=SIZE,
        num_layers=LAYERS,
        ffn_dim=INNER,
        text_dim=TEXT,
    ).eval()
    config = WanTransformerConfig(
        layers=LAYERS, heads=HEADS, head_size=SIZE, inner=INNER, text_features=TEXT
    )
    empty = nnx.eval_shape(lambda: WanTransformer(config, rngs=AbstractRngs()))
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    return theirs, fill(empty, wan_tables.TRANSFORMER, state, state.__getitem__, what="diffusers'")


def medians(runs: dict[str, Callable[[], Any]], repeat: int) -> dict[str, tuple[float, float]]:
    """Seconds on the clock and of processor time, after two calls that compile and warm up."""
    for run in runs.values():
        run()
        run()
    wall, processor = compare.take_turns(runs, repeat)
    return {
        name: (statistics.median(wall[name]), statistics.median(processor[name])) for name in runs
    }


def whole(tokens: int, repeat: int, compiled: bool) -> list[tuple[str, ...]]:
    """Rows of the network's table."""
    f, h, w = LATENTS[tokens]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, f, h, w, 16)).astype(np.float32)
    text = rng.normal(size=(1, 512, TEXT)).astype(np.float32)
    theirs, ours = networks()
    call = nnx.jit(WanTransformer.__call__)
    given = jax.device_put((x, np.full(1, 500, np.float32), text))
    of_torch = {
        "hidden_states": torch.from_numpy(np.moveaxis(x, -1, 1).copy()),
        "timestep": torch.full((1,), 500),
        "encoder_hidden_states": torch.from_numpy(text),
    }

    def by_torch(network: Any) -> np.ndarray:
        with torch.inference_mode():
            return np.moveaxis(network(**of_torch).sample.numpy(), 1, -1)

    runs = {
        "ours": lambda: np.asarray(call(ours, *given)),
        "torch eager": partial(by_torch, theirs),
    }
    if compiled:
        runs["torch.compile"] = partial(by_torch, torch.compile(theirs))
    difference = np.abs(runs["ours"]() - runs["torch eager"]()).max()
    assert difference < 1e-4, difference
    found = medians(runs, repeat)
    wall, processor = found["ours"]
    return [
        (
            f"{tokens:,}",
            name,
            report.duration(found[name][0]),
            f"{found[name][0] / wall:.2f}",
            f"{found[name][1] / processor:.2f}",
        )
        for name in runs
    ]


def attentions(tokens: int, keys: int, repeat: int) -> tuple[str, ...]:
    """A row of the attention's table: seconds of processor time."""
    rng = np.random.default_rng(0)
    q, k, v = (
        rng.normal(size=(1, n, HEADS, SIZE)).astype(np.float32) for n in (tokens, keys, keys)
    )
    given = jax.device_put((q, k, v))
    heads_first = [torch.from_numpy(a).transpose(1, 2) for a in (q, k, v)]
    scaled = torch.nn.functional.scaled_dot_product_attention
    runs: dict[str, Callable[[], Any]] = {
        name: partial(lambda run: jax.block_until_ready(run(*given)), jax.jit(way))
        for name, way in (
            ("plain", partial(attention, implementation="plain")),
            ("chunked", attention),
        )
    }
    runs["torch"] = lambda: scaled(*heads_first).transpose(1, 2).contiguous()
    found = medians(runs, 3 * repeat)
    return f"{tokens:,}", f"{keys:,}", *(report.duration(found[name][1]) for name in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, nargs="+", choices=LATENTS, default=list(LATENTS))
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--no-compile", dest="compiled", action="store_false")
    given = parser.parse_args()
    torch.set_num_threads(device.cores())
    rows = [row for n in given.tokens for row in whole(n, given.repeat, given.compiled)]
    alone = [attentions(n, keys, given.repeat) for n in given.tokens for keys in (n, 512)]
    machine = device.machine()
    text = "\n\n".join(
        [
            "# Wan's transformer beside PyTorch",
            f"`{report.command()}`; jax {machine['versions']['jax']}, "
            f"torch {torch.__version__}, others busy {machine['others_busy']}, "
            f"{device.cores()} threads. Eight blocks, 512 wide, float32.",
            report.markdown(("tokens", "", "a call", "of ours", "processor time, of ours"), rows),
            "Attention alone (8 heads of 64 features), processor time; `chunked` is what a CPU "
            "takes:",
            report.markdown(("tokens", "keys", "plain", "chunked", "torch"), alone),
        ]
    )
    with replacing(RESULT) as file:
        file.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
