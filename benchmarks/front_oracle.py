"""Initial noise and refinement together, on an exact denoiser.

    python benchmarks/front_oracle.py --out benchmarks/results/front_oracle.md

The mixture of `few_steps_oracle.py`, whose frames share a subject and nothing else. For each way of
starting, of adding noise on the way and of refining: agreement on the subject, variety of the
subjects over the seeds, and copies, what FreeNoise pays (`few_steps_oracle.measure`). A row is
chosen on one set of seeds (the best agreement with copies of at most `--copies`), and all are
reported on another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from few_steps_oracle import LAYOUT, measure

from syncos_jax.sampling import CoDenoising, FlowLong, SynCoS

CHOICE, REPORT = 0, 1
"""Keys that the seeds of the two sets are split from."""


def rows(steps: int) -> list[CoDenoising | FlowLong | SynCoS]:
    """The combinations."""
    made: list[CoDenoising | FlowLong | SynCoS] = [
        CoDenoising(steps=steps, shuffled_noise=share) for share in (0, 0.5, 0.9, 1)
    ]
    made += [
        CoDenoising(steps=steps, shuffled_noise=share, eta=eta)
        for share, eta in ((0, 1), (1, 0.3), (1, 0.5), (1, 1))
    ]
    made += [
        CoDenoising(steps=steps, shuffled_noise=1, eta=1, eta_t_max=t) for t in (900, 800, 600, 400)
    ]
    made += [
        SynCoS(steps=steps, strength=strength, shuffled_noise=share, shared_noise=shared)
        for strength in (0.5, 1)
        for share, shared in ((0, False), (1, True))
    ]
    return [*made, FlowLong(steps=steps)]


def main(
    seeds: Annotated[int, typer.Option(help="Videos of each row and set.")] = 96,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 25,
    copies: Annotated[float, typer.Option(help="Most copies of the row that is chosen.")] = 0.3,
    out: Annotated[Path | None, typer.Option(help="Write the table (Markdown).")] = None,
) -> None:
    """Measure every combination on both sets of seeds, and mark the one chosen on the first."""
    found = {}
    for sampler in rows(steps):
        found[sampler] = [measure(sampler, seeds, first) for first in (CHOICE, REPORT)]
        typer.echo(f"{sampler}: {found[sampler]}")
    may = {row: of[0]["agreement"] for row, of in found.items() if of[0]["copies"] <= copies}
    best = max(may, key=lambda row: may[row], default=None)
    base = steps * LAYOUT.count
    lines = [
        f"`python benchmarks/front_oracle.py --seeds {seeds} --steps {steps} --copies {copies:g}`",
        "",
        "| sampler | samples | agreement | variety | copies | chosen |",
        "|---|---|---|---|---|---|",
    ]
    for sampler, (_, of) in found.items():
        name = str(sampler).replace(f"steps={steps}, ", "").replace(f"steps={steps}", "")
        lines.append(
            f"| `{name}` | {of['samples'] / base:.2f} | {of['agreement']:.3f} ± "
            f"{1.96 * of['spread']:.3f} | {of['variety']:.2f} | {of['copies']:.2f} | "
            f"{'here' if sampler == best else ''} |"
        )
    text = "\n".join(lines) + "\n"
    typer.echo(text, nl=False)
    if out is not None:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
