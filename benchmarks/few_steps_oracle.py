"""Few steps on an exact denoiser: ``python benchmarks/few_steps_oracle.py --out FILE.md``.

A video shows one of four subjects in 64 dimensions, with the exact denoiser of that mixture (the
tests' `toy.mixture_denoiser`), so what is measured is the sampler alone. For each method and number
of steps: agreement (share of frames on the video's most frequent subject), variety (entropy of
those subjects over the seeds, 1 for all alike), error (distance of a frame from its subject over
what the data has), samples (predictions, over co-denoising's of 50 steps).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from toy import mixture_denoiser

from syncos_jax.sampling import CoDenoising, FreeNoise, Sampling, SynCoS
from syncos_jax.sampling.methods import make_call_schedule
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout

LAYOUT = WindowLayout(frames=52, window=13, stride=4)
SCHEDULE = NoiseSchedule.from_betas(
    "scaled_linear", beta_start=0.00085, beta_end=0.012, spacing="trailing"
)
SPREAD = 0.1
ALL_WINDOWS = {"iterations": 1, "learning_rate": 1.0}


def methods(steps: int) -> dict[str, CoDenoising | FreeNoise | SynCoS]:
    """Methods of so many steps, by name."""
    return {
        "co-denoising": CoDenoising(steps=steps),
        "re-noising": CoDenoising(steps=steps, solver="renoise"),
        "re-noising, shared noise": CoDenoising(steps=steps, solver="renoise", shared_noise=True),
        "FreeNoise": FreeNoise(steps=steps),
        "strength 1": SynCoS(steps=steps, strength=1.0),
        "refined above 600": SynCoS(steps=steps, t_min=600, **ALL_WINDOWS),
        "refined above 600, shared noise": SynCoS(
            steps=steps, t_min=600, shared_noise=True, **ALL_WINDOWS
        ),
        "refined first": SynCoS(steps=steps, refine_steps=1, **ALL_WINDOWS),
        "refined first, 4 iterations": SynCoS(
            steps=steps, refine_steps=1, iterations=4, learning_rate=1.0
        ),
        "refined above 600, 4 iterations": SynCoS(
            steps=steps, t_min=600, iterations=4, learning_rate=1.0
        ),
    }


def measure(
    sampler: CoDenoising | FreeNoise | SynCoS, seeds: int, first: int = 0
) -> dict[str, float]:
    """Agreement with its standard error, variety, error, copies and samples of `seeds` videos.

    Copies: what a frame beyond the first clip has besides its subject is new in every frame of the
    data. The mean over these frames of its largest cosine with that of a frame of the first clip; 1
    where each repeats one.
    """
    modes = np.random.default_rng(0).normal(size=(4, 64))
    modes *= 8 / np.linalg.norm(modes, axis=1, keepdims=True)
    one = Sampling(
        mixture_denoiser(modes, SPREAD, SCHEDULE),
        None,
        layout=LAYOUT,
        frame_shape=(4, 4, 4),
        schedule=SCHEDULE,
        sampler=sampler,
        seed=(0,),
    )
    keys = jax.random.split(jax.random.key(first), seeds)
    flat = np.asarray(jax.jit(jax.vmap(one))(keys)).reshape(seeds, LAYOUT.frames, 1, 64)
    away = ((flat - modes) ** 2).sum(axis=-1)
    nearest = away.argmin(axis=-1)
    counts = np.stack([np.bincount(row, minlength=4) for row in nearest])
    share = counts.max(axis=1) / LAYOUT.frames
    chosen = np.bincount(counts.argmax(axis=1), minlength=4) / seeds
    entropy = -(chosen[chosen > 0] * np.log(chosen[chosen > 0])).sum() / np.log(4)
    detail = flat[:, :, 0] - modes[nearest]
    detail /= np.linalg.norm(detail, axis=-1, keepdims=True)
    later, clip = detail[:, LAYOUT.window :], detail[:, : LAYOUT.window]
    copies = np.einsum("sfd,scd->sfc", later, clip).max(axis=-1).mean()
    made = make_call_schedule(LAYOUT, SCHEDULE, sampler.replace(guidance=1.0), cond_index=None)
    return {
        "agreement": float(share.mean()),
        "spread": float(share.std(ddof=1) / np.sqrt(seeds)),
        "variety": float(entropy),
        "error": float(np.sqrt(away.min(axis=-1)).mean() / (SPREAD * np.sqrt(64))),
        "copies": float(copies),
        "samples": made.describe().windows,
    }


def main(
    seeds: Annotated[int, typer.Option(help="Videos of each row.")] = 96,
    steps: Annotated[str, typer.Option(help="Numbers of steps.")] = "4,8,25,50",
    out: Annotated[Path | None, typer.Option(help="Write the table (Markdown).")] = None,
) -> None:
    """Measure every method at every number of steps."""
    whole = 50 * LAYOUT.count
    lines = [
        "| steps | method | samples | agreement | variety | error |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for count in map(int, steps.split(",")):
        for name, sampler in methods(count).items():
            found = measure(sampler, seeds)
            lines.append(
                f"| {count} | {name} | {found['samples'] / whole:.2f} | {found['agreement']:.3f} ± "
                f"{1.96 * found['spread']:.3f} | {found['variety']:.2f} | {found['error']:.2f} |"
            )
            print(lines[-1], flush=True)
    if out is not None:
        out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
