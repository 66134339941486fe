"""One of two processes with four simulated devices each, for `test_parallel.py`."""

import json
import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax

from syncos_jax.sampling.devices import make_mesh
from syncos_jax.sampling.hosts import initialize, is_main_process

initialize(sys.argv[1], 2, int(sys.argv[2]))

from many_devices import (  # noqa: E402
    LAYOUT,
    NETWORK,
    conditioning,
    difference,
    key,
    run,
    shared,
    single,
)

from syncos_jax.sampling import sample_batch, start  # noqa: E402
from syncos_jax.sampling.run import run_to_end  # noqa: E402

plain = run()  # by each process alone, on its first device
mesh = make_mesh()
found = {"devices": len(jax.devices()), "local": jax.local_device_count()}
found["shard_map"] = difference(run(mesh=mesh), plain)
found["pmap"] = difference(run(mesh=mesh, parallel="pmap"), plain)

parts = start(NETWORK, **single(mesh=mesh))
run_to_end(parts)
found["parts"] = difference(parts.latents(), plain)

both = sample_batch(
    NETWORK,
    [conditioning(LAYOUT.count, s) for s in (0, 1)],
    unconds=[conditioning(LAYOUT.count, s + 10) for s in (0, 1)],
    keys=[key(0), key(1)],
    mesh=make_mesh(data=2),
    **shared(),
)
found["batch"] = max(difference(both[0], plain), difference(both[1], run(1)))

if is_main_process():
    print(json.dumps(found))
jax.distributed.shutdown()
