"""The operations of `kernels/`, each in every way that it can be computed here.

    python benchmarks/kernels.py                 # on a CPU in little, elsewhere at full size
    python benchmarks/kernels.py --size small --only attention

Attention shapes come from `kernels/attention/shapes.py`, layers from `kernels/bench_shapes.py`;
the others are VideoCrafter2's at its finest level. Writes
benchmarks/results/kernels-KIND-OF-DEVICE.md; the default implementation is marked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from syncos_jax.bench import report
from syncos_jax.bench.device import kind, machine
from syncos_jax.bench.measure import Work, measure
from syncos_jax.errors import InputError
from syncos_jax.files import replacing
from syncos_jax.kernels.attention import IMPLEMENTATIONS, attention, choose, unsupported_reason
from syncos_jax.kernels.attention.shapes import SHAPES
from syncos_jax.kernels.bench_shapes import LAYERS, Layer, layers
from syncos_jax.kernels.feed_forward import plain as unit
from syncos_jax.kernels.quantized import quantize, quantized_product
from syncos_jax.kernels.temporal_conv import plain as over_frames

RESULTS = Path(__file__).parent / "results"
OPERATIONS = ("attention", "layers", "geglu", "temporal_conv", "product")
HEADER = ("operation", "way", "taken", "a call", "spread", "times as fast as the first", "peak")
OF_PLATFORM = {"cudnn": "gpu", "flash": "tpu", "flat": "tpu", "cuda": "gpu"}
CELLS = {"full": (2, 16, 40, 64, 320), "small": (2, 16, 10, 16, 64)}
"""VideoCrafter2's finest level: clips, frames, rows, columns, channels."""

Way = tuple[str, bool, Callable[..., Any], tuple[jax.Array, ...]]
"""Name, whether it is what is taken where nothing is said, function, arguments."""


def normal(seed: int, *shape: int, dtype: Any) -> jax.Array:
    """Standard normal numbers."""
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32).astype(dtype)


def attentions(size: str, platform: str) -> Iterator[tuple[str, list[Way]]]:
    """Of each shape the implementations that run on this platform."""
    for listed in SHAPES:
        shape = listed.small if size == "small" else listed
        q, k, v = (normal(i, *a.shape, dtype=a.dtype) for i, a in enumerate(shape.arrays))
        taken = choose(q, shape.S, {"gpu": "cuda"}.get(platform, platform))
        ways: list[Way] = []
        for name in IMPLEMENTATIONS:
            elsewhere = OF_PLATFORM.get(name, platform) != platform
            if not elsewhere and unsupported_reason(name, q, shape.S) is None:
                way = partial(attention, implementation=name)
                ways.append((name, name == taken, way, (q, k, v)))
        yield shape.name, ways


def can(layer: Layer, implementation: str) -> bool:
    """Whether a layer can be computed so at its size."""
    try:
        jax.eval_shape(partial(layer.function, implementation=implementation), *layer.arrays)
    except InputError:
        return False
    return True


def whole_layers(size: str, platform: str) -> Iterator[tuple[str, list[Way]]]:
    """Layers as they stand in the networks, and by a TPU's kernel."""
    small = layers("in little", CELLS["small"], 1, dtype="float32")
    for layer in small if size == "small" else LAYERS:
        leaves, tree = jax.tree.flatten(layer.arrays)
        given = tree.unflatten(normal(i, *a.shape, dtype=a.dtype) for i, a in enumerate(leaves))
        able = [
            name
            for name, runs_on in layer.kernels.items()
            if OF_PLATFORM.get(runs_on, runs_on) == platform and can(layer, name)
        ]
        ways: list[Way] = [
            (
                name,
                name == (able or ["plain"])[0],
                partial(layer.function, implementation=name),
                given,
            )
            for name in ("plain", *able)
        ]
        yield f"{layer.name}, {layer.where}", ways


def gated(size: str, platform: str) -> Iterator[tuple[str, list[Way]]]:
    """The gated unit of the feed-forward."""
    B, F, H, W, C = CELLS[size]
    dtype = jnp.float32 if platform == "cpu" else jnp.bfloat16
    given = (normal(0, B * F, H * W, C, dtype=dtype), normal(1, C, 8 * C, dtype=dtype))
    given += (normal(2, 8 * C, dtype=dtype),)
    two = platform in ("cpu", "tpu")

    def through(halves: Any, *args: jax.Array) -> jax.Array:
        value, gate = halves(*args)
        return value * unit.gelu(gate)

    ways: list[Way] = [
        ("two products", two, partial(through, unit.two_products), given),
        ("one product", not two, partial(through, unit.one_product), given),
    ]
    yield "gated unit", ways


def convolutions(size: str, platform: str) -> Iterator[tuple[str, list[Way]]]:
    """The convolution over frames."""
    B, F, H, W, C = CELLS[size]
    dtype = jnp.float32 if platform == "cpu" else jnp.bfloat16
    given = (normal(0, B, F, H, W, C, dtype=dtype), normal(1, 3, C, C, dtype=dtype))
    stacked = platform in ("cpu", "tpu")
    ways: list[Way] = [
        ("taps stacked", stacked, over_frames.stacked, given),
        ("2-D convolution", not stacked, over_frames.convolved, given),
    ]
    yield "convolution over frames", ways


def products(size: str, platform: str) -> Iterator[tuple[str, list[Way]]]:
    """A dense layer, as it is and of 8-bit integers."""
    B, F, H, W, C = CELLS[size]
    dtype = jnp.float32 if platform == "cpu" else jnp.bfloat16
    x, kernel = normal(0, B * F * H * W, C, dtype=dtype), normal(1, C, 4 * C, dtype=dtype)
    values, scale = quantize(kernel, 0)
    ways: list[Way] = [
        (str(jnp.dtype(dtype)), True, jnp.matmul, (x, kernel)),
        ("int8", False, quantized_product, (x, values, scale.reshape(-1))),
    ]
    yield "product", ways


MAKERS = {
    "attention": attentions,
    "layers": whole_layers,
    "geglu": gated,
    "temporal_conv": convolutions,
    "product": products,
}


def rows(operation: str, ways: list[Way], repeat: int) -> Iterator[tuple[str, ...]]:
    """Lines of the table; ways that do not fit in memory are told."""
    first = None
    for name, taken, function, given in ways:
        jitted = jax.jit(function)
        work = Work(name, operation, partial(jitted.lower, *given), lambda c, g=given: c(*g))
        try:
            found = measure(work, repeat=repeat)
        except jax.errors.JaxRuntimeError as error:
            why = str(error).split(":", 1)[0]
            yield operation, name, "yes" if taken else "", why, "", "", ""
            continue
        first = first or found.median
        yield (
            operation,
            name,
            "yes" if taken else "",
            report.duration(found.median),
            f"{100 * found.spread:.0f} %",
            f"{first / found.median:.2f}",
            report.size(found.memory),
        )


def main(given: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("small", "full"))
    parser.add_argument("--only", default=",".join(OPERATIONS), help=", ".join(OPERATIONS))
    parser.add_argument("--repeat", type=int, default=9)
    options = parser.parse_args(given)
    wanted = options.only.split(",")
    unknown = [name for name in wanted if name not in MAKERS]
    if unknown:
        parser.error(f"no operation {unknown[0]!r}; known are {', '.join(OPERATIONS)}")
    platform = jax.devices()[0].platform
    size = options.size or ("small" if platform == "cpu" else "full")
    lines: list[tuple[str, ...]] = []
    for operation in wanted:
        for name, ways in MAKERS[operation](size, platform):
            print(f"--- {name}", file=sys.stderr, flush=True)
            lines += rows(name, ways, options.repeat)
    about = machine()
    text = f"# Operations, each way\n\n`{report.command()}` on {about['device']}"
    text += f" ({about['platform']}, {about['cores']} cores), {size} sizes; jax {jax.__version__}. "
    text += f"Medians of {options.repeat} calls.\n\n" + report.markdown(HEADER, lines)
    with replacing(RESULTS / f"kernels-{kind()}.md") as part:
        part.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
