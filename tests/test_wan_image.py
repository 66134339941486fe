"""Wan from pictures: whole clips of tiny models against diffusers' pipelines, through a scenario;
what each window sees; image encoder and its preparation of pictures."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from flax import nnx
from PIL import Image
from transformers import CLIPImageProcessor
from wan_folders import image_pipeline, save

from syncos_jax.errors import InputError
from syncos_jax.models.given_frames import GivenFrames, Picture
from syncos_jax.models.image_processing import ImageProcessing, of_transformers
from syncos_jax.models.layers import AbstractRngs
from syncos_jax.models.vit import VisionTransformer
from syncos_jax.models.wan.image import window_channels, window_features
from syncos_jax.pipeline import Pipeline
from syncos_jax.pipeline.load import load_model
from syncos_jax.sampling import noise
from syncos_jax.scenario import Scenario
from syncos_jax.weights_convert import wan_image
from syncos_jax.weights_convert.convert import convert
from syncos_jax.weights_convert.table import fill

WIDTH, HEIGHT, FRAMES = 32, 16, 5
STORY = {
    "global": "a cat in  kitchen",
    "negative": "milk drinks",
    "events": [{"prompt": "sleeps", "frames": FRAMES}],
    "size": [WIDTH, HEIGHT],
    "window": FRAMES,
    "sampler": {"name": "co_denoising", "steps": 6, "guidance": 4.0},
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """first.png, last.png: of odd sizes and the video's shape."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, factor in (("first", 3), ("last", 2)):
        small = rng.integers(0, 256, (HEIGHT * factor, WIDTH * factor, 3)).astype(np.uint8)
        Image.fromarray(small).save(folder / f"{name}.png")
    return folder


def drawn(request):
    shape = request.frame_shape
    frames = request.layout.frames
    return np.asarray(
        noise.frame_noise(request.key, noise.INITIAL, frames=frames, frame_shape=shape)
    )


def theirs(pipeline, request, pictures, last=False, **settings):
    """What diffusers makes of the same noise; ``[f, h, w, C]``."""
    settings = {"guidance_scale": 4.0, **settings}
    if last:
        settings["last_image"] = Image.open(pictures / "last.png")
    start = torch.from_numpy(drawn(request).copy()).permute(3, 0, 1, 2)[None]
    made = pipeline(
        image=Image.open(pictures / "first.png"),
        prompt="a cat in  kitchen, sleeps",
        negative_prompt="milk drinks",
        num_inference_steps=6,
        height=HEIGHT,
        width=WIDTH,
        num_frames=FRAMES,
        latents=start,
        output_type="latent",
        **settings,
    ).frames
    return made[0].permute(1, 2, 3, 0).numpy()


def clip_against(kind, pictures, folder, last=False, sampler=None, **settings):
    pipeline = image_pipeline(kind)
    pipe = Pipeline(load_model(save(folder / "source", pipeline)))
    story = {**STORY, "image": str(pictures / "first.png")}
    if last:
        story["end_image"] = str(pictures / "last.png")
    story["sampler"] = {**story["sampler"], **(sampler or {})}
    request = pipe.prepare(Scenario.from_dict(story))
    ours = np.asarray(pipe.latents(request))
    expected = theirs(pipeline, request, pictures, last, **settings)
    assert np.abs(expected).max() > 0.5
    return pipe, request, np.abs(ours - expected).max() / np.abs(expected).max()


def test_a_clip_from_a_picture_at_timestep_0(pictures, tmp_path):
    """TI2V-5B: also saved as WanPipeline, whose folder makes videos from text, too."""
    pipe, request, difference = clip_against("clean", pictures, tmp_path)
    assert difference < 1e-4 and pipe.model.known_rule == "timestep"
    parts = image_pipeline("clean")
    names = ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")
    text = WanPipeline(**{n: getattr(parts, n) for n in names}, expand_timesteps=True)
    text.set_progress_bar_config(disable=True)
    other = Pipeline(load_model(save(tmp_path / "text", text)))
    assert other.model.denoiser == pipe.model.denoiser and other.model.known_rule == "timestep"
    story = {**STORY, "sampler": {**STORY["sampler"], "steps": 3}}
    request = other.prepare(Scenario.from_dict(story))
    start = torch.from_numpy(drawn(request).copy()).permute(3, 0, 1, 2)[None]
    expected = text(
        "a cat in  kitchen, sleeps",
        negative_prompt="milk drinks",
        num_inference_steps=3,
        guidance_scale=4.0,
        height=HEIGHT,
        width=WIDTH,
        num_frames=FRAMES,
        latents=start,
        output_type="latent",
    ).frames[0]
    ours = np.asarray(other.latents(request))
    assert np.abs(ours - expected.permute(1, 2, 3, 0).numpy()).max() < 1e-4 * expected.abs().max()


def test_a_clip_from_a_picture_with_two_experts(pictures, tmp_path):
    """I2V-A14B: channels beside the latents, a guidance for each expert."""
    _, request, difference = clip_against(
        "two", pictures, tmp_path, sampler={"guidance_2": 2.5}, guidance_scale_2=2.5
    )
    assert difference < 1e-4 and request.sampler.boundary == 0.9


def test_a_clip_from_a_picture_with_an_image_encoder(pictures, tmp_path):
    """Wan 2.1 I2V."""
    pipe, request, difference = clip_against("clip", pictures, tmp_path)
    assert difference < 1e-4
    out = tmp_path / "converted"
    convert(tmp_path / "source", out)
    assert load_model(out).weights_sha256 == pipe.model.weights_sha256
    only = tmp_path / "only"
    for source in (tmp_path / "source", tmp_path / "source" / "image_encoder"):
        convert(source, only, only="image_encoder", force=True)
    pixels = np.random.default_rng(1).normal(size=(2, 18, 18, 3)).astype(np.float32)
    encoder = image_pipeline("clip").image_encoder
    with torch.no_grad():
        given = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        wanted = encoder(given, output_hidden_states=True).hidden_states[-2].numpy()
    found = np.asarray(load_model(only).image_encoder(pixels))
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()
    with pytest.raises(InputError, match="makes videos from pictures"):
        pipe.prepare(Scenario.from_dict(STORY))
    fifo = {**STORY, "image": str(pictures / "first.png"), "sampler": {"name": "fifo"}}
    with pytest.raises(InputError, match="the windows of fifo have none"):
        pipe.prepare(Scenario.from_dict(fifo))
    assert pipe.plan(request).inputs[0].role == "image"


@pytest.mark.slow
def test_a_clip_from_a_first_and_a_last_picture(pictures, tmp_path):
    """FLF2V: both pictures' features with learned positions; one channel of the last mask."""
    _, request, difference = clip_against("first and last", pictures, tmp_path, last=True)
    assert difference < 1e-4


def given(at, count=13, reference=True):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (count, 4, 4, 3)).astype(np.uint8)
    known = np.zeros(count, bool)
    known[list(at)] = True
    pictures = tuple(Picture(frame, frames[frame]) for frame in at)
    return GivenFrames(frames, known, pictures, reference)


def pooled(pixels):
    """Latents of a causal autoencoder of 4 frames: their means."""
    starts = [0, *range(1, len(pixels), 4)]
    return np.stack([pixels[s : s + 4 if s else 1].mean(axis=(0,)) for s in starts])


def test_what_each_window_sees():
    """Windows of 2 latent frames (5 frames) at latent frames 0, 1 and 2."""
    starts = np.array([0, 4, 8])
    channels = window_channels(given([0, 8, 12]), starts, 5, 4, pooled)
    assert channels.shape == (3, 2, 4, 4, 4 + 3)
    masks = channels[:, :, 0, 0, :4]
    assert masks[0].tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
    assert masks[1].tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]  # frame 8, the last of the window
    assert masks[2].tolist() == [[1, 1, 1, 1], [0, 0, 0, 1]]  # frames 8 and 12
    held = given([0, 8, 12])
    np.testing.assert_allclose(channels[0, 0, ..., 4:], held.frames[0] / 127.5 - 1, atol=1e-6)
    assert not channels[0, 1, ..., 4:].any()  # grey
    np.testing.assert_allclose(channels[1, 1, ..., 4:], (held.frames[8] / 127.5 - 1) / 4, atol=1e-6)


def test_windows_without_known_frames_refer_to_the_latest_picture():
    starts = np.array([0, 4, 8])
    with_picture = window_channels(given([0]), starts, 5, 4, pooled)
    np.testing.assert_array_equal(with_picture[1], with_picture[0])
    without = window_channels(given([0], reference=False), starts, 5, 4, pooled)
    np.testing.assert_array_equal(without[0], with_picture[0])
    assert not without[1:].any()
    late = window_channels(given([6]), np.array([0, 2, 8]), 5, 4, pooled)
    np.testing.assert_array_equal(late[0], late[2])  # the first picture where none is earlier


def test_whose_features_each_window_sees():
    def encode(picture):
        return picture.reshape(1, -1)[:, :2].astype(np.float32)

    held = given([0, 8])
    one = window_features(held, np.array([0, 4, 8]), False, encode)
    assert one.shape == (3, 1, 2)
    wanted = [encode(held.frames[frame])[0] for frame in (0, 0, 8)]
    np.testing.assert_array_equal(one[:, 0], wanted)
    two = window_features(held, np.array([0, 8]), True, encode)
    np.testing.assert_array_equal(two[0, 1], wanted[2])  # the next picture
    np.testing.assert_array_equal(two[1, 1], wanted[2])  # there is none


@pytest.mark.parametrize("size", [(45, 31), (31, 46), (224, 224), (20, 301), (19, 17)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"size": {"shortest_edge": 21}, "crop_size": {"height": 21, "width": 21}},
        {"size": {"height": 18, "width": 26}, "do_center_crop": False},
        {"size": {"shortest_edge": 16}, "crop_size": {"height": 21, "width": 14}, "resample": 2},
    ],
)
def test_pictures_are_prepared_as_by_transformers(size, settings):
    processor = CLIPImageProcessor(**settings)
    picture = np.random.default_rng(4).integers(0, 256, (*size, 3)).astype(np.uint8)
    wanted = processor(images=Image.fromarray(picture), return_tensors="np").pixel_values[0]
    read = json.loads(json.dumps(processor.to_dict()))
    found = of_transformers(read, "preprocessor_config.json")(picture)
    np.testing.assert_allclose(found, np.moveaxis(wanted, 0, -1), rtol=0, atol=1e-5)


def test_pictures_are_prepared_as_by_wans_own_code():
    picture = np.random.default_rng(4).integers(0, 256, (45, 31, 3)).astype(np.uint8)
    values = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    values = torch.nn.functional.interpolate(
        values, size=(224, 224), mode="bicubic", align_corners=False
    )
    own = ImageProcessing.wan()
    values = values[0].permute(1, 2, 0).numpy() * 0.5 + 0.5
    wanted = (values - np.asarray(own.mean)) / np.asarray(own.std)
    np.testing.assert_allclose(own(picture), wanted, rtol=0, atol=1e-4)
    with pytest.raises(InputError, match="a height and a width"):
        of_transformers({"size": {"longest_edge": 3}}, "preprocessor_config.json")
    assert dataclasses.replace(own, crop=(2, 2))(picture).shape == (2, 2, 3)


def own_names(state):
    """Names of Wan's own file, of a CLIPVisionModel's tensors."""
    made = {}
    for key, value in state.items():
        name = key.replace("vision_model.", "").replace("encoder.layers.", "transformer.")
        for theirs, own in (
            ("embeddings.class_embedding", "cls_embedding"),
            ("embeddings.position_embedding.weight", "pos_embedding"),
            ("embeddings.", ""),
            ("pre_layrnorm", "pre_norm"),
            ("post_layernorm", "post_norm"),
            ("layer_norm", "norm"),
            ("mlp.fc1", "mlp.0"),
            ("mlp.fc2", "mlp.2"),
            ("self_attn.out_proj", "attn.proj"),
        ):
            name = name.replace(theirs, own)
        made[f"visual.{name}"] = value
    made["visual.cls_embedding"] = made["visual.cls_embedding"][None, None]
    made["visual.pos_embedding"] = made["visual.pos_embedding"][None]
    for layer in range(3):
        for leaf in ("weight", "bias"):
            at = f"visual.transformer.{layer}"
            parts = [made.pop(f"{at}.self_attn.{n}_proj.{leaf}") for n in "qkv"]
            made[f"{at}.attn.to_qkv.{leaf}"] = torch.cat(parts)
    return made | {"visual.head": torch.zeros(12, 4), "textual.x": torch.zeros(3)}


def test_the_image_encoder_of_wans_own_file():
    reference = image_pipeline("clip").image_encoder
    state = {k: v.detach().numpy() for k, v in own_names(reference.state_dict()).items()}
    sizes = wan_image.config_of_wan(state, "models_clip.pth")
    theirs = wan_image.config_of_transformers(reference.config.to_dict(), "config.json")
    sizes = dataclasses.replace(sizes, heads=theirs.heads)  # 80 features a head where published
    assert sizes == theirs and theirs.layers == 2
    build = nnx.eval_shape(lambda: VisionTransformer(sizes, rngs=AbstractRngs()))
    found = fill(build, wan_image.wan_table(sizes), state, state.__getitem__, what="models_clip")
    pixels = np.random.default_rng(1).normal(size=(1, 18, 18, 3)).astype(np.float32)
    with torch.no_grad():
        given = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        wanted = reference(given, output_hidden_states=True).hidden_states[-2].numpy()
    assert np.abs(np.asarray(found(pixels)) - wanted).max() < 1e-5 * np.abs(wanted).max()
    with pytest.raises(InputError, match="not Wan's image encoder"):
        wan_image.config_of_wan({}, "models_clip.pth")
    with pytest.raises(InputError, match="hidden_act"):
        wan_image.config_of_transformers({"hidden_act": "relu"}, "config.json")
