"""Equal blocks stand in a network's program once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from syncos_jax.models import t5
from syncos_jax.models.cogvideox import transformer as cogvideox
from syncos_jax.models.cogvideox.config import CogVideoXTransformerConfig
from syncos_jax.models.t5 import T5Config, T5Encoder
from syncos_jax.models.wan import transformer as wan
from syncos_jax.models.wan.config import WanTransformerConfig


def of_wan():
    config = WanTransformerConfig(
        layers=3, heads=1, head_size=12, inner=8, text_features=4, time_features=4
    )
    arrays = jnp.ones((1, 1, 2, 4, 16)), jnp.ones((1,)), jnp.ones((1, 3, 4))
    return wan, wan.WanTransformer(config, rngs=nnx.Rngs(0)), arrays


def of_cogvideox():
    config = CogVideoXTransformerConfig(
        layers=3, heads=1, head_size=16, text_features=4, time_features=4
    )
    arrays = jnp.ones((1, 1, 2, 4, 16)), jnp.ones((1,)), jnp.ones((1, 3, 4))
    return cogvideox, cogvideox.CogVideoXTransformer(config, rngs=nnx.Rngs(0)), arrays


def of_t5():
    config = T5Config(
        vocabulary=9, features=4, inner=8, layers=3, heads=1, head_size=4, bias_per_layer=True
    )
    return t5, T5Encoder(config, rngs=nnx.Rngs(0)), (jnp.ones((1, 5), jnp.int32),)


@pytest.mark.parametrize("make", [of_wan, of_cogvideox, of_t5])
def test_a_program_has_equal_blocks_once_and_computes_the_same(make, monkeypatch):
    module, network, arrays = make()
    graphdef, weights = nnx.split(network)

    def lowered():
        def function(weights, *arrays):  # a new one, which is traced again
            return nnx.merge(graphdef, weights)(*arrays)

        return jax.jit(function).lower(weights, *arrays)

    shared = lowered()
    monkeypatch.setattr(module, "call_block", lambda block, *a, **static: block(*a, **static))
    alone = lowered()
    assert len(shared.as_text()) < 0.65 * len(alone.as_text())
    found, expected = (program.compile()(weights, *arrays) for program in (shared, alone))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
