"""LTX-2 as a family: conversion, and a clip of a tiny model against diffusers' pipeline."""

import dataclasses
import inspect
import json
import shutil
from contextlib import contextmanager

import jax
import numpy as np
import pytest
import torch
from diffusers import LTX2ImageToVideoPipeline, LTX2Pipeline
from diffusers.pipelines.ltx2 import pipeline_ltx2_image2video
from diffusers.pipelines.ltx2.utils import DEFAULT_IMAGE_CRF, DISTILLED_SIGMA_VALUES
from ltx_folders import TRANSFORMER, VAE, save, scheduler, tiny_pipeline, torch_transformer
from PIL import Image
from safetensors.torch import load_file, save_file

from syncos_jax import CoDenoising, Pipeline, Scenario
from syncos_jax.errors import InputError
from syncos_jax.models.ltx.settings import DISTILLED_SIGMAS, LTXConfig, ShiftByTokens
from syncos_jax.pipeline.load import load_model
from syncos_jax.sampling import noise
from syncos_jax.weights_convert.convert import convert
from syncos_jax.weights_convert.ltx import open_model

PROMPT, NEGATIVE = "a cat in kitchen, drinks milk", "rain"
CLIP = {"height": 32, "width": 64, "num_frames": 9, "frame_rate": 4.0}


def scenario(**changes):
    values = {
        "global": "a cat in kitchen",
        "negative": NEGATIVE,
        "events": [{"prompt": "drinks milk", "frames": 9}],
    }
    return Scenario.from_dict({**values, **changes})


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    return save(tmp_path_factory.mktemp("ltx") / "tiny", pipeline)


@pytest.fixture(scope="module")
def converted(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "model"
    result = convert(folder, out)
    assert result.config.family == "ltx"
    (said,) = result.warnings
    assert "tensors of the audio stream are skipped: LTX makes no sound here" in said
    return out


@pytest.fixture(scope="module")
def model(converted):
    return load_model(converted)


@contextmanager
def video_alone(pipeline):
    """The video stream by itself, as diffusers' transformer can compute it."""
    transformer = pipeline.transformer
    whole = transformer.forward
    transformer.forward = lambda **given: whole(**{**given, "isolate_modalities": True})
    try:
        yield
    finally:
        del transformer.forward


def expected_latents(pipeline, start, steps, guidance, stg, rescale=0.0, **more):
    """diffusers' clip, from the noise `start`; None: from what the pipeline draws."""
    if start is not None:
        more["latents"] = torch.from_numpy(start.reshape(1, -1, start.shape[-1]).copy())
    with video_alone(pipeline):
        latents = pipeline(
            prompt=PROMPT,
            negative_prompt=NEGATIVE,
            num_inference_steps=steps,
            guidance_scale=guidance,
            stg_scale=stg,
            audio_stg_scale=stg,
            modality_scale=1.0,
            audio_modality_scale=1.0,
            audio_guidance_scale=guidance,
            guidance_rescale=rescale,
            audio_guidance_rescale=rescale,
            spatio_temporal_guidance_blocks=[1],
            max_sequence_length=8,
            output_type="latent",
            **{**CLIP, **more},
        ).frames
    return np.moveaxis(latents.numpy(), 1, -1)[0]


@pytest.mark.parametrize(
    ("guidance", "stg", "rescale"),
    [(3.0, 1.0, 0.7), (3.0, 1.0, 0.0), (1.0, 0.0, 0.7), (4.0, 0.0, 1.0), (1.0, 0.7, 0.4)],
)
def test_a_clip_equals_the_pipelines(pipeline, model, guidance, stg, rescale):
    sampler = CoDenoising(
        steps=8, guidance=guidance, perturbed_guidance=stg, guidance_rescale=rescale
    )
    ours = Pipeline(model)
    request = ours.prepare(scenario(), sampler)
    assert request.layout.count == 1 and request.frame_shape == (2, 4, 6)
    assert request.summary.samples_per_call == 1 + (guidance != 1) + (stg != 0)
    found = model.unscaled(np.asarray(ours.latents(request)))
    start = noise.frame_noise(request.key, noise.INITIAL, frames=3, frame_shape=(2, 4, 6))
    expected = expected_latents(pipeline, np.asarray(start), 8, guidance, stg, rescale)
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("size", "frames"), [((64, 32), 9), ((96, 32), 13)], ids=["its own size", "another size"]
)
def test_a_clip_from_a_picture(pipeline, model, tmp_path, monkeypatch, size, frames):
    """Against diffusers' image-to-video, which compresses the picture first, too."""
    rng = np.random.default_rng(4)
    pixels = rng.integers(0, 255, (size[1] // 8, size[0] // 8, 3)).repeat(8, 0).repeat(8, 1)
    picture = Image.fromarray(pixels.astype(np.uint8))
    picture.save(tmp_path / "start.png")
    ours = Pipeline(model)
    story = scenario(
        image=str(tmp_path / "start.png"),
        events=[{"prompt": "drinks milk", "frames": frames}],
        size=list(size),
        window=frames,
    )
    sampler = CoDenoising(steps=8, guidance=3.0, perturbed_guidance=1.0, guidance_rescale=0.7)
    request = ours.prepare(story, sampler)
    shape = (frames // 4 + 1, size[1] // 16, size[0] // 16, 6)
    assert request.layout.count == 1 and request.frame_shape == shape[1:]
    assert request.known.files[0].note.endswith("compressed with H.264 at CRF 33")
    found = model.unscaled(np.asarray(ours.latents(request)))
    start = noise.frame_noise(request.key, noise.INITIAL, frames=shape[0], frame_shape=shape[1:])
    drawn = torch.from_numpy(np.moveaxis(np.asarray(start), -1, 0)[None].copy())
    monkeypatch.setattr(
        pipeline_ltx2_image2video,
        "randn_tensor",
        lambda like, **_: drawn if like == drawn.shape else torch.zeros(like),
    )
    theirs = LTX2ImageToVideoPipeline(**pipeline.components)
    theirs.set_progress_bar_config(disable=True)
    expected = expected_latents(
        theirs,
        None,
        *(8, 3.0, 1.0, 0.7),
        image=picture,
        width=size[0],
        height=size[1],
        num_frames=frames,
    )
    assert found.shape == expected.shape == shape
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def test_a_distilled_clip(pipeline, folder, tmp_path):
    """By its eight noise levels, without guidance."""
    distilled = tmp_path / "tiny-distilled"
    shutil.copytree(folder, distilled)
    model = load_model(distilled)
    assert (model.steps, model.guidance, model.perturbed_guidance) == (8, 1.0, 0.0)
    assert list(DISTILLED_SIGMAS) == DISTILLED_SIGMA_VALUES
    ours = Pipeline(model)
    request = ours.prepare(scenario(), CoDenoising())
    assert request.summary.samples == 8
    assert request.call_schedule.updates.t == pytest.approx(np.float32(DISTILLED_SIGMAS) * 1000)
    found = model.unscaled(np.asarray(ours.latents(request)))
    start = noise.frame_noise(request.key, noise.INITIAL, frames=3, frame_shape=(2, 4, 6))
    pipeline.scheduler = scheduler(use_dynamic_shifting=False, shift_terminal=None)
    expected = expected_latents(
        pipeline, np.asarray(start), 8, 1.0, 0.0, sigmas=list(DISTILLED_SIGMAS)
    )
    pipeline.scheduler = scheduler()
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def test_prompts(pipeline, model, caplog):
    prompts = ["  a cat  in kitchen ", "rain", "a cat sleeps up milk rain a cat drinks"]
    embeds, mask, *_ = pipeline.encode_prompt(
        prompts, do_classifier_free_guidance=False, max_sequence_length=8
    )
    with torch.no_grad():
        expected = pipeline.connectors(embeds, mask)[0].numpy()
    found = np.asarray(model.encode_prompts(prompts)["text"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    assert "prompt cut to 8 tokens, without 'cat drinks'" in caplog.text


@pytest.mark.parametrize("batch", [None, 32])
def test_frames(pipeline, model, batch):
    """A stream of pieces, cut to the video, is what diffusers decodes of the whole."""
    latents = np.random.default_rng(3).normal(size=(5, 2, 4, 6)).astype(np.float32)
    given = torch.from_numpy(np.moveaxis(model.unscaled(latents), -1, 0)[None].copy())
    with torch.no_grad():
        decoded = pipeline.vae.decode(given).sample
    expected = np.moveaxis(((decoded[0] + 1) / 2).clamp(0, 1).numpy(), 0, -1) * 255
    pieces = list(model.decode_stream(latents, Pipeline(model).placement, batch))
    found = np.concatenate(pieces)
    assert found.shape == (17, 32, 64, 3) and found.dtype == np.uint8
    assert max(map(len, pieces)) <= (4 if batch is None else 32)
    assert np.abs(found - expected).max() < 0.51


def test_the_statistics_of_latents_come_from_the_weights(pipeline, model):
    assert model.config.vae.latents_mean == pytest.approx(pipeline.vae.latents_mean.tolist())
    assert model.config.vae.latents_std == pytest.approx(pipeline.vae.latents_std.tolist())


@pytest.mark.parametrize("tokens", [1024, 4096, 6144, 18])
def test_the_shift_goes_by_tokens(tokens):
    own = scheduler()
    mu = 0.95 + (tokens - 1024) * (2.05 - 0.95) / 3072
    own.set_timesteps(sigmas=np.linspace(1.0, 1 / 30, 30), mu=mu)
    config = LTXConfig(name="", shift=ShiftByTokens(tokens=None))
    steps = config.noise_schedule(tokens).solver_steps(config.noise_schedule().solver, 30)
    np.testing.assert_allclose(steps.t, own.timesteps.numpy(), rtol=1e-5)
    assert steps.b[-1] == pytest.approx(0.1) and steps.b_next[-1] == 0.0
    # The original code takes 4096 tokens for every size.
    fixed = LTXConfig(name="").noise_schedule(tokens)
    assert fixed.flow_shift == pytest.approx(np.exp(2.05))
    ddim = config.noise_schedule(tokens).steps(30)  # of FIFO and of ablations
    np.testing.assert_allclose(ddim.t, steps.t)


def test_a_request_has_the_schedule_of_its_size(model):
    ours = Pipeline(model)
    small = ours.prepare(scenario())
    large = ours.prepare(scenario(size=[128, 64]))
    assert small.schedule.flow_shift < large.schedule.flow_shift
    assert small.schedule.flow_shift == model.schedule.flow_shift


def test_the_frame_rate_is_an_input(model):
    ours = Pipeline(model)
    sampler = CoDenoising(steps=2)
    slow = ours.latents(ours.prepare(scenario(), sampler))
    fast = ours.latents(ours.prepare(scenario(fps=8), sampler))
    assert np.abs(np.asarray(slow) - np.asarray(fast)).max() > 1e-4


def test_defaults_are_the_published_ones():
    """Those of diffusers' ``pipeline_ltx2.py`` (and so of the original's ``constants.py``)."""
    published = {
        name: value.default
        for name, value in inspect.signature(LTX2Pipeline.__call__).parameters.items()
    }
    config = LTXConfig(name="")
    assert {
        "num_inference_steps": config.steps,
        "guidance_scale": config.guidance,
        "stg_scale": config.perturbed_guidance,
        "guidance_rescale": config.guidance_rescale,
        "spatio_temporal_guidance_blocks": [config.perturbed_block],
        "frame_rate": config.fps,
        "height": config.height,
        "width": config.width,
        "max_sequence_length": config.text_tokens,
    }.items() <= published.items()
    assert config.picture_crf == DEFAULT_IMAGE_CRF


def test_all_kinds_of_guidance_call_one_network(model):
    """Three samples of one call: the network is in the program once."""
    ours = Pipeline(model)
    request = ours.prepare(scenario(), CoDenoising(steps=2))
    cond = jax.tree.map(lambda leaf: np.asarray(leaf)[:3], ours.conditioning(request))
    x, t = np.zeros((3, 3, 2, 4, 6), np.float32), np.zeros(3, np.float32)
    text = str(jax.make_jaxpr(model.denoiser)(model.params, x, t, cond))
    assert text.count("name=_attention") == 2 * TRANSFORMER.layers
    assert request.summary.samples == 6 and request.summary.calls == 2
    assert [float(w) for w in request.call_schedule.calls.weights[0]] == [4.0, -2.0, -1.0]


def test_a_family_without_a_perturbed_network_says_so():
    ours = Pipeline.from_pretrained("demo")
    events = {"global": "a ball", "events": [{"prompt": "rolls", "seconds": 2}]}
    with pytest.raises(InputError, match="'unet_clip' has no perturbed denoiser.*leave it out"):
        ours.prepare(Scenario.from_dict(events), CoDenoising(perturbed_guidance=1.0))


ORIGINAL = (
    ("proj_in.", "patchify_proj."),
    ("prompt_adaln.", "prompt_adaln_single."),
    ("time_embed.", "adaln_single."),
    (".norm_q.", ".q_norm."),
    (".norm_k.", ".k_norm."),
)


def original(folder, path, config=None):
    """The networks of diffusers' folder in one file, as the original code names them."""
    tensors = {}
    for key, value in load_file(next((folder / "transformer").glob("*.safetensors"))).items():
        for theirs, own in ORIGINAL:
            key = key.replace(theirs, own)
        tensors[f"model.diffusion_model.{key}"] = value
    for key, value in load_file(next((folder / "connectors").glob("*.safetensors"))).items():
        kind, _, rest = key.partition("_")
        if "connector." in key:
            rest = rest.replace("connector.", "embeddings_connector.")
            rest = rest.replace("transformer_blocks", "transformer_1d_blocks")
            name = f"model.diffusion_model.{kind}_{rest}"
            name = name.replace(".norm_q.", ".q_norm.").replace(".norm_k.", ".k_norm.")
        else:
            name = f"text_embedding_projection.{kind}_aggregate_embed.{key.rpartition('.')[2]}"
        tensors[name] = value
    statistics = {"latents_mean": "mean-of-means", "latents_std": "std-of-means"}
    for key, value in load_file(next((folder / "vae").glob("*.safetensors"))).items():
        if key in statistics:
            tensors[f"vae.per_channel_statistics.{statistics[key]}"] = value
            continue
        part, kind, *rest = key.replace("resnets", "res_blocks").split(".")
        if kind == "down_blocks":
            number, rest = 2 * int(rest[0]), rest[1:]
            if rest[0] == "downsamplers":
                number, rest = number + 1, rest[2:]
            rest = [str(number), *rest]
        elif kind == "mid_block":
            levels = len(VAE.down)
            kind, first = ("down_blocks", 2 * levels) if part == "encoder" else ("up_blocks", 0)
            rest = [str(first), *rest]
        elif kind == "up_blocks":
            number, rest = 2 * int(rest[0]) + 2, rest[1:]
            if rest[0] == "upsamplers":
                number, rest = number - 1, rest[2:]
            rest = [str(number), *rest]
        tensors[".".join(["vae", part, kind, *rest])] = value
    tensors["vocoder.conv_pre.weight"] = torch.zeros(1)
    metadata = {"config": json.dumps(config or {"transformer": {"caption_channels": 20}})}
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata=metadata)


def test_the_original_file_with_a_text_encoder(folder, converted, tmp_path):
    source = tmp_path / "mine"
    source.mkdir()
    original(folder, source / "ltx-2.3-22b-dev.safetensors")
    for name in ("text_encoder", "tokenizer"):
        shutil.copytree(folder / name, source / name)
    own = json.loads((folder / "syncos.json").read_text())
    sizes = json.loads((converted / "config.json").read_text())["transformer"]
    (source / "syncos.json").write_text(
        json.dumps({**own, "transformer": sizes})  # cells of 16 pixels are in no published file
    )
    result = convert(source, tmp_path / "out")
    assert "audio stream are skipped" in result.warnings[0]
    one, other = load_model(converted), load_model(tmp_path / "out")
    for name, weights in one.weights.items():
        pairs = zip(jax.tree.leaves(weights), jax.tree.leaves(other.weights[name]), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs), name
    assert one.config.vae == other.config.vae and one.config.text == other.config.text
    assert other.config.shift.tokens == 4096 and one.config.shift.tokens is None
    changed = dataclasses.replace(one.config.connectors, positions=4096)
    assert other.config.connectors == changed


@pytest.mark.parametrize("name", ["transformer", "connectors", "vae"])
def test_one_network_of_an_original_file(folder, tmp_path, name):
    path = tmp_path / "ltx-2.3-22b-distilled-1.1.safetensors"
    original(folder, path)
    result = convert(path, tmp_path / "out", only=name)
    assert list(result.parameters) == [name] and result.config.sigmas == DISTILLED_SIGMAS
    with pytest.raises(InputError, match="text_encoder/config.json: missing"):
        convert(path, tmp_path / "other")


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("transformer", {"patch_size": 2}, "patch_size is 2; only 1 can be converted"),
        (
            "transformer",
            {"in_channels": 7, "out_channels": 7},
            "transformer takes 7 latent channels, vae has 6",
        ),
        ("text_encoder", {"model_type": "gemma4"}, "LTX-2.5's text encoder cannot be converted"),
        ("vae", {"decoder_inject_noise": True}, "decoder_inject_noise is set"),
        ("scheduler", {"use_karras_sigmas": True}, "use_karras_sigmas is True"),
        ("connectors", {"text_proj_in_factor": 3}, "networks do not fit: connectors takes"),
    ],
)
def test_what_cannot_be_converted(folder, tmp_path, part, changes, message):
    source = tmp_path / "broken"
    shutil.copytree(folder, source)
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    path = source / part / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(InputError, match=message):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_older_model(tmp_path):
    """LTX-2.0: another number of steps and another block to perturb."""
    older = dataclasses.replace(TRANSFORMER, gated=False, text_modulated=False, text_projection=32)
    torch_transformer(older).save_pretrained(tmp_path / "transformer")
    opened = open_model(tmp_path, "transformer")
    assert (opened.config.steps, opened.config.perturbed_block) == (40, 1)
    assert opened.config.transformer.text_projection == 32
