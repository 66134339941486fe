"""Versions and devices, for metadata files and checkpoints."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Any

from syncos_jax.sampling.placement import Placement
from syncos_jax.version import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "av")


def versions() -> dict[str, str]:
    """Versions of the packages that make a video."""
    found = {"syncos_jax": __version__}
    for name in _PACKAGES:
        try:
            found[name] = installed(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return {**found, "python": platform.python_version()}


def device_of(placement: Placement) -> dict[str, Any]:
    """Platform, kind and count of a pipeline's devices."""
    devices = sorted(placement.mesh.devices.flat, key=lambda device: device.id)
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
    }
