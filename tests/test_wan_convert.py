"""Wan's checkpoints: diffusers' folders and the original files, to the same networks."""

import json

import numpy as np
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from test_wan_transformer import CONFIG as TRANSFORMER
from test_wan_transformer import build as build_transformer
from test_wan_transformer import torch_transformer
from test_wan_vae import DEEPER, torch_vae
from test_wan_vae import build as build_vae

from syncos_jax.errors import InputError
from syncos_jax.models.weights import leaves
from syncos_jax.sampling.solvers import Solver
from syncos_jax.weights_convert import scheduler_config, wan_config, wan_tables
from syncos_jax.weights_convert.table import fill, match

# diffusers' names back to Wan's, written down independently of the tables (order matters).
ORIGINAL_TRANSFORMER = (
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("proj_out", "head.head"),
    ("norm2", "norm3"),
    ("ffn.net.0.proj", "ffn.0"),
    ("ffn.net.2", "ffn.2"),
    ("attn1.to_out.0", "self_attn.o"),
    ("attn2.to_out.0", "cross_attn.o"),
    ("attn1.to_", "self_attn."),
    ("attn2.to_", "cross_attn."),
    ("attn1.", "self_attn."),
    ("attn2.", "cross_attn."),
    (".scale_shift_table", ".modulation"),
)


def original_transformer(state):
    renamed = {}
    for key, value in state.items():
        name = "head.modulation" if key == "scale_shift_table" else key
        for theirs, wans in ORIGINAL_TRANSFORMER:
            name = name.replace(theirs, wans)
        renamed[name] = value
    return renamed


RESIDUAL = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3"}
RESIDUAL |= {"conv2": "residual.6", "conv_shortcut": "shortcut"}


def original_vae(state, blocks):
    """Names of ``Wan2.1_VAE.pth``: blocks numbered through, ``residual.N`` within them."""
    renamed = {}
    for key, value in state.items():
        part, *rest = key.split(".")
        if part in ("quant_conv", "post_quant_conv"):
            name = ["conv1" if part == "quant_conv" else "conv2", *rest]
        elif rest[0] in ("conv_in", "norm_out", "conv_out"):
            found = {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2"}
            name = [part, found[rest[0]], *rest[1:]]
        elif rest[0] == "mid_block":
            place = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}[".".join(rest[1:3])]
            name = [part, "middle", str(place), *(RESIDUAL.get(n, n) for n in rest[3:])]
        elif rest[0] == "down_blocks":
            name = [part, "downsamples", rest[1], *(RESIDUAL.get(n, n) for n in rest[2:])]
        else:
            inner = int(rest[3]) if rest[2] == "resnets" else blocks + 1
            place = int(rest[1]) * (blocks + 2) + inner
            name = [part, "upsamples", str(place), *(RESIDUAL.get(n, n) for n in rest[4:])]
        renamed[".".join(name)] = value
    return renamed


def arrays(module):
    return {key: value.float().numpy() for key, value in module.state_dict().items()}


def same(ours, theirs):
    ours, theirs = leaves(ours), leaves(theirs)
    assert ours.keys() == theirs.keys()
    for path in ours:
        np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)


def filled(abstract, table, state):
    return fill(abstract, table, state, state.__getitem__, what="checkpoint")


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_the_original_transformer(prefix):
    state = arrays(torch_transformer(TRANSFORMER))
    wans = {prefix + key: value for key, value in original_transformer(state).items()}
    found = wan_config.original_transformer_config({"num_heads": 2}, wans, "file")
    assert found == TRANSFORMER
    abstract = build_transformer(found)
    same(
        filled(abstract, wan_tables.ORIGINAL_TRANSFORMER, wans),
        filled(abstract, wan_tables.TRANSFORMER, state),
    )


def test_the_original_vae():
    config = type(DEEPER)(base=4, multipliers=(1, 2, 4, 4), blocks=1)
    state = arrays(torch_vae(config))
    wans = original_vae(state, config.blocks)
    assert wan_config.original_vae_config(wans, "file") == config
    abstract = build_vae(config)
    same(
        filled(abstract, wan_tables.original_vae_table(config), wans),
        filled(abstract, wan_tables.vae_table(), state),
    )


def test_tables_name_what_is_missing_as_the_checkpoint_does():
    """Whatever the layout: leave a tensor out, and it is named."""
    config = type(DEEPER)(base=4, multipliers=(1, 2, 4, 4), blocks=1)
    transformer, vae = arrays(torch_transformer(TRANSFORMER)), arrays(torch_vae(config))
    for abstract, table, state in (
        (build_transformer(TRANSFORMER), wan_tables.TRANSFORMER, transformer),
        (
            build_transformer(TRANSFORMER),
            wan_tables.ORIGINAL_TRANSFORMER,
            original_transformer(transformer),
        ),
        (build_vae(config), wan_tables.vae_table(), vae),
        (build_vae(config), wan_tables.original_vae_table(config), original_vae(vae, 1)),
    ):
        _, problems = match(leaves(abstract), table, {})
        assert sorted(problems) == sorted(f"missing {key}" for key in state)


def test_sizes_from_diffusers_json(tmp_path):
    torch_transformer(TRANSFORMER).save_config(tmp_path / "transformer")
    torch_vae(DEEPER).save_config(tmp_path / "vae")
    read = {
        part: json.loads((tmp_path / part / "config.json").read_text())
        for part in ("transformer", "vae")
    }
    assert wan_config.transformer_config(read["transformer"]) == TRANSFORMER
    assert wan_config.vae_config(read["vae"]) == DEEPER
    assert wan_config.vae_config({}) == type(DEEPER)()  # the published one


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: wan_config.transformer_config({"image_dim": 1280}), "added_kv_proj_dim None"),
        (lambda: wan_config.transformer_config({"_class_name": "VACE"}), "_class_name is 'VACE'"),
        (lambda: wan_config.vae_config({"attn_scales": [1.0]}), r"attn_scales is \[1.0\]"),
        (lambda: wan_config.vae_config({"in_channels": 12}), "in_channels 12"),
        (lambda: wan_config.original_transformer_config({}, {}, "x.pth"), "patch_embedding"),
        (lambda: wan_config.original_vae_config({}, "x.pth"), "encoder.conv1.weight is missing"),
    ],
)
def test_what_cannot_be_converted(read, message):
    with pytest.raises(InputError, match=message):
        read()


def scheduler(made, **settings):
    return {"_class_name": made.__name__, **made(**settings).config}


FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


def test_schedulers():
    unipc = scheduler(UniPCMultistepScheduler, **FLOW)
    assert scheduler_config.solver(unipc) == Solver("unipc", variant="bh2")
    assert scheduler_config.flow_settings(unipc) == {
        "rule": "unipc",
        "shift": 3.0,
        "terminal": None,
        "end_clean": True,
        "train_steps": 1000,
    }
    euler = scheduler(FlowMatchEulerDiscreteScheduler, shift=5.0)
    assert scheduler_config.solver(euler) == Solver("euler")
    assert scheduler_config.flow_settings(euler)["shift"] == 5.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_karras_sigmas": True, **FLOW}, "use_karras_sigmas is True"),
        ({"use_dynamic_shifting": True, **FLOW}, "use_dynamic_shifting is True"),
        ({"predict_x0": False, **FLOW}, "predict_x0 is False"),
    ],
)
def test_schedulers_that_cannot_be_converted(settings, message):
    with pytest.raises(InputError, match=message):
        scheduler_config.solver(scheduler(UniPCMultistepScheduler, **settings))
    with pytest.raises(InputError, match="is not of a flow model"):
        scheduler_config.flow_settings({"_class_name": "DDIMScheduler"})
