"""The measures' networks against transformers: random weights, folders as it writes them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn import functional
from transformers import (
    BertConfig,
    BertModel,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    ViTModel,
)
from transformers import CLIPConfig as TorchCLIPConfig
from transformers import ViTConfig as TorchViTConfig

from syncos_jax.errors import InputError
from syncos_jax.metrics.networks import read
from syncos_jax.metrics.networks.clip import CLIP
from syncos_jax.metrics.networks.sentence import SentenceEncoder
from syncos_jax.models.resample import centre_crop, resize, sampling_matrix, shorter_side
from syncos_jax.models.vit import VisionTransformer, ViTConfig

TOLERANCE = 1e-5
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every tensor random: zeros and ones would hide whole branches."""
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        scale = 1.0 / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1
        centre = 1.0 if p.ndim == 1 and float(p.detach().mean()) == 1.0 else 0.0
        p.data = centre + scale * torch.randn(p.shape, generator=generator)
    return module.eval()


def saved(module: torch.nn.Module, folder):
    module.save_pretrained(folder)
    return folder


def images(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def torch_images(x):
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def plainly(network):
    """The same network, its position embeddings resized as transformers does."""
    graph, state = nnx.split(network)
    changed = nnx.merge(graph, state)
    changed.config = dataclasses.replace(network.config, position_offset=0.0)
    return changed


# -- resizing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "out"), [((9, 14), (5, 7)), ((6, 5), (13, 5)), ((4, 4), (4, 9))])
def test_resizing_is_torchs(kind, size, out):
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    expected = functional.interpolate(
        torch_images(frames).float(), size=out, mode=kind, align_corners=False, antialias=False
    )
    actual = np.moveaxis(resize(frames, *out, kind), -1, 1)
    np.testing.assert_allclose(actual, expected.numpy(), atol=1e-3)  # of 255


def test_sampling_by_a_scale_that_is_not_the_quotient():
    row = torch.arange(14.0)[None, None, None].repeat(1, 1, 3, 1) ** 2
    expected = functional.interpolate(row, scale_factor=(1.0, 24.1 / 14), mode="bicubic")
    actual = sampling_matrix(14, 24, "bicubic", 24.1 / 14) @ np.arange(14.0) ** 2
    np.testing.assert_allclose(actual, expected[0, 0, 0].numpy(), atol=1e-4)


def test_the_size_whose_shorter_side_is_given():
    assert shorter_side(480, 832, 224) == (224, 388)
    assert shorter_side(832, 480, 224) == (388, 224)
    assert shorter_side(64, 64, 224) == (224, 224)
    middle = centre_crop(np.arange(5)[None, :, None, None].repeat(4, axis=2), 2)
    assert middle[0, :, 0, 0].tolist() == [2, 3]  # round(1.5) is 2: to the even one


# -- ViT -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "pooler", "size"),
    [
        ({"image_size": 32, "patch_size": 8}, True, (32, 32)),
        ({"image_size": 32, "patch_size": 8}, False, (40, 27)),  # 3 columns left over
        ({"image_size": 30, "patch_size": 5, "qkv_bias": False}, True, (17, 60)),
        ({"image_size": 16, "patch_size": 16, "num_attention_heads": 1}, False, (33, 48)),
    ],
    ids=["its own size", "another size, no pooler", "no bias, wide", "one patch"],
)
def test_vit(settings, pooler, size, tmp_path):
    config = TorchViTConfig(**{**SMALL, "intermediate_size": 40, **settings})
    reference = randomise(ViTModel(config, add_pooling_layer=pooler))
    network = plainly(read.read_vit(saved(reference, tmp_path)))
    x = images(2, *size, 3)
    with torch.no_grad():
        expected = reference(torch_images(x), interpolate_pos_encoding=True)
    tokens = nnx.jit(VisionTransformer.__call__)(network, jnp.asarray(x))
    np.testing.assert_allclose(tokens, expected.last_hidden_state.numpy(), atol=TOLERANCE)
    if pooler:
        np.testing.assert_allclose(
            network.pool(tokens), expected.pooler_output.numpy(), atol=TOLERANCE
        )
    else:
        with pytest.raises(InputError, match="no pooler"):
            network.pool(tokens)


@pytest.mark.parametrize("gated", [False, True], ids=["MLP", "SwiGLU"])
@pytest.mark.parametrize("size", [(28, 28), (42, 31)], ids=["its own size", "another size"])
def test_dinov2(gated, size, tmp_path):
    config = Dinov2Config(**SMALL, image_size=28, patch_size=7, use_swiglu_ffn=gated)
    reference = randomise(Dinov2Model(config))
    network = plainly(read.read_vit(saved(reference, tmp_path)))
    x = images(2, *size, 3)
    with torch.no_grad():
        expected = reference(torch_images(x)).last_hidden_state.numpy()
    actual = nnx.jit(VisionTransformer.__call__)(network, jnp.asarray(x))
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE)


def test_position_embeddings_as_dino_resizes_them(tmp_path):
    """By the factor (patches + 0.1) / side, not by the quotient."""
    config = TorchViTConfig(**SMALL, intermediate_size=40, image_size=32, patch_size=8)
    reference = randomise(ViTModel(config))
    network = read.read_vit(saved(reference, tmp_path))
    grid = reference.embeddings.position_embeddings[:, 1:].detach()
    grid = grid.reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    factors = (5 + 0.1) / 4, (3 + 0.1) / 4
    expected = functional.interpolate(grid, scale_factor=factors, mode="bicubic")
    expected = expected.permute(0, 2, 3, 1).reshape(15, -1).numpy()
    actual = network._positions(40, 27)[1:]
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE)
    assert np.abs(plainly(network)._positions(40, 27)[1:] - expected).max() > 1e-3


def test_sizes_of_the_published_models():
    """Parameters, from their papers and model cards."""

    def millions(config):
        network = nnx.eval_shape(lambda: VisionTransformer(config, rngs=read.AbstractRngs()))
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param))) / 1e6

    assert millions(ViTConfig.dino_vitb16()) == pytest.approx(85.8, abs=0.05)
    assert millions(ViTConfig.dinov2_vitb14()) == pytest.approx(86.6, abs=0.05)
    assert millions(ViTConfig.clip_vitb32()) == pytest.approx(87.5, abs=0.1)
    assert millions(ViTConfig.clip_vitl14()) == pytest.approx(303.2, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image": 30, "patch": 16}, "not a multiple of 16"),
        ({"features": 10, "heads": 3}, "10 features cannot be 3 heads"),
        ({"layers": 0}, "must be at least 1"),
        ({"activation": "relu"}, "gelu or quick_gelu"),
    ],
)
def test_sizes_that_cannot_be(settings, said):
    with pytest.raises(InputError, match=said):
        ViTConfig(**settings)


# -- CLIP ----------------------------------------------------------------------------------------


def tiny_clip(**vision):
    text = {"intermediate_size": 48, "vocab_size": 60, "max_position_embeddings": 9}
    return TorchCLIPConfig(
        text_config={**SMALL, **text, "eos_token_id": 59},
        vision_config={**SMALL, "intermediate_size": 40, "image_size": 32, **vision},
        projection_dim=20,
    )


@pytest.mark.parametrize(
    "vision", [{"patch_size": 8}, {"patch_size": 16, "hidden_act": "gelu"}], ids=["8", "16, gelu"]
)
def test_clip(vision, tmp_path):
    reference = randomise(CLIPModel(tiny_clip(**vision)))
    network = read.read_clip(saved(reference, tmp_path))
    x = images(2, 32, 32, 3)
    ids = np.random.default_rng(0).integers(1, 58, (3, 9)).astype(np.int32)
    ids[:, 0], ids[0, 4:], ids[1, 8], ids[2, 2:] = 58, 59, 59, (59, 0, 0, 0, 0, 0, 0)
    with torch.no_grad():
        seen = reference.get_image_features(torch_images(x)).pooler_output.numpy()
        read_ = reference.get_text_features(torch.from_numpy(ids).long()).pooler_output.numpy()
    actual = nnx.jit(CLIP.image_features)(network, jnp.asarray(x))
    np.testing.assert_allclose(actual, seen, atol=TOLERANCE)
    actual = nnx.jit(CLIP.text_features)(network, jnp.asarray(ids))
    np.testing.assert_allclose(actual, read_, atol=TOLERANCE)


def test_old_clip_folders(tmp_path):
    """OpenAI's own have both text_config and text_config_dict, and 2 for the end token."""
    reference = randomise(CLIPModel(tiny_clip(patch_size=8)))
    folder = saved(reference, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["text_config_dict"] = {"hidden_size": config["text_config"].pop("hidden_size")}
    config["text_config"]["eos_token_id"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    network = read.read_clip(folder)
    assert network.config.text.features == 24 and network.config.end == 59


# -- MiniLM --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooler", [True, False])
def test_sentence_encoder(pooler, tmp_path):
    config = BertConfig(**SMALL, intermediate_size=40, vocab_size=50, max_position_embeddings=12)
    reference = randomise(BertModel(config, add_pooling_layer=pooler))
    network = read.read_sentence_encoder(saved(reference, tmp_path))
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 50, (2, 7)).astype(np.int32)
    mask = np.arange(7)[None] < np.asarray([[7], [4]])
    with torch.no_grad():
        hidden = reference(
            torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask).long()
        ).last_hidden_state.numpy()
    actual = nnx.jit(SentenceEncoder.hidden)(network, jnp.asarray(ids), jnp.asarray(mask))
    np.testing.assert_allclose(actual[mask], hidden[mask], atol=TOLERANCE)
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    actual = network(jnp.asarray(ids), jnp.asarray(mask))
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE)
