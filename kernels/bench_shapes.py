"""Layers of VideoCrafter2's UNet that have kernels: what is tested, compiled and timed.

``python benchmarks/kernels.py`` measures them; the tests take others in little.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from syncos_jax.kernels.attention_layer import (
    TemporalWeights,
    TextWeights,
    temporal_attention,
    text_attention,
)
from syncos_jax.kernels.feed_forward import Weights as FeedForward
from syncos_jax.kernels.feed_forward import feed_forward, geglu
from syncos_jax.kernels.temporal_conv import Weights as NormConv
from syncos_jax.kernels.temporal_conv import norm_conv


@dataclass(frozen=True)
class Layer:
    """A layer.

    Attributes:
        name: the operation.
        where: in which network.
        function: takes the arrays and ``implementation=``.
        arrays: shapes of what it takes.
        kernels: its implementations besides the plain one, and the platform of each.
    """

    name: str
    where: str
    function: Callable[..., jax.Array]
    arrays: tuple[Any, ...]
    kernels: dict[str, str]


def layers(
    where: str,
    sides: tuple[int, int, int, int, int],
    heads: int,
    *,
    words: int = 77,
    dtype: str = "bfloat16",
) -> tuple[Layer, ...]:
    """Those of one level.

    Args:
        where: in which network.
        sides: clips, frames, rows and columns of cells, channels.
        heads: of the attentions; as wide together as there are channels.
        words: of the text.
        dtype: of everything.
    """
    B, F, H, W, C = sides

    def array(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    norm, square, row = (array(C), array(C)), array(C, C), array(C)
    text = array(B, words, C)
    temporal = TemporalWeights(*norm, square, square, square, square, row)
    unit = FeedForward(*norm, array(C, 8 * C), array(8 * C), array(4 * C, C), row)
    conv = NormConv(*norm, array(3, C, C), row)
    cells, tokens = array(B, F, H * W, C), array(B, F * H * W, C)
    return (
        Layer("feed-forward", where, feed_forward, (tokens, unit), {"fused": "tpu"}),
        Layer(
            "gated unit", where, geglu, (tokens, array(C, 8 * C), array(8 * C)), {"triton": "cuda"}
        ),
        Layer(
            "attention over frames",
            where,
            partial(temporal_attention, heads=heads),
            (cells, temporal),
            {"fused": "tpu", "triton": "cuda"},
        ),
        Layer(
            "attention to the text",
            where,
            partial(text_attention, heads=heads),
            (tokens, text, text, TextWeights(*norm, square, square, row)),
            {"fused": "tpu"},
        ),
        Layer(
            "norm and convolution over frames",
            where,
            partial(norm_conv, groups=min(32, C), eps=1e-5),
            (array(B, F, H, W, C), conv),
            {"fused": "tpu"},
        ),
    )


LAYERS: tuple[Layer, ...] = tuple(
    layer
    for level, (channels, heads) in enumerate(((320, 5), (640, 10), (1280, 20)))
    for layer in layers(
        f"VideoCrafter2, level {level}", (2, 16, 40 >> level, 64 >> level, channels), heads
    )
)
