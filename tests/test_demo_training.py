"""The demo model's training: stops, resumes, learns, and what it exports loads."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNet3DConditionModel
from flax import nnx
from networks import random_network
from PIL import Image

from demo_model import gates
from demo_model.bank import encode_bank
from demo_model.clip_batches import clip_batches, lesson
from demo_model.diffusion import (
    TextToVideo,
    over_time,
    schedule_rates,
    velocity_error,
    without_time,
)
from demo_model.evaluate import drawn_subjects
from demo_model.export import export, training_record
from demo_model.frame_marks import STRENGTH, mark_frames, marks
from demo_model.known import known_frames, render_turns, sample_turn
from demo_model.loop import Training
from demo_model.sheet import write_sheet
from demo_model.sizes import TOKENS, DemoSizes, Stage
from demo_model.tokenizer import train_tokenizer
from demo_model.train import begun, learn_to_draw, learn_to_see, silence
from demo_model.train_clips import frame_timesteps, train_clips
from demo_model.train_frames import still_timesteps
from demo_model.train_text import codes
from demo_model.train_vae import normalise_latents, reconstruction_error
from demo_model.world import LARGE_SUBJECTS, Scene, prompt, render, sample_scene
from syncos_jax.errors import InputError
from syncos_jax.metrics.world import ATTRIBUTES, CLIP_FRAMES, MOTIONS, OPPOSITE
from syncos_jax.metrics.world.tracker import judge, track
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet_clip.unet3d import UNet3D, UNet3DConfig
from syncos_jax.models.unet_clip.vae import AutoencoderKL, VAEConfig
from syncos_jax.pipeline import Pipeline
from syncos_jax.pipeline.load import load_model
from syncos_jax.weights_convert.table import leaves

TINY = DemoSizes(
    vae=VAEConfig(block_out_channels=(4, 4, 8), layers_per_block=1, norm_groups=4),
    unet=UNet3DConfig(
        block_out_channels=(8, 16),
        attention=(False, True),
        layers_per_block=1,
        head_size=8,
        text_features=24,
        norm_groups=4,
        first_transformer=False,
    ),
    text_inner=16,
    text_layers=1,
    text_heads=2,
    autoencoder=Stage(steps=3, batch=2, rate=1e-3),
    decoder=Stage(steps=2, batch=2, rate=1e-3),
    frames=Stage(steps=3, batch=2, rate=1e-3),
    clips=Stage(steps=2, batch=2, rate=1e-3),
    stills=6,
    bank=6,
)


NO_TURNS: tuple = (np.zeros((0, 8, 1, 1, 1)), [])


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
    stream = clip_batches(((latents, [scene]), NO_TURNS), tokenizer, 64, (0, 0))
    clips, ids, _, known = next(stream)
    assert not known.any()  # motions are learned first
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

    def pairs(seen):
        banks = (latents, scenes), (latents, [(s, s, 3) for s in scenes])
        clips, _, noisy, _ = next(clip_batches(banks, tokenizer, 512, (0, seen), seen))
        chosen = [scenes[int(clip[0, 0, 0, 0])] for clip in clips]
        taught = {(s.colour, s.background) for s, n in zip(chosen, noisy, strict=True) if n}
        others = {(s.colour, s.background) for s, n in zip(chosen, noisy, strict=True) if not n}
        return noisy.mean(), taught, others

    share, taught, others = pairs(0)
    assert abs(share - 0.65) < 0.07 and taught == {("red", "meadow")} and len(others) == 24
    assert len(pairs(5000)[1]) == 4
    share, taught, _ = pairs(80_000)
    assert abs(share - 0.2) < 0.06 and len(taught) > 20
    assert all(lesson(seen)[0] >= lesson(seen + 100)[0] for seen in range(0, 40_000, 100))


@pytest.mark.slow
def test_frames_are_marked_whatever_they_show():
    config = UNet3DConfig(
        block_out_channels=(16, 32),
        attention=(False, True),
        layers_per_block=1,
        head_size=8,
        text_features=24,
        norm_groups=4,
    )
    unet = UNet3D(config, rngs=nnx.Rngs(0))
    mark_frames(unet, frames=8)
    layer, table = unet.mid_block.temp_convs[0], marks(8, 32)
    assert np.square(table).mean(axis=0).max() == pytest.approx(STRENGTH**2)
    x = 2 * jax.random.normal(jax.random.key(9), (2, 8, 3, 5, 32))  # neither its size nor its shape
    off = np.asarray(layer(x) - x) - table[None, :, None, None, :]
    assert np.square(off).mean() < 0.15 * np.square(table).mean()


@pytest.mark.slow
def test_export_loads_with_the_same_weights(tmp_path):
    sizes = TINY
    vocabulary = train_tokenizer(tmp_path / "tokenizer")
    networks = random_network(lambda: TextToVideo(sizes, vocabulary, rngs=nnx.Rngs(0)))
    vae = random_network(lambda: AutoencoderKL(sizes.vae, rngs=nnx.Rngs(0)), seed=1)
    out = tmp_path / "model"
    for notes in ({"run": 1}, {"run": 2}):  # the second replaces the first
        export(out, sizes, networks, vae, tmp_path / "tokenizer", notes)
    model = load_model(out)
    assert model.config.latent_scale == 1
    assert model.config.notes["run"] == 2
    assert drawn_subjects(Pipeline(model)) == sizes.subjects
    assert model.schedule.prediction == "v"
    for ours, theirs in (
        (networks.unet, model.unet),
        (networks.text_encoder, model.text_encoder),
        (vae, model.vae),
    ):
        assert leaves(ours).keys() == leaves(theirs).keys()
        halved = jax.tree.map(lambda w: np.float32(np.float16(w)), leaves(ours))
        jax.tree.map(np.testing.assert_array_equal, halved, leaves(theirs))

    # The network is without its first transformer, diffusers' never is: there it adds nothing.
    reference = UNet3DConditionModel.from_pretrained(out / "unet").float().eval()
    assert reference.transformer_in is not None and model.unet.transformer_in is None
    rng = np.random.default_rng(0)
    x, text = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, 8, 8, 4), (2, 5, 24)))
    first = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    with torch.no_grad():
        said = reference(first, torch.tensor([3, 981]), torch.from_numpy(text)).sample
    found = nnx.jit(UNet3D.__call__)(
        model.unet, jnp.asarray(x), jnp.asarray([3, 981]), jnp.asarray(text)
    )
    wanted = np.moveaxis(said.numpy(), 1, -1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_every_attribute_has_a_share_of_the_text_features():
    table = codes(64, ATTRIBUTES)
    everything = np.concatenate(table)
    assert everything.shape == (4 + 6 + 4 + 6, 64)
    for i, one in enumerate(table):
        np.testing.assert_allclose(one.sum(axis=0), 0, atol=1e-4)  # what is open is told as zero
        np.testing.assert_allclose(np.square(one).sum(axis=1), 16, rtol=1e-5)
        for other in table[:i]:
            np.testing.assert_array_equal(one @ other.T, 0)


def test_the_timesteps_that_are_trained_at():
    u = (jnp.arange(4000, dtype=jnp.float32) + 0.5) / 4000
    none = jnp.zeros((4000, 8))
    t = np.asarray(frame_timesteps(jax.random.key(0), u, jnp.zeros(4000), none, 1000))
    assert t.shape == (4000, 8) and t.min() >= 0 and t.max() <= 999
    shared = (t == t[:, :1]).all(axis=1)
    assert 0.55 < shared.mean() < 0.65
    assert 0.33 < (t[shared, 0] >= 850).mean() < 0.45
    others = np.sort(t[~shared], axis=1)
    anchored = (others[:, 1] == others[:, 7]) & (
        others[:, 0] < 300
    )  # one frame apart from the rest
    assert 0.65 < anchored.mean() < 0.85  # three in ten clips, of four in ten
    noisy = np.asarray(frame_timesteps(jax.random.key(0), u, jnp.ones(4000), none, 1000))
    assert (noisy == noisy[:, :1]).all() and noisy.min() >= 699
    first = none.at[:, 0].set(1)
    pictured = np.asarray(frame_timesteps(jax.random.key(0), u, jnp.zeros(4000), first, 1000))
    assert (pictured == pictured[:, :1]).all()  # one for all frames, of which the known have 0


def test_each_part_of_the_weights_has_its_share_of_the_rate(tmp_path):
    def loss(params, batch, key):
        return (params["fast"] + params["slow"]).sum()

    training = Training(tmp_path, 1, 0.1, loss, scales={"fast": 1.0, "slow": 0.25})
    tmp_path.mkdir(exist_ok=True)
    zeros = {"fast": jnp.zeros(2), "slow": jnp.zeros(2)}
    optimiser = training.optimiser()
    grads = jax.tree.map(jnp.ones_like, zeros)
    with jax.numpy_dtype_promotion("standard"):
        state = optimiser.init(zeros)
        for _ in range(2):
            updates, state = optimiser.update(grads, state, zeros)
    assert updates["slow"][0] < 0
    np.testing.assert_allclose(updates["fast"], 4 * updates["slow"], rtol=1e-6)


def test_figures_of_a_probe_are_logged(tmp_path):
    seen = []
    training = Training(
        tmp_path,
        4,
        0.1,
        lambda params, batch, key: jnp.square(params["w"]).sum(),
        probe=lambda average, step: seen.append(step) or {"w": float(average["w"][0])},
        probe_every=3,
    )
    training.run({"w": jnp.ones(1)}, lambda start: iter([np.zeros(1)] * 4), 0)
    assert seen == [3, 4]
    assert [entry["step"] for entry in log(tmp_path) if "w" in entry] == [3, 4]
    assert training_record(tmp_path)["steps"] == 4  # of the last entry that has a loss


@pytest.mark.slow
def test_without_its_temporal_layers_the_network_draws_each_frame_alone():
    unet = random_network(lambda: UNet3D(TINY.unet, rngs=nnx.Rngs(0)))
    graph, space = without_time(unet), nnx.state(unet, nnx.Not(over_time))
    still = nnx.merge(graph, space)
    key = jax.random.key(0)
    x = jax.random.normal(key, (2, 3, 8, 8, 4))
    text = jax.random.normal(key, (2, 5, TINY.unet.text_features))
    t = jnp.asarray([[3, 500, 900], [10, 20, 30]])
    together = still(x, t, text)
    for f in range(3):
        alone = still(x[:, f : f + 1], t[:, f : f + 1], text)
        np.testing.assert_allclose(together[:, f : f + 1], alone, atol=1e-5)
    assert np.abs(unet(x, t, text) - together).max() > 1e-3
    # Where the temporal layers add nothing, it is the whole network.
    nnx.update(unet, jax.tree.map(jnp.zeros_like, nnx.state(unet, over_time)))
    np.testing.assert_allclose(unet(x, t, text), together, atol=1e-5)


def test_the_velocity_that_is_learned():
    """A network that knows the clean latent and the noise is never wrong."""
    x0 = jax.random.normal(jax.random.key(1), (2, 3, 2, 2, 4))
    t = jnp.asarray([[0, 400, 999], [7, 8, 9]])

    signal, noise = (rate[t][..., None, None, None] for rate in schedule_rates())
    np.testing.assert_allclose(signal**2 + noise**2, 1, atol=1e-5)
    assert float(schedule_rates()[0][-1]) < 0.02

    def knows(x, t, text):
        eps = (x - signal * x0) / noise
        return signal * eps - noise * x0

    error = velocity_error(knows, x0, t, jnp.zeros((2, 1, 1)), jax.random.key(2))
    assert error.shape == (2,) and float(error.max()) < 1e-6


def test_known_frames_enter_clean_and_their_predictions_do_not_count():
    x0 = jax.random.normal(jax.random.key(1), (1, 3, 2, 2, 4))
    known = jnp.asarray([[1.0, 0.0, 0.0]])
    seen = []

    def network(x, t, text):
        seen.append((x, t))
        return jnp.where(known[..., None, None, None] > 0, 1e3, 0.0) * jnp.ones_like(x)

    t = jnp.full((1, 3), 700)
    text, key = jnp.zeros((1, 1, 1)), jax.random.key(2)
    error = velocity_error(network, x0, t, text, key, known)
    (x, times), none = seen[0], jnp.zeros_like(known)
    np.testing.assert_array_equal(times, [[0, 700, 700]])
    np.testing.assert_array_equal(x[:, 0], x0[:, 0])
    assert np.abs(x[:, 1:] - x0[:, 1:]).min() > 0
    assert float(error[0]) < 10
    zeros = lambda x, t, text: jnp.zeros_like(x)  # noqa: E731
    np.testing.assert_allclose(
        velocity_error(zeros, x0, t, text, key, none), velocity_error(zeros, x0, t, text, key),
        rtol=1e-6,
    )  # fmt: skip


def test_masks_of_known_frames_leave_something_to_make():
    rng = np.random.default_rng(0)
    masks = np.stack([known_frames(rng) for _ in range(2000)])
    assert set(np.unique(masks)) == {0, 1}
    counts = masks.sum(axis=1)
    assert counts.min() == 1 and counts.max() < CLIP_FRAMES
    only_first = (counts == 1) & (masks[:, 0] == 1)
    assert 0.36 < only_first.mean() < 0.46  # beginning with a picture is what users do most


def test_a_turning_clip_changes_its_motion_and_stays_inside():
    rng = np.random.default_rng(1)
    turns = [sample_turn(rng, LARGE_SUBJECTS) for _ in range(64)]
    clips = render_turns(turns)
    for clip, (first, second, count) in zip(clips, turns, strict=True):
        np.testing.assert_array_equal(clip[:count], render([first])[0, :count])
        seen = track(clip)
        assert first.motion != second.motion
        assert seen.visible.all()
    long_before = [(c, t) for c, t in zip(clips, turns, strict=True) if t[2] == 4]
    right = [
        judge(clip[4:], {"motion": second.motion})["motion"] for clip, (_, second, _) in long_before
    ]
    assert np.mean(right) > 0.9


def test_captions_of_turning_clips_describe_what_is_to_be_made(tmp_path):
    """Forwards the end, backwards (the known frames are then the last) the beginning, reversed."""
    train_tokenizer(tmp_path)
    tokenizer = PromptTokenizer(tmp_path, TOKENS)
    up, right = (
        Scene("ball", "red", "meadow", motion, 32, 32, 13, 20) for motion in ("up", "right")
    )
    latents = np.arange(8, dtype=np.float16).reshape(1, 8, 1, 1, 1)
    banks = (latents, [up]), (latents + 100, [(up, right, 3)])
    clips, ids, _, known = next(clip_batches(banks, tokenizer, 400, (0, 0), 20_000))
    assert 0.4 < known.any(axis=1).mean() < 0.6
    turned = clips[:, 0, 0, 0, 0] >= 100
    assert 0.08 < turned.mean() < 0.25
    words = [tokenizer._tokenizer.decode(row) for row in ids]
    for clip, mask, text in zip(clips[turned], known[turned], np.array(words)[turned], strict=True):
        backwards = clip[0, 0, 0, 0] > clip[-1, 0, 0, 0]
        np.testing.assert_array_equal(np.flatnonzero(mask), [5, 6, 7] if backwards else [0, 1, 2])
        assert not any(word in text for word in ("rises", "falls", " up", " down"))
        text = text.replace("bright", "")
        assert not (backwards and "right" in text) and not (not backwards and "left" in text)


def test_most_frames_are_trained_where_shapes_form():
    t = np.asarray(still_timesteps(jax.random.key(0), 4000, 1000))
    assert t.min() < 20 and t.max() > 980
    inside = ((t >= 200) & (t < 750)).mean()
    assert abs(inside - (0.7 + 0.3 * 0.55)) < 0.03


@pytest.mark.slow
def test_normalised_latents_decode_to_the_same(tmp_path):
    vae = random_network(lambda: AutoencoderKL(TINY.vae, rngs=nnx.Rngs(0)))
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    _, before = vae.encode(images)
    decoded = vae.decode(vae.encode(images)[0])
    old_bias = np.asarray(vae.quant_conv.bias[...])
    normalise_latents(vae, TINY.subjects, seed=0)
    assert np.abs(old_bias - vae.quant_conv.bias[...]).max() > 0.01
    np.testing.assert_allclose(vae.decode(vae.encode(images)[0]), decoded, atol=2e-4)
    scenes = gates.stills(np.random.default_rng(1), 256, TINY.subjects)

    mean, _ = vae.encode(jnp.asarray(render(scenes, 1)[:, 0], jnp.float32) / 127.5 - 1)
    np.testing.assert_allclose(np.asarray(mean).mean(axis=(0, 1, 2)), 0, atol=0.15)
    np.testing.assert_allclose(np.asarray(mean).std(axis=(0, 1, 2)), 1, atol=0.15)


def test_errors_at_the_subject_and_around_it_weigh_more():
    images = np.zeros((1, 16, 16, 3), np.float32)
    subject = np.zeros((1, 16, 16, 1), np.float32)
    subject[0, 8, 8] = 1

    def error(row):
        off = np.zeros_like(images)
        off[0, row, 8] = 0.5
        return float(reconstruction_error(jnp.asarray(off), (images, subject)))

    assert error(8) == pytest.approx(8 * error(2), rel=1e-5)
    assert error(9) == pytest.approx(error(8), rel=1e-5)  # the outline, two pixels wide
    assert error(12) < error(10) < error(9)
    assert float(reconstruction_error(jnp.asarray(images), (images, subject))) == 0


def test_a_bank_is_used_again_for_the_same_scenes_and_encoder_only(tmp_path, monkeypatch):
    vae = random_network(lambda: AutoencoderKL(TINY.vae, rngs=nnx.Rngs(0)))
    scenes = gates.stills(np.random.default_rng(0), 3, TINY.subjects)
    file = tmp_path / "bank" / "stills.npz"
    latents = encode_bank(vae, scenes, 2, file)
    assert latents.shape == (3, 2, 16, 16, 4) and latents.dtype == np.float16
    written = file.stat().st_mtime_ns
    np.testing.assert_array_equal(encode_bank(vae, scenes, 2, file), latents)
    assert file.stat().st_mtime_ns == written
    vae.quant_conv.bias.set_value(vae.quant_conv.bias[...] + 1)
    np.testing.assert_allclose(encode_bank(vae, scenes, 2, file), latents + 1, atol=0.02)
    assert len(encode_bank(vae, scenes[:2], 2, file)) == 2


@pytest.mark.slow
def test_clips_go_on_from_frames(tmp_path):
    """What the temporal layers and the others learn of two steps, and what is logged."""
    train_tokenizer(tmp_path / "tokenizer")
    tokenizer = PromptTokenizer(tmp_path / "tokenizer", TOKENS)
    networks = random_network(
        lambda: TextToVideo(TINY, tokenizer.vocabulary, rngs=nnx.Rngs(0)), seed=1
    )
    vae = random_network(lambda: AutoencoderKL(TINY.vae, rngs=nnx.Rngs(0)))
    before = {path: np.array(value) for path, value in leaves(networks.unet).items()}
    train_clips(networks, vae, tokenizer, TINY, tmp_path / "clips", seed=0)
    moved = [p for p, v in leaves(networks.unet).items() if np.abs(v - before[p]).max() > 1e-6]
    assert any("temp_convs" in path for path in moved)
    assert any("resnets" in path for path in moved)
    assert {"right_motion", "opposite_motion", "first_known"} <= set(log(tmp_path / "clips")[-1])


@pytest.mark.slow  # minutes, nearly all of them compiling
def test_the_stages_follow_each_other_and_resume(tmp_path, monkeypatch):
    for limits in ("AUTOENCODER", "FRAMES"):  # three steps reach nothing
        monkeypatch.setattr(gates, limits, {})
    monkeypatch.setattr("demo_model.train.TEXT_STEPS", 2)
    monkeypatch.setattr("demo_model.train.GATE_FRAMES", 4)
    monkeypatch.setattr("demo_model.train_vae.NORM_FRAMES", 64)

    def to_frames():
        parts = learn_to_see(TINY, tmp_path, seed=0)
        learn_to_draw(*parts, TINY, tmp_path, seed=0)
        return parts

    networks, vae, tokenizer = to_frames()
    before = leaves(networks.unet)
    stages = [json.loads(line)["stage"] for line in (tmp_path / "gates.jsonl").open()]
    assert stages == ["autoencoder", "frames"]
    assert all(np.abs(before[p]).max() > 0 for p in before if p.endswith("conv2.kernel"))
    again, *_ = to_frames()
    jax.tree.map(np.testing.assert_array_equal, before, leaves(again.unet))
    assert [entry["step"] for entry in log(tmp_path / "frames")] == [3]  # nothing was left to do

    # What drew single frames is exported, and gone on from.
    silence(networks)
    out, folder = tmp_path / "model", tmp_path / "next"
    export(out, TINY, networks, vae, tmp_path / "tokenizer", {"stage": "frames"})
    assert load_model(out).config.notes["stage"] == "frames"
    parts, stage, notes = begun(TINY, out, folder, seed=0)
    assert stage == "frames" and notes["subjects"]["grown"] == TINY.subjects.grown
    for path, value in leaves(parts[0].unet).items():
        if not over_time(path.split("."), None):
            np.testing.assert_allclose(value, before[path], atol=1e-3)


def test_a_stage_that_is_not_good_enough_stops_the_training(tmp_path):
    figures = {"shape": 0.9, "colour": 1.0}
    gates.check("frames", figures, {"shape": 0.9}, tmp_path)
    with pytest.raises(InputError, match=r"frames stage .* shape 0.900 \(at least 0.95\)"):
        gates.check("frames", figures, {"shape": 0.95, "colour": 0.98}, tmp_path)
    assert len((tmp_path / "gates.jsonl").read_text().splitlines()) == 2


def test_drawn_frames_are_read_one_by_one():

    scenes = gates.stills(np.random.default_rng(2), 40, TINY.subjects)
    frames = render(scenes, 1)[:, 0]
    assert min(gates.frames_right(frames, scenes).values()) >= 0.97
    assert gates.frames_right(frames, scenes[::-1])["shape"] < 0.6


def test_completed_clips_have_to_continue_what_they_were_given():
    rng = np.random.default_rng(3)
    scenes = [sample_scene(rng, TINY.subjects) for _ in range(24)]
    clips = render(scenes)
    good = gates.completed_right(clips, scenes, clips, known=(0, 7))
    assert min(good[name] for name in gates.CLIPS) >= 0.97
    assert good["kept"] == 0 and good["jump"] < 1.5
    torn = clips.copy()
    torn[:, 0] = clips[::-1, 0]  # another clip's picture
    bad = gates.completed_right(torn, scenes, clips, known=(0,))
    assert bad["kept"] > 50 and bad["jump"] > 8
    assert gates.completed_right(clips[:, ::-1], scenes, clips, known=(0,))["motion"] < 0.1


@pytest.mark.slow
def test_known_frames_stay_as_they_are_given(tmp_path):
    vocabulary = train_tokenizer(tmp_path)
    networks = random_network(lambda: TextToVideo(TINY, vocabulary, rngs=nnx.Rngs(0)), seed=1)
    vae = random_network(lambda: AutoencoderKL(TINY.vae, rngs=nnx.Rngs(0)))
    tokenizer = PromptTokenizer(tmp_path, TOKENS)
    clips, scenes, given = gates.completed_clips(
        networks, vae, tokenizer, TINY.subjects, 2, seed=0, known=(0, 3)
    )
    assert clips.shape == (2, CLIP_FRAMES, 64, 64, 3) and len(scenes) == 2
    np.testing.assert_array_equal(clips[:, [0, 3]], given[:, [0, 3]])
    assert np.abs(clips[:, 1].astype(int) - given[:, 1]).mean() > 1


def test_a_scene_at_a_frame_begins_there():

    scene = sample_scene(np.random.default_rng(4), TINY.subjects, motion="grow")
    np.testing.assert_allclose(render([scene.at(5)], 1)[0, 0], render([scene])[0, 5], atol=1)
    sizes = [sample_scene(np.random.default_rng(i), TINY.subjects).path() for i in range(200)]
    everything = np.concatenate(sizes)[:, 2]
    assert everything.min() >= 12.99 and 22 < everything.max() <= 26.01  # the smallest, doubled


@pytest.mark.slow
def test_a_folder_of_the_first_stage_has_what_the_second_needs(tmp_path):
    vocabulary = train_tokenizer(tmp_path / "tokenizer")
    networks = random_network(lambda: TextToVideo(TINY, vocabulary, rngs=nnx.Rngs(0)))
    vae = random_network(lambda: AutoencoderKL(TINY.vae, rngs=nnx.Rngs(0)), seed=1)
    out = tmp_path / "model"
    export(out, TINY, networks, vae, tmp_path / "tokenizer", {"stage": "autoencoder"})
    assert not list((out / "unet").glob("*.safetensors"))
    (begun_networks, begun_vae, _), stage, _ = begun(TINY, out, tmp_path / "next", seed=0)
    assert stage == "autoencoder"
    for ours, theirs in ((networks.text_encoder, begun_networks.text_encoder), (vae, begun_vae)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), *map(leaves, (ours, theirs))
        )
    other = dataclasses.replace(TINY, vae=dataclasses.replace(TINY.vae, latent_channels=8))
    with pytest.raises(InputError, match="another vae than the size to be trained"):
        begun(other, out, tmp_path / "next", seed=0)


def test_a_sheet_of_clips(tmp_path):
    scenes = [sample_scene(np.random.default_rng(seed), LARGE_SUBJECTS) for seed in range(4)]
    clips = render(scenes)
    write_sheet(tmp_path / "a.png", clips, [prompt(scene) for scene in scenes])
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    assert sheet.shape == (2 * (64 + 22), 3 * (8 * 64 + 8), 3)
    np.testing.assert_array_equal(sheet[14:78, 64:128], clips[0, 1])
    np.testing.assert_array_equal(sheet[86 + 14 : 86 + 78, :64], clips[3, 0])


def test_a_pair_leads_where_the_teacher_went():
    """One DDIM step with the learned prediction ends where the teacher's steps did."""
    from demo_model.teacher import SUBSTEPS, parts, straight

    rng = np.random.default_rng(0)
    x, reached = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
    made = parts([999, 840, 600, 250])
    assert [part.t.tolist()[0] for part in made] == [999, 840, 600, 250]
    assert all(len(part.t) == SUBSTEPS and (np.diff(part.t) < 0).all() for part in made)
    assert made[-1].end == (1.0, 0.0) and made[0].end == made[1].start
    for part in made:
        (a, b), (a_next, b_next) = part.start, part.end
        v = straight(x, reached, part.start, part.end)
        clean, noise = a * x - b * v, b * x + a * v  # of a schedule with a^2 + b^2 = 1
        np.testing.assert_allclose(a_next * clean + b_next * noise, reached, atol=1e-9)
        # First the teacher's own step of DDIM from there, whose clean latent is its prediction.
        assert part.rows[0, 4] == 0 and part.rows[0, 2] == pytest.approx(part.rows[1, 1] / b, 1e-4)
