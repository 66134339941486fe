"""Devices for which programs can be compiled without having one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from syncos_jax.errors import InputError

_GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """A kind of accelerator, by its data sheet.

    Attributes:
        name: for the command line.
        title: for display.
        platform: JAX's name of its plugin.
        flops: dense bfloat16, FLOP/s.
        bandwidth: memory, B/s.
        memory: bytes.
        exchange: to its neighbours, B/s in each direction, all links together.
        sides: number of chips -> shape of their grid.
        extra: the extra of this package that installs the compiler.
    """

    name: str
    title: str
    platform: str
    flops: float
    bandwidth: float
    memory: int
    exchange: float
    sides: dict[int, str]
    extra: str


_SQUARES = {1: "2x2", 2: "2x2", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8"}
_CUBES = {1: "2x2x1", 2: "2x2x1", 4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4"}
_NODES = {count: f"1x1x{count}" for count in (1, 2, 4, 8)}

CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("v5e", "TPU v5e", "tpu", 197e12, 819e9, 16 * _GIB, 100e9, _SQUARES, "tpu-compiler"),
        Chip("v6e", "TPU v6e", "tpu", 918e12, 1640e9, 32 * _GIB, 224e9, _SQUARES, "tpu-compiler"),
        Chip("v5p", "TPU v5p", "tpu", 459e12, 2765e9, 95 * _GIB, 300e9, _CUBES, "tpu-compiler"),
        Chip("h100", "NVIDIA H100", "cuda", 989e12, 3.35e12, 84942979072, 450e9, _NODES, "cuda"),
    )
}

_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclass(frozen=True)
class Target:
    """Several chips of one kind, such as ``v5e:8``."""

    chip: Chip
    count: int

    def __str__(self) -> str:
        return f"{self.chip.name}:{self.count}"

    @property
    def title(self) -> str:
        """For display."""
        return f"{self.count} × {self.chip.title}" if self.count > 1 else self.chip.title

    def devices(self) -> list[Any]:
        """JAX devices that programs can only be compiled for.

        Raises:
            InputError: the plugin is not installed.
        """
        from jax.experimental import topologies

        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no query for this machine's TPU
        chip, grid = self.chip, self.chip.sides[self.count]
        try:
            if chip.platform == "tpu":
                found = topologies.get_topology_desc(
                    platform="tpu", topology_name=f"{chip.name}:{grid}"
                )
            else:
                found = topologies.get_topology_desc(
                    platform="cuda", topology_name="", topology=grid, target_config=_H100
                )
        except (RuntimeError, ImportError, NotImplementedError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"the compiler for {chip.title} is not installed ({reason})",
                place=str(self),
                remedy=f'pip install "syncos-jax[{chip.extra}]"',
            ) from error
        return list(found.devices)[: self.count]


def parse(text: str) -> Target:
    """``v5e:8``, or ``v5e`` for one chip.

    Raises:
        InputError: unknown chip, or not available in this number.
    """
    name, _, number = text.partition(":")
    chip = CHIPS.get(name)
    if chip is None:
        raise InputError(
            f"unknown hardware {text!r}", expected=f"one of {', '.join(CHIPS)}, as in v5e:8"
        )
    count = int(number) if number.isdigit() else 0 if number or text.endswith(":") else 1
    if count not in chip.sides:
        counts = ", ".join(map(str, chip.sides))
        raise InputError("unknown number of chips", place=text, expected=f"one of {counts}")
    return Target(chip, count)
