"""Few-step sampling: fixed lists, spacing, shift, re-noising and consistency steps."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_families
import torch
from diffusers import (
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers import scheduling_flow_match_lcm, scheduling_lcm
from flax import nnx
from toy import FRAME, Network, conditioning, parameters
from typer.testing import CliRunner

from syncos_jax import NoiseSchedule, WindowLayout, sample
from syncos_jax.errors import InputError
from syncos_jax.models.animatediff.unet import MotionUNet, MotionUNetConfig
from syncos_jax.models.few_steps import KNOWN, FewSteps, recognised, with_recognised
from syncos_jax.pipeline import Pipeline
from syncos_jax.pipeline.load import load_model
from syncos_jax.sampling import FIFO, CoDenoising, FlowLong, SynCoS, start
from syncos_jax.sampling.sampler_dict import sampler_from_dict
from syncos_jax.sampling.solver_choice import timesteps_for
from syncos_jax.scenario import Scenario

BETAS = {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012}
LINEAR = NoiseSchedule.from_betas("linear")
SHIFTED = (1.0, 0.9375, 0.8333333, 0.625)
SIZES = MotionUNetConfig(
    block_out_channels=(4, 8),
    attention=(True, False),
    layers_per_block=1,
    heads=(2, 2),
    motion_heads=(2, 2),
    positions=4,
    text_features=8,
    norm_groups=2,
)


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    """(denoise, parameters, conditioning, schedule, frame_shape) of a tiny Wan."""
    model = load_model(tiny_families.write(tmp_path_factory.mktemp("few") / "wan", "wan"))
    cond = model.complete_conditioning(
        model.encode_prompts(["a cat sleeps"]), 4.0, np.zeros(1, bool)
    )
    return model.denoiser, model.params, cond, model.schedule, (4, 4, 4)


@pytest.fixture(scope="module")
def animatediff():
    """The same of a tiny AnimateDiff, that predicts the noise."""
    rng = np.random.default_rng(0)
    graph, state = nnx.split(nnx.eval_shape(lambda: MotionUNet(SIZES, rngs=nnx.Rngs(0))))
    state = jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), leaf.dtype), state
    )

    def denoise(params, x, t, cond):
        return nnx.merge(graph, params)(x, t, cond["text"])

    cond = {"text": jnp.asarray(rng.normal(size=(1, 5, 8)), jnp.float32)}
    return denoise, state, cond, LINEAR, (4, 4, 4)


def flow_euler(shift=1.0, **how):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(**how)
    return scheduler


def unipc(shift, steps):
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    scheduler.set_timesteps(steps)
    return scheduler


def flow_lcm(sigmas):
    scheduler = FlowMatchLCMScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=sigmas)
    return scheduler


def lcm(**how):
    scheduler = LCMScheduler(**BETAS)
    scheduler.set_timesteps(**how)
    return scheduler


def euler(**how):
    scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing")
    scheduler.set_timesteps(**how)
    return scheduler


RULES = {
    "wan, euler, sigmas": (
        {"solver": "euler", "sigmas": SHIFTED},
        lambda: flow_euler(sigmas=list(SHIFTED)),
    ),
    "wan, euler, shift": (
        {"solver": "euler", "steps": 4, "spacing": "even", "shift": 5.0},
        lambda: flow_euler(shift=5.0, sigmas=[1.0, 0.75, 0.5, 0.25]),
    ),
    "wan, unipc, shift": (
        {"solver": "unipc", "steps": 4, "shift": 8.0},
        lambda: unipc(8.0, 4),
    ),
    "wan, renoise": (
        {"solver": "renoise", "timesteps": (1000, 757, 522)},
        lambda: flow_lcm([1.0, 0.757, 0.522]),
    ),
    "animatediff, lcm": (
        {"solver": "lcm", "spacing": "lcm", "steps": 4},
        lambda: lcm(num_inference_steps=4),
    ),
    "animatediff, lcm, timesteps": (
        {"solver": "lcm", "timesteps": (999, 699, 399, 19)},
        lambda: lcm(timesteps=[999, 699, 399, 19]),
    ),
    "animatediff, euler, trailing": (
        {"solver": "euler", "spacing": "trailing", "steps": 4},
        lambda: euler(num_inference_steps=4),
    ),
    "animatediff, euler, timesteps": (
        {"solver": "euler", "timesteps": (999, 749, 499, 249)},
        lambda: euler(num_inference_steps=4),
    ),
    "animatediff, euler, sigmas": (
        {"solver": "euler", "sigmas": (14.5, 3.1, 1.2, 0.4)},
        lambda: euler(sigmas=[14.5, 3.1, 1.2, 0.4, 0.0]),
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_one_clip_equals_the_published_scheduler(rule, request, monkeypatch):
    family = rule.partition(",")[0]
    denoise, params, cond, schedule, shape = request.getfixturevalue(family)
    if "trailing" in rule or "euler, " in rule:
        schedule = dataclasses.replace(schedule, spacing="trailing")
    settings, published = RULES[rule][0], RULES[rule][1]()
    count = len(published.timesteps)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, *shape)).astype(np.float32)
    noises = rng.standard_normal((count, 3, *shape)).astype(np.float32)
    result = sample(
        denoise,
        cond,
        key=jax.random.key(0),
        latents=x,
        params=params,
        layout=WindowLayout(frames=3, window=3, stride=3),
        frame_shape=shape,
        schedule=schedule,
        sampler=CoDenoising(**settings),
        step_noise=noises,
    )
    drawn = iter(noises)
    for module in (scheduling_lcm, scheduling_flow_match_lcm):
        monkeypatch.setattr(
            module, "randn_tensor", lambda *_, **__: torch.as_tensor(next(drawn))[None]
        )
    network = jax.jit(denoise)
    state = torch.as_tensor(x)[None] * getattr(published, "init_noise_sigma", 1.0)
    for t in published.timesteps:
        scaled = state
        if hasattr(published, "scale_model_input"):
            scaled = published.scale_model_input(state, t)
        given = jnp.asarray(scaled.numpy(), jnp.float32), jnp.full((1,), float(t), jnp.float32)
        out = torch.as_tensor(np.asarray(network(params, *given, cond)))
        state = published.step(out, t, state, return_dict=False)[0]
    expected = state[0].numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_renoising_is_the_published_loop(wan):
    """Of distribution matching distillation: x0, then fresh noise at the next level."""
    denoise, params, cond, schedule, shape = wan
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3, *shape)).astype(np.float32)
    noises = rng.standard_normal((3, 3, *shape)).astype(np.float32)
    result = sample(
        denoise, cond, key=jax.random.key(0), latents=x, params=params,
        layout=WindowLayout(frames=3, window=3, stride=3), frame_shape=shape, schedule=schedule,
        sampler=CoDenoising(solver="renoise", timesteps=(1000, 757, 522)), step_noise=noises,
    )  # fmt: skip
    network, levels = jax.jit(denoise), (1.0, 0.757, 0.522, 0.0)
    for s, after, noise in zip(levels, levels[1:], noises, strict=False):
        v = np.asarray(network(params, x[None], jnp.full((1,), 1000 * s, jnp.float32), cond))[0]
        x = ((1 - after) * (x - s * v) + after * noise).astype(np.float32)
    np.testing.assert_allclose(result, x, rtol=0, atol=1e-4 * np.abs(x).max())


@pytest.mark.parametrize(
    ("settings", "schedule", "message"),
    [
        ({"timesteps": [999, 500, 500]}, None, "must fall from step to step, but 500 foll"),
        ({"sigmas": [1.0, 0.5, -0.1]}, None, "must end above 0, not at -0.1"),
        ({"timesteps": []}, None, "a list of at least one step"),
        ({"sigmas": [0.0]}, None, "a list of at least one step"),
        ({"timesteps": "1000"}, None, "a list of numbers"),
        ({"timesteps": [9, 5], "sigmas": [1.0]}, None, "timesteps and sigmas both set the steps"),
        ({"sigmas": [1.0, 0.5], "shift": 3.0}, None, "sigmas and shift both set the steps"),
        ({"timesteps": [9, 5], "steps": 4}, None, "timesteps lists 2 steps, and steps is 4"),
        ({"spacing": "odd"}, None, "one of leading, every"),
        ({"timesteps": [1001, 500]}, "flow", "at most 1000 for a flow model"),
        ({"sigmas": [1.5, 0.5]}, "flow", "at most 1 for a flow model"),
        ({"timesteps": [1000, 500]}, "betas", "integers up to 999"),
        ({"timesteps": [900.5, 500]}, "betas", "integers up to 999"),
        ({"sigmas": [150.0, 1.0]}, "betas", "noise over signal"),
        ({"shift": 3.0}, "betas", "is of flow models"),
        ({"spacing": "trailing"}, "flow", "for a flow model"),
        ({"spacing": "even"}, "betas", "for solver ddim"),
        ({"spacing": "lcm", "solver": "euler"}, "betas", "for solver euler"),
        ({"solver": "lcm"}, "flow", "for a flow model use renoise"),
        ({"solver": "renoise", "reuse": 0.1}, None, "reuse"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(settings, schedule, message):
    schedules = {"flow": NoiseSchedule.flow(), "betas": LINEAR, None: LINEAR}
    with pytest.raises(InputError, match=message) as raised:
        made = sampler_from_dict({"name": "co_denoising", **settings})
        assert schedule is not None  # the others are refused before there is a model
        timesteps_for(schedules[schedule], made.resolved(4))
    assert "\n" not in str(raised.value)


def test_a_list_sets_the_number_of_steps():
    listed = SynCoS(timesteps=[999, 500, 0]).resolved(steps=50)
    assert listed.steps == 3 and listed.timesteps == (999.0, 500.0, 0.0)
    assert timesteps_for(LINEAR, listed).t.tolist() == [999.0, 500.0, 0.0]
    assert SynCoS(sigmas=[1, 0.5, 0]).sigmas == (1.0, 0.5)


def test_a_models_own_list():
    own = dataclasses.replace(NoiseSchedule.flow(shift=3.0), timesteps=(1000, 757, 522))
    assert own.steps(3).t.round(3).tolist() == [1000.0, 757.0, 522.0]
    assert own.steps(4).t.tolist() == NoiseSchedule.flow(shift=3.0).steps(4).t.tolist()
    assert own.identity["timesteps"] and "timesteps" not in LINEAR.identity
    with pytest.raises(InputError, match="integers"):
        dataclasses.replace(LINEAR, timesteps=(999.5, 1.0))


@pytest.mark.parametrize("solver", ["ddim", "dpm++", "unipc"])
@pytest.mark.parametrize("flow", [True, False])
def test_every_solver_walks_a_list(solver, flow):
    """Also from a level without signal, whose logarithm is infinite."""
    schedule = NoiseSchedule.flow() if flow else LINEAR
    sampler = CoDenoising(solver=solver, timesteps=(1000 if flow else 999, 750, 500, 250))
    assert timesteps_for(schedule, sampler.resolved()).t[1:].tolist() == [750.0, 500.0, 250.0]
    layout = WindowLayout(frames=4, window=4, stride=4)
    result = sample(
        Network(), conditioning(1), key=jax.random.key(0), params=parameters(), layout=layout,
        frame_shape=FRAME, schedule=schedule, sampler=sampler,
    )  # fmt: skip
    assert np.isfinite(result).all()


def test_shared_noise_is_the_first_noise():
    """Re-noising with it at guidance 0 signal is a straight line between x0 and that noise."""
    schedule, layout = NoiseSchedule.flow(), WindowLayout(frames=6, window=4, stride=2)
    given = {
        "key": jax.random.key(3), "params": parameters(), "layout": layout, "frame_shape": FRAME,
        "schedule": schedule,
    }  # fmt: skip
    seen = []

    def denoise(params, x, t, cond):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), x)
        return Network()(params, x, t, cond)

    sampler = CoDenoising(solver="renoise", timesteps=(1000, 500), shared_noise=True)
    sample(denoise, conditioning(layout.count), sampler=sampler, **given)
    jax.effects_barrier()
    first, second = seen
    x0 = 2 * second - first  # x = x0 / 2 + noise / 2
    v = Network()(parameters(), first, jnp.full(len(first), 1000.0), conditioning(layout.count))
    clean = layout.fuse(jnp.asarray(first - np.asarray(v)))
    np.testing.assert_allclose(x0, layout.gather(clean), atol=2e-5)


NAMES = {
    "wan2.1_t2v_14b_lora_rank64_lightx2v_4step.safetensors": "lightx2v, 4 steps",
    "wan2.2_i2v_A14b_high_noise_lightx2v_4step.safetensors": "lightx2v, 4 steps",
    "Lightx2v/lightx2v_T2V_14B_cfg_step_distill_v2_lora_rank64_bf16.safetensors": (
        "lightx2v, 4 steps"
    ),
    "Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1/high_noise_model.safetensors": "lightx2v, 4 steps",
    "models/FastWan2.2-TI2V-5B-FullAttn-Diffusers": "FastWan (DMD)",
    "tianweiy/CausVid/bidirectional_checkpoint2": "FastWan (DMD)",
    "Wan21_CausVid_14B_T2V_lora_rank32_v2.safetensors": "CausVid LoRA",
    "tianweiy/CausVid/autoregressive_checkpoint": "CausVid",
    "self_forcing_dmd.pt": "Self-Forcing",
    "TurboWan2.1-T2V-1.3B-480P.pth": "TurboWan (rCM)",
}


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_recognised_by_their_names(name):
    found = recognised("wan", [name])
    assert found is not None and found.name == NAMES[name]
    assert recognised("cogvideox", [name]) is None


def test_what_is_recognised_can_be_sampled():
    for family, _, few in KNOWN:
        schedule = NoiseSchedule.flow(shift=3.0) if family == "wan" else LINEAR
        steps = few.schedule(schedule).steps(few.steps)
        assert len(steps.t) == few.steps
        assert FewSteps.of(json.loads(json.dumps(few.to_dict()))) == few
    for plain in ("Wan2.1-T2V-14B", "wan_story_lora.safetensors", "a/lighting.safetensors"):
        assert recognised("wan", [plain]) is None


def test_a_distilled_model_says_so_and_warns(tmp_path):
    folder = tiny_families.write(tmp_path / "wan2.1_lightx2v_4step", "wan")
    config, found = with_recognised(tiny_families.WAN, [str(folder)])
    assert config.steps == 4 and config.guidance == 1.0 and "sigmas" in config.few_steps
    assert with_recognised(config, ["fastwan"]) == (config, None)  # what a folder says stays
    from syncos_jax.models import saved

    (folder / saved.SEAL).unlink()
    saved.write_config(folder, config, ["transformer", "vae", "text_encoder"])
    pipeline = Pipeline.from_pretrained(folder)
    story = tiny_families.story("co_denoising")
    plan = pipeline.plan(Scenario.from_dict(story))
    assert plan.few_steps == str(found) and not plan.warnings
    assert plan.sampler["steps"] == 4 and plan.sampler["guidance"] == 1.0
    assert pipeline.model.schedule.solver.name == "euler"
    story["sampler"] |= {"steps": 50, "guidance": 5.0}
    first, second, *_ = pipeline.plan(Scenario.from_dict(story)).warnings
    assert "guidance 5: lightx2v" in first and "50 steps: lightx2v" in second


def test_what_does_not_fit_the_model_is_refused_before_it_is_loaded(tmp_path, monkeypatch):
    import syncos_jax.pipeline.load as load
    from syncos_jax.cli import app

    monkeypatch.setattr(load, "load_model", None)  # nobody gets so far
    (tmp_path / "story.json").write_text(
        json.dumps(
            {
                "global": "a ball on a meadow",
                "events": [{"prompt": "it rolls", "seconds": 2}],
                "sampler": {"name": "co_denoising", "timesteps": [1000, 500]},
            }
        )
    )
    for command in ("generate", "plan"):
        result = CliRunner().invoke(app, [command, str(tmp_path / "story.json")])
        assert result.exit_code == 2 and "integers up to 999" in result.stderr, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["story.json"]


FEW = CoDenoising(solver="renoise", timesteps=(999, 700, 400, 100), windows_per_call=2)
FEW_REFINED = SynCoS(
    solver="lcm", spacing="lcm", steps=4, refine_steps=2, iterations=2, windows_per_step=2,
    learning_rate=0.3, shared_noise=True,
)  # fmt: skip


@pytest.mark.parametrize("sampler", [FEW, FEW_REFINED], ids=["renoise", "refined lcm"])
def test_a_run_is_resumed_where_it_stopped(sampler):
    layout = WindowLayout(frames=11, window=4, stride=3)
    given = {
        "key": jax.random.key(3), "params": parameters(), "layout": layout, "frame_shape": FRAME,
        "schedule": LINEAR, "sampler": sampler.replace(guidance=1.0),
    }  # fmt: skip
    network, cond = Network(), conditioning(layout.count)
    whole, first, second = (start(network, cond, **given) for _ in range(3))
    whole.advance()
    first.advance(whole.num_calls // 2)
    second.restore(first.samples_done, jax.tree.map(np.asarray, first.carry))
    second.advance()
    np.testing.assert_array_equal(second.latents(), whole.latents())


def test_without_guidance_no_negative_prompt_is_encoded(tmp_path, monkeypatch):
    pipeline = Pipeline.from_pretrained(tiny_families.write(tmp_path / "wan", "wan"))
    encoded = []
    real = type(pipeline.model).encode_prompts

    def encode_prompts(model, prompts):
        encoded.extend(prompts)
        return real(model, prompts)

    monkeypatch.setattr(type(pipeline.model), "encode_prompts", encode_prompts)
    scenario = Scenario.from_dict(tiny_families.story("co_denoising"))
    request = pipeline.prepare(scenario, CoDenoising(steps=2, guidance=1.0))
    assert request.summary.samples == 2 * request.layout.count
    pipeline.start(request)
    assert encoded and "rain" not in encoded
    pipeline.start(pipeline.prepare(scenario, CoDenoising(steps=2, guidance=2.0)))
    assert "rain" in encoded


def test_fifo_and_flowlong_take_what_suits_them():
    assert not hasattr(FIFO(), "_timesteps") and FIFO().timesteps is None
    assert FlowLong(timesteps=(999, 500)).resolved().steps == 2
