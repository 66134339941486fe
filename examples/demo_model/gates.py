"""What a stage of the training must reach before the next one begins."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from demo_model.diffusion import SCHEDULE, TextToVideo, over_space, without_time
from demo_model.export import GUIDANCE
from demo_model.train_vae import stills
from demo_model.world import LARGE_SUBJECTS, Scene, Subjects, prompt, render, sample_scene
from demo_model.world.recognise import see
from syncos_jax.errors import InputError
from syncos_jax.metrics.world import SIZE
from syncos_jax.metrics.world.tracker import motion
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet_clip.vae import AutoencoderKL
from syncos_jax.sampling.schedule import NoiseSchedule

AUTOENCODER = {"shape": 0.98, "colour": 0.98, "background": 0.98}
FRAMES = {"shape": 0.95, "colour": 0.98, "background": 0.98}
CLIPS = {"shape": 0.95, "colour": 0.98, "background": 0.98, "motion": 0.9}
STEPS = 25  # of sampling


def frames_right(
    frames: np.ndarray, scenes: list[Scene], subjects: Subjects = LARGE_SUBJECTS
) -> dict[str, float]:
    """Share of frames ``[n, 64, 64, 3]`` uint8, each read alone, that show what they should."""
    seen = see(frames, subjects)
    return {
        name: float(
            np.mean(getattr(seen, name) == [values.index(getattr(s, name)) for s in scenes])
        )
        for name, values in subjects.attributes.items()
        if name != "motion"
    }


def _pixels(decoded: jax.Array) -> np.ndarray:
    return np.asarray(jnp.clip(jnp.round(127.5 * decoded + 127.5), 0, 255)).astype(np.uint8)


def reconstructions(
    vae: AutoencoderKL, subjects: Subjects, number: int, seed: int
) -> tuple[np.ndarray, list[Scene]]:
    """Frames ``[number, 64, 64, 3]`` that went through the autoencoder and back; their scenes."""
    scenes = stills(np.random.default_rng((seed, 8)), number, subjects)
    images = jnp.asarray(render(scenes, 1)[:, 0], jnp.float32) / 127.5 - 1
    return _pixels(nnx.jit(lambda vae, x: vae.decode(vae.encode(x)[0]))(vae, images)), scenes


def drawn_frames(
    networks: TextToVideo,
    vae: AutoencoderKL,
    tokenizer: PromptTokenizer,
    subjects: Subjects,
    number: int,
    seed: int,
) -> tuple[np.ndarray, list[Scene]]:
    """Single frames ``[number, 64, 64, 3]`` drawn without the temporal layers, and their scenes."""
    scenes = stills(np.random.default_rng((seed, 9)), number, subjects)
    graph, params = without_time(networks.unet), nnx.state(networks.unet, over_space)
    side = 64 // vae.config.factor
    nothing = jnp.zeros((number, 1, side, side, vae.config.latent_channels))
    texts = _texts(networks, tokenizer, [prompt(scene) for scene in scenes])
    latents = _sample((graph, params), nothing, jnp.zeros((number, 1)), texts, seed)
    return _decoded(vae, latents)[:, 0], scenes


def completed_clips(
    networks: TextToVideo,
    vae: AutoencoderKL,
    tokenizer: PromptTokenizer,
    subjects: Subjects,
    number: int,
    seed: int,
    known: Sequence[int] = (0,),
) -> tuple[np.ndarray, list[Scene], np.ndarray]:
    """Clips of which some frames are given, drawn, and the others are made from the prompt.

    Args:
        networks, vae, tokenizer, subjects: of the model.
        number: of clips.
        seed: of the scenes and the noise.
        known: places of the given frames.

    Returns:
        Clips uint8 ``[number, F, 64, 64, 3]``, their scenes, and the same clips with the given
        frames alone made by the autoencoder.
    """
    rng = np.random.default_rng((seed, 11))
    scenes = [sample_scene(rng, subjects) for _ in range(number)]
    images = jnp.asarray(render(scenes), jnp.float32) / 127.5 - 1
    encode = nnx.jit(lambda vae, x: vae.encode(x)[0])
    flat = encode(vae, images.reshape(-1, *images.shape[2:]))
    x0 = flat.reshape(*images.shape[:2], *flat.shape[1:])
    mask = jnp.zeros(images.shape[:2]).at[:, jnp.asarray(known)].set(1)
    texts = _texts(networks, tokenizer, [prompt(scene) for scene in scenes])
    latents = _sample(nnx.split(networks.unet), x0, mask, texts, seed)
    return _decoded(vae, latents), scenes, _decoded(vae, x0)


def completed_right(
    clips: np.ndarray,
    scenes: list[Scene],
    given: np.ndarray,
    known: Sequence[int],
    subjects: Subjects = LARGE_SUBJECTS,
) -> dict[str, float]:
    """Whether completed clips continue what they were given.

    Args:
        clips, scenes, given: from `completed_clips`.
        known: places of the given frames.
        subjects: of the world.

    Returns:
        Share of the clips with the right motion (read over all frames); shares of the made frames
        with the right shape, colour and background; ``kept``: largest difference of a known frame
        from its own encoding and decoding, of 255; ``jump``: the 90th percentile over clips of how
        far the subject moves or grows (px) from a known frame to the made one next to it, more
        than between drawn frames.
    """
    made = [f for f in range(clips.shape[1]) if f not in known]
    edges = [(f, f + 1) for f in range(clips.shape[1] - 1) if (f in known) != (f + 1 in known)]
    right, jumps = [], []
    for clip, scene in zip(clips, scenes, strict=True):
        seen, path = see(clip, subjects), scene.path()
        frames = frames_right(clip[made], [scene] * len(made), subjects)
        right.append(frames | {"motion": float(motion(seen) == scene.motion)})
        found = np.stack([seen.x, seen.y, seen.size], axis=1)
        found[:, 2] *= np.nanmedian(path[:, 2] / found[:, 2])  # of whatever is called size
        moved = [found[b] - found[a] - (path[b] - path[a]) for a, b in edges]
        jumps.append(float(np.nan_to_num(np.abs(moved), nan=SIZE).max()))
    known = list(known)
    apart = np.abs(clips[:, known].astype(int) - given[:, known])
    means = {name: float(np.mean([each[name] for each in right])) for name in right[0]}
    return means | {"kept": float(apart.max()), "jump": float(np.percentile(jumps, 90))}


def _texts(
    networks: TextToVideo, tokenizer: PromptTokenizer, prompts: list[str]
) -> tuple[jax.Array, jax.Array]:
    """Features of the prompts, and of as many empty ones: ``[n, S, D]`` each."""
    empty = tokenizer([""] * len(prompts))
    text, free = (networks.text_encoder(jnp.asarray(ids)) for ids in (tokenizer(prompts), empty))
    return text, free


def _sample(
    split: tuple[Any, Any], x0: jax.Array, known: jax.Array, texts: Any, seed: int
) -> jax.Array:
    """Guided DDIM of a split UNet; known frames ``[n, F]`` of ``x0 [n, F, h, w, C]`` stay clean,
    at timestep 0."""
    graph, params = split
    steps = NoiseSchedule.from_betas(**SCHEDULE).steps(STEPS)
    rows = jnp.asarray(np.stack(steps[1:5], axis=1), jnp.float32), jnp.asarray(steps.t, jnp.int32)
    is_known = known[..., None, None, None] > 0

    def step(params, x: jax.Array, row: tuple[jax.Array, jax.Array]):
        (a, b, a_next, b_next), t = row
        unet = nnx.merge(graph, params)
        times = jnp.where(known > 0, 0, t)
        prompted, free = (unet(x, times, text) for text in texts)
        v = free + GUIDANCE * (prompted - free)
        x_next = a_next * (a * x - b * v) + b_next * (b * x + a * v)
        return jnp.where(is_known, x0, x_next), None

    x = jnp.where(is_known, x0, jax.random.normal(jax.random.key(seed), x0.shape))
    sampled: jax.Array = jax.jit(
        lambda params, x: jax.lax.scan(lambda x, row: step(params, x, row), x, rows)[0]
    )(params, x)
    return sampled


def _decoded(vae: AutoencoderKL, latents: jax.Array) -> np.ndarray:
    """Frames uint8 ``[n, F, H, W, 3]`` of latents ``[n, F, h, w, C]``."""
    frames = _pixels(nnx.jit(AutoencoderKL.decode)(vae, latents.reshape(-1, *latents.shape[2:])))
    return frames.reshape(*latents.shape[:2], *frames.shape[1:])


def check(
    stage: str, figures: Mapping[str, float], limits: Mapping[str, float], folder: Path
) -> None:
    """Note the figures in ``gates.jsonl`` and stop the training where one is too low.

    Raises:
        InputError: says which, and what to do.
    """
    with (folder / "gates.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"stage": stage, **figures}) + "\n")
    print(f"{stage}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)
    low = [name for name, limit in limits.items() if figures[name] < limit]
    if low:
        said = ", ".join(f"{name} {figures[name]:.3f} (at least {limits[name]})" for name in low)
        raise InputError(
            f"the {stage} stage is not good enough to go on: {said}; train it for more steps "
            f"(--{stage}-steps), in the same folder"
        )
