"""Denoisers whose dense layers and convolutions compute in 8-bit integers.

Half the memory of weights in bfloat16, and products at twice the rate where the hardware has them
(TPUs, NVIDIA from Turing on). Each kernel has a scale for each output channel; what enters a layer
is quantized on the way (`syncos_jax.kernels.quantized`). Norms, attention and what is added stay
as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.kernels.quantized import quantize, quantized_conv, quantized_product
from syncos_jax.kernels.temporal_conv.plain import neighbours
from syncos_jax.models.layers import TemporalConv

QUANTIZATIONS = ("int8",)

_quantize = jax.jit(quantize, static_argnums=1)


class _Quantized(nnx.Module):
    """A layer of integers: ``values`` int8 with its output channels last, ``scale`` of each."""

    def __init__(self, layer: Any, kernel: jax.Array) -> None:
        values, scale = _quantize(kernel, tuple(range(kernel.ndim - 1)))
        self.values, self.scale = nnx.Param(values), nnx.Param(scale.reshape(-1))
        self.bias = layer.bias
        self.dtype = kernel.dtype

    def _shifted(self, y: jax.Array) -> jax.Array:
        if self.bias is None:
            return y
        bias: jax.Array = self.bias[...].astype(y.dtype)
        return y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


class QuantizedLinear(_Quantized):
    """In place of ``nnx.Linear``: ``[..., C] -> [..., O]``."""

    def __init__(self, layer: nnx.Linear) -> None:
        super().__init__(layer, layer.kernel[...])

    def __call__(self, x: jax.Array) -> jax.Array:
        y = quantized_product(x.astype(self.dtype), self.values[...], self.scale[...])
        return self._shifted(y)


class QuantizedConv(_Quantized):
    """In place of a 2-D ``nnx.Conv``: ``[n, H, W, C] -> [n, H', W', O]``."""

    def __init__(self, layer: nnx.Conv) -> None:
        super().__init__(layer, layer.kernel[...])
        self.strides: Any = layer.strides
        self.padding: Any = layer.padding

    def __call__(self, x: jax.Array) -> jax.Array:
        weights = self.values[...], self.scale[...]
        y = quantized_conv(x.astype(self.dtype), *weights, self.strides, self.padding)
        return self._shifted(y)


class QuantizedTemporalConv(_Quantized):
    """In place of `TemporalConv`, as one product over the taps."""

    def __init__(self, layer: TemporalConv) -> None:
        kernel = layer.kernel[...]
        super().__init__(layer, kernel.reshape(-1, kernel.shape[-1]))

    def __call__(self, x: jax.Array) -> jax.Array:
        with jax.named_scope("temporal_convolution"):
            y = quantized_product(neighbours(x), self.values[...], self.scale[...])
            return self._shifted(y)


_IN_PLACE_OF: dict[type, Callable[[Any], _Quantized]] = {
    nnx.Linear: QuantizedLinear,
    nnx.Conv: QuantizedConv,
    TemporalConv: QuantizedTemporalConv,
}


def quantized(network: Any, how: str = "int8") -> Any:
    """The network with every dense layer and convolution in integers.

    Args:
        network: a Flax module, with weights or abstract ones.
        how: one of `QUANTIZATIONS`.

    Returns:
        A module that takes and gives what `network` does; of an abstract one, an abstract one.

    Raises:
        InputError: another `how`.
    """
    if how not in QUANTIZATIONS:
        raise InputError(f"no quantization {how!r}; known are {', '.join(QUANTIZATIONS)}")
    graphdef, weights = nnx.split(network)
    abstract = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(weights))
    if abstract:
        return nnx.eval_shape(_replaced, network)
    return _replaced(nnx.merge(graphdef, weights))


def _replaced(network: Any) -> Any:
    for _, module in list(nnx.iter_modules(network)):
        for name, layer in list(vars(module).items()):
            if type(layer) in _IN_PLACE_OF:
                setattr(module, name, _IN_PLACE_OF[type(layer)](layer))
    return network
