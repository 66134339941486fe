"""LoRA files merged into a network's weights, in the layouts that people publish."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from test_wan_convert import ORIGINAL_TRANSFORMER
from test_wan_transformer import (
    CONFIG,
    build,
    inputs,
    port,
    relative,
    run,
    run_torch,
    torch_transformer,
)

from syncos_jax.errors import InputError
from syncos_jax.models.weights import assign, leaves
from syncos_jax.weights_convert import wan_tables
from syncos_jax.weights_convert.lora import open_lora

TABLES = (wan_tables.TRANSFORMER, wan_tables.ORIGINAL_TRANSFORMER)
LAYERS = ("blocks.0.attn1.to_q", "blocks.1.attn2.to_out.0", "blocks.1.ffn.net.0.proj")
RANK, ALPHA, SCALE = 3, 6.0, 0.5


@pytest.fixture(scope="module")
def reference():
    return torch_transformer(CONFIG)


@pytest.fixture(scope="module")
def matrices(reference):
    """``down [r, in]`` and ``up [out, r]`` of each layer."""
    rng, found = np.random.default_rng(0), {}
    for name in LAYERS:
        rows, columns = reference.get_submodule(name).weight.shape
        down, up = rng.normal(size=(RANK, columns)) / 4, rng.normal(size=(rows, RANK)) / 4
        found[name] = down.astype(np.float32), up.astype(np.float32)
    return found


def wans(name):
    for theirs, ours in ORIGINAL_TRANSFORMER:
        name = name.replace(theirs, ours)
    return name


def layout(matrices, kind):
    """The same LoRA as different programs write it."""
    tensors = {}
    for name, (down, up) in matrices.items():
        alpha = np.asarray(ALPHA, np.float32)
        if kind == "peft":
            tensors[f"base_model.model.{name}.lora_A.weight"] = down
            tensors[f"base_model.model.{name}.lora_B.weight"] = up
        elif kind == "diffusers":
            tensors[f"transformer.{name}.lora_A.weight"] = down * (ALPHA / RANK)
            tensors[f"transformer.{name}.lora_B.weight"] = up
        elif kind == "kohya":
            flat = "lora_unet_" + wans(name).replace(".", "_")
            tensors |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
            tensors[f"{flat}.alpha"] = alpha
        else:
            full = f"diffusion_model.{wans(name)}"
            tensors |= {f"{full}.lora_down.weight": down, f"{full}.lora_up.weight": up}
            tensors[f"{full}.alpha"] = alpha
    return tensors


def write(folder, tensors, metadata=None):
    path = folder / "lora.safetensors"
    save_file(tensors, path, metadata=metadata)
    return path


def opened(path, scale=SCALE):
    return open_lora(path, scale, leaves(build(CONFIG)), TABLES)


def merged(model, lora):
    return assign(
        model, {path: lora.merged(path, np.asarray(leaf)) for path, leaf in leaves(model).items()}
    )


@pytest.mark.parametrize("kind", ["peft", "diffusers", "kohya", "comfy"])
def test_every_layout_adds_the_same(kind, reference, matrices, tmp_path):
    if kind == "peft":
        text = json.dumps({"r": RANK, "lora_alpha": ALPHA})
        (tmp_path / "adapter_config.json").write_text(text)
    lora = opened(write(tmp_path, layout(matrices, kind)))
    model = port(reference, CONFIG)
    before, after = leaves(model), leaves(merged(model, lora))
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed == {
        "blocks.0.attn1.to_q.kernel",
        "blocks.1.attn2.to_out.0.kernel",
        "blocks.1.ffn.proj.kernel",
    }
    for name, path in zip(LAYERS, sorted(changed), strict=True):
        down, up = matrices[name]
        expected = before[path] + (SCALE * ALPHA / RANK * up @ down).T
        np.testing.assert_allclose(after[path], expected, rtol=0, atol=1e-6)


def test_the_network_computes_what_the_reference_does_with_it(reference, matrices, tmp_path):
    lora = opened(write(tmp_path, layout(matrices, "kohya")))
    found = run(merged(port(reference, CONFIG), lora), *inputs(CONFIG))
    changed = torch_transformer(CONFIG)
    with torch.no_grad():
        for name, (down, up) in matrices.items():
            weight = changed.get_submodule(name).weight
            weight += torch.from_numpy(SCALE * ALPHA / RANK * up @ down)
    assert relative(found, run_torch(changed, *inputs(CONFIG))) < 1e-5
    assert relative(found, run_torch(reference, *inputs(CONFIG))) > 1e-2


def test_metadata_and_differences(matrices, tmp_path, reference):
    name = LAYERS[0]
    bias = np.ones(CONFIG.width, np.float32)
    tensors = {f"transformer.{name}.lora_A.weight": matrices[name][0]}
    tensors[f"transformer.{name}.lora_B.weight"] = matrices[name][1]
    tensors[f"transformer.{name}.lora_B.bias"] = bias
    tensors["diffusion_model.patch_embedding.diff"] = np.ones((32, 4, 1, 2, 2), np.float32)
    packed = json.dumps({"transformer.lora_alpha": ALPHA, "transformer.r": RANK})
    lora = opened(write(tmp_path, tensors, {"lora_adapter_metadata": packed}))
    down, up = matrices[name]
    np.testing.assert_allclose(
        lora.changes["blocks.0.attn1.to_q.kernel"].array(),
        (SCALE * ALPHA / RANK * up @ down).T,
        rtol=1e-5,
    )
    # peft scales the bias of lora_B as it does the product.
    scaled = np.float32(SCALE * ALPHA / RANK) * bias
    np.testing.assert_array_equal(lora.changes["blocks.0.attn1.to_q.bias"].array(), scaled)
    assert lora.changes["patch_embedding.kernel"].array().shape == (16, 32)


def test_every_misfit_is_named(matrices, tmp_path):
    good, other, third = LAYERS
    tensors = layout(matrices, "diffusers")
    tensors["transformer.blocks.7.attn1.to_q.lora_A.weight"] = matrices[good][0]
    tensors["transformer.blocks.7.attn1.to_q.lora_B.weight"] = matrices[good][1]
    tensors[f"transformer.{other}.lora_A.weight"] = np.zeros((RANK, 5), np.float32)
    del tensors[f"transformer.{third}.lora_B.weight"]
    tensors["blocks.0.attn1.to_k.hada_w1_a"] = np.zeros((3, 3), np.float32)
    with pytest.raises(InputError) as caught:
        opened(write(tmp_path, tensors))
    message = str(caught.value)
    for part in (
        "4 tensors do not fit the network",
        "incomplete blocks.0.attn1.to_k: has hada_w1_a",
        "unknown blocks.7.attn1.to_q.weight",
        f"misshaped {other}: is (5, 32)",
        f"incomplete {third}: has down",
    ):
        assert part in message


def test_what_cannot_be_merged(tmp_path, matrices):
    path = write(tmp_path, layout(matrices, "peft"))
    (tmp_path / "adapter_config.json").write_text('{"use_dora": true}')
    with pytest.raises(InputError, match="use_dora is set"):
        opened(path)
