"""What a distilled model learns from: steps of the teacher between a few timesteps.

A trajectory goes from noise to a clean clip through the student's timesteps, ``SUBSTEPS`` guided
steps of DPM-Solver++ (2M) from each to the next. At some of these timesteps it goes on from fresh
noise at that level instead, as samplers that add noise and the refinement of SynCoS do. A pair is
where such a part begins, and the one prediction that leads straight to where it ends.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from demo_model.clip_batches import Captions
from demo_model.diffusion import SCHEDULE, TextToVideo
from demo_model.export import GUIDANCE
from demo_model.known import known_frames
from demo_model.world import Subjects, render, sample_scene
from syncos_jax.files import replacing
from syncos_jax.metrics.world import CLIP_FRAMES
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet_clip.vae import AutoencoderKL
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.solvers import Solver, coefficients

CLIPS = 32  # trajectories made at once
SUBSTEPS = 3
FRESH = 0.4  # of the trajectories, at each timestep: go on from fresh noise
KNOWN = 0.12  # of the clips have known frames


class Pairs(NamedTuple):
    """Pairs, with a leading axis ``N``.

    Attributes:
        x: noisy latents ``[N, F, h, w, C]``.
        v: the prediction to learn, like ``x``.
        t: timestep, int32 ``[N]``.
        ids: tokens of the captions ``[N, S]``.
        known: 1 for frames that are known, else 0: ``[N, F]``.
    """

    x: Any
    v: Any
    t: Any
    ids: Any
    known: Any


class Part(NamedTuple):
    """The teacher's steps from one of the student's timesteps to the next."""

    t: np.ndarray
    """Timesteps, int32 ``[S]``."""
    rows: np.ndarray
    """Signal and noise rate, coefficients of ``x`` and of this and the last clean latent, float32
    ``[S, 5]``."""
    start: tuple[float, float]
    """Signal and noise rate where it begins."""
    end: tuple[float, float]
    """Those where it ends."""


def parts(timesteps: Sequence[int]) -> list[Part]:
    """The teacher's steps between falling `timesteps`, and from the last to the clean latent."""
    schedule = NoiseSchedule.from_betas(**SCHEDULE)
    made = []
    for here, there in zip(timesteps, [*timesteps[1:], -1], strict=True):
        t = np.round(np.linspace(here, there, SUBSTEPS + 1)).astype(np.int64)
        a, b = (rate[t[:-1]] for rate in (schedule.signal, schedule.noise))
        end = (1.0, 0.0) if there < 0 else (schedule.signal[there], schedule.noise[there])
        a, b = np.append(a, end[0]), np.append(b, end[1])
        table = coefficients(Solver("dpm++", lower_order_final=False), a, b)
        rows = np.stack([a[:-1], b[:-1], table.x, table.x0[:, 0], table.x0[:, 1]], axis=1)
        start = float(a[0]), float(b[0])
        made.append(
            Part(
                t[:-1].astype(np.int32),
                rows.astype(np.float32),
                start,
                (float(end[0]), float(end[1])),
            )
        )
    return made


class Teacher:
    """Makes pairs with the networks of a trained model, and keeps them in a folder."""

    def __init__(
        self,
        networks: TextToVideo,
        vae: AutoencoderKL,
        tokenizer: PromptTokenizer,
        subjects: Subjects,
        timesteps: Sequence[int],
        folder: Path,
        seed: int = 0,
    ):
        graph, params = nnx.split(networks.unet)
        self._params = jax.tree.map(jnp.copy, params)  # the training of the student donates its own
        self._networks, self._vae, self._tokenizer = networks, vae, tokenizer
        self._subjects, self._folder, self._seed = subjects, folder, seed
        self._timesteps, self._parts = list(timesteps), parts(timesteps)
        self._encode = nnx.jit(lambda vae, x: vae.encode(x)[0])
        free = networks.text_encoder(jnp.asarray(tokenizer([""] * CLIPS)))

        def run(params, x, x0, known, text, t, rows):
            held = known[..., None, None, None] > 0

            def step(state, now):
                x, last = state
                t, (a, b, of_x, of_x0, of_last) = now
                x = jnp.where(held, x0, x)
                times = jnp.where(known > 0, 0, t)
                both = nnx.merge(graph, params)(
                    jnp.concatenate([x, x]),
                    jnp.concatenate([times, times]),
                    jnp.concatenate([text, free]),
                )
                prompted, unprompted = jnp.split(both, 2)
                v = unprompted + GUIDANCE * (prompted - unprompted)
                clean = jnp.where(held, x0, (a * x - b * v) / (a * a + b * b))
                return (of_x * x + of_x0 * clean + of_last * last, clean), None

            return jax.lax.scan(step, (x, jnp.zeros_like(x)), (t, rows))[0]

        self._run = jax.jit(run)

    def pairs(self, number: int) -> Pairs:
        """Chunk `number` of ``CLIPS * len(timesteps)`` pairs: from its file, or made."""
        file = self._folder / f"pairs-{number:04}.npz"
        if file.is_file():
            with np.load(file) as held:
                return Pairs(*(held[name] for name in Pairs._fields))
        made = self._make(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part, part.open("wb") as stream:
            np.savez(stream, **made._asdict())
        return made

    def _make(self, number: int) -> Pairs:
        rng = np.random.default_rng((self._seed, 20, number))
        scenes = [sample_scene(rng, self._subjects) for _ in range(CLIPS)]
        ids = Captions(self._tokenizer, rng)(scenes)
        text = self._networks.text_encoder(jnp.asarray(ids))
        images = render(scenes).astype(np.float32) / np.float32(127.5) - 1
        flat = self._encode(self._vae, jnp.asarray(images.reshape(-1, *images.shape[2:])))
        x0 = flat.reshape(CLIPS, CLIP_FRAMES, *flat.shape[1:])
        known = np.zeros((CLIPS, CLIP_FRAMES), np.float32)
        for i in np.flatnonzero(rng.random(CLIPS) < KNOWN):
            known[i] = known_frames(rng)
        held = known[..., None, None, None] > 0

        def draw() -> np.ndarray:
            return rng.standard_normal(x0.shape).astype(np.float32)

        x, clean, made = draw(), None, []
        for t, part in zip(self._timesteps, self._parts, strict=True):
            if clean is not None:
                fresh = (rng.random(CLIPS) < FRESH)[:, None, None, None, None]
                x = np.where(fresh, part.start[0] * clean + part.start[1] * draw(), x)
            x = np.where(held, x0, x).astype(np.float32)
            reached, clean = self._run(self._params, x, x0, known, text, part.t, part.rows)
            reached, clean = np.asarray(reached), np.asarray(clean)
            times = np.full(CLIPS, t, np.int32)
            v = straight(x, reached, part.start, part.end)
            made.append(Pairs(x.astype(np.float16), v.astype(np.float16), times, ids, known))
            x = reached
        return Pairs(*(np.concatenate(column) for column in zip(*made, strict=True)))


def straight(
    x: np.ndarray, reached: np.ndarray, start: tuple[float, float], end: tuple[float, float]
) -> np.ndarray:
    """The ``v`` with which one DDIM step goes from `x` to `reached`.

    Salimans and Ho, arXiv 2202.00512, algorithm 2.
    """
    (a, b), (a_next, b_next) = start, end
    ratio = b_next / b
    clean = (reached - ratio * x) / (a_next - ratio * a)
    return (a * x - (a * a + b * b) * clean) / b
