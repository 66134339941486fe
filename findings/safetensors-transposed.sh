#!/usr/bin/env bash
# safetensors 0.8.0: save_file of a transposed numpy array writes its memory in its own order under
# the transposed shape: other values are read back, without an error or a warning. A contiguous copy
# is right.
set -euo pipefail
cd "$(mktemp -d)"; python3 -m venv v; v/bin/pip -q install safetensors==0.8.0 numpy==2.4.6
v/bin/python - <<'P'
import numpy as np
from safetensors.numpy import load_file, save_file

array = np.arange(6, dtype=np.float32).reshape(2, 3).T
save_file({"view": array, "copy": np.ascontiguousarray(array)}, "x.safetensors")
found = load_file("x.safetensors")
print("saved:", array.tolist(), "| read:", found["view"].tolist())
assert np.array_equal(found["copy"], array)
assert found["view"].shape == array.shape and not np.array_equal(found["view"], array)
P
