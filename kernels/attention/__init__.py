"""Softmax attention, by whichever of several implementations suits the device and the shapes.

`attention` is what the networks call. Sizes: ``b`` batch, ``T`` queries, ``S`` keys, ``N`` heads,
``D`` head size.

| implementation | runs on | holds the scores | dtypes, head sizes |
|---|---|---|---|
| ``plain`` | everything | all of them | any |
| ``chunked`` | everything | of some queries at a time | any |
| ``cudnn`` | NVIDIA, from Ampere on | never | half precision, D to 128, a multiple of 8 |
| ``flat`` | TPU | never | D of 64 or 128, rows of 128 features full |
| ``flash`` | TPU | never | D to 128, or a multiple of 128 |
"""

from syncos_jax.kernels.attention.choice import (
    IMPLEMENTATIONS,
    Implementation,
    attention,
    choose,
    unsupported_reason,
)

__all__ = ["IMPLEMENTATIONS", "Implementation", "attention", "choose", "unsupported_reason"]
