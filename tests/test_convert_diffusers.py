"""Random pipelines of diffusers and transformers, saved, converted and compared."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from checkpoints import DATA, channels_first, channels_last, convert, save_ckpt, syncos
from diffusers import AutoencoderKL as TorchVAE
from diffusers import DDIMScheduler
from flax import nnx
from test_models_parity import UNETS, torch_unet
from transformers import CLIPTextConfig as TorchTextConfig
from transformers import CLIPTextModel

from syncos_jax import Pipeline
from syncos_jax.models.clip_text import CLIPTextEncoder
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.models.unet_clip.unet3d import UNet3D
from syncos_jax.models.unet_clip.vae import AutoencoderKL
from syncos_jax.pipeline.load import load_model
from syncos_jax.weights_convert import hub
from syncos_jax.weights_convert.table import leaves

UNET = UNETS["two levels"]
TEXT = {"bos_token_id": 98, "eos_token_id": 99, "pad_token_id": 0, "vocab_size": 49408}


def networks():
    """As the libraries initialise them: with larger weights bfloat16 alone makes 2e-2, in torch as
    well as here."""
    torch.manual_seed(0)
    vae = TorchVAE(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        latent_channels=4,
    )
    text = CLIPTextModel(
        TorchTextConfig(
            hidden_size=UNET.text_features,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            hidden_act="gelu",
            **TEXT,
        )
    )
    models = {"unet": torch_unet(UNET), "vae": vae, "text_encoder": text}
    return {name: without_zeros(model).eval() for name, model in models.items()}


def without_zeros(model):
    """What starts as zero would hide whole branches."""
    for p in model.parameters():
        if not p.detach().any():
            p.data = 0.1 * torch.randn(p.shape) / max(1, p[0].numel()) ** 0.5
    return model


def shared_parts(folder):
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False
    )
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "tokenizer").mkdir()
    for name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).write_bytes(
            (DATA / "openclip_vocabulary" / name).read_bytes()
        )
    (folder / "model_index.json").write_text("{}")


@pytest.fixture(scope="module")
def reference():
    return networks()


@pytest.fixture(scope="module")
def sources(reference, tmp_path_factory):
    """The same pipeline: safetensors (one of them sharded), and float16 in torch's .bin format."""
    folder = tmp_path_factory.mktemp("sources")
    plain, halves = folder / "plain", folder / "halves"
    for name, model in reference.items():
        shards = {"max_shard_size": "100KB"} if name == "unet" else {}
        model.save_pretrained(plain / name, **shards)
    for name, model in networks().items():
        if name == "text_encoder":  # transformers no longer writes .bin files, but others did
            model.config.save_pretrained(halves / name)
            state = {f"text_model.{k}": v.half() for k, v in model.state_dict().items()}
            torch.save(state, halves / name / "pytorch_model.bin")
        elif name == "unet":
            model.half().save_pretrained(
                halves / name, safe_serialization=False, max_shard_size="100KB", variant="fp16"
            )
        else:
            model.half().save_pretrained(halves / name, safe_serialization=False)
    for source in (plain, halves):
        shared_parts(source)
    assert len(list((plain / "unet").glob("*-of-*.safetensors"))) > 2
    assert len(list((halves / "unet").glob("*fp16*.bin"))) > 2
    return {"plain": plain, "halves": halves}


@pytest.fixture(scope="module")
def converted(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    for name, source in sources.items():
        convert(source, folder / name)
    return folder


@pytest.fixture(scope="module")
def loaded(sources, converted):
    """Models by where they come from."""
    models = {name: load_model(converted / name) for name in sources}
    return {**models, "direct": load_model(sources["plain"])}


_CALLS = {
    "unet": nnx.jit(UNet3D.__call__),
    "encode": nnx.jit(AutoencoderKL.encode),
    "decode": nnx.jit(AutoencoderKL.decode),
    "text": nnx.jit(CLIPTextEncoder.__call__),
}


def outputs(model):
    """Of all networks, from fixed inputs."""
    x, t, text = inputs()["unet"]
    images, latents = inputs()["vae"]
    unet = _CALLS["unet"](
        model.unet, channels_last(x), jnp.asarray(t.numpy(), jnp.float32), jnp.asarray(text.numpy())
    )
    vae = model.vae
    mean, logvar = _CALLS["encode"](vae, channels_last(images))
    decoded = _CALLS["decode"](vae, channels_last(latents))
    ids = jnp.asarray(inputs()["text_encoder"].numpy(), jnp.int32)
    features = _CALLS["text"](model.text_encoder, ids)
    return {
        "unet": channels_first(unet),
        "mean": channels_first(mean),
        "logvar": channels_first(logvar),
        "decoded": channels_first(decoded),
        "text": np.asarray(features, np.float32),
    }


def inputs():
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return {
        "unet": (draw(1, 4, 3, 8, 8), torch.tensor([500]), draw(1, 7, UNET.text_features)),
        "vae": (draw(2, 3, 16, 24), draw(2, 4, 8, 12)),
        "text_encoder": torch.randint(0, 100, (2, 77), generator=generator),
    }


def expected(models):
    with torch.no_grad():
        posterior = models["vae"].encode(inputs()["vae"][0]).latent_dist
        return {
            "unet": models["unet"](*inputs()["unet"]).sample.numpy(),
            "mean": posterior.mean.numpy(),
            "logvar": posterior.logvar.numpy(),
            "decoded": models["vae"].decode(inputs()["vae"][1]).sample.numpy(),
            "text": models["text_encoder"](inputs()["text_encoder"]).last_hidden_state.numpy(),
        }


def test_float32(reference, loaded):
    wanted = expected(reference)
    for name, actual in outputs(loaded["plain"]).items():
        error = np.abs(actual - wanted[name]).max()
        print(f"{name}: max abs {error:.2e}")
        assert error <= 1e-5 and np.abs(wanted[name]).max() > 0.05, name


@pytest.mark.slow
def test_bfloat16(reference, converted):
    wanted = expected(reference)
    model = load_model(converted / "plain", jnp.bfloat16)
    assert model.unet.conv_in.kernel.dtype == jnp.bfloat16
    with jax.numpy_dtype_promotion("standard"):  # jax.nn's attention promotes within
        actuals = outputs(model)
    for name, actual in actuals.items():
        error = np.linalg.norm(actual - wanted[name]) / np.linalg.norm(wanted[name])
        print(f"{name}: relative {error:.2e}")
        assert error <= 2e-2, name


def test_float16_sharded_bin_files(loaded, converted):
    """Weights are those of the files, bit for bit, and stay 16-bit on disk."""
    model, plain = loaded["halves"], loaded["plain"]
    for name in ModelConfig.networks:
        ours, single = leaves(getattr(model, name)), leaves(getattr(plain, name))
        for path, leaf in ours.items():
            half = np.asarray(single[path]).astype(np.float16).astype(np.float32)
            np.testing.assert_array_equal(np.asarray(leaf), half)
    size = lambda folder: sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())  # noqa: E731
    assert size(converted / "halves/text_encoder") < 0.6 * size(converted / "plain/text_encoder")
    halved = {name: m.half().float() for name, m in networks().items()}
    wanted = expected(halved)
    for name, actual in outputs(model).items():  # compiled already, by the test in float32
        error = np.abs(actual - wanted[name]).max()
        print(f"{name}: max abs {error:.2e}")
        assert error <= 1e-5, name


def test_pipeline(converted):
    pipeline = Pipeline.from_pretrained(converted / "plain")
    assert pipeline.model.encode_prompts(["a cat", ""])["text"].shape == (2, 77, UNET.text_features)


def test_a_folder_of_diffusers_loads_without_conversion(loaded):
    direct, model = loaded["direct"], loaded["plain"]
    for name in ModelConfig.networks:
        ours, other = leaves(getattr(model, name)), leaves(getattr(direct, name))
        assert list(ours) == list(other)
        for path, leaf in ours.items():
            np.testing.assert_array_equal(np.asarray(leaf), np.asarray(other[path]))
    assert direct.config.schedule == model.config.schedule
    np.testing.assert_array_equal(direct.tokenizer(["a cat"]), model.tokenizer(["a cat"]))


def test_weights_go_straight_onto_the_devices_of_a_mesh(sources, converted):
    mesh = jax.make_mesh((jax.device_count(),), ("segment",))
    for folder in (converted / "plain", sources["plain"]):
        model = load_model(folder, mesh=mesh)
        for leaf in leaves(model.unet).values():
            assert leaf.sharding.is_fully_replicated
            assert set(leaf.sharding.device_set) == set(mesh.devices.flat)


def test_the_folder_can_be_read_with_orbax_alone(loaded, converted):
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.restore((converted / "plain/text_encoder").absolute())
    kernel = loaded["plain"].text_encoder.layers[1].mlp.fc1.kernel
    np.testing.assert_array_equal(tree["layers"]["1"]["mlp"]["fc1"]["kernel"], kernel[...])


def test_what_is_written(converted):
    names = {path.name for path in (converted / "plain").iterdir()}
    assert names == {
        "config.json",
        "files.json",
        "weights.json",
        "unet",
        "vae",
        "text_encoder",
        "tokenizer",
    }
    values = json.loads((converted / "plain/config.json").read_text())
    assert values["format"] == "syncos_jax" and values["version"] == 1
    assert values["name"] == "plain" and values["networks"] == list(ModelConfig.networks)
    assert "unet" in syncos("info", converted / "plain").stdout


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype_on_disk(loaded, sources, tmp_path, dtype):
    result = convert(sources["plain"], tmp_path / "out", "--only", "vae", "--dtype", dtype)
    count = sum(p.numel() for p in networks()["vae"].parameters())
    assert f"vae {count:,} parameters" in result.stdout
    source, ours = loaded["direct"].vae, load_model(tmp_path / "out").vae
    for path, leaf in leaves(ours).items():
        wanted = leaves(source)[path].astype(dtype).astype(jnp.float32)
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(wanted))


def test_one_network_from_its_own_folder(sources, tmp_path):
    convert(sources["plain"] / "unet", tmp_path / "out", "--only", "unet")
    assert load_model(tmp_path / "out").config.unet == UNET


def test_the_class_that_ports_videocrafter2(tmp_path):
    """UNetVideoCrafter: UNet3DConditionModel with an embedding of the frame rate."""
    unet = networks()["unet"]
    width = UNET.block_out_channels[0]
    unet.fps_embedding = type(unet.time_embedding)(width, 4 * width)
    unet.save_pretrained(tmp_path / "unet")
    path = tmp_path / "unet/config.json"
    path.write_text(path.read_text().replace("UNet3DConditionModel", "UNetVideoCrafter"))
    convert(tmp_path / "unet", tmp_path / "out", "--only", "unet")
    model = load_model(tmp_path / "out").unet
    np.testing.assert_array_equal(
        np.asarray(model.fps_embedding.linear_2.kernel).T,
        unet.fps_embedding.linear_2.weight.detach().numpy(),
    )


def test_diffusers_folders_that_do_not_fit(sources, tmp_path):
    import shutil

    def refused(message, *options):
        result = syncos("convert", tmp_path / "a", "--out", tmp_path / "out", *options)
        assert result.exit_code == 2 and not (tmp_path / "out").exists()
        assert message in result.stderr.splitlines()[-1], result.stderr

    shutil.copytree(sources["plain"], tmp_path / "a")
    shard = sorted((tmp_path / "a/unet").glob("*-of-*.safetensors"))[1]
    shard.unlink()
    refused(f"missing shards: {shard.name}")
    shutil.rmtree(tmp_path / "a/unet")
    shutil.copytree(sources["halves"] / "unet", tmp_path / "a/unet")
    path = tmp_path / "a/unet/config.json"
    path.write_text(path.read_text().replace('"layers_per_block": 1', '"layers_per_block": 2'))
    refused("missing down_blocks.0.resnets.1.conv1.weight")
    refused("--config: only for VideoCrafter checkpoints; omit it: the folder", "--config", path)
    (tmp_path / "a/vae/config.json").unlink()
    refused("vae/config.json: missing")


def test_hub(sources, tmp_path, monkeypatch):
    """The hub's functions replaced by a folder: the right files are asked for."""
    import huggingface_hub

    root = sources["halves"]
    (root / "unet" / "README.md").write_text("not needed")
    asked = []

    class Api:
        def model_info(self, source, timeout):
            assert source == "owner/model"
            names = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]
            entry = lambda name: type("Entry", (), {"rfilename": name})  # noqa: E731
            return type("Info", (), {"siblings": [entry(name) for name in names]})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)

    def download(_, name):
        asked.append(name)
        return str(root / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    assert hub.fetch("owner/model") == root
    assert "unet/README.md" not in asked and "tokenizer/vocab.json" in asked
    assert sum(name.startswith("unet/") and name.endswith(".bin") for name in asked) > 2
    result = convert("owner/model", "out", "--only", "vae")
    assert "parameters" in result.stdout
    assert json.loads((tmp_path / "out/config.json").read_text())["source"] == "owner/model"


def test_hub_ids():
    assert hub.is_id("damo-vilab/text-to-video-ms-1.7b") and hub.is_id("a/b")
    for path in ("model.ckpt", "a/model.ckpt", "./a/b", "/a/b", "a/b/c", "a"):
        assert not hub.is_id(path), path


def test_hub_checkpoint(tmp_path, monkeypatch):
    save_ckpt(tmp_path / "model.ckpt", {"x": np.zeros(2, np.float32)})
    monkeypatch.setattr(hub, "_names", lambda _: ["README.md", "model.ckpt"])
    monkeypatch.setattr(hub, "_get", lambda _, names: tmp_path)
    assert hub.fetch("a/b") == tmp_path / "model.ckpt"
    monkeypatch.setattr(hub, "_names", lambda _: ["a.ckpt", "b.ckpt"])
    result = syncos("convert", "a/b", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "several .ckpt files" in result.stderr
