"""The tape: a whole sampling run, written down on the host as rows of numbers.

One row is one call of the network on a fixed number of windows, and what to do before and after
it. Rows that belong together form a *round*: a pass over all windows (stage 1) or over the windows
of one optimiser step (stage 2). What a run costs is known from its tape before it starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.sampling import noise
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.settings import Refinement, TapeSettings
from syncos_jax.sampling.windows import WindowLayout


class Begin(IntEnum):
    """What happens before a row's call of the network."""

    KEEP = 0
    NOISE = 1
    """Draw a new baseline noise."""
    NOISE_AND_OPTIMISER = 2
    """Draw a new baseline noise and start the optimiser anew."""


class Update(IntEnum):
    """What happens to the clean latent after a row's call."""

    KEEP = 0
    FUSE = 1
    """The round is complete: fuse the windows' clean latents (stage 1)."""
    OPTIMISE = 2
    """The round is complete: one optimiser step along the collaborative score (stage 2)."""


class Resume(IntEnum):
    """Whether a row goes on to the next timestep (stage 3), and with which noise."""

    STAY = 0
    IMPLIED = 1
    """With the noise that DDIM implies: ``(x - a x0) / b``."""
    BASELINE = 2
    """With the baseline noise of the refinement."""


class Row(NamedTuple):
    """One row; on a `Tape` each array has the rows as an axis in front.

    Sizes: ``b`` windows of a call, ``B`` windows of an optimiser step.
    """

    index: Any
    """Place on the tape, int32."""
    step: Any
    """Denoising step, int32."""
    t: Any
    """Timestep given to the network, float32."""
    a: Any
    """Signal rate at `t`, float32."""
    b: Any
    """Noise rate at `t`, float32."""
    a_next: Any
    """Signal rate to resume at, float32."""
    keep: Any
    """Rate of the kept noise in the resumed latent, ``sqrt(b_next^2 - sigma^2)``, float32."""
    sigma: Any
    """Rate of the fresh noise in the resumed latent, float32."""
    baseline: Any
    """Draw number of the baseline noise (`syncos_jax.sampling.noise`), uint32."""
    fresh: Any
    """Draw number of the fresh noise, uint32."""
    begin: Any
    """A `Begin`, int32."""
    refine: Any
    """The call's input, bool: False for ``x_t``, True for ``a x0 + b eps``."""
    guided: Any
    """Whether the call's prediction is guided, bool; else it is of the conditioning alone."""
    windows: Any
    """Windows of the call, int32 ``[b]``; places past the round's end repeat its last window."""
    valid: Any
    """False at those places, bool ``[b]``."""
    slot: Any
    """Place of the call's first window in its round, int32."""
    update: Any
    """An `Update`, int32."""
    resume: Any
    """A `Resume`, int32."""
    chosen: Any
    """All windows of the optimiser step that the row belongs to, int32 ``[B]``."""


SAVED = 0.1
"""Share of all places that a second, smaller call must save."""


@dataclass(frozen=True)
class TapeSummary:
    """What a run consists of, known before it starts.

    Attributes:
      rows: calls of the network, each on `batch` windows (twice as many clips with guidance).
      unguided_rows: those of them without guidance.
      batch: windows of a call.
      few: windows of the smaller calls (`Tape.few`), or None.
      small_rows: rows that are such calls.
      windows: windows predicted in all, not counting repeated ones that only fill a call.
      padding: those repeated ones.
      full_calls: how many guided calls on `batch` windows are as much work as all rows.
      steps: denoising steps.
      co_denoising_rounds: passes over all windows.
      refinement_rounds: optimiser steps.
    """

    rows: int
    unguided_rows: int
    batch: int
    few: int | None
    small_rows: int
    windows: int
    padding: int
    full_calls: float
    steps: int
    co_denoising_rounds: int
    refinement_rounds: int

    def __str__(self) -> str:
        each = f"{self.batch} windows each"
        if self.few is not None:
            each = f"{each}, but {self.small_rows} of them on {self.few}"
        return (
            f"{self.rows} calls of the network on {each}: {self.steps} steps, "
            f"{self.co_denoising_rounds} passes over the video, {self.refinement_rounds} optimiser "
            f"steps ({self.windows} windows predicted, {self.padding} places unused)"
        )


@dataclass(frozen=True, eq=False)
class Tape:
    """A sampling run as rows.

    Attributes:
      rows: NumPy arrays, rows in front.
      slots: places that the player must keep for the outputs of one round, a multiple of ``b``.
    """

    rows: Row
    slots: int

    def __len__(self) -> int:
        return len(self.rows.index)

    @property
    def few(self) -> int | None:
        """Windows of a second, smaller call, for the rows that have no more; None where it would
        save less than a tenth of all places, which is not worth a second copy of the network in
        the compiled program."""
        counts, batch = self.rows.valid.sum(axis=1), self.rows.valid.shape[1]
        few = int(counts[counts < batch].max(initial=0))
        saved = (batch - few) * int((counts <= few).sum())
        return few if few and saved >= SAVED * batch * len(self) else None

    def part(self, start: int, stop: int | None = None) -> Row:
        """Rows ``start .. stop-1``, to play a run in parts."""
        return Row(*(column[start:stop] for column in self.rows))

    def describe(self) -> TapeSummary:
        """Counts what the run consists of."""
        valid, few = self.rows.valid, self.few
        windows, batch = valid.sum(axis=1), valid.shape[1]
        small = windows <= (few or 0)
        places = np.where(small, few or 0, batch)
        return TapeSummary(
            rows=len(self),
            unguided_rows=int((~self.rows.guided).sum()),
            batch=batch,
            few=few,
            small_rows=int(small.sum()),
            windows=int(windows.sum()),
            padding=int((places - windows).sum()),
            full_calls=float((places / batch / np.where(self.rows.guided, 1, 2)).sum()),
            steps=len(np.unique(self.rows.step)),
            co_denoising_rounds=int((self.rows.update == Update.FUSE).sum()),
            refinement_rounds=int((self.rows.update == Update.OPTIMISE).sum()),
        )


def make_tape(
    layout: WindowLayout,
    schedule: NoiseSchedule,
    settings: TapeSettings,
    seed: Sequence[int] = (0,),
) -> Tape:
    """Writes a run down.

    Args:
      layout: the windows.
      schedule: the timesteps and their rates.
      settings: the sampler.
      seed: non-negative integers; they decide which windows (and, without the grounded timestep,
        which timesteps) the refinement draws. What is drawn does not depend on ``settings.batch``.

    Raises:
      InputError: if the schedule has no such steps.
    """
    count = layout.count
    steps = schedule.steps(settings.steps, eta=getattr(settings, "eta", 0.0))
    total = len(steps.t)
    if total > noise.MAX_STEPS:
        raise InputError(f"make_tape: {total} steps are too many; at most {noise.MAX_STEPS}")
    per_step = settings.windows_of_step(count) if isinstance(settings, Refinement) else count  # B
    longest = count if settings.co_denoises else per_step
    batch = min(settings.batch or longest, count)
    everything = np.arange(count, dtype=np.int32)
    rows: list[Row] = []

    def add_round(
        template: Row, windows: np.ndarray, *, begin: Begin, update: Update, resume: Resume
    ) -> None:
        for slot in range(0, len(windows), batch):
            part = windows[slot : slot + batch]
            valid = np.arange(batch) < len(part)
            last = slot + batch >= len(windows)
            rows.append(
                template._replace(
                    index=np.int32(len(rows)),
                    windows=np.pad(part, (0, batch - len(part)), mode="edge"),
                    valid=valid,
                    slot=np.int32(slot),
                    begin=np.int32(begin if slot == 0 else Begin.KEEP),
                    update=np.int32(update if last else Update.KEEP),
                    resume=np.int32(resume if last else Resume.STAY),
                )
            )

    for i in range(total):
        last_step = i == total - 1
        refine = settings.refines(float(steps.t[i]))
        a_next, b_next, sigma = steps.a_next[i], steps.b_next[i], steps.sigma[i]
        if not settings.co_denoises:
            a_next, b_next, sigma = 1.0, 0.0, 0.0  # nothing is resumed: the result is x0
        template = Row(
            index=None,
            step=np.int32(i),
            t=np.float32(steps.t[i]),
            a=np.float32(steps.a[i]),
            b=np.float32(steps.b[i]),
            a_next=np.float32(a_next),
            keep=np.float32(np.sqrt(max(b_next**2 - sigma**2, 0.0))),
            sigma=np.float32(sigma),
            baseline=np.uint32(noise.baseline_draw(i)),
            fresh=np.uint32(noise.ddim_draw(i)),
            begin=None,
            refine=np.bool_(False),
            guided=np.bool_(settings.guides(float(steps.t[i]))),
            windows=None,
            valid=None,
            slot=None,
            update=None,
            resume=None,
            chosen=everything[:per_step],
        )
        if settings.co_denoises:
            resume = Resume.STAY if refine else Resume.IMPLIED
            add_round(template, everything, begin=Begin.KEEP, update=Update.FUSE, resume=resume)
        if not refine:
            continue
        assert isinstance(settings, Refinement)
        for k in range(settings.iterations):
            rng = np.random.default_rng([*seed, i, k])
            chosen = everything
            if per_step < count:
                chosen = np.sort(rng.choice(everything, per_step, replace=False))
            row = template._replace(refine=np.bool_(True), chosen=chosen)
            if not settings.grounded_timestep:
                t = schedule.draw_timestep(rng)
                a, b = schedule.rates(t)
                row = row._replace(t=np.float32(t), a=np.float32(a), b=np.float32(b))
            guided = settings.guided_refinement and settings.guides(float(row.t))
            row = row._replace(guided=np.bool_(guided))
            begin = Begin.NOISE_AND_OPTIMISER if k == 0 else Begin.KEEP
            if k > 0 and not settings.fixed_noise:
                begin = Begin.NOISE
                row = row._replace(baseline=np.uint32(noise.baseline_draw(i, k)))
            last = k == settings.iterations - 1 and (settings.co_denoises or last_step)
            resume = Resume.BASELINE if last else Resume.STAY
            add_round(row, chosen, begin=begin, update=Update.OPTIMISE, resume=resume)

    return Tape(
        rows=Row(*(np.stack(column) for column in zip(*rows, strict=True))),
        slots=-(-longest // batch) * batch,
    )
