"""The networks' programs for TPUs and GPUs that are not there: what must not stand in them.

At full size they are lowered, which needs no accelerator's compiler; small ones are compiled where
that is installed; ``make test-accelerators`` installs it and compiles at full size too.
"""

import importlib.util
import math
import os
import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from syncos_jax.kernels.attention import choice, plain
from syncos_jax.kernels.attention.choice import SMALL
from syncos_jax.kernels.attention.shapes import SHAPES
from syncos_jax.models import saved
from syncos_jax.models.clip_text import CLIPTextConfig
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.pipeline.hardware import compile_in_subprocess, parse
from syncos_jax.pipeline.hardware.abstract import abstract_model
from syncos_jax.pipeline.hardware.compile import OPTIONS
from syncos_jax.pipeline.hardware.program import read
from syncos_jax.scenario import Scenario

CLIPS = 2


MODELS = ("videocrafter2", "cogvideox-2b", "wan2.1-1.3b")


def missing(plugin):
    return importlib.util.find_spec(plugin) is None


needs_tpu = pytest.mark.skipif(
    missing("libtpu"), reason='no compiler for TPUs: pip install "syncos-jax[tpu-compiler]"'
)
needs_cuda = pytest.mark.skipif(
    missing("jax_cuda12_plugin"), reason='no compiler for GPUs: pip install "syncos-jax[cuda]"'
)
TPU = pytest.param("v5e:1", marks=needs_tpu)
H100 = pytest.param("h100:1", marks=needs_cuda)


def story(frames):
    return Scenario.from_dict(
        {"global": "a ball", "events": [{"prompt": "it rolls", "frames": frames}]}
    )


@cache
def model(name):
    return abstract_model(name, jnp.bfloat16)


def call(name):
    """The denoiser and abstract arguments of one guided window."""
    of = model(name)
    g = of.geometry
    cells = g.latent_size(g.height, g.width)
    x = jax.ShapeDtypeStruct((CLIPS, g.window, *cells, g.channels), jnp.float32)
    t = jax.ShapeDtypeStruct((CLIPS,), jnp.float32)
    return of.denoiser, (of.params, x, t, of.conditioning_shapes(CLIPS))


def decoding(name):
    of = model(name)
    g = of.geometry
    function, (graphdef, *arguments) = of.decoding((*g.latent_size(g.height, g.width), g.channels))
    return lambda *a: function(graphdef, *a), tuple(arguments)


def attentions(jaxpr):
    """Queries and number of keys of every attention in it."""
    for equation in jaxpr.eqns:
        if equation.params.get("name") == "_attention":
            q, k, _ = (value.aval for value in equation.invars)
            yield jax.ShapeDtypeStruct(q.shape, q.dtype), k.shape[1]
            continue
        for value in equation.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(item, "jaxpr", item)
                if hasattr(inner, "eqns"):
                    yield from attentions(inner)


def with_scores(text, found):
    """Types in a lowered program that could hold all scores of one of the attentions."""
    types = set(re.findall(r"tensor<((?:\d+x)+)[a-z]\w*>", text))
    shapes = [[int(side) for side in one.rstrip("x").split("x")] for one in types]
    bad = []
    for q, keys in found:
        b, T, N, _ = q.shape
        if T * keys > SMALL:
            bad += [
                shape
                for shape in shapes
                if T in shape and keys in shape and math.prod(shape) >= b * N * T * keys
            ]
    return bad


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("of", [call, decoding], ids=["denoiser", "decoder"])
def test_no_scores_in_a_program_of_full_size(name, of):
    function, arguments = of(name)
    traced = jax.jit(function).trace(*arguments)
    found = set(attentions(traced.jaxpr.jaxpr))
    assert found or (name, of) == ("cogvideox-2b", decoding)  # whose autoencoder has none
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert with_scores(text, found) == []
    if of is call:  # what is tested, tuned and measured is what the networks have
        listed = [(shape.arrays[0].shape, shape.S) for shape in SHAPES]
        assert all((q.shape, keys) in listed for q, keys in found), found


def test_scores_are_found_where_they_are(monkeypatch):
    """The same check on attention as it would be otherwise."""
    monkeypatch.setattr(choice, "_ATTEND", dict.fromkeys(choice.IMPLEMENTATIONS, plain.attend))
    q = jax.ShapeDtypeStruct((2, 1000, 3, 64), jnp.bfloat16)
    text = (
        jax.jit(lambda q: choice.attention(q, q, q)).trace(q).lower(lowering_platforms=("tpu",))
    ).as_text()
    assert with_scores(text, [(q, 1000)])


def small_unet():
    """A UNet whose attention at the finest level is large enough for the fused kernels."""
    from syncos_jax.models.unet_clip.unet3d import UNet3DConfig

    unet = UNet3DConfig(
        block_out_channels=(64, 64),
        attention=(True, False),
        layers_per_block=1,
        head_size=64,
        text_features=16,
        norm_groups=8,
    )
    text = CLIPTextConfig(vocabulary=64, tokens=8, features=16, inner=32, layers=1, heads=2)
    config = ModelConfig.from_dict(
        {**model("videocrafter2").config.to_dict(), "unet": unet, "text": text}
    )
    return saved.build("unet", config, jnp.bfloat16)


@pytest.mark.parametrize("target", [TPU, H100])
def test_a_small_network_compiled(target, request):
    optimizing = "jax_disable_most_optimizations"  # which the suite does
    jax.config.update(optimizing, False)
    suite = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") == "1"
    request.addfinalizer(lambda: jax.config.update(optimizing, suite))
    from flax import nnx
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    hardware = parse(target)
    sharding = NamedSharding(Mesh(np.asarray(hardware.devices()), ("one",)), PartitionSpec())
    graphdef, weights = nnx.split(small_unet())
    shaped = lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)  # noqa: E731
    weights = jax.tree.map(lambda leaf: shaped(leaf.shape, leaf.dtype), weights)
    x = shaped((2, 4, 32, 32, 4), jnp.bfloat16)
    text = shaped((2, 8, 16), jnp.bfloat16)
    t = shaped((2,), jnp.float32)
    jitted = jax.jit(
        lambda weights, x, t, text: nnx.merge(graphdef, weights)(x, t, text),
        out_shardings=sharding,
    )
    options = OPTIONS[hardware.chip.platform]
    text_of = jitted.lower(weights, x, t, text).compile(compiler_options=options).as_text()
    program = read(text_of)
    assert ("tpu_custom_call" if hardware.chip.platform == "tpu" else "fmha") in text_of
    assert program.scores(1024, 1024, 2 * 4 * 1024 * 1024) == []
    assert program.products("f32", least=2**14) == []
    assert program.collectives() == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "name", "frames", "moved", "beside"),
    [
        pytest.param("h100:1", "videocrafter2", 16, 84e9, 2 * 2**30, marks=needs_cuda),
        pytest.param("h100:1", "videocrafter2", 64, 84e9 * 13, 12 * 2**30, marks=needs_cuda),
        pytest.param("v5e:1", "videocrafter2", 16, 103e9, 4 * 2**30, marks=needs_tpu),
    ],
)
def test_videocrafter2_of_full_size(target, name, frames, moved, beside):
    run = compile_in_subprocess(target, name, story(frames), decode=False).run
    assert run.fits
    assert run.bytes <= moved
    assert run.memory.temporary <= beside
    assert run.wide == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "target", [pytest.param("v5e:8", marks=needs_tpu), pytest.param("h100:8", marks=needs_cuda)]
)
def test_a_whole_run_on_eight(target, name):
    g = model(name).geometry
    frames = g.frames(4 * g.window) if name != "videocrafter2" else 64
    report = compile_in_subprocess(target, name, story(frames))
    assert report.run.fits and report.decode is not None
    assert set(report.run.exchanged) == {"all-gather"}
