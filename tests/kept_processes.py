"""One of two processes of a run with two simulated devices each, for `test_checkpoint.py`: it is
stopped because the second process is asked to, and goes on."""

import json
import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax

from syncos_jax.sampling.devices import make_mesh
from syncos_jax.sampling.hosts import initialize, is_main_process

ADDRESS, NUMBER, FOLDER = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
initialize(ADDRESS, 2, NUMBER)

import numpy as np  # noqa: E402
from test_checkpoint import EACH, RUN, toy_run  # noqa: E402

from syncos_jax.errors import Terminated  # noqa: E402
from syncos_jax.pipeline.checkpoint import Checkpoint  # noqa: E402

# What the second process would not find: only the first may touch the folder.
folder = FOLDER / "run" if is_main_process() else FOLDER / "missing" / "run"
mesh = make_mesh()
whole = toy_run(mesh=mesh)
whole.advance()
undisturbed = np.asarray(whole.latents())

found = {"devices": len(jax.devices()), "stopped": False, "rows": []}
seen = []
stop = {"stop": lambda: seen[-1] >= 5} if NUMBER == 1 else {}
try:
    with Checkpoint(folder, RUN, every=EACH, **stop) as kept:
        kept.play(toy_run(mesh=mesh), lambda done, total: seen.append(done))
except Terminated as stopped:
    found["stopped"] = str(stopped)
with Checkpoint(folder, RUN, every=EACH) as kept:
    latents = kept.play(toy_run(mesh=mesh), lambda done, total: found["rows"].append(done))
found["identical"] = bool((np.asarray(latents) == undisturbed).all())
with Checkpoint(folder, RUN) as kept:
    found["kept"] = bool((kept.latents() == undisturbed).all())
(FOLDER / f"{NUMBER}.json").write_text(json.dumps(found))
jax.distributed.shutdown()
