"""The options that say on which devices and hosts a command runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from syncos_jax.errors import InputError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from syncos_jax.sampling.placement import Parallel, Rules

PANEL = "Devices and hosts"

Devices = Annotated[
    str | None,
    typer.Option(
        metavar="N|all",
        help="Devices that share each video's windows. Default: one; with "
        "--distributed, all. Without a GPU or TPU, a device is a CPU core "
        "(all: at most 8).",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
ParallelBy = Annotated[
    Literal["shard_map", "pmap"],
    typer.Option(
        "--parallel",
        help="How computation is distributed over devices.",
        rich_help_panel=PANEL,
    ),
]
WeightsOver = Annotated[
    int,
    typer.Option(
        "--weights-over",
        min=1,
        metavar="N",
        help="Split the weights of the denoiser (and of a T5) over N devices, "
        "for models too large for one; N must divide the number of devices. "
        "1: each device holds all weights.",
        rich_help_panel=PANEL,
    ),
]
Distributed = Annotated[
    bool,
    typer.Option(
        "--distributed",
        help="Run as one of several processes, all started with the same "
        "command. Under SLURM, Open MPI, Kubernetes and on TPU pods they "
        "find each other; elsewhere see --coordinator. The first process "
        "writes the files.",
        rich_help_panel=PANEL,
    ),
]
Coordinator = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="With --distributed: address of process 0.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="With --coordinator: number of processes.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
ProcessId = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="I",
        help="With --coordinator: index of this process, from 0.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
JoinTimeout = Annotated[
    float,
    typer.Option(
        "--join-timeout",
        min=1,
        metavar="SECONDS",
        help=("With --distributed: how long to wait for the other processes."),
        rich_help_panel=PANEL,
    ),
]
WindowsPerCall = Annotated[
    str | None,
    typer.Option(
        "--windows-per-call",
        "--batch",
        metavar="N|auto",
        help="Windows per network call, over all devices together; fewer need "
        "less memory. auto: as many as fit.",
        show_default=False,
    ),
]


def read_windows_per_call(value: str | None) -> int | str | None:
    """``None``, ``"auto"`` or a number; raises InputError."""
    if value is None or value == "auto":
        return value
    if not value.isdigit() or int(value) < 1:
        raise InputError(f"--windows-per-call: must be a number, 1 or more, or auto; got {value!r}")
    return int(value)


def read_devices(value: str | None) -> int | None:
    """A number, or None for ``"all"`` and for None; raises InputError."""
    if value in (None, "all"):
        return None
    assert value is not None
    if not value.isdigit() or int(value) < 1:
        raise InputError(f"--devices: must be a number, 1 or more, or all; got {value!r}")
    return int(value)


def is_main(distributed: bool) -> bool:
    """Whether this process writes files and prints: the first of several, or the only one."""
    if not distributed:
        return True
    from syncos_jax.sampling.hosts import is_main_process

    return is_main_process()


def console(mesh: Mesh | None) -> Console | None:
    """Where progress is printed: by the first of several processes alone; None for stderr."""
    if mesh is None or is_main(True):
        return None
    return Console(quiet=True)


def open_mesh(
    devices: str | None,
    parallel: Parallel,
    distributed: bool,
    coordinator: str | None,
    processes: int | None,
    process_id: int | None,
    weights_over: int = 1,
    join_timeout: float = 300.0,
) -> Mesh | None:
    """Joins the other processes, if any, and makes the mesh; None for JAX's default device.

    Must come before anything else that uses a device.

    Raises:
      InputError: if options do not go together, or there are no such devices or processes.
    """
    count = read_devices(devices)
    if not distributed and any(v is not None for v in (coordinator, processes, process_id)):
        raise InputError("--coordinator, --processes and --process-id need --distributed as well")
    if weights_over > 1 and devices is None and not distributed:
        raise InputError("--weights-over needs --devices as well")
    from syncos_jax.sampling import devices as several
    from syncos_jax.sampling.hosts import initialize

    if distributed:
        say = Console(stderr=True, highlight=False, soft_wrap=True).out
        initialize(coordinator, processes, process_id, timeout=join_timeout, say=say)
    elif devices is None and parallel == "shard_map":
        return None
    elif devices is None:
        count = 1
    if not distributed:
        several.provide_cpu_devices(count)
    return several.make_mesh(count, model=weights_over)


def rules(mesh: Mesh | None) -> Rules:
    """What is divided over which axis of `mesh`."""
    from syncos_jax.sampling.devices import MODEL
    from syncos_jax.sampling.placement import Rules

    divided = mesh is not None and MODEL in mesh.axis_names
    return Rules(feature=MODEL if divided else None)
