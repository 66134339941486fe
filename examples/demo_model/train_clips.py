"""Training of the demo model's UNet on clips: how what it can draw moves.

It continues from what was learned on single frames. The temporal layers begin at zero,
except for the marks of the frames, and learn fast; the others learn slowly, and go on seeing single
frames next to the clips, so that they forget nothing.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from demo_model.bank import encode_bank
from demo_model.clip_batches import Batch, clip_batches, pair_ranks, reversed_scene
from demo_model.diffusion import TextToVideo, over_time, velocity_error, without_time
from demo_model.frame_marks import mark_frames
from demo_model.known import Turn, render_turns, sample_turn
from demo_model.loop import Training
from demo_model.sizes import DemoSizes
from demo_model.train_frames import Frames, frame_batches, still_bank, still_timesteps
from demo_model.world import Scene, prompt, sample_scene
from syncos_jax.errors import InputError
from syncos_jax.metrics.world import CLIP_FRAMES
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet_clip.vae import AutoencoderKL

CONTINUED = 0.5  # learning rate where clips are known already, of that of the first training
SLOW = 0.3  # learning rate of the layers that know single frames already, of the others'
NOISIEST = 0.3  # of the schedule: there a noisy clip hardly tells its motion, and the caption must
STILLS = 1.0  # single frames in a step, of the number of its clips
PROBE_AT = 970  # timestep
PROBE_CLIPS = 32
PROBE_EVERY = 250  # steps
TOLD_AFTER = 10_000  # clips by which the caption's motion has to make a difference


class Step(NamedTuple):
    """What one step is trained on."""

    clips: Batch
    frames: Frames


def frame_timesteps(
    key: jax.Array, u: jax.Array, noisy: jax.Array, known: jax.Array, total: int
) -> jax.Array:
    """Timesteps ``[B, F]`` to train at, of draws ``u [B]`` in 0..1.

    Those that are ``noisy [B]`` have one for all frames, in the noisiest part of the schedule. Of
    the others six in ten have one for all frames, as in sampling, four in ten of them above 85 %
    of the schedule, where the caption tells what the noisy clip does not. In three in ten one frame
    is nearly clean, mostly the first or the last, and the others very noisy: then what the caption
    says of the motion decides where the subject is in all the rest. In one in ten the frames are
    independent (Diffusion Forcing, arXiv 2407.01392), as diagonal denoising wants it. Clips with
    ``known [B, F]`` frames have one timestep for all others.
    """
    B, frames = known.shape
    key_kind, key_anchor, key_end, key_low, key_free = jax.random.split(key, 5)
    kind = jax.random.uniform(key_kind, (B, 1))
    anchor = jax.random.randint(key_anchor, (B, 1), 0, frames)
    end = jax.random.uniform(key_end, (B, 1))
    anchor = jnp.where(end < 0.3, 0, jnp.where(end < 0.6, frames - 1, anchor))
    low = 0.3 * jax.random.uniform(key_low, (B, 1))
    late = lambda u: 1 - jnp.square(1 - u)  # noqa: E731
    shared = jnp.broadcast_to(late(u)[:, None], (B, frames))
    anchored = jnp.where(anchor == jnp.arange(frames)[None], low, late(shared))
    free = late(jax.random.uniform(key_free, (B, frames)))
    kind = jnp.where(known.max(axis=1, keepdims=True) > 0, 0.0, kind)
    level = jnp.where(kind < 0.6, shared, jnp.where(kind < 0.9, anchored, free))
    highest = jnp.broadcast_to(1 - NOISIEST * jnp.square(u)[:, None], (B, frames))
    level = jnp.where(noisy[:, None] > 0, highest, level)
    return jnp.minimum((level * total).astype(jnp.int32), total - 1)


def clip_bank(
    vae: AutoencoderKL, sizes: DemoSizes, folder: Path, seed: int
) -> tuple[np.ndarray, list[Scene]]:
    """Latents ``[sizes.bank, F, h, w, C]`` of clips, and their scenes."""
    rng = np.random.default_rng((seed, 5))
    scenes = [sample_scene(rng, sizes.subjects) for _ in range(sizes.bank)]
    return encode_bank(vae, scenes, CLIP_FRAMES, folder / "clips.npz"), scenes


def turn_bank(
    vae: AutoencoderKL, sizes: DemoSizes, folder: Path, seed: int
) -> tuple[np.ndarray, list[Turn]]:
    """Latents ``[sizes.bank // 2, F, h, w, C]`` of clips whose motion turns, and what they show."""
    rng = np.random.default_rng((seed, 10))
    turns = [sample_turn(rng, sizes.subjects) for _ in range(sizes.bank // 2)]
    return encode_bank(vae, turns, CLIP_FRAMES, folder / "turns.npz", render_turns), turns


def train_clips(
    networks: TextToVideo,
    vae: AutoencoderKL,
    tokenizer: PromptTokenizer,
    sizes: DemoSizes,
    folder: Path,
    seed: int = 0,
    inflate: bool = True,
) -> None:
    """Train (or resume) in ``folder``; ``networks.unet`` gets the averaged weights.

    Args:
        networks: what was learned on single frames, or with ``inflate=False`` on clips.
        vae, tokenizer, sizes, seed: as for the other stages.
        folder: of checkpoints and the log; the banks of latents lie in it too.
        inflate: whether the temporal layers begin here.

    Raises:
        InputError: the caption's motion still makes no difference after ``TOLD_AFTER`` clips.
    """
    latents, scenes = clip_bank(vae, sizes, folder, seed)
    if inflate:
        mark_frames(networks.unet, frames=CLIP_FRAMES, seed=seed)
    graph, time, space = nnx.split(networks.unet, over_time, ...)  # type: ignore[misc]
    still_graph = without_time(networks.unet)

    def loss(params: dict[str, Any], batch: Step, key: jax.Array) -> jax.Array:
        key_t, key_u, key_noise, key_still, key_frames = jax.random.split(key, 5)
        clips, frames = batch
        B, F = clips.latents.shape[:2]
        # One draw in each of B equal intervals: less spread than B free draws.
        u = (jnp.arange(B, dtype=jnp.float32) + jax.random.uniform(key_u, (B,))) / B
        t = frame_timesteps(key_t, u, clips.noisy, clips.known, 1000)
        unet = nnx.merge(graph, params["time"], params["space"])
        text = networks.text_encoder(clips.ids)
        moving = velocity_error(unet, clips.latents, t, text, key_noise, clips.known)
        t = still_timesteps(key_still, frames.latents.shape[0], 1000)[:, None]
        unet = nnx.merge(still_graph, params["space"])
        text = networks.text_encoder(frames.ids)
        still = velocity_error(unet, frames.latents, t, text, key_frames)
        return moving.mean() + still.mean() * (frames.latents.shape[0] / (B * F))

    stage = sizes.clips
    banks = (latents, scenes), turn_bank(vae, sizes, folder, seed)
    stills = still_bank(vae, sizes, folder, seed)
    probe = _MotionProbe(graph, networks, tokenizer, latents, scenes)

    def check(params: dict[str, Any], step: int) -> dict[str, float]:
        right, opposite, pictured, error = probe(params)
        if inflate and TOLD_AFTER <= step * stage.batch and opposite - right < 3 * error:
            raise InputError(
                f"after {step * stage.batch} clips the caption's motion makes no difference: loss "
                f"{right:.5f} with the right one, {opposite:.5f} with the opposite one; see "
                f"{folder / 'log.jsonl'}"
            )
        return {"right_motion": right, "opposite_motion": opposite, "first_known": pictured}

    average = Training(
        folder,
        stage.steps,
        stage.rate * (1.0 if inflate else CONTINUED),
        loss,
        scales={"time": 1.0, "space": SLOW},
        probe=check,
        probe_every=PROBE_EVERY,
    ).run(
        {"time": time, "space": space},
        lambda start: _steps(banks, stills, tokenizer, stage.batch, seed, start, inflate),
        seed,
    )
    nnx.update(networks.unet, average["time"], average["space"])


def _steps(
    banks: Any,
    stills: Any,
    tokenizer: PromptTokenizer,
    batch: int,
    seed: int,
    start: int,
    inflate: bool,
):
    """The stream of steps from ``start`` on."""
    seen = start * batch if inflate else TOLD_AFTER**2
    clips = clip_batches(banks, tokenizer, batch, (seed, 6, start), seen)
    number = max(1, int(STILLS * batch))
    frames: Iterator[Frames] = frame_batches(*stills, tokenizer, number, (seed, 7, start))
    for pair in zip(clips, frames, strict=False):
        yield Step(*pair)


class _MotionProbe:
    """Whether the noisiest clips are denoised better with the right motion than with its opposite.

    On the clips that the lesson begins with, with the same noise for both.
    """

    def __init__(self, graph, networks: TextToVideo, tokenizer, latents, scenes: list[Scene]):
        chosen = np.argsort(pair_ranks(scenes), kind="stable")[:PROBE_CLIPS]
        self._x0 = jnp.asarray(latents[chosen], jnp.float32)
        picked = [scenes[i] for i in chosen]
        texts = [[prompt(s) for s in picked], [prompt(reversed_scene(s)) for s in picked]]
        self._texts = [networks.text_encoder(jnp.asarray(tokenizer(words))) for words in texts]
        t = jnp.full(self._x0.shape[:2], PROBE_AT, jnp.int32)
        self._first = jnp.zeros(self._x0.shape[:2]).at[:, 0].set(1)
        self._error = jax.jit(
            lambda params, text, known: velocity_error(
                nnx.merge(graph, params["time"], params["space"]),
                self._x0, t, text, jax.random.key(0), known,
            )
        )  # fmt: skip

    def __call__(self, params: dict[str, Any]) -> tuple[float, float, float, float]:
        """Loss with the right and with the opposite motion, and with the right one and the first
        frame known; standard error of the difference of the first two."""
        none = jnp.zeros_like(self._first)
        right, opposite = (np.asarray(self._error(params, text, none)) for text in self._texts)
        pictured = self._error(params, self._texts[0], self._first)
        off = opposite - right
        spread = float(off.std(ddof=1) / np.sqrt(len(off))) if len(off) > 1 else 0.0
        return float(right.mean()), float(opposite.mean()), float(pictured.mean()), spread
