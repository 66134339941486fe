"""What the kernels for NVIDIA share."""

import jax

LEAST = 8.0
"""Compute capability from which their matrix units take bfloat16 (Ampere)."""


def unsupported_reason() -> str | None:
    """Why none can run on this process's GPU; None where they can. A process without one compiles
    for another machine."""
    if jax.default_backend() != "gpu":
        return None
    found = str(getattr(jax.local_devices()[0], "compute_capability", "0"))
    if not found.replace(".", "", 1).isdigit():  # AMD's have names
        return f"it runs on NVIDIA, not on {found}"
    if float(found) < LEAST:
        return f"the GPU's compute capability is {found}, but it needs {LEAST} (Ampere)"
    return None
