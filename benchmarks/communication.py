"""Bytes that devices exchange for one row of the call_schedule, read from the compiled program.

    python benchmarks/communication.py [--out benchmarks/results/communication.md]

Latents of VideoCrafter2 (16 frames of 40x64x4 a window), 64 frames in 13 windows, the network
replaced by a trivial one: what is exchanged does not depend on it. Simulated devices; nothing is
timed. The times beside the bytes follow from the formulas that are printed below the table.
"""

import argparse
import os
import re
from pathlib import Path

DEVICES = (1, 2, 4, 8, 32)
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={max(DEVICES)}"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from syncos_jax import NoiseSchedule, SynCoS, WindowLayout  # noqa: E402
from syncos_jax.sampling import start  # noqa: E402
from syncos_jax.sampling.devices import make_mesh  # noqa: E402
from syncos_jax.sampling.methods import make_call_schedule  # noqa: E402

FRAME = (40, 64, 4)
LAYOUT = WindowLayout(frames=64, window=16, stride=4)
CALL = 25.2e12  # FLOP of a guided call on one window
SPEED = 800e12  # FLOP/s of an H100, bfloat16, a large product as measured
NVLINK = 450e9  # bytes/s into a device
NETWORK = 400e9 / 8  # bytes/s into a host
PER_HOST = 8

COLLECTIVE = re.compile(
    r"= (\(?[a-z0-9]+\[[^=]*?) (all-gather|all-reduce|reduce-scatter|all-to-all|"
    r"collective-permute)(?:-start)?\("
)
BYTES = {"f32": 4, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "pred": 1}


def denoise(x, t, cond):
    return 0.5 * x


def collectives(devices: int) -> list[tuple[str, int]]:
    """Each collective of the program of a row: its kind and the bytes of its result."""
    run = start(
        denoise,
        jnp.zeros(LAYOUT.count),
        uncond=jnp.zeros(LAYOUT.count),
        layout=LAYOUT,
        frame_shape=FRAME,
        schedule=NoiseSchedule.from_betas(),
        sampler=SynCoS(steps=2, iterations=1),
        key=jax.random.key(0, impl="rbg"),
        latents=jnp.zeros((LAYOUT.frames, *FRAME)),
        mesh=make_mesh(devices),
    )
    found = []
    for shapes, kind in COLLECTIVE.findall(run.lower().compile().as_text()):
        sizes = re.findall(r"([a-z]+[0-9]*)\[([0-9,]*)\]", shapes)
        dtype, dims = sizes[-1]  # of an asynchronous one, the last is the result
        count = 1
        for size in dims.split(","):
            count *= int(size or 1)
        found.append((kind, count * BYTES[dtype]))
    return found


def received(kind: str, size: int, devices: int) -> float:
    """Bytes into each device, by a ring."""
    return size * (devices - 1) / devices * (2 if kind == "all-reduce" else 1)


def seconds(total: float, devices: int) -> float:
    """Of the exchange: within a host at NVLink's speed; between hosts each host has to receive
    what the others have, which its devices then pass on."""
    if devices == 1:
        return 0.0
    hosts = -(-devices // PER_HOST)
    full = total * devices / (devices - 1)
    between = full * (hosts - 1) / hosts / NETWORK if hosts > 1 else 0.0
    return between + total / NVLINK


def table() -> str:
    clips = 2 * LAYOUT.count
    call = CALL / SPEED / 2
    lines = [
        "| devices | clips a device | collectives of a row | MB received a device | exchange | "
        "network | exchange's share | idle places | efficiency |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for devices in DEVICES:
        found = collectives(devices)
        total = sum(received(kind, size, devices) for kind, size in found)
        share = -(-clips // devices)
        exchange, network = seconds(total, devices), share * call
        busy = clips / (share * devices)
        kinds = ", ".join(f"{kind} of {size / 1e6:.2f} MB" for kind, size in found) or "none"
        efficiency = busy * network / (network + exchange)
        lines.append(
            f"| {devices} | {share} | {kinds} | {total / 1e6:.2f} | {exchange * 1e3:.3f} ms | "
            f"{network * 1e3:.1f} ms | {exchange / (network + exchange):.2%} | {1 - busy:.0%} | "
            f"{efficiency:.0%} |"
        )
    return "\n".join(lines)


def report() -> str:
    frame = 4 * FRAME[0] * FRAME[1] * FRAME[2]
    gathered, fused = 2 * LAYOUT.count * LAYOUT.window * frame, LAYOUT.frames * frame
    call_schedule = make_call_schedule(LAYOUT, NoiseSchedule.from_betas(), SynCoS(steps=50))
    passes = call_schedule.describe().passes
    rounds = call_schedule.describe().optimizer_steps
    less = f"{gathered / (2 * fused):.1f}"
    saved = passes * (1 - 2 * fused / gathered) / (passes + rounds)
    return f"""# Exchange between devices, VideoCrafter2's shapes

Made by `python benchmarks/communication.py`. The bytes are read from the compiled program (HLO)
of {LAYOUT.frames} latent frames of {FRAME} in {LAYOUT.count} windows of {LAYOUT.window}, all
windows in one call, on simulated devices. The times are computed, not measured.

{table()}

- Bytes into a device: (D - 1) / D of an all-gather's result.
- Exchange: those bytes at {NVLINK / 1e9:.0f} GB/s (NVLink, one direction). With {PER_HOST} devices
  a host, and H hosts, before it (H - 1) / H of the result at {NETWORK / 1e9:.0f} GB/s (400 Gb/s a
  host).
- A clip is one window with or without the prompt: guidance makes two of each window, which may
  fall to two devices.
- Network: {CALL / 1e12:.1f} TFLOP for a guided call on one window at {SPEED / 1e12:.0f} TFLOP/s,
  {CALL / SPEED / 2 * 1e3:.2f} ms a clip, times the clips a device has.
- Exchange's share: exchange / (network + exchange), with nothing overlapped; latencies of some
  tens of microseconds a row are left out.
- Idle places: 1 - clips / (clips a device x devices), lost because {2 * LAYOUT.count} clips are
  not a multiple of the devices. Efficiency: what remains of the devices' speed after both. A video
  of 16 windows (76 frames) leaves none of 8 or 32 devices idle.

Fusing locally and summing (`psum`) would exchange 2 (D - 1) / D of {fused / 1e6:.2f} MB in a pass
of co-denoising, where the all-gather exchanges (D - 1) / D of {gathered / 1e6:.2f} MB, {less}
times as much (and needs both clips of a window on one device). But a run of 50 steps has {passes}
such passes and {rounds} refinement rounds, which need every window's residual on every device in
any case. Over the run it would save {saved:.0%} of an exchange that takes a small part of the time,
and the result would depend on the number of devices in its last bits.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write it there")
    chosen = parser.parse_args()
    text = report()
    print(text)
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(text)
