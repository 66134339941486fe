"""LoRAs as each trainer writes them, all to the same merged weights."""

import json

import numpy as np
import pytest
import torch
import weight_cases as cases
from safetensors.numpy import save_file

from syncos_jax import load_model
from syncos_jax.errors import InputError
from syncos_jax.models.weights import leaves
from syncos_jax.weights_convert.convert import convert
from syncos_jax.weights_convert.lora import open_lora
from syncos_jax.weights_convert.wan_tables import ORIGINAL_TRANSFORMER, TRANSFORMER

OWN, THEIRS = "blocks.0.self_attn.q", "blocks.0.attn1.to_q"
OURS = "blocks.0.attn1.to_q.kernel"
RANK, ALPHA, STRENGTH = 4, 2.0, 0.7
RNG = np.random.default_rng(0)
DOWN, UP = (RNG.normal(size=s).astype(np.float32) for s in ((RANK, 128), (128, RANK)))
SCALED = STRENGTH * ALPHA / RANK * UP @ DOWN
FLAT = OWN.replace(".", "_")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A converted transformer."""
    folder = tmp_path_factory.mktemp("model")
    path = cases.save(cases.own_transformer(cases.transformer()), folder / "a.safetensors")
    convert(path, folder / "m", only="transformer")
    return folder / "m"


@pytest.fixture(scope="module")
def parameters(model):
    return {
        path: np.asarray(leaf) for path, leaf in leaves(load_model(str(model)).transformer).items()
    }


def pair(name, down="lora_down", up="lora_up", alpha=True, suffix=".weight"):
    tensors = {f"{name}.{down}{suffix}": DOWN, f"{name}.{up}{suffix}": UP}
    return tensors | ({f"{name}.alpha": np.float32(ALPHA)} if alpha else {})


SPELLINGS = {
    "kohya": pair(f"lora_unet_{FLAT}"),
    "musubi": pair(f"lora_unet_{FLAT}"),
    "videox-fun": pair(f"lora_unet__{FLAT}"),
    "comfyui": pair(f"diffusion_model.{OWN}"),
    "ai-toolkit": pair(f"diffusion_model.{OWN}", "lora_A", "lora_B"),
    "diffsynth": pair(f"{OWN}", "lora_A.default", "lora_B.default"),
    "diffsynth pipe": pair(f"pipe.dit.{OWN}", "lora_A.default", "lora_B.default"),
    "diffusers": pair(f"transformer.{THEIRS}", "lora_A", "lora_B"),
    "onetrainer": pair(f"transformer.{THEIRS}"),
    "peft": pair(f"base_model.model.{THEIRS}", "lora_A", "lora_B"),
    "processor": pair(f"transformer.{THEIRS.rpartition('.')[0]}.processor.to_q_lora", "down", "up"),
    "linear layer": pair(f"transformer.{THEIRS}.lora_linear_layer", "down", "up"),
    "lycoris": pair(f"lycoris_{FLAT}"),
}
for name in ("processor", "linear layer"):  # whose alpha stands elsewhere
    SPELLINGS[name] = {k: v for k, v in SPELLINGS[name].items() if "alpha" not in k}
    SPELLINGS[name][f"transformer.{THEIRS}.alpha"] = np.float32(ALPHA)


def opened(path, parameters, strength=STRENGTH):
    return open_lora(path, strength, parameters, (TRANSFORMER, ORIGINAL_TRANSFORMER))


def write(folder, tensors, metadata=None):
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(tensors, folder / "lora.safetensors", metadata=metadata)
    return folder / "lora.safetensors"


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_merges_the_same(spelling, parameters, tmp_path):
    lora = opened(write(tmp_path, SPELLINGS[spelling]), parameters)
    assert set(lora.changes) == {OURS}
    merged = lora.merged(OURS, parameters[OURS])
    np.testing.assert_allclose(merged, parameters[OURS] + SCALED.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rslora", [False, True])
def test_peft_itself_agrees(rslora, parameters, tmp_path):
    """peft's own merge, with ranks and alphas by pattern and a bias of lora_B."""
    import peft

    config = peft.LoraConfig(
        r=4,
        lora_alpha=3,
        use_rslora=rslora,
        target_modules=["to_q", "to_k"],
        rank_pattern={r"blocks\.1\.attn1\.to_q": 2},
        alpha_pattern={r"blocks\.1\.attn1\.to_q": 5, "attn2.to_k": 7},
        lora_bias=True,
        init_lora_weights=False,
    )
    wrapped = peft.get_peft_model(cases.transformer(), config)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name and name.endswith("bias"):
            parameter.data = torch.randn(parameter.shape)
    wrapped.save_pretrained(tmp_path)
    merged = wrapped.merge_and_unload().state_dict()
    lora = opened(tmp_path / "adapter_model.safetensors", parameters, 1.0)
    assert len(lora.changes) == 16
    for path in lora.changes:
        layer, _, kind = path.rpartition(".")
        want = merged[f"{layer}.{'bias' if kind == 'bias' else 'weight'}"].numpy()
        found = lora.merged(path, parameters[path])
        np.testing.assert_allclose(found, want if kind == "bias" else want.T, rtol=0, atol=1e-6)


def loha():
    parts = {n: RNG.normal(size=s) for n, s in (("w1_a", (128, 4)), ("w1_b", (4, 128)))}
    parts |= {n: RNG.normal(size=s) for n, s in (("w2_a", (128, 4)), ("w2_b", (4, 128)))}
    change = (parts["w1_a"] @ parts["w1_b"]) * (parts["w2_a"] @ parts["w2_b"]) * ALPHA / 4
    return {f"hada_{n}": v for n, v in parts.items()}, change


def lokr(whole):
    first = RNG.normal(size=(8, 8))
    if whole:
        second = RNG.normal(size=(16, 16))
        return {"lokr_w1": first, "lokr_w2": second}, np.kron(first, second)
    a, b = RNG.normal(size=(16, 4)), RNG.normal(size=(4, 16))
    return {"lokr_w1": first, "lokr_w2_a": a, "lokr_w2_b": b}, np.kron(first, a @ b) * ALPHA / 4


@pytest.mark.parametrize("kind", [loha, lambda: lokr(True), lambda: lokr(False)])
def test_loha_and_lokr(kind, parameters, tmp_path):
    parts, change = kind()
    tensors = {f"lycoris_{FLAT}.{n}": v.astype(np.float32) for n, v in parts.items()}
    tensors[f"lycoris_{FLAT}.alpha"] = np.float32(ALPHA)
    lora = opened(write(tmp_path, tensors), parameters)
    want = parameters[OURS] + STRENGTH * change.T.astype(np.float32)
    np.testing.assert_allclose(lora.merged(OURS, parameters[OURS]), want, rtol=0, atol=2e-5)


def test_differences_of_weights_biases_and_modulations(parameters, tmp_path):
    tensors = {
        "diffusion_model.blocks.0.diff_m": RNG.normal(size=(1, 6, 128)),
        "diffusion_model.head.diff_m": RNG.normal(size=(1, 2, 128)),
        f"diffusion_model.{OWN}.diff_b": RNG.normal(size=128),
        "diffusion_model.blocks.0.norm3.diff": RNG.normal(size=128),
        "diffusion_model.patch_embedding.diff": RNG.normal(size=(128, 16, 1, 2, 2)),
    }
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    lora = opened(write(tmp_path, tensors), parameters)
    table = parameters["blocks.0.scale_shift_table"]
    found = lora.merged("blocks.0.scale_shift_table", table) - table
    want = np.float32(STRENGTH) * tensors["diffusion_model.blocks.0.diff_m"][0]
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-6)
    assert len(lora.changes) == 5


def test_an_image_to_video_lora_merges_what_fits(parameters, model, tmp_path):
    tensors = pair(f"diffusion_model.{OWN}")
    for layer in ("blocks.0.cross_attn.k_img", "img_emb.proj.1"):
        tensors |= pair(f"diffusion_model.{layer}")
    tensors["diffusion_model.blocks.0.cross_attn.norm_k_img.diff"] = np.ones(128, np.float32)
    lora = opened(write(tmp_path, tensors), parameters)
    assert set(lora.changes) == {OURS} and len(lora.skipped) == 3
    strange = tensors | pair("diffusion_model.blocks.9.self_attn.q")
    with pytest.raises(InputError, match=r"unknown blocks.9.self_attn.q.weight"):
        opened(write(tmp_path, strange), parameters)
    only = {k: v for k, v in tensors.items() if "img" in k}
    with pytest.raises(InputError, match="only layers of image-to-video networks, 3 of them"):
        opened(write(tmp_path, only), parameters)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"transformer.{THEIRS}.lora_magnitude_vector", "DoRA"),
        (f"lycoris_{FLAT}.dora_scale", "DoRA"),
        (f"lora_unet_{FLAT}.oft_blocks", "OFT"),
        ("lora_te2_text_model.lora_down.weight", "Stable Diffusion XL"),
    ],
)
def test_other_kinds_are_named_and_refused(name, kind, parameters, tmp_path):
    tensors = pair(f"diffusion_model.{OWN}") | {name: np.ones(3, np.float32)}
    with pytest.raises(InputError, match=kind):
        opened(write(tmp_path, tensors), parameters)


def test_merging_at_load_is_merging_at_conversion(model, parameters, tmp_path):
    first = write(tmp_path, SPELLINGS["kohya"])
    (tmp_path / "b").mkdir()
    second = write(tmp_path / "b", SPELLINGS["comfyui"])
    loaded = load_model(str(model), lora=[f"{first}:{STRENGTH}", f"transformer={second}:-0.2"])
    want = parameters[OURS] + SCALED.T * (1 - 0.2 / STRENGTH)
    found = leaves(loaded.transformer)
    np.testing.assert_allclose(found[OURS], want, rtol=0, atol=1e-6)
    for path in parameters:
        if path != OURS:
            np.testing.assert_array_equal(found[path], parameters[path])
    plain = load_model(str(model))
    np.testing.assert_array_equal(leaves(plain.transformer)[OURS], parameters[OURS])
    assert [one.file.strength for one in loaded.loras] == [STRENGTH, -0.2]
    assert json.loads((model / "config.json").read_text())["notes"] == {}


def test_a_thousand_mutations_of_a_lora(parameters, tmp_path):
    """Renamed, missing, doubled, transposed, of another type: one line, or the exact merge."""
    whole = {}
    for block in (0, 1):
        for layer in "qkvo":
            whole |= pair(f"diffusion_model.blocks.{block}.self_attn.{layer}")
    reference = opened(write(tmp_path, whole), parameters).changes
    rng, refused = np.random.default_rng(1), 0
    names = list(whole)
    for _ in range(300):
        tensors, name = dict(whole), names[rng.integers(len(names))]
        kind = rng.integers(4)
        value = tensors.pop(name)
        if kind == 0:
            tensors[name.replace("self_attn", "self_att")] = value
        elif kind == 1 and value.ndim == 2:
            tensors[name] = value.T
        elif kind == 2:
            tensors[name] = value.astype(np.float64)
        try:
            changes = opened(write(tmp_path, tensors), parameters).changes
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
            continue
        if kind == 2:  # the same values
            assert changes.keys() == reference.keys()
        else:  # only an alpha may be left out: it is then the rank
            assert name.endswith("alpha")
    assert refused > 100
