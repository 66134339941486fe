"""What identifies a model: the same hash from its folder, from its weights, split or not."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from checkpoints import syncos

from syncos_jax.models import identity
from syncos_jax.models.weights import leaves
from syncos_jax.pipeline.load import load_model, model_folder


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "m"
    result = syncos("convert", model_folder("demo"), "--out", folder, "--dtype", "float32")
    assert result.exit_code == 0, result.output
    return folder


def test_a_converted_model_is_identified_by_the_hashes_of_its_folder(converted, monkeypatch):
    """No second pass over all weights at every start."""
    expected = load_model("demo").weights_sha256
    model = load_model(converted)
    assert set(model.hashes) == {"unet", "vae", "text_encoder"}
    assert identity.hash_weights(model.weights) == expected
    others = load_model(f"{converted}@int8"), load_model(converted, jnp.bfloat16)
    monkeypatch.setattr(identity, "leaf_hash", lambda value: pytest.fail("a weight was read"))
    assert model.weights_sha256 == expected
    assert len({*(other.weights_sha256 for other in others), expected}) == 3


@pytest.mark.slow
def test_a_folder_of_an_earlier_version_has_no_hashes(converted, tmp_path):
    shutil.copytree(converted, tmp_path / "old")
    (tmp_path / "old" / "weights.json").unlink()
    model = load_model(tmp_path / "old")
    assert not model.hashes and model.weights_sha256 == load_model(converted).weights_sha256


def test_hashes_that_are_damaged_are_not_used(tmp_path):
    values = {"a.kernel": jnp.ones((2, 3))}
    hashes = {path: identity.leaf_hash(value) for path, value in values.items()}
    identity.write(tmp_path, "unet", hashes)
    dtypes = {"a.kernel": jnp.dtype("float32")}
    assert identity.read(tmp_path, "unet", dtypes) == identity.tree_hash(
        {"a": {"kernel": jnp.ones((2, 3))}}
    )
    assert identity.read(tmp_path, "vae", dtypes) is None
    for text in ("{", "[]", '{"unet": 3}', '{"unet": {"a.kernel": 1}}'):
        (tmp_path / "weights.json").write_text(text)
        assert identity.read(tmp_path, "unet", dtypes) is None


def test_paths_of_a_pytree_are_those_of_the_network():
    model = load_model("demo")
    own = {path: identity.leaf_hash(leaf) for path, leaf in leaves(model.unet).items()}
    assert identity.network_hash(own) == identity.tree_hash(model.weights["unet"])


SPLIT = """
import json, os, sys
address, number, devices, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
os.environ["JAX_PLATFORMS"] = "cpu"
import jax, numpy as np
from syncos_jax.sampling.hosts import initialize
initialize(address, 2, number)
from syncos_jax import CoDenoising, Pipeline, Scenario
from syncos_jax.sampling.devices import MODEL, make_mesh
from syncos_jax.sampling.placement import Rules
found = {}
for name in ("demo", folder):
    mesh = make_mesh(model=2)
    pipe = Pipeline.from_pretrained(name, mesh=mesh, rules=Rules(feature=MODEL))
    request = pipe.prepare(
        Scenario.from_dict({"global": "a red ball on a green meadow",
                            "events": [{"prompt": "the ball grows", "frames": 8}]}),
        CoDenoising(steps=2),
    )
    latents = np.asarray(pipe.latents(request, checkpoint=f"{folder}.run{devices}" + name[:1]))
    split = sum(not leaf.is_fully_addressable for leaf in jax.tree.leaves(pipe.model.params))
    found[name] = [pipe.model.weights_sha256, split, latents.tolist()]
if number == 0:
    print(json.dumps(found), flush=True)
jax.distributed.shutdown()
"""


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_weights_split_across_two_processes(converted, tmp_path, devices):
    """The hash fetched arrays of the other host, which raised."""
    import numpy as np

    from syncos_jax import CoDenoising, Pipeline, Scenario

    shutil.copytree(converted, tmp_path / "m")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", SPLIT, address, str(n), str(devices), str(tmp_path / "m")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        for n in (0, 1)
    ]
    try:
        (out, said), (_, said_too) = (process.communicate(timeout=900) for process in both)
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], said[-3000:] + said_too[-3000:]
    found = json.loads(out.splitlines()[-1])
    pipe = Pipeline.from_pretrained("demo")
    story = {"global": "a red ball on a green meadow"}
    story["events"] = [{"prompt": "the ball grows", "frames": 8}]
    expected = np.asarray(pipe.latents(Scenario.from_dict(story), CoDenoising(steps=2)))
    assert len(found) == 2
    for sha256, split, latents in found.values():
        assert sha256 == pipe.model.weights_sha256 and split > 0
        assert np.abs(np.asarray(latents) - expected).max() <= 1e-4 * np.abs(expected).max()
    assert jax.process_count() == 1
