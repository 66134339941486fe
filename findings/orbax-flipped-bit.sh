#!/usr/bin/env bash
# orbax-checkpoint 0.12.8 (tensorstore 0.1.86): with use_compression=False (faster, and floats hardly
# shrink) a flipped bit in an array's data is restored as another value without an error; and
# CheckpointManager.save() of a step at or below the latest returns False and writes nothing.
set -euo pipefail
cd "$(mktemp -d)"; python3 -m venv v
v/bin/pip -q install orbax-checkpoint==0.12.8 tensorstore==0.1.86 jax==0.10.2
JAX_PLATFORMS=cpu v/bin/python - <<'P'
from pathlib import Path
import numpy as np, orbax.checkpoint as ocp

value = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
handler = ocp.PyTreeCheckpointHandler(use_compression=False)
manager = ocp.CheckpointManager(Path("c").absolute(), item_handlers=handler)
assert manager.save(5, args=ocp.args.PyTreeSave({"x": value}))
manager.wait_until_finished()
assert manager.save(4, args=ocp.args.PyTreeSave({"x": value})) is False
assert manager.all_steps() == [5]
files = [p for p in Path("c/5").rglob("*") if p.is_file() and value.tobytes() in p.read_bytes()]
assert files, "the data are stored in another way"
for path in files:
    raw = bytearray(path.read_bytes())
    raw[raw.index(value.tobytes()) + 4003] ^= 1  # exponent or sign of one number
    path.write_bytes(raw)
found = manager.restore(5, args=ocp.args.PyTreeRestore())["x"]
changed = int((np.asarray(found) != value).sum())
print("restored without an error; values changed:", changed)
assert changed == 1
P
