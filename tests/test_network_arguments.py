"""What a denoising network says when it is called with the wrong arrays."""

import jax.numpy as jnp
import pytest
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.wan.config import WanTransformerConfig
from syncos_jax.models.wan.transformer import WanTransformer

X, T, TEXT = jnp.zeros((2, 1, 2, 2, 4)), jnp.zeros(2), jnp.zeros((2, 3, 6))


@pytest.fixture(scope="module")
def network():
    config = WanTransformerConfig(
        in_channels=4,
        out_channels=4,
        layers=1,
        heads=1,
        head_size=12,
        inner=8,
        text_features=6,
        time_features=8,
    )
    return WanTransformer(config, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((X, 500, TEXT), "t must be an array, got 500"),
        ((X, jnp.zeros(3), TEXT), r"t must be timesteps of shape \[2\] or \[2, 1\], got \(3,\)"),
        ((X[..., :3], T, TEXT), r"x must be latents of shape \[b, f, h, w, 4\]"),
        ((X[0], T, TEXT), r"x must be latents of shape"),
        ((X, T, TEXT[..., :5]), r"text must be prompt features of shape \[2, S, 6\]"),
        ((X.astype(jnp.int32), T, TEXT), "x must be a floating-point array, got 'int32'"),
    ],
)
def test_wrong_arguments(network, arguments, said):
    with pytest.raises(InputError, match=said):
        network(*arguments)


def test_right_arguments(network):
    assert network(X, T, TEXT).shape == X.shape
    assert network(X, T[:, None], TEXT).shape == X.shape
