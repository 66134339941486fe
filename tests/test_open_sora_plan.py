"""Open-Sora Plan v1.3 against outputs of the original code, and as a family."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from flax import nnx
from open_sora_plan_folders import inputs, recorded, save, text_encoder
from wan_folders import tokenizer

from syncos_jax import CoDenoising, Pipeline, Scenario
from syncos_jax.errors import InputError
from syncos_jax.models.layers import AbstractRngs
from syncos_jax.models.open_sora_plan.config import OpenSoraPlanTransformerConfig, WFVAEConfig
from syncos_jax.models.open_sora_plan.settings import OpenSoraPlanConfig
from syncos_jax.models.open_sora_plan.transformer import OpenSoraPlanTransformer, sparse_attention
from syncos_jax.models.open_sora_plan.vae import WFVAE
from syncos_jax.models.weights import leaves
from syncos_jax.pipeline.load import load_model
from syncos_jax.sampling.prediction import decode
from syncos_jax.weights_convert.convert import convert

PROMPT = "a cat in kitchen, drinks milk"
MORE_STREAMS = [(2, None), (6, None), (1, 8), (2, 8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("osp") / "tiny")


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "model"
    result = convert(folder, out)
    assert result.config.family == "open_sora_plan" and not result.warnings
    return load_model(out)


def run(network, *arguments, method="__call__"):
    graph, weights = nnx.split(network)
    call = jax.jit(lambda w, *a: getattr(nnx.merge(graph, w), method)(*a))
    return jax.tree.map(np.asarray, call(weights, *map(jnp.asarray, arguments)))


def relative(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("name", ["x", "ragged"])
def test_transformer(model, name):
    """With groups of tokens of one length, and of several (which the original pads)."""
    given = inputs()
    found = run(model.transformer, given[name], given["t"], given["text"], given["mask"])
    assert relative(found, recorded()[f"out_{name}"]) < 1e-5


def test_a_time_per_frame_is_that_of_the_clip_where_all_are_equal(model):
    given = inputs()
    each = np.repeat(given["t"][:, None], 3, axis=1)
    found = run(model.transformer, given["x"], each, given["text"], given["mask"])
    assert relative(found, recorded()["out_x"]) < 1e-5


@pytest.mark.parametrize("by_runs", [False, True])
@pytest.mark.parametrize("tokens", [32, 45])
def test_groups_of_tokens(tokens, by_runs):
    """Against dense attention with a mask."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, tokens, 2, 6)).astype(np.float32) for _ in range(3))
    index = np.arange(tokens)
    group = index // 4 % 4 if by_runs else index % 4
    scores = np.einsum("bqnd,bknd->bnqk", q, k) / 6**0.5
    scores = np.where(group[:, None] == group[None], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    expected = np.einsum("bnqk,bknd->bqnd", weights, v)
    found = sparse_attention(*map(jnp.asarray, (q, k, v)), 4, by_runs)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_vae(model):
    given, data = inputs(), recorded()
    mean, logvar = run(model.vae, given["video"], method="encode")
    assert relative(mean, data["mean"]) < 1e-5 and relative(logvar, data["logvar"]) < 1e-5
    assert relative(run(model.vae, given["latents"], method="decode"), data["frames"]) < 1e-5
    with pytest.raises(InputError, match="frames must be one more than a multiple of 4"):
        model.vae.encode(jnp.zeros((1, 4, 16, 16, 3)))


@pytest.mark.parametrize(
    ("length", "batch"),
    [(1, None), (6, 8), *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_STREAMS)],
)
def test_a_stream_is_the_whole(model, length, batch):
    rng = np.random.default_rng(1)
    latents = rng.normal(size=(length, 2, 3, 4)).astype(np.float32)
    vae = model.config.vae
    unscaled = latents / np.float32(vae.scale) + np.float32(vae.shift)
    whole = run(model.vae, unscaled[None], method="decode")[0]
    expected = (np.clip(whole, -1, 1) + 1) * 127.5
    found = np.concatenate(list(model.decode_stream(latents, Pipeline(model).placement, batch)))
    assert found.shape == (4 * length - 3, 16, 24, 3)
    assert np.abs(found - expected).max() < 0.51


def test_prompts(model):
    given = tokenizer()([PROMPT, "rain"], padding="max_length", max_length=12, return_tensors="pt")
    with torch.no_grad():
        expected = text_encoder()(given.input_ids, given.attention_mask).last_hidden_state.numpy()
    found = model.encode_prompts([PROMPT, "rain"])
    on = given.attention_mask.numpy() > 0
    np.testing.assert_array_equal(found["mask"], on)
    np.testing.assert_allclose(np.asarray(found["text"])[on], expected[on], atol=1e-5)


def test_a_clip_equals_ancestral_euler(model):
    """The original's sampler, with the same noise, in eight steps of the real pipeline's settings:
    DDIM with eta 1 on this schedule."""
    scheduler = EulerAncestralDiscreteScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(8)
    steps = model.schedule.steps(8, eta=1.0)
    np.testing.assert_array_equal(steps.t, scheduler.timesteps.numpy())
    given = inputs()
    cond = {"text": given["text"], "mask": given["mask"]}
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 3, 8, 8, 4)).astype(np.float32)
    noises = rng.standard_normal((8, *x.shape)).astype(np.float32)
    denoise = jax.jit(model.denoiser)

    def guided(latents, t):
        both = np.repeat(latents, 2, axis=0)
        value = denoise(model.params, both, np.full(2, t, np.float32), cond)
        return np.asarray(7.5 * value[:1] - 6.5 * value[1:])

    theirs = torch.from_numpy(x) * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        sigma, after = scheduler.sigmas[i], scheduler.sigmas[i + 1]
        value = torch.from_numpy(guided((theirs / (sigma**2 + 1) ** 0.5).numpy(), float(t)))
        x0 = -sigma / (sigma**2 + 1) ** 0.5 * value + theirs / (sigma**2 + 1)
        up = (after**2 * (sigma**2 - after**2) / sigma**2) ** 0.5
        down = (after**2 - up**2) ** 0.5
        theirs = theirs + (theirs - x0) / sigma * (down - sigma) + up * torch.from_numpy(noises[i])
    for i, t in enumerate(steps.t):
        x0, eps = decode("v", guided(x, t), x, steps.a[i], steps.b[i])
        keep = np.sqrt(max(steps.b_next[i] ** 2 - steps.sigma[i] ** 2, 0.0))
        x = steps.a_next[i] * x0 + keep * eps + steps.sigma[i] * noises[i]
        x = np.asarray(x, np.float32)
    assert relative(x, theirs.numpy()) < 1e-3


def test_a_video(model):
    """Through the pipeline, with the model's own settings."""
    values = {
        "global": "a cat in kitchen",
        "negative": "rain",
        "events": [{"prompt": "sleeps", "frames": 9}, {"prompt": "drinks milk", "frames": 8}],
    }
    pipeline = Pipeline(model)
    video = pipeline(Scenario.from_dict(values), sampler=CoDenoising(steps=3, eta=1.0))
    assert video.frames.shape == (17, 32, 48, 3) and video.frames.std() > 1


@pytest.mark.parametrize(
    ("place", "changes", "message"),
    [
        ("any93x640x640", {"_class_name": "OpenSoraInpaint_v1_3"}, "is the model of images"),
        ("any93x640x640", {"caption_channels": 21}, "takes 21 text features"),
        ("vae", {"norm_type": "groupnorm"}, "norm_type must be layernorm"),
        ("vae", {"l1_upsample_block": "Spatial2xTime2x3DUpsample"}, "l1_upsample_block"),
    ],
)
def test_what_cannot_be_converted(tmp_path, place, changes, message):
    source = save(tmp_path / "broken")
    path = source / place / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(InputError, match=message):
        convert(source, tmp_path / "out")


def test_the_text_encoder_comes_apart(folder, tmp_path):
    result = convert(folder / "any93x640x640", tmp_path / "out", only="transformer")
    assert list(result.parameters) == ["transformer"]
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "vae").symlink_to(folder / "vae")
    (tmp_path / "alone" / "transformer").symlink_to(folder / "any93x640x640")
    with pytest.raises(InputError, match="has no text_encoder; put google/mt5-xxl there"):
        convert(tmp_path / "alone", tmp_path / "other")


def test_defaults_are_the_published_ones():
    """Those of the original's ``scripts/text_condition/gpu/sample_t2v_v1_3.sh``; the schedule's of
    diffusers' scheduler as its ``opensora/utils/sample_utils.py`` makes it."""
    config = OpenSoraPlanConfig(name="")
    assert (config.steps, config.guidance, config.fps) == (100, 7.5, 18)
    assert (config.height, config.width, config.text_tokens) == (352, 640, 512)
    assert config.geometry().frames(config.window) == 93
    scheduler = EulerAncestralDiscreteScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    schedule = config.noise_schedule()
    np.testing.assert_allclose(schedule.signal**2, scheduler.alphas_cumprod, rtol=1e-4, atol=1e-9)
    scheduler.set_timesteps(config.steps)
    np.testing.assert_array_equal(schedule.steps(config.steps).t, scheduler.timesteps.numpy())


def test_counts_at_full_size():
    def count(network):
        return sum(int(np.prod(leaf.shape)) for leaf in leaves(network).values())

    transformer = OpenSoraPlanTransformerConfig()
    kw = {"dtype": jnp.bfloat16, "rngs": AbstractRngs()}
    found = nnx.eval_shape(lambda: OpenSoraPlanTransformer(transformer, **kw))
    assert count(found) == 2_771_981_600
    found = nnx.eval_shape(lambda: WFVAE(WFVAEConfig(), **kw))
    constants = 128  # filters of the wavelets, which the original counts
    assert count(found) + constants == 146_662_732
    assert count(found.encoder) + constants == 38_268_304 and count(found.decoder) == 108_394_428
    assert OpenSoraPlanConfig(name="").geometry().frames(24) == 93
