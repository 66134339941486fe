"""The call schedule of SynCoS and its parts: which update steps a run has, with which numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.sampling import noise
from syncos_jax.sampling.call_schedule import (
    MAX_SAMPLES_PER_CALL,
    CallSchedule,
    Samples,
    choose_samples_per_call,
    make_samples,
    pack,
)
from syncos_jax.sampling.sampler_config import Refinement, SamplerConfig
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.solver_choice import resolve_solver, solver_coefficients, timesteps_for
from syncos_jax.sampling.syncos_method import UpdateStep
from syncos_jax.sampling.windows import WindowLayout


def make_call_schedule(
    layout: WindowLayout,
    schedule: NoiseSchedule,
    settings: SamplerConfig,
    seed: Sequence[int] = (0,),
    *,
    cond_index: Sequence[np.ndarray] | None = None,
    num_shards: int = 1,
) -> CallSchedule:
    """The call schedule of a run; arguments and errors as for `methods.make_call_schedule`."""
    settings = settings.resolved()
    if cond_index is None:
        everything = np.arange(layout.count, dtype=np.int32)
        cond_index = (everything, everything + layout.count)
    writer = _Writer(layout, schedule, settings, [int(word) for word in seed], cond_index)
    writer.write()
    most = MAX_SAMPLES_PER_CALL
    if settings.windows_per_call is not None:
        most = settings.windows_per_call * writer.kinds
    b = choose_samples_per_call([len(c.windows) for c in writer.samples], most, num_shards)
    calls, used = pack(writer.samples, b)
    updates = UpdateStep(*(np.stack(column) for column in zip(*writer.updates, strict=True)))
    start = float(writer.steps.a[0]), float(writer.steps.b[0])
    return CallSchedule(calls, used, updates, start)


class _Writer:
    """Collects update steps and their samples."""

    def __init__(
        self,
        layout: WindowLayout,
        schedule: NoiseSchedule,
        settings: SamplerConfig,
        seed: list[int],
        cond_index: Sequence[np.ndarray],
    ) -> None:
        assert settings.steps is not None
        self.settings, self.schedule = settings, schedule
        self.seed, self.cond_index = seed, cond_index
        self.everything = np.arange(layout.count, dtype=np.int32)
        solver = resolve_solver(schedule, settings)
        if settings.reuse is not None and solver.stochastic:
            raise InputError(
                f"needs steps that add no noise, but the model's solver {solver.name} adds some",
                argument="reuse",
                remedy="choose another solver or omit reuse",
            )
        self.steps = timesteps_for(schedule, settings)
        if len(self.steps.t) > noise.MAX_STEPS:
            raise InputError(
                argument="steps", expected=f"at most {noise.MAX_STEPS}", value=len(self.steps.t)
            )
        refinement = settings.refinement
        count = layout.count if refinement is None else refinement.windows_of_step(layout.count)
        self.per_step = count  # B
        self.refined = np.array([self._refines(i) for i in range(len(self.steps.t))], bool)
        fresh = np.array([settings.draws_fresh(float(t)) for t in self.steps.t], bool)
        self.fresh, self.renoised = fresh, fresh | self.refined
        self.reusable = self._reusable()
        self.table = solver_coefficients(solver, self.steps, self.renoised)
        self.updates: list[UpdateStep] = []
        self.samples: list[Samples] = []
        self.kinds = 1  # samples of a window, at most

    def write(self) -> None:
        settings, steps = self.settings, self.steps
        for i in range(len(steps.t)):
            update = self._template(i)
            refinement, refines = settings.refinement, self.refined[i]
            if settings.co_denoise:
                self._add(
                    update._replace(resume=np.bool_(not refines)),
                    self.everything,
                    settings.sample_weights(float(steps.t[i])),
                )
            if refines:
                assert refinement is not None
                self._refine(i, update, refinement)

    def _refines(self, i: int) -> bool:
        steps, refinement = self.steps, self.settings.refinement
        at = float(steps.t[i]), float(steps.a[i]), float(steps.b[i])
        return refinement is not None and refinement.runs_at(i, *at)

    def _reusable(self) -> np.ndarray:
        """Steps whose stage 1 may be left out: after two passes that implied their noise
        themselves, and not the last step."""
        implied = ~self.renoised
        may = implied.copy()
        may[:2], may[-1] = False, False
        may[2:] &= implied[1:-1] & implied[:-2]
        return may

    def _refine(self, i: int, template: UpdateStep, refinement: Refinement) -> None:
        last_step = i == len(self.steps.t) - 1
        for k in range(refinement.iterations):
            rng = np.random.default_rng([*self.seed, i, k])
            chosen = self.everything
            if self.per_step < len(chosen):
                chosen = np.sort(rng.choice(chosen, self.per_step, replace=False))
            drawn = k == 0 or not refinement.fixed_noise
            last = k == refinement.iterations - 1
            update = template._replace(
                refine=np.bool_(True),
                chosen=chosen,
                draw_noise=np.bool_(drawn),
                restart=np.bool_(k == 0),
                noise_id=np.uint32(self._baseline(i, k if drawn else 0)),
                resume=np.bool_(last and (self.settings.co_denoise or last_step)),
            )
            if not refinement.grounded_timestep:
                t = self.schedule.draw_timestep(rng)
                a, b = self.schedule.rates(t)
                update = update._replace(t=np.float32(t), a=np.float32(a), b=np.float32(b))
            weights: tuple[float, ...] = (1.0,)
            if refinement.guided_refinement:
                weights = self.settings.sample_weights(float(update.t))
            self._add(update, chosen, weights)

    def _add(self, update: UpdateStep, windows: np.ndarray, weights: tuple[float, ...]) -> None:
        samples = make_samples(windows, self.cond_index, weights)
        self.kinds = max(self.kinds, len(samples.windows) // len(windows))
        self.updates.append(update._replace(samples=np.int32(len(samples.windows))))
        self.samples.append(samples)

    def _baseline(self, i: int, iteration: int = 0) -> int:
        """Draw number of the baseline noise."""
        refinement = self.settings.refinement
        if self.settings.shared_noise and refinement is not None and refinement.fixed_noise:
            return noise.INITIAL
        return noise.baseline_draw(i, iteration)

    def _template(self, i: int) -> UpdateStep:
        steps, refinement = self.steps, self.settings.refinement or Refinement()
        a_next, b_next, sigma = steps.a_next[i], steps.b_next[i], steps.sigma[i]
        x_coef, x0_coefs = 0.0, np.zeros(0)
        fresh = noise.INITIAL if self.settings.shared_noise else noise.ddim_draw(i)
        latest = self.settings.eta_t_max
        if latest is not None and steps.t[i] > latest:
            sigma = 0.0
        if self.table is not None:
            x_coef, x0_coefs = self.table.x[i], self.table.x0[i]
            # A refined step resumes with the baseline noise, and adds none.
            sigma = 0.0 if self.renoised[i] else self.table.noise[i]
        if self.fresh[i]:
            sigma = b_next
        if not self.settings.co_denoise:
            a_next, b_next, sigma = 1.0, 0.0, 0.0  # nothing is resumed: the result is x0
        return UpdateStep(
            step=np.int32(i),
            t=np.float32(steps.t[i]),
            a=np.float32(steps.a[i]),
            b=np.float32(steps.b[i]),
            refine=np.bool_(False),
            draw_noise=np.bool_(False),
            noise_id=np.uint32(self._baseline(i)),
            restart=np.bool_(False),
            learning_rate=np.float32(refinement.learning_rate),
            weight_decay=np.float32(refinement.weight_decay),
            chosen=self.everything[: self.per_step],
            resume=np.bool_(False),
            a_next=np.float32(a_next),
            eps_coef=np.float32(np.sqrt(max(b_next**2 - sigma**2, 0.0))),
            sigma=np.float32(sigma),
            fresh_noise_id=np.uint32(fresh),
            renoise=np.bool_(self.renoised[i]),
            reuse=np.float32(self.settings.reuse or 0.0 if self.reusable[i] else 0.0),
            samples=np.int32(0),
            clip=np.int32(0),
            x_coef=np.float32(x_coef),
            x0_coefs=np.asarray(x0_coefs, np.float32),
        )
