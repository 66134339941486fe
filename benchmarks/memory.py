"""Memory of the sampler against the length of the video, from the compiler's own analysis.

    python benchmarks/memory.py [--frames 64 640 4800] [--window 16 --stride 4] [--batch 8]

A toy network (it needs next to nothing), latents of VideoCrafter2's size: what is left is what the
sampler itself takes. Nothing is run; 4,800 frames are 10 minutes at 8 frames per second.
"""

import argparse

import jax
import jax.numpy as jnp

from syncos_jax import NoiseSchedule, SynCoS, WindowLayout
from syncos_jax.sampling import start
from syncos_jax.sampling.memory import program_bytes
from syncos_jax.sampling.run import Run


def denoise(x, t, cond):
    return 0.5 * x


def prepared(frames: int, window: int, stride: int, batch: int, size: tuple[int, int, int]) -> Run:
    """A run of that length before its first row."""
    return start(
        denoise,
        None,
        layout=WindowLayout(frames=frames, window=window, stride=stride),
        frame_shape=size,
        schedule=NoiseSchedule.from_betas(),
        sampler=SynCoS(windows_per_call=batch),
        key=jax.random.key(0, impl="rbg"),
        latents=jnp.zeros((frames, *size)),
    )


def measured(run: Run) -> dict[str, int]:
    """Bytes of the latents, of a round's predictions, of the rest of the state, of the tape, and of
    what the program needs beside them."""

    def size(tree: object) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))

    carry = run.carry
    latents = carry.state.x.nbytes
    return {
        "latents": latents,
        "predictions": carry.predictions.nbytes,
        "rest": size(carry) - latents - carry.predictions.nbytes,
        "call_schedule": size((run.calls, run.updates)),
        "program": program_bytes(run, run.call_schedule.samples_per_call),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[64, 640, 4800])
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8, help="windows in a call")
    parser.add_argument("--size", type=int, nargs=3, default=[40, 64, 4], metavar=("H", "W", "C"))
    chosen = parser.parse_args()
    print("MiB, and in brackets times the latents; program: beside state and tape\n")
    print(
        "| frames | windows | latents | predictions | rest of the state | tape | program | in all |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for frames in chosen.frames:
        run = prepared(frames, chosen.window, chosen.stride, chosen.batch, tuple(chosen.size))
        found = measured(run)
        found["all"] = sum(found.values())
        cells = [
            f"{value / 2**20:.1f} ({value / found['latents']:.1f})" for value in found.values()
        ]
        print(f"| {frames} | {run.program.method.windows} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
