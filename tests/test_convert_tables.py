"""The tables of original checkpoints, against the full list of VideoCrafter2's names."""

import ast
import dataclasses

import jax
import numpy as np
import pytest
from checkpoints import DATA

from syncos_jax.errors import InputError
from syncos_jax.models import saved
from syncos_jax.models.unet_clip.unet3d import UNet3DConfig
from syncos_jax.weights_convert import diffusers_tables, lvdm_config, lvdm_tables
from syncos_jax.weights_convert.table import Kind, NamedTable, leaves, match, refuse

PUBLISHED = lvdm_config.read([], "videocrafter2", "test")


def all_tensors():
    """Names and shapes of the published checkpoint."""
    lines = (DATA / "vc2_ckpt_all_keys.txt").read_text().splitlines()
    pairs = (line.split("\t") for line in lines)
    return {key: jax.ShapeDtypeStruct(ast.literal_eval(shape), np.float32) for key, shape in pairs}


def of(network):
    prefix = lvdm_tables.PREFIXES[network]
    return {k.removeprefix(prefix): v for k, v in all_tensors().items() if k.startswith(prefix)}


TABLES = {
    "unet": (lvdm_tables.unet_table(PUBLISHED.model.unet), 1_413_284_420, 1484),
    "vae": (lvdm_tables.vae_table(PUBLISHED.model.vae), 83_653_863, 248),
    "text_encoder": (lvdm_tables.text_table(PUBLISHED.model.text, 1), None, 294),
}


@pytest.mark.parametrize("network", TABLES)
def test_every_tensor_of_the_published_checkpoint_has_its_place(network):
    table, parameters, tensors = TABLES[network]
    given = of(network)
    assert len(given) == tensors
    expected = leaves(saved.build(network, PUBLISHED.model, np.float32))
    plan, problems = match(expected, table, given)
    assert problems == []
    assert all(key in plan or table.is_ignored(key) for key in given)
    placed = [target.path for targets in plan.values() for target in targets]
    assert sorted(placed) == sorted(expected)
    count = sum(leaf.size for leaf in expected.values())
    if parameters is not None:
        assert count == parameters == sum(given[key].size for key in plan)


def test_nothing_else_is_in_the_published_checkpoint():
    prefixes = tuple(lvdm_tables.PREFIXES.values())
    rest = [key for key in all_tensors() if not key.startswith(prefixes)]
    assert sorted(rest) == sorted(lvdm_tables.SCHEDULE_BUFFERS)
    assert sum(t.size for t in all_tensors().values()) == 1_850_984_324


def test_names_agree_with_the_map_to_diffusers():
    table = TABLES["unet"][0]
    lines = (DATA / "vc2_key_map_full.tsv").read_text().splitlines()
    pairs = [line.split("\t")[:2] for line in lines]
    assert len(pairs) == 1484
    for theirs, diffusers in pairs:
        (ours,) = table.targets(theirs)
        (other,) = diffusers_tables.UNET.targets(diffusers)
        assert ours.path == other.path, theirs
        assert ours.transform == other.transform or diffusers.startswith("transformer_in")
        assert table.key(ours.path) == theirs
        assert diffusers_tables.UNET.key(other.path) == diffusers


def test_modelscope_has_its_published_number_of_parameters():
    config = dataclasses.replace(PUBLISHED.model, unet=UNet3DConfig.modelscope())
    expected = leaves(saved.build("unet", config, np.float32))
    assert sum(leaf.size for leaf in expected.values()) == 1_411_233_860


class Spec:
    def __init__(self, *shape, dtype=np.float32):
        self.shape, self.dtype = shape, np.dtype(dtype)


def test_all_problems_are_listed_at_once():
    entries = lvdm_tables._table([("a", "a", Kind.LINEAR), ("b", "b", Kind.LINEAR)]).entries
    table = NamedTable({**entries, "again.weight": entries["a.weight"]}, {"logit_scale": "unused"})
    expected = {
        "a.kernel": Spec(2, 3),
        "a.bias": Spec(3),
        "b.kernel": Spec(2, 2),
        "b.bias": Spec(2),
    }
    given = {
        "a.weight": Spec(3, 2),
        "again.weight": Spec(3, 2),
        "a.bias": Spec(4),
        "b.weight": Spec(2, 2, dtype=np.int8),
        "stray": Spec(1),
        "logit_scale": Spec(),
    }
    plan, problems = match(expected, table, given)
    assert list(plan) == ["a.weight"]
    assert problems == [
        "double again.weight (also a.weight)",
        "misshaped a.bias: (4,), that is (4,) in our layout, the network has (3,)",
        "misshaped b.weight: of type int8, not floating point",
        "unknown stray",
        "missing b.bias",
    ]
    error = str(refuse("x.ckpt", problems))
    assert error.startswith("x.ckpt: 5 tensors do not fit the network: double again.weight")
    assert all(problem in error for problem in problems)


def unet(**changes):
    values = dict(lvdm_config.PUBLISHED["model"]["params"]["unet_config"]["params"])
    return {**values, **changes}


@pytest.mark.parametrize(
    "document",
    [
        {"unet_config": unet()},
        {"unet_config": {"params": unet()}},
        {"model": {"params": {"unet_config": {"target": "x.UNetModel", "params": unet()}}}},
        {"unet": unet()},
        unet(),
    ],
    ids=["bare", "params", "yaml", "other name", "alone"],
)
def test_configurations_of_all_shapes(document):
    read = lvdm_config.read([document], "m", "s").model
    assert read.unet == UNet3DConfig.videocrafter2()
    assert read.vae == PUBLISHED.model.vae and read.text == PUBLISHED.model.text


def test_published_configuration():
    config = PUBLISHED.model
    assert config.unet == UNet3DConfig.videocrafter2()
    assert (config.height, config.width, config.window, config.stride) == (320, 512, 16, 4)
    assert config.text.layers == 23 and PUBLISHED.skipped_text_layers == 1


def test_other_diffusion_parameters():
    document = {"model": {"params": {"linear_start": 0.001, "linear_end": 0.02, "timesteps": 500}}}
    config = lvdm_config.read([document], "m", "s").model
    assert config.schedule["signal_scale"] is None and len(config.noise_schedule().signal) == 500


BAD = [
    ({"unet_config": unet(use_relative_position=True)}, "use_relative_position is True"),
    ({"unet_config": unet(transformer_depth=2)}, "transformer_depth is 2"),
    ({"unet_config": unet(num_head_channels=-1)}, "num_head_channels is -1"),
    ({"unet_config": unet(channel_mult="1,2")}, "channel_mult is '1,2'"),
    ({"unet_config": {"model_channels": 64}}, "unet_config lacks channel_mult"),
    ({"ddconfig": {"ch_mult": [1, 2], "attn_resolutions": [128]}}, "attention outside the middle"),
    ({"text_cfg": {"width": 64}, "layer": "first"}, "layer is 'first'"),
    ({"cond_stage_config": {"params": {"arch": "ViT-B-32"}}}, "arch is 'ViT-B-32'"),
    ({"a": unet(), "b": unet(model_channels=64)}, "two different settings of unet_config"),
    ({"learning_rate": 1}, "holds none of unet_config"),
]


@pytest.mark.parametrize(("document", "message"), BAD, ids=[message for _, message in BAD])
def test_configurations_that_cannot_be_converted(document, message):
    with pytest.raises(InputError, match="^configuration: ") as error:
        lvdm_config.read([document], "m", "s")
    assert message in str(error.value)
