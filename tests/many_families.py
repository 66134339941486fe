"""The transformer families on simulated CPU devices, for `test_families.py`: a program of its own,
since JAX counts its devices once. Prints one JSON object.

    python tests/many_families.py DEVICES FOLDER FAMILY:SAMPLER...
"""

import json
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={sys.argv[1]}"
    os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from tiny_families import story, story_of, write

from syncos_jax import Pipeline, Scenario
from syncos_jax.pipeline.load import load_model
from syncos_jax.sampling.devices import MODEL, make_mesh
from syncos_jax.sampling.placement import Placement, Rules

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def difference(a, b):
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())  # not uint8


def sampler(folder, family, name):
    """A scenario file played on one device and on all."""
    path = folder / f"{family}-{name}.yaml"
    path.write_text(json.dumps(story_of(family, name, folder)))
    model, made, shares = folder / family, {}, []
    for devices in (1, len(jax.devices())):
        pipeline = Pipeline.from_pretrained(model, mesh=make_mesh(devices))
        latents = pipeline.latents(Scenario.from_file(path))
        shares.append(len(latents.sharding.device_set))
        made[devices] = np.asarray(latents)
    one, many = made.values()
    return {
        "devices": shares,
        "frames": len(one),
        "size": float(np.abs(one).max()),
        "finite": bool(np.isfinite(one).all()),
        "difference": difference(one, many),
        "frames_differ": difference(*(pipeline.decode(x) for x in made.values())),
    }


def weights(folder, family):
    """Restored straight into the place that the mesh's axis `model` gives them; the same video."""
    mesh, rules = make_mesh(model=4), Rules(feature=MODEL)
    found = {}
    for source in (folder / family,):
        model = load_model(source, mesh=mesh, rules=rules)
        for name, leaves in model.weights.items():
            held = jax.tree.leaves(leaves)
            parts = [leaf.sharding.shard_shape(leaf.shape) for leaf in held]
            found[name] = {
                "bytes": sum(leaf.nbytes for leaf in held),
                "of_device": sum(
                    leaf.dtype.itemsize * int(np.prod(part))
                    for leaf, part in zip(held, parts, strict=True)
                ),
            }
        before = jax.tree.leaves(model.weights)
        model.place(Placement(mesh, rules=rules))
        after = jax.tree.leaves(model.weights)
        found["moved"] = sum(a is not b for a, b in zip(before, after, strict=True))
    scenario = Scenario.from_dict(story("syncos"))
    plain = Pipeline.from_pretrained(folder / family).latents(scenario)
    divided = Pipeline(model, mesh=mesh, rules=rules).latents(scenario)
    found["difference"] = difference(plain, divided)
    return found


if __name__ == "__main__":
    place, found = Path(sys.argv[2]), {}
    for task in sys.argv[3:]:
        family, _, what = task.partition(":")
        if not (place / family).exists():
            write(place / family, family)
        found[task] = weights(place, family) if what == "weights" else sampler(place, family, what)
    print(json.dumps(found))
