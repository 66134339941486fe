"""Versions and devices, as records and checkpoints name them."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Any

import syncos_jax
from syncos_jax.sampling.placement import Placement

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "av")


def versions() -> dict[str, str]:
    """Versions of what takes part in making a video."""
    found = {"syncos_jax": syncos_jax.__version__}
    for name in _PACKAGES:
        try:
            found[name] = installed(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return {**found, "python": platform.python_version()}


def device_of(placement: Placement) -> dict[str, Any]:
    """platform, kind and count of the devices that a pipeline runs on."""
    devices = sorted(placement.mesh.devices.flat, key=lambda device: device.id)
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
    }
