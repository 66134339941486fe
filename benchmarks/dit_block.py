"""Static cycles and bytes of one transformer block on a TPU that is not there.

    python benchmarks/dit_block.py wan                # Wan 2.1 1.3B, 832 x 480, 81 frames
    python benchmarks/dit_block.py cogvideox --chip v5e

Compiles one block for one clip in bfloat16 and sums the compiler's final schedule: outside kernels
its estimate of each operation, inside them the bundles (issue slots) of a step times the steps of
the grid. Of parts that do not run in every step the longest counts as if it did, the others not at
all. Waiting for memory is not in it. Needs the compiler: pip install ".[tpu-compiler]".
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_SCOPE = re.compile(r'op_name="([^"]*)"')
_BUNDLE = re.compile(r"^\s*(0x[0-9a-f]+|0)\s*([A-Z]{2})?\s*:(.*)$")
_BRANCH = re.compile(r"sbr\.rel \(([^)]*)\)[^}]*?target = (\$\w+)")
PARTS = ("self_attention", "cross_attention", "feed_forward", "attention")
DUMP = (
    "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true "
    "--xla_jf_dump_llo_pass_label_regex=.*final.*"
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
            x = nnx.merge(graph, own)(x, embedded, words, None)
        return x

    return function, ([weights] * blocks, *rest)


def grids(jaxpr: Any) -> Iterator[tuple[tuple[str, tuple[Any, ...]], int]]:
    """Of every kernel: its name with the shapes that it takes, and the steps of its grid."""
    import math

    from syncos_jax.pipeline.flops import inner_jaxprs

    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            name = str(equation.params["name_and_src_info"].name)
            shapes = tuple(tuple(v.aval.shape) for v in equation.invars)
            yield (name, shapes), math.prod(equation.params["grid_mapping"].grid)
        else:
            for inner in inner_jaxprs(equation.params):
                yield from grids(inner)


def step_of(text: str) -> int:
    """Bundles of one step of a kernel's grid, from its final schedule."""
    at: list[int] = []
    marks: dict[str, int] = {}
    jumps: list[tuple[int, str]] = []
    head = 0
    for line in text.splitlines():
        label = re.match(r"^\s*(\$\w+)\s*:", line)
        found = _BUNDLE.match(line)
        if found is None:
            if label:
                marks[label[1]] = len(at)
            continue
        where = len(at)
        at.append(int(found[1], 16))
        if found[2] == "LB" and not head:
            head = where
        for name in re.findall(r"(\$region\w+)\s*:", found[3]):
            marks[name] = where
        jumps += [(where, target) for _, target in _BRANCH.findall(found[3])]
    skipped = [(a, marks[t]) for a, t in jumps if t in marks and marks[t] > a]
    return _longest(head, len(at), skipped)


def _longest(begin: int, end: int, skipped: list[tuple[int, int]]) -> int:
    own = [(a, b) for a, b in skipped if begin <= a and b <= end]
    outer = [x for x in own if not any(y != x and y[0] <= x[0] and x[1] <= y[1] for y in own)]
    sizes = [b - a for a, b in outer]
    return end - begin - sum(sizes) + max(sizes, default=0)


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
