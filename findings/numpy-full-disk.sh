#!/usr/bin/env bash
# numpy 2.4.6: ndarray.tofile (np.save with a real file) on a full disk raises an OSError without
# errno, and for a few bytes none at all; write_array to any object with `write` reports ENOSPC.
set -euo pipefail
cd "$(mktemp -d)"; python3 -m venv v; v/bin/pip -q install numpy==2.4.6
v/bin/python - <<'P'
import errno
import numpy as np

class Plain:
    def __init__(self, file): self.write = file.write

def number(write):
    with open("/dev/full", "wb", buffering=0) as file:
        try:
            write(file)
        except OSError as error:
            return error.errno, str(error)
    return "no error"

large = number(lambda file: np.zeros(90000).tofile(file))
small = number(lambda file: np.zeros(9).tofile(file))
plain = number(lambda file: np.lib.format.write_array(Plain(file), np.zeros(9)))
print("tofile, large:", large, "| tofile, small:", small, "| write_array:", plain)
assert large[0] is None and small == "no error" and plain[0] == errno.ENOSPC
P
