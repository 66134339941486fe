"""The demo model's training: stops, resumes, learns, and what it exports loads."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import random_network

from syncos_jax.demo.clips import batches, lesson
from syncos_jax.demo.export import export, training_record
from syncos_jax.demo.frames import STRENGTH, mark_frames, marks
from syncos_jax.demo.loop import Training
from syncos_jax.demo.sizes import SIZES, TOKENS
from syncos_jax.demo.tokenizer import train_tokenizer
from syncos_jax.demo.train_diffusion import TextToVideo, frame_timesteps
from syncos_jax.demo.train_text import codes
from syncos_jax.demo.world import MOTIONS, OPPOSITE, sample_scene
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet_clip.unet3d import UNet3D, UNet3DConfig
from syncos_jax.models.unet_clip.vae import AutoencoderKL, VAEConfig
from syncos_jax.pipeline.load import load_model
from syncos_jax.weights_convert.table import leaves


def fit_line(folder, steps: int) -> tuple[dict, list[int]]:
    """Least squares on a stream of batches; also the steps at which a stream was asked for."""
    starts = []

    def stream(start: int):
        starts.append(start)
        rng = np.random.default_rng(start)
        while True:
            x = rng.normal(size=(16, 3)).astype(np.float32)
            yield x, x @ np.asarray([1.0, -2.0, 3.0], np.float32)

    def loss(params, batch, key):
        return jnp.square(batch[0] @ params["w"] - batch[1]).mean()

    folder.mkdir(parents=True, exist_ok=True)
    training = Training(folder, steps, 0.1, loss)
    return training.run({"w": jnp.zeros(3)}, stream, seed=0), starts


def log(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_training_learns_stops_and_resumes(tmp_path):
    first, starts = fit_line(tmp_path, 100)
    assert starts == [0]
    again, starts = fit_line(tmp_path, 100)  # nothing left to do
    np.testing.assert_array_equal(first["w"], again["w"])
    longer, starts = fit_line(tmp_path, 400)
    assert starts == [100]
    assert [entry["step"] for entry in log(tmp_path)] == [100, 200, 300, 400]
    assert log(tmp_path)[-1]["loss"] < 1e-2 < log(tmp_path)[0]["loss"]
    np.testing.assert_allclose(longer["w"], [1, -2, 3], atol=0.1)
    assert training_record(tmp_path)["steps"] == 400


def test_clips_played_backwards_are_called_by_the_opposite_motion(tmp_path):
    assert set(OPPOSITE) == set(MOTIONS)
    assert all(OPPOSITE[OPPOSITE[motion]] == motion for motion in MOTIONS)
    train_tokenizer(tmp_path)
    tokenizer = PromptTokenizer(tmp_path, TOKENS)
    scene = sample_scene(np.random.default_rng(0), motion="left")
    latents = np.arange(8, dtype=np.float16).reshape(1, 8, 1, 1, 1)
    stream = batches(latents, [scene], tokenizer, 64, (0, 0))
    clips, ids, _ = next(stream)
    words = [tokenizer._tokenizer.decode(row) for row in ids]
    for clip, text in zip(clips, words, strict=True):
        backwards = clip[0, 0, 0, 0] > clip[-1, 0, 0, 0]
        if "left" in text:
            assert not backwards
        if "right" in text:
            assert backwards


def test_the_noisy_lesson_begins_with_one_colour_on_one_background(tmp_path):
    train_tokenizer(tmp_path)
    tokenizer = PromptTokenizer(tmp_path, TOKENS)
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(600)]
    latents = np.broadcast_to(
        np.arange(600, dtype=np.float32).reshape(-1, 1, 1, 1, 1), (600, 8, 1, 1, 1)
    )

    def pairs(step):
        clips, _, noisy = next(batches(latents, scenes, tokenizer, 512, (0, step)))
        chosen = [scenes[int(clip[0, 0, 0, 0])] for clip in clips]
        taught = {(s.colour, s.background) for s, n in zip(chosen, noisy, strict=True) if n}
        others = {(s.colour, s.background) for s, n in zip(chosen, noisy, strict=True) if not n}
        return noisy.mean(), taught, others

    share, taught, others = pairs(0)
    assert abs(share - 0.65) < 0.07 and taught == {("red", "meadow")} and len(others) == 24
    assert len(pairs(300)[1]) == 4
    assert lesson(-1) == (0.2, 6)  # before it
    share, taught, _ = pairs(5000)
    assert abs(share - 0.2) < 0.06 and len(taught) > 20
    assert all(lesson(step)[0] >= lesson(step + 1)[0] for step in range(2000))


def test_frames_are_marked_whatever_they_show():
    config = UNet3DConfig(
        block_out_channels=(16, 32),
        attention=(False, True),
        layers_per_block=1,
        head_size=8,
        text_features=16,
        norm_groups=4,
    )
    unet = UNet3D(config, rngs=nnx.Rngs(0))
    mark_frames(unet, frames=8)
    layer, table = unet.mid_block.temp_convs[0], marks(8, 32)
    assert np.square(table).mean(axis=0).max() == pytest.approx(STRENGTH**2)
    x = 2 * jax.random.normal(jax.random.key(9), (2, 8, 3, 5, 32))  # neither its size nor its shape
    off = np.asarray(layer(x) - x) - table[None, :, None, None, :]
    assert np.square(off).mean() < 0.15 * np.square(table).mean()


def test_export_loads_with_the_same_weights(tmp_path):
    sizes = dataclasses.replace(
        SIZES["cpu"],
        vae=VAEConfig(block_out_channels=(4, 4, 4, 8), layers_per_block=1, norm_groups=4),
        unet=UNet3DConfig(
            block_out_channels=(8, 16),
            attention=(False, True),
            layers_per_block=1,
            head_size=8,
            text_features=16,
            norm_groups=4,
        ),
        text_inner=16,
        text_layers=1,
        text_heads=2,
    )
    vocabulary = train_tokenizer(tmp_path / "tokenizer")
    networks = random_network(lambda: TextToVideo(sizes, vocabulary, rngs=nnx.Rngs(0)))
    vae = random_network(lambda: AutoencoderKL(sizes.vae, rngs=nnx.Rngs(0)), seed=1)
    out = tmp_path / "model"
    for notes in ({"run": 1}, {"run": 2}):  # the second replaces the first
        export(out, sizes, networks, vae, 0.5, tmp_path / "tokenizer", notes)
    model = load_model(out)
    assert model.config.latent_scale == 0.5
    assert model.config.notes == {"run": 2}
    assert model.schedule.prediction == "v"
    for ours, theirs in (
        (networks.unet, model.unet),
        (networks.text_encoder, model.text_encoder),
        (vae, model.vae),
    ):
        assert leaves(ours).keys() == leaves(theirs).keys()
        jax.tree.map(np.testing.assert_array_equal, leaves(ours), leaves(theirs))


def test_every_attribute_has_a_share_of_the_text_features():
    table = codes(64)
    everything = np.concatenate(table)
    assert everything.shape == (4 + 6 + 4 + 6, 64)
    for i, one in enumerate(table):
        np.testing.assert_allclose(one.sum(axis=0), 0, atol=1e-4)  # what is open is told as zero
        np.testing.assert_allclose(np.square(one).sum(axis=1), 16, rtol=1e-5)
        for other in table[:i]:
            np.testing.assert_array_equal(one @ other.T, 0)


def test_the_timesteps_that_are_trained_at():
    u = (jnp.arange(4000, dtype=jnp.float32) + 0.5) / 4000
    t = np.asarray(frame_timesteps(jax.random.key(0), u, jnp.zeros(4000), 8, 1000))
    assert t.shape == (4000, 8) and t.min() >= 0 and t.max() <= 999
    shared = (t == t[:, :1]).all(axis=1)
    assert 0.55 < shared.mean() < 0.65
    assert 0.33 < (t[shared, 0] >= 850).mean() < 0.45
    others = np.sort(t[~shared], axis=1)
    anchored = (others[:, 1] == others[:, 7]) & (
        others[:, 0] < 300
    )  # one frame apart from the rest
    assert 0.65 < anchored.mean() < 0.85  # three in ten clips, of four in ten
    noisy = np.asarray(frame_timesteps(jax.random.key(0), u, jnp.ones(4000), 8, 1000))
    assert (noisy == noisy[:, :1]).all() and noisy.min() >= 849
