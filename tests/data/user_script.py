"""What users write; tests/test_types.py checks it with ``mypy --strict``."""

import jax
import jax.numpy as jnp
from jax import Array

from syncos_jax import (
    InputError,
    NoiseSchedule,
    Pipeline,
    Scenario,
    SynCoS,
    Video,
    WindowLayout,
    load_model,
    sample,
)


def generate(path: str) -> Video:
    pipe = Pipeline.from_pretrained("demo")
    try:
        return pipe(Scenario.from_file(path), sampler=SynCoS(steps=25, guidance=3.0), seed=7)
    except InputError as error:
        raise SystemExit(f"{error.argument}: {error}") from error


def denoise(params: object, x: Array, t: Array, cond: Array) -> Array:
    return x * cond[:, None, None, None, None]


def sample_own(frames: int) -> Array:
    layout = WindowLayout(frames=frames, window=16, stride=4)
    schedule = NoiseSchedule.from_betas(jnp.linspace(1e-4, 2e-2, 1000))
    sampler, key = SynCoS(strength=0.5), jax.random.key(0)
    cond, shape = jnp.ones(layout.count), (8, 8, 4)
    return sample(
        denoise, cond, layout=layout, frame_shape=shape, schedule=schedule, sampler=sampler, key=key
    )


def network_alone(x: Array, t: Array, text: Array) -> Array:
    model = load_model("demo")
    return model.vae.decode(model.unet(x, t, text))
