"""SamplerConfig: checked, hashable, readable from a scenario file."""

import dataclasses
import inspect
import pickle

import jax
import jax.numpy as jnp
import optax
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from syncos_jax.errors import InputError
from syncos_jax.sampling import (
    FIFO,
    CoDenoising,
    FlowLong,
    FreeNoise,
    RefinementOnly,
    SynCoS,
)
from syncos_jax.sampling.methods import make_call_schedule
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.sampler_dict import sampler_fields, sampler_from_dict, sampler_to_dict
from syncos_jax.sampling.samplers import FULL_STRENGTH, SAMPLERS
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.sigmas import flow_sigmas
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.scenario import Event, Scenario

UNIT = st.floats(0.0, 1.0)


def test_defaults_are_the_published_settings():
    assert SynCoS.paper("open_sora_plan") == SynCoS().resolved()
    assert SynCoS.paper() == SynCoS(guidance=6).resolved()
    assert SynCoS().refinement == SynCoS(t_min=850.0) and CoDenoising().refinement is None
    # optax's default weight decay, read off one step from 1 with no gradient and rate 1
    at, adamw = jnp.ones(()), optax.adamw(1.0)
    with jax.numpy_dtype_promotion("standard"):
        update, _ = adamw.update(jnp.zeros(()), adamw.init(at), at)
    assert float(-update) == pytest.approx(RefinementOnly().weight_decay)


@pytest.mark.parametrize("name", SAMPLERS)
def test_read_and_written(name):
    settings = sampler_from_dict({"name": name, "steps": 7, "guidance": 3})
    assert list(sampler_to_dict(settings)) == ["name", *sampler_fields(name)]
    assert (settings.name, settings.steps, settings.guidance) == (name, 7, 3.0)
    assert sampler_from_dict(sampler_to_dict(settings)) == settings
    assert hash(settings) == hash(dataclasses.replace(settings))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 50}, "name is missing, expected one of syncos, co_denoising, refinement_only"),
        ({"name": "synkos"}, "unknown name 'synkos'; did you mean 'syncos'. known: syncos"),
        ({"name": ["syncos"]}, "unknown name"),
        (
            {"name": "syncos", "iteration": 5},
            "'iteration' of syncos; did you mean 'iterations'. known: st",
        ),
        ({"name": "co_denoising", "t_min": 5}, "unknown key 't_min' of co_denoising"),
        ({"name": "refinement_only", "eta": 1}, "unknown key 'eta'"),
        ("syncos", "must be settings such as"),
    ],
)
def test_bad_dictionaries(values, message):
    with pytest.raises(InputError, match=message):
        sampler_from_dict(values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: SynCoS(steps=0),
            "^steps must be an integer, 1 to 32767, got 0$",
        ),
        (lambda: SynCoS(steps="50"), "steps must be an integer"),
        (
            lambda: SynCoS(windows_per_call=True),
            "windows_per_call must be an integer, 1 or more, got True",
        ),
        (lambda: SynCoS(iterations=0), "iterations must be"),
        (lambda: SynCoS(windows_per_step=0), "windows_per_step must be"),
        (lambda: SynCoS(windows_per_step=1.5), "windows_per_step must be"),
        (lambda: SynCoS(strength=1.1), "strength must be a number from 0 to 1, got 1.1"),
        (lambda: SynCoS(strength="full"), "strength must be a number from 0 to 1, got 'full'"),
        (lambda: SynCoS(learning_rate=-1), "learning_rate must be a number, 0 or more, got -1"),
        (lambda: SynCoS(t_min=float("nan")), "t_min must be a number"),
        (lambda: SynCoS(fixed_noise=1), "fixed_noise must be true or false"),
        (lambda: CoDenoising(eta=1.5), "eta must be a number, 0 or more, at most 1, got 1.5"),
        (lambda: RefinementOnly(guidance="7"), "guidance must be a number"),
        (lambda: SynCoS(t_min=850, refine_steps=8), "t_min and refine_steps both set wh"),
        (lambda: SynCoS(refine_steps=8, refine_snr=1), "refine_steps and refine_snr both set"),
        (lambda: SynCoS(refine_steps=1.5), "refine_steps must be an integer, 0 or more"),
        (lambda: SynCoS(refine_snr=-1), "refine_snr must be a number, 0 or more"),
        (
            lambda: SynCoS(guidance_t_min=5, guidance_t_max=4),
            "guidance_t_max must be a number, 5 o",
        ),
        (lambda: FIFO(lookahead=None), "lookahead must be true or false"),
        (lambda: FIFO(eta=2), "eta must be a number"),
        (lambda: FlowLong(fresh_noise_t_min=None), "fresh_noise_t_min must be a number"),
        (lambda: CoDenoising(reuse=-1), "reuse must be a number, 0 or more"),
        (lambda: CoDenoising(reuse=0.1, eta=0.5), "reuse: needs steps that add no noise"),
        (lambda: FreeNoise(reuse=0.1, solver="sde-dpm++"), "reuse: needs steps that add"),
        (lambda: SynCoS.paper("sora"), "backbone must be one of .*got 'sora'"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: SynCoS(lookahead=True),
        lambda: CoDenoising(iterations=3),
        lambda: RefinementOnly(t_min=3),
        lambda: FreeNoise(fresh_noise_t_min=5),
        lambda: RefinementOnly(reuse=0.1),
        lambda: FIFO(reuse=0.1),
        lambda: SynCoS(stepz=1),
    ],
)
def test_fields_of_other_samplers_are_refused(make):
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        make()


def test_samplers_are_dataclasses_that_editors_see():
    config = SynCoS(strength=0.5, steps=30)
    assert isinstance(config, SynCoS) and isinstance(config, SamplerConfig)
    assert not isinstance(FlowLong(), CoDenoising)
    assert repr(config) == "SynCoS(steps=30, strength=0.5)"
    assert repr(SynCoS()) == "SynCoS()" and repr(FIFO(steps=8)) == "FIFO(steps=8)"
    assert inspect.signature(SynCoS).parameters["iterations"].default == 20
    assert {"strength", "t_min", "windows_per_call"} <= set(inspect.signature(SynCoS).parameters)
    for value in (config, FIFO(), CoDenoising(reuse=0.1)):
        assert pickle.loads(pickle.dumps(value)) == value
    assert config.replace(steps=9) == SynCoS(strength=0.5, steps=9)
    assert repr(config.replace(t_min=700)).startswith("SynCoS(steps=30, iterations=1,")
    assert config.replace(strength=1.0) == SynCoS(strength=1.0, steps=30)
    with pytest.raises(InputError, match="strength sets .*; omit strength or iterations"):
        SynCoS(strength=0.5, iterations=20)
    with pytest.raises(TypeError, match="abstract"):
        SamplerConfig()


def test_the_former_name_of_windows_per_call_still_works():
    assert SynCoS(batch=3) == SynCoS(windows_per_call=3)
    assert SynCoS().replace(batch=3).windows_per_call == 3
    read = sampler_from_dict({"name": "fifo", "batch": 2})
    assert read == FIFO(windows_per_call=2) and "batch" not in sampler_to_dict(read)


def windows_predicted(sampler, count):
    layout = WindowLayout(frames=13 + 4 * (count - 1), window=13, stride=4)
    return make_call_schedule(layout, NoiseSchedule.from_betas(), sampler).describe().windows


@given(count=st.integers(4, 80), steps=st.integers(10, 60), strengths=st.tuples(UNIT, UNIT))
@hypothesis_settings(max_examples=40, deadline=None)
def test_dial_goes_from_co_denoising_upwards_and_stays_cheap(count, steps, strengths):
    low, high = sorted(strengths)
    cost = [
        windows_predicted(SynCoS(strength=s, steps=steps), count) for s in (0.0, low, high, 1.0)
    ]
    alone = windows_predicted(CoDenoising(steps=steps), count)
    assert cost[0] == alone
    assert cost == sorted(cost)
    assert alone < cost[-1] <= 1.3 * alone


def test_dial_in_a_scenario_file():
    read = sampler_from_dict({"name": "syncos", "strength": 0.5, "steps": 30})
    assert read == SynCoS(strength=0.5, steps=30)
    assert sampler_from_dict(sampler_to_dict(read)) == read
    assert SynCoS.fast(guidance=3.0) == SynCoS(strength=FULL_STRENGTH, guidance=3.0)
    with pytest.raises(InputError, match="strength sets t_min, .*; omit strength or t_min"):
        sampler_from_dict({"name": "syncos", "strength": 0.5, "t_min": 700})
    with pytest.raises(InputError, match="'strenght' of syncos; did you mean 'strength'"):
        sampler_from_dict({"name": "syncos", "strenght": 0.5})
    with pytest.raises(InputError, match="unknown key 'strength'"):
        sampler_from_dict({"name": "co_denoising", "strength": 0.5})


def test_dial_replaces_what_it_decides_and_the_other_way_round():
    story = Scenario(
        global_prompt="a ball",
        events=(Event(prompt="it rolls", frames=8),),
        sampler={"name": "syncos", "t_min": 700, "iterations": 3, "steps": 9},
    )
    dialled = story.with_sampler(strength=0.25)
    assert dialled.settings() == SynCoS(strength=0.25, steps=9)
    assert dialled.with_sampler(t_min=800.0).settings() == SynCoS(t_min=800.0, steps=9)
    ended = dialled.with_sampler(refine_steps=0).settings()
    assert ended == SynCoS(strength=0.25, steps=9).replace(refine_steps=0)
    assert story.with_sampler() is story


def test_none_is_the_models_own():
    open_ = SynCoS()
    assert (open_.steps, open_.guidance) == (None, None)
    assert open_.resolved(30, 4.0) == SynCoS(steps=30, guidance=4.0)
    assert SynCoS(steps=5).resolved(30, 4.0) == SynCoS(steps=5, guidance=4.0)
    assert open_.resolved() == SynCoS(steps=50, guidance=7.5)


def test_one_end_of_the_refinement_replaces_the_others():
    by_steps = SynCoS(t_min=700, iterations=3).replace(refine_steps=8)
    assert by_steps == SynCoS(refine_steps=8, iterations=3)
    assert by_steps.refinement.t_min is None
    assert by_steps.replace(t_min=800) == SynCoS(t_min=800, iterations=3)
    assert by_steps.replace(steps=9).refinement.refine_steps == 8
    assert sampler_from_dict(sampler_to_dict(by_steps)) == by_steps


def test_bounds():
    """Bounds at which a value is still good, or no longer."""
    assert CoDenoising(guidance_rescale=1).guidance_rescale == 1
    with pytest.raises(InputError, match="guidance_rescale"):
        CoDenoising(guidance_rescale=1.01)
    by_ratio = SynCoS(refine_snr=0.5)
    assert by_ratio.runs_at(0, 900, 0.1, 1.0) and not by_ratio.runs_at(0, 900, 1.0, 1.0)
    assert not by_ratio.runs_at(0, 900, 0.5**0.5, 1.0)
    with pytest.raises(InputError, match="fall"):
        flow_sigmas(2, rule="list", sigmas=(0.5, 0.5))
