"""The samplers as plain Python loops, for reading and for comparison.

No compiled loop, no call schedule, no batching of windows: the equations in their order, window by
window, in NumPy float64. Only the network is called in float32. AdamW is written out (Loshchilov
and Hutter, arXiv 1711.05101, algorithm 2, with optax's defaults).
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax.sampling import CoDenoising, KnownFrames
from syncos_jax.sampling.known import REFERENCE_T
from syncos_jax.sampling.schedule import Steps


def steps_plainly(schedule, sampler):
    """The steps of DDIM, of a fixed list, or of another spacing or shift."""
    if sampler.spacing is not None:
        schedule = dataclasses.replace(schedule, spacing=sampler.spacing)
    if sampler.shift is not None:
        schedule = dataclasses.replace(schedule, flow_shift=sampler.shift)
    if not (sampler.timesteps or sampler.sigmas):
        return schedule.steps(sampler.steps, eta=sampler.eta)
    flow = schedule.flow_shift is not None
    if sampler.timesteps:
        t = np.asarray(sampler.timesteps)
    elif flow:
        t = 1000 * np.asarray(sampler.sigmas)
    else:
        ratio = np.log(schedule.noise / schedule.signal)
        t = np.interp(np.log(sampler.sigmas), ratio, np.arange(len(ratio)))
    a, b = (1 - t / 1000, t / 1000) if flow else schedule.rates(t)
    if sampler.sigmas and not flow:
        s = np.asarray(sampler.sigmas)
        a, b = 1 / np.sqrt(1 + s**2), s / np.sqrt(1 + s**2)
    at, to = np.append(a, 1.0), np.append(b, 0.0)
    return Steps(t, a, b, at[1:], to[1:], np.zeros(len(t)))


def sample_plainly(
    denoise,
    cond,
    *,
    uncond=None,
    layout,
    frame_shape,
    schedule,
    sampler,
    key,
    latents=None,
    known=None,
):
    """Arguments and result as those of `syncos_jax.sample`."""
    if sampler.name == "chained":
        video = np.zeros((layout.frames, *frame_shape))
        mask = np.zeros(layout.frames, bool)
        if known is not None:
            mask = np.array(known.mask)
            video[mask] = np.asarray(known.latents)[mask]
        rule = "timestep" if known is not None and known.rule != "replace" else "replace"
        for n, first in enumerate(int(start) for start in layout.starts):
            clip = slice(first, first + layout.window)
            video[clip] = sample_plainly(
                denoise,
                jax.tree.map(lambda leaf, n=n: leaf[n : n + 1], cond),
                uncond=jax.tree.map(lambda leaf, n=n: leaf[n : n + 1], uncond),
                layout=type(layout)(layout.window, layout.window, layout.window),
                frame_shape=frame_shape,
                schedule=schedule,
                sampler=CoDenoising(
                    steps=sampler.steps,
                    guidance=sampler.guidance,
                    eta=sampler.eta,
                    solver=sampler.solver,
                    guidance_rescale=sampler.guidance_rescale,
                ),
                key=jax.random.fold_in(key, n),
                latents=latents if n == 0 else None,
                known=KnownFrames(video[clip], mask[clip], rule),
            )
            mask[clip] = True
        return video
    windows = [range(start, start + layout.window) for start in layout.starts]
    mask = np.zeros(layout.frames, bool) if known is None else np.asarray(known.mask)
    clean = None if known is None else np.asarray(known.latents, np.float64)
    as_timestep = known is not None and known.rule in ("timestep", "reference")
    references = {}  # window -> the last known frame before it, where it holds none
    for n, frames in enumerate(windows):
        earlier = np.flatnonzero(mask[: frames[0]])
        if known is not None and known.rule == "reference" and not mask[list(frames)].any():
            references |= {n: earlier[-1]} if len(earlier) else {}

    def held(x0):
        """The clean latent with the known frames."""
        x0 = np.array(x0)
        if known is not None:
            x0[mask] = clean[mask]
        return x0

    def referenced(window, t):
        return window in references and REFERENCE_T[0] <= t <= REFERENCE_T[1]

    def seen(noisy, window, t):
        """What the network receives of a window's noisy latent."""
        noisy, frames = np.array(noisy), list(windows[window])
        if as_timestep:
            noisy[mask[frames]] = clean[frames][mask[frames]]
        if referenced(window, t):
            noisy[0] = clean[references[window]]
        return noisy

    def exact(window, t):
        """Which places of a window hold a clean frame."""
        places = mask[list(windows[window])].copy()
        places[0] |= referenced(window, t)
        return places

    seed = [int(word) for word in np.asarray(jax.random.key_data(key)).ravel()]
    sampler = sampler.resolved()
    refinement = sampler.refinement
    chosen_count = len(windows)
    if refinement is not None and refinement.windows_per_step is not None:
        chosen_count = refinement.windows_per_step
        if chosen_count < 1:  # a share
            chosen_count = math.ceil(chosen_count * len(windows))
        chosen_count = min(chosen_count, len(windows))
    steps = steps_plainly(schedule, sampler)

    def refines(i):
        if refinement is None:
            return False
        if sampler.name == "refinement_only":
            return True
        if refinement.t_min is not None:
            return steps.t[i] > refinement.t_min
        if refinement.refine_steps is not None:
            return i < refinement.refine_steps
        if refinement.refine_snr is not None:
            return (steps.a[i] / steps.b[i]) ** 2 < refinement.refine_snr
        return True

    def draw(number, order=range(layout.frames)):
        of_draw = jax.random.fold_in(key, np.uint32(number))
        frames = [jax.random.normal(jax.random.fold_in(of_draw, f), frame_shape) for f in order]
        return np.stack([np.asarray(frame, np.float64) for frame in frames])

    def first_noise():
        order = list(range(layout.window))
        share = sampler.shuffled_noise
        if not share:
            return draw(0)
        block = 0
        while len(order) < layout.frames:  # FreeNoise, equation 6
            before = np.asarray(order[block * layout.stride :][: layout.stride], np.int32)
            order += jax.random.permutation(jax.random.fold_in(key, block), before).tolist()
            block += 1
        common = draw(0, order[: layout.frames])
        return common if share == 1 else share**0.5 * common + (1 - share) ** 0.5 * draw(2**32 - 1)

    def noise_of(number):
        return draw(number) if number else first_noise()

    def predict(x, t, a, b, window, guided=True):
        """One window -> its clean latent and its noise."""

        def call(conditioning):
            one = jax.tree.map(lambda leaf: jnp.asarray(leaf)[window][None], conditioning)
            of_frames = np.where(exact(window, t), 0.0, t)[None]
            at = of_frames if as_timestep else np.full((1,), t)
            out = denoise(
                jnp.asarray(seen(x, window, t), jnp.float32)[None],
                jnp.asarray(at, jnp.float32),
                one,
            )
            return np.asarray(out[0], np.float64)

        prompted = value = call(cond)
        highest = np.inf if sampler.guidance_t_max is None else sampler.guidance_t_max
        if uncond is not None and guided and sampler.guidance_t_min <= t <= highest:
            without = call(uncond)
            value = without + sampler.guidance * (value - without)
        x0, eps = decoded(x, a, b, value)
        share = sampler.guidance_rescale or 0.0
        if share and value is not prompted:
            ratio = decoded(x, a, b, prompted)[0].std() / x0.std()
            x0 = x0 * (share * ratio + 1.0 - share)
            eps = (x - a * x0) / b
        return x0, eps

    def decoded(x, a, b, value):
        """A prediction as clean latent and noise."""
        match schedule.prediction:
            case "epsilon":
                return (x - b * value) / a, value
            case "x0":
                return value, (x - a * value) / b
            case "v":  # the inverse of [x; v] = [[a, b], [-b, a]] [x0; eps]
                x0, eps = np.linalg.inv([[a, b], [-b, a]]) @ np.stack([x.ravel(), value.ravel()])
                return x0.reshape(x.shape), eps.reshape(x.shape)
            case "flow":  # x = a x0 + b eps with eps = x0 + v
                x0 = (x - b * value) / (a + b)
                return x0, x0 + value

    def fuse(pieces, t):
        """{window: [w, H, W, C]} -> [F, H, W, C]; 0 where no window is."""
        total = np.zeros((layout.frames, *frame_shape))
        weight = np.zeros(layout.frames)
        for window, piece in pieces.items():
            for place, frame in enumerate(windows[window]):
                if place == 0 and referenced(window, t):
                    continue
                total[frame] += layout.weights[place] * piece[place]
                weight[frame] += layout.weights[place]
        covered = weight > 0
        total[covered] /= weight[covered].reshape(-1, *[1] * len(frame_shape))
        return total

    def collaborative_score(x, s, b):
        """Lists of windows -> list of G."""
        count = len(x)
        d = np.array([[np.sum((xi - xj) ** 2) for xj in x] for xi in x])
        h = np.median(d) / np.log(count + 1)
        if h == 0:
            h = 1.0
        k = np.exp(-d / h)
        return [
            b**2
            / count
            * sum(k[i, j] * s[j] + k[i, j] * (-2 / h) * (x[i] - x[j]) for j in range(count))
            for i in range(count)
        ]

    def renoises(i):
        fresh = sampler.fresh_noise_t_min
        return refines(i) or (fresh is not None and steps.t[i] > fresh)

    def size(values):
        return np.abs(values).mean()

    x = np.asarray(first_noise() if latents is None else latents, np.float64)
    x0, eps = held(x), np.zeros_like(x)
    x = np.array(x)
    if known is not None:
        x[mask] = steps.a[0] * clean[mask] + steps.b[0] * x[mask]
    last, rate = np.zeros_like(x), 0.0  # of the last pass that was computed
    for i in range(len(steps.t)):
        t, a, b = steps.t[i], steps.a[i], steps.b[i]

        may = sampler.reuse is not None and 2 <= i < len(steps.t) - 1
        may = may and not any(renoises(j) for j in (i, i - 1, i - 2))
        if may and rate * size(x - last) / size(eps) < sampler.reuse:
            x0 = held((x - b * eps) / a)
        elif sampler.co_denoise:  # stage 1
            each = {n: predict(x[frames], t, a, b, n)[0] for n, frames in enumerate(windows)}
            x0 = fuse(each, t)
            x0 = held(x0)
            before, eps = eps, (x - a * x0) / b
            last, rate = x, size(eps - before) / size(x - last)

        if refines(i):  # stage 2
            m = v = np.zeros_like(x0)
            for k in range(refinement.iterations):
                if k == 0 or not refinement.fixed_noise:
                    shared = sampler.shared_noise and refinement.fixed_noise
                    eps = noise_of(0 if shared else 2 * i + 2 + (k << 16))
                rng = np.random.default_rng([*seed, i, k])
                chosen = np.arange(len(windows))
                if chosen_count < len(windows):
                    chosen = np.sort(rng.choice(len(windows), chosen_count, replace=False))
                if not refinement.grounded_timestep:
                    t = schedule.draw_timestep(rng)
                    a, b = (float(rate) for rate in schedule.rates(t))
                noisy = [a * x0[windows[n]] + b * eps[windows[n]] for n in chosen]
                s = [
                    predict(noisy[j], t, a, b, n, refinement.guided_refinement)[1] - eps[windows[n]]
                    for j, n in enumerate(chosen)
                ]
                for j, n in enumerate(chosen):  # known frames are exact
                    s[j][exact(n, t)] = 0.0
                noisy = [seen(noisy[j], n, t) for j, n in enumerate(chosen)]
                score = collaborative_score(noisy, s, b)
                g = fuse(dict(zip(chosen.tolist(), score, strict=True)), t)
                m = 0.9 * m + 0.1 * g
                v = 0.999 * v + 0.001 * g**2
                m_hat, v_hat = m / (1 - 0.9 ** (k + 1)), v / (1 - 0.999 ** (k + 1))
                direction = m_hat / (np.sqrt(v_hat) + 1e-8) + refinement.weight_decay * x0
                x0 = held(x0 - refinement.learning_rate * direction)

        fresh = sampler.fresh_noise_t_min
        number = 0 if sampler.shared_noise else 2 * i + 1
        if fresh is not None and steps.t[i] > fresh:  # FlowLong
            x = steps.a_next[i] * x0 + steps.b_next[i] * noise_of(number)
        elif sampler.solver in ("renoise", "lcm") and not refines(i):
            if sampler.solver == "lcm":  # arXiv 2310.04378, section 3.1
                scaled = 10 * t
                x0 = (scaled * x0 + 0.25 * x / np.hypot(scaled, 0.5)) / np.hypot(scaled, 0.5)
            x = steps.a_next[i] * x0 + steps.b_next[i] * noise_of(number)
        elif sampler.co_denoise:  # stage 3
            early = sampler.eta_t_max is not None and steps.t[i] > sampler.eta_t_max
            sigma = 0.0 if early else steps.sigma[i]
            x = steps.a_next[i] * x0 + np.sqrt(steps.b_next[i] ** 2 - sigma**2) * eps
            if sigma > 0:
                x = x + sigma * noise_of(number)
    return held(x if sampler.co_denoise else x0)
