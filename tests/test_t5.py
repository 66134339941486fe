"""T5 and UMT5 encoders against transformers: random weights, float32 and bfloat16."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from networks import quickly
from test_models_parity import randomise
from transformers import T5Config as TorchT5Config
from transformers import T5EncoderModel, UMT5EncoderModel
from transformers import UMT5Config as TorchUMT5Config
from transformers.models.t5.modeling_t5 import T5Attention

from syncos_jax.errors import InputError
from syncos_jax.models.t5 import T5Config, T5Encoder, relative_buckets
from syncos_jax.weights_convert.diffusers_tables import to_diffusers
from syncos_jax.weights_convert.t5 import t5_config, t5_table
from syncos_jax.weights_convert.table import fill, leaves

SIZES = {"vocab_size": 90, "d_model": 24, "d_kv": 10, "d_ff": 40, "num_layers": 2, "num_heads": 3}
MODELS = {
    "t5 v1.1": (T5EncoderModel, TorchT5Config, {"feed_forward_proj": "gated-gelu"}),
    "t5": (T5EncoderModel, TorchT5Config, {"layer_norm_epsilon": 1e-4}),
    "umt5": (
        UMT5EncoderModel,
        TorchUMT5Config,
        {"relative_attention_num_buckets": 12, "relative_attention_max_distance": 20},
    ),
}


def initial(name):
    """With weights of the size that the library starts with, as bfloat16 asks for."""
    network, config, settings = MODELS[name]
    torch.manual_seed(0)
    return network(config(**SIZES, **settings)).eval()


def reference(name):
    return randomise(initial(name))


def port(model, dtype=jnp.float32):
    config = t5_config(model.config.to_dict())
    state = {k: v.numpy() for k, v in model.state_dict().items()}
    abstract = nnx.eval_shape(lambda: T5Encoder(config, dtype=dtype, rngs=nnx.Rngs(0)))
    return fill(abstract, t5_table(config, state), state, state.__getitem__, what="reference")


def inputs():
    ids = torch.randint(0, 90, (2, 37), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(37)[None] < torch.tensor([[37], [5]])
    return ids, mask


@pytest.mark.parametrize(
    ("name", "masked"), [("t5 v1.1", True), ("t5 v1.1", False), ("t5", True), ("umt5", True)]
)
def test_parity(name, masked):
    model = reference(name)
    ids, mask = inputs()
    given = mask if masked else torch.ones_like(mask)
    with torch.no_grad():
        expected = model(ids, attention_mask=given.long()).last_hidden_state.numpy()
    actual = quickly(T5Encoder.__call__)(
        port(model),
        jnp.asarray(ids.numpy(), jnp.int32),
        jnp.asarray(mask.numpy()) if masked else None,
    )
    keep = given.numpy()
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(
        np.asarray(actual)[keep], expected[keep], rtol=0, atol=1e-5 * np.abs(expected).max()
    )


def test_bfloat16():
    model = initial("umt5")
    ids, _ = inputs()
    with torch.no_grad():
        expected = model(ids).last_hidden_state.numpy()
    actual = quickly(T5Encoder.__call__)(
        port(model, jnp.bfloat16), jnp.asarray(ids.numpy(), jnp.int32)
    )
    assert actual.dtype == jnp.bfloat16
    error = np.linalg.norm(np.asarray(actual, np.float32) - expected) / np.linalg.norm(expected)
    assert error < 2e-2


@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (12, 20), (64, 256), (8, 5)])
def test_buckets(buckets, distance):
    offset = torch.arange(600)[None, :] - torch.arange(600)[:, None]
    expected = T5Attention._relative_position_bucket(offset, True, buckets, distance)
    np.testing.assert_array_equal(relative_buckets(600, buckets, distance), expected.numpy())


@pytest.mark.parametrize("name", MODELS)
def test_names_lead_back(name):
    model = reference(name)
    ours = port(model)
    config = t5_config(model.config.to_dict())
    written = to_diffusers(ours, t5_table(config, ()))
    state = model.state_dict()
    assert set(state) - set(written) == {"encoder.embed_tokens.weight"}
    for key, array in written.items():
        np.testing.assert_array_equal(array, state[key].numpy())


def test_full_size():
    for config, count in ((T5Config.t5_xxl(), 4_762_310_656), (T5Config.umt5_xxl(), 5_680_910_336)):
        model = nnx.eval_shape(lambda config=config: T5Encoder(config, rngs=nnx.Rngs(0)))
        assert sum(leaf.size for leaf in leaves(model).values()) == count


def test_refusals():
    with pytest.raises(InputError, match="model_type is 'clip_text_model'"):
        t5_config({"model_type": "clip_text_model"})
    with pytest.raises(InputError, match="feed_forward_proj"):
        t5_config({"model_type": "t5", "feed_forward_proj": "gated-softshrink"})
    with pytest.raises(InputError, match="buckets"):
        dataclasses.replace(T5Config.t5_xxl(), max_distance=8)
