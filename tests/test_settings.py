"""Settings: checked, hashable, readable from a scenario file."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest

from syncos_jax.errors import InputError
from syncos_jax.settings import (
    SAMPLERS,
    CoDenoising,
    RefinementOnly,
    SynCoS,
    settings_from_dict,
    settings_to_dict,
)


def test_defaults_are_the_published_settings():
    assert SynCoS.paper("open_sora_plan") == SynCoS()
    assert SynCoS.paper() == SynCoS(guidance=6)
    # optax's default weight decay, read off one step from 1 with no gradient and rate 1
    at, adamw = jnp.ones(()), optax.adamw(1.0)
    with jax.numpy_dtype_promotion("standard"):
        update, _ = adamw.update(jnp.zeros(()), adamw.init(at), at)
    assert float(-update) == pytest.approx(SynCoS().weight_decay)


@pytest.mark.parametrize("name", SAMPLERS)
def test_read_and_written(name):
    settings = settings_from_dict({"name": name, "steps": 7, "guidance": 3})
    assert (settings.name, settings.steps, settings.guidance) == (name, 7, 3.0)
    assert settings_from_dict(settings_to_dict(settings)) == settings
    assert hash(settings) == hash(dataclasses.replace(settings))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 50}, "name is missing; one of syncos, co_denoising, refinement_only"),
        ({"name": "synkos"}, "unknown name 'synkos' .did you mean 'syncos'..; known: syncos"),
        ({"name": ["syncos"]}, "unknown name"),
        (
            {"name": "syncos", "iteration": 5},
            "'iteration' .did you mean 'iterations'..; known: st",
        ),
        ({"name": "co_denoising", "t_min": 5}, "sampler co_denoising: unknown key 't_min'"),
        ({"name": "refinement_only", "eta": 1}, "unknown key 'eta'"),
        ("syncos", "expected settings such as"),
    ],
)
def test_bad_dictionaries(values, message):
    with pytest.raises(InputError, match=message):
        settings_from_dict(values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: SynCoS(steps=0),
            "sampler syncos: steps must be a whole number, 1 to 32767; got 0",
        ),
        (lambda: SynCoS(steps="50"), "steps must be a whole number"),
        (lambda: SynCoS(batch=True), "batch must be a whole number, 1 or more, or None; got True"),
        (lambda: SynCoS(iterations=0), "iterations must be"),
        (lambda: SynCoS(windows_per_step=0), "windows_per_step must be"),
        (lambda: SynCoS(learning_rate=-1), "learning_rate must be a number, 0 or more; got -1"),
        (lambda: SynCoS(t_min=float("nan")), "t_min must be a number"),
        (lambda: SynCoS(fixed_noise=1), "fixed_noise must be true or false"),
        (lambda: CoDenoising(eta=1.5), "eta must be a number, 0 or more, at most 1; got 1.5"),
        (lambda: RefinementOnly(guidance=None), "refinement_only: guidance must be a number"),
        (lambda: SynCoS.paper("sora"), "unknown backbone 'sora'"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(InputError, match=message):
        make()
