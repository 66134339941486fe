"""CogVideoX from a picture: whole clips of tiny models against diffusers' pipeline, through a
scenario."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXImageToVideoPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from test_cogvideox_family import SCHEDULER, VAE, tiny_pipeline
from test_cogvideox_transformer import ROTARY, torch_transformer
from test_cogvideox_vae import torch_vae

from syncos_jax.pipeline import Pipeline
from syncos_jax.pipeline.known_frames import known_frames
from syncos_jax.pipeline.load import load_model
from syncos_jax.sampling import noise
from syncos_jax.scenario import Scenario
from syncos_jax.weights_convert.convert import convert

KINDS = {
    "5B": {"use_learned_positional_embeddings": True},
    "1.5": {"patch_size_t": 2, "patch_bias": False, "ofs_embed_dim": 12},
}
FRAMES, HEIGHT, WIDTH = 9, 24, 32


def image_pipeline(kind):
    parts = tiny_pipeline("2B")
    sizes = {**ROTARY, "text_embed_dim": 12, "in_channels": 8, "num_attention_heads": 3}
    sizes["max_text_seq_length"] = 12
    made = CogVideoXImageToVideoPipeline(
        tokenizer=parts.tokenizer,
        text_encoder=parts.text_encoder,
        vae=torch_vae({**VAE, "invert_scale_latents": kind == "1.5"}),
        transformer=torch_transformer({**sizes, **KINDS[kind]}),
        scheduler=CogVideoXDDIMScheduler.from_config({**SCHEDULER, "snr_shift_scale": 1.0}),
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "first.png"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (HEIGHT * 3, WIDTH * 3, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def story(picture, **more):
    return Scenario.from_dict(
        {
            "global": "a cat in kitchen",
            "negative": "milk",
            "events": [{"prompt": "sleeps", "frames": FRAMES}],
            "window": FRAMES,
            "size": [WIDTH, HEIGHT],
            "image": str(picture),
            "sampler": {"name": "co_denoising", "steps": 5, "guidance": 4.0},
            **more,
        }
    )


def theirs(pipeline, request, picture):
    shape, frames = request.frame_shape, request.layout.frames
    start = noise.frame_noise(request.key, noise.INITIAL, frames=frames, frame_shape=shape)
    made = pipeline(
        Image.open(picture),
        "a cat in kitchen, sleeps",
        negative_prompt="milk",
        height=HEIGHT,
        width=WIDTH,
        num_frames=FRAMES,
        num_inference_steps=5,
        guidance_scale=4.0,
        max_sequence_length=12,
        latents=torch.from_numpy(np.array(start)).permute(0, 3, 1, 2)[None],
        output_type="latent",
    ).frames
    return made[0].permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_from_a_picture(kind, picture, tmp_path, monkeypatch):
    """With the mean of the picture's latents, and with a sample of stored noise."""
    pipeline = image_pipeline(kind)
    pipeline.save_pretrained(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "model")
    model = load_model(tmp_path / "model")
    pipe = Pipeline(model)
    assert model.known_rule == "condition" and model.geometry.dropped == (kind == "1.5")
    scale = model.config.image_scale
    assert scale == pytest.approx(1 / 0.7 if kind == "1.5" else 0.7)
    request = pipe.prepare(story(picture))
    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
    )
    wanted = theirs(pipeline, request, picture)
    assert np.abs(np.asarray(pipe.latents(request)) - wanted).max() < 1e-4 * np.abs(wanted).max()

    model.config = dataclasses.replace(model.config, image_sampled=True)
    h, w, channels = request.frame_shape
    drawn = jax.random.normal(jax.random.fold_in(request.key, 0x50494354), (h, w, channels))
    stored = torch.from_numpy(np.array(drawn)).permute(2, 0, 1)[None, :, None]
    monkeypatch.setattr(
        DiagonalGaussianDistribution,
        "sample",
        lambda self, generator=None: self.mean + self.std * stored,
    )
    sampled = theirs(pipeline, request, picture)
    assert np.abs(sampled - wanted).max() > 1e-2
    ours = np.asarray(pipe.latents(request))
    assert np.abs(ours - sampled).max() < 1e-4 * np.abs(sampled).max()
    assert pipe.decode(ours).shape == (FRAMES, HEIGHT, WIDTH, 3)

    # A picture elsewhere is kept by the sampler, as no channel can show it.
    both = pipe.prepare(story(picture, end_image=str(picture)))
    frames = both.layout.frames
    known = known_frames(both.known, model, frames, both.frame_shape[:2], pipe.placement)
    assert known.rule == "replace" and np.flatnonzero(known.mask).tolist() == [frames - 1]
    assert pipe.model.window_conditioning_shapes(2, frames, request.frame_shape) == {
        "channels": jax.ShapeDtypeStruct((2, frames, h, w, channels), jnp.float32)
    }
