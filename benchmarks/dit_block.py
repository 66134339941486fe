"""Static cycles and bytes of one transformer block on a TPU that is not there.

    python benchmarks/dit_block.py wan                # Wan 2.1 1.3B, 832 x 480, 81 frames
    python benchmarks/dit_block.py cogvideox --chip v5e

Compiles one block for one clip in bfloat16 and sums the compiler's final schedule: outside kernels
its estimate of each operation, inside them the bundles (issue slots) of a step times the steps of
the grid. Of parts that do not run in every step the longest counts as if it did (attention's last
block of keys by its share), the others not at all. Waiting for memory is not in it. Needs the
compiler: pip install ".[tpu-compiler]".
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_REGION = re.compile(r"Start(?:/End empty)? region (\d+)\b")
_JUMP = re.compile(r"sbr\.rel \([^)]*\) target = \$region(\d+)")
_SCOPE = re.compile(r'op_name="([^"]*)"')
_BUNDLE = re.compile(r"^\s*(0x[0-9a-f]+|0)\s*([A-Z]{2})?\s*:(.*)$")
PARTS = ("self_attention", "cross_attention", "feed_forward", "attention")
DUMP = (
    "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=.*final.*"
)


def wan(dtype: Any, blocks: int) -> tuple[Any, tuple[Any, ...]]:
    """Blocks of Wan 2.1 1.3B and the shapes of what they take."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from syncos_jax.models.layers import AbstractRngs
    from syncos_jax.models.wan.config import WanTransformerConfig
    from syncos_jax.models.wan.transformer import Block

    config, tokens = WanTransformerConfig.wan_1_3b(), 21 * 30 * 52
    block = nnx.eval_shape(lambda: Block(config, dtype=dtype, rngs=AbstractRngs()))
    graph, weights = nnx.split(block)
    width, size = config.width, config.head_size
    shape = jax.ShapeDtypeStruct
    angle = (shape((tokens, size), jnp.float32),) * 2
    of_block = (weights, shape((1, 1, 6, width), jnp.float32))
    rest = (shape((1, tokens, width), dtype), shape((1, 512, width), dtype), angle)

    def function(weights: Any, x: Any, text: Any, angle: Any) -> Any:
        for own, time_ in weights:
            x = nnx.merge(graph, own)(x, text, time_, angle)
        return x

    return function, ([of_block] * blocks, *rest)


def cogvideox(dtype: Any, blocks: int) -> tuple[Any, tuple[Any, ...]]:
    """Blocks of CogVideoX-2B at 480 x 720, 49 frames, and the shapes of what they take."""
    import jax
    from flax import nnx

    from syncos_jax.models.cogvideox.config import CogVideoXTransformerConfig
    from syncos_jax.models.cogvideox.transformer import Block
    from syncos_jax.models.layers import AbstractRngs

    config = CogVideoXTransformerConfig.cogvideox_2b()
    words, tokens = 226, 13 * 30 * 45
    block = nnx.eval_shape(lambda: Block(config, dtype=dtype, rngs=AbstractRngs()))
    graph, weights = nnx.split(block)
    shape = jax.ShapeDtypeStruct
    rest = (
        shape((1, words + tokens, config.width), dtype),
        shape((1, 1, config.time_features), dtype),
    )

    def function(weights: Any, x: Any, embedded: Any) -> Any:
        for own in weights:
            x = nnx.merge(graph, own)(x, embedded, None, text=words)
        return x

    return function, ([weights] * blocks, *rest)


def grids(jaxpr: Any) -> Iterator[tuple[str, tuple[Any, ...], tuple[int, ...]]]:
    """Of every kernel: its name, the shapes that it takes, and its grid."""
    from syncos_jax.pipeline.flops import inner_jaxprs

    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            shapes = tuple(tuple(v.aval.shape) for v in equation.invars)
            name = str(equation.params["name"])
            yield name, shapes, tuple(equation.params["grid_mapping"].grid)
        else:
            for inner in inner_jaxprs(equation.params):
                yield from grids(inner)


def step_of(text: str, last: float = 0.0) -> float:
    """Bundles of one step of a kernel's grid, from its final schedule, on average.

    Args:
        last: the share of steps that take the last part instead of the longest before it.
    """
    count, head = 0, None
    places: dict[str, int] = {}
    jumps: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = _BUNDLE.match(line)
        if found is None:
            continue
        if found[2] == "LB" and head is None:
            head = count
        for region in _REGION.findall(found[3]):
            places.setdefault(region, count)
        jumps += [(count, region) for region in _JUMP.findall(found[3])]
        count += 1
    skipped = {(at, places[to]) for at, to in jumps if places.get(to, 0) > at >= (head or 0)}
    return _average(head or 0, count, skipped, last)


def _average(begin: int, end: int, skipped: set[tuple[int, int]], last: float) -> float:
    """Bundles from `begin` to `end`, of the parts that may be skipped the longest only."""
    own = {x for x in skipped if _within(x, (begin, end))}
    outer = sorted(x for x in own if not any(_within(x, y) for y in own))
    always = end - begin - sum(last - first for first, last in outer)
    costs = [_average(*x, own, last) for x in outer]
    most = max(costs, default=0)
    large = [cost for cost in costs if cost > most / 2]
    if last and len(large) > 1:
        return always + last * large[-1] + (1 - last) * max(large[:-1])
    return always + most


def _within(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one != other and other[0] <= one[0] and one[1] <= other[1]


def measure(model: str, chip: str, blocks: int, folder: Path) -> dict[str, Any]:
    """Compiles and counts."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from syncos_jax.pipeline.hardware.program import read
    from syncos_jax.pipeline.hardware.targets import parse

    function, arrays = {"wan": wan, "cogvideox": cogvideox}[model](jnp.bfloat16, blocks)
    mesh = Mesh(np.array(parse(f"{chip}:1").devices()), ("x",))
    sharding = NamedSharding(mesh, PartitionSpec())
    arrays = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), arrays
    )
    traced = jax.jit(function, out_shardings=sharding).trace(*arrays)
    begin = time.perf_counter()
    compiled = traced.lower(lowering_platforms=("tpu",)).compile()
    seconds = time.perf_counter() - begin
    program = read(compiled.as_text())
    instructions = program.computations[program.entry]
    shapes = {i.name: tuple(a.shape for a in i.results) for i in instructions}
    known = {(name, given): grid for name, given, grid in grids(traced.jaxpr)}

    def key_of(kernel: Any) -> tuple[str, tuple[Any, ...]]:
        return kernel.name.split(".")[0], tuple(shapes[o][0] for o in kernel.operands)

    texts = {}
    for instruction in instructions:
        files = folder.glob(f"*-{instruction.name}-*-final_bundles.txt")
        for file in files if "tpu_custom_call" in instruction.text else ():
            if "analysis" not in file.name:
                texts[key_of(instruction)] = file.read_text()
    cycles: collections.Counter[str] = collections.Counter()
    for instruction in instructions:
        scope = (_SCOPE.search(instruction.text) or ["", ""])[1]
        part = next((name for name in PARTS if f"/{name}/" in scope), "other")
        if "tpu_custom_call" in instruction.text:
            key = key_of(instruction)
            grid, text = known[key], texts[key]  # alike ones are compiled once
            last = 1 / grid[3] if key[0] == "flat_attention" else 0.0  # the ragged block of keys
            cycles[f"{part}, {key[0]}"] += round(math.prod(grid) * step_of(text, last))
        else:
            found = _CYCLES.search(instruction.text)
            cycles[part] += int(found[1]) if found else 0
    kernels = sum(n for part, n in cycles.items() if part.endswith(", flat_attention"))
    costs = compiled.cost_analysis() or {}
    return {
        "model": model,
        "chip": chip,
        "blocks": blocks,
        "compile_s": round(seconds, 1),
        "gigabytes": round(costs.get("bytes accessed", 0) / 1e9, 2),
        "megacycles": {part: round(count / 1e6, 2) for part, count in sorted(cycles.items())},
        "attention_kernels": round(kernels / 1e6, 2),
        "sum": round(sum(cycles.values()) / 1e6, 2),
    }


def main() -> None:
    """Prints one line of JSON for one block, and the bytes of two."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=("wan", "cogvideox"))
    parser.add_argument("--chip", default="v6e", choices=("v5e", "v6e", "v5p"))
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for the compiler's texts")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(
        JAX_PLATFORMS="cpu",
        TPU_SKIP_MDS_QUERY="1",
        TF_CPP_MIN_LOG_LEVEL="3",
        LIBTPU_INIT_ARGS=DUMP.format(folder),
    )
    print(json.dumps(measure(options.model, options.chip, options.blocks, folder)))


if __name__ == "__main__":
    main()
