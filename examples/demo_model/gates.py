"""What a stage of the training must reach before the next one begins."""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from demo_model.diffusion import SCHEDULE, TextToVideo, over_space, without_time
from demo_model.evaluate import prompt
from demo_model.export import GUIDANCE
from demo_model.train_vae import stills
from demo_model.world import Scene, Subjects, render
from syncos_jax.errors import InputError
from syncos_jax.metrics.world import BACKGROUNDS, COLOURS, SHAPES
from syncos_jax.metrics.world.tracker import track
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet_clip.vae import AutoencoderKL
from syncos_jax.sampling.schedule import NoiseSchedule

AUTOENCODER = {"shape": 0.98, "colour": 0.98, "background": 0.98}
FRAMES = {"shape": 0.95, "colour": 0.98, "background": 0.98}
STEPS = 25  # of sampling


def frames_right(frames: np.ndarray, scenes: list[Scene]) -> dict[str, float]:
    """Share of frames ``[n, 64, 64, 3]`` uint8, each read alone, that show what they should."""
    seen = track(frames)
    wanted = {"shape": SHAPES, "colour": tuple(COLOURS), "background": BACKGROUNDS}
    return {
        name: float(
            np.mean(getattr(seen, name) == [values.index(getattr(s, name)) for s in scenes])
        )
        for name, values in wanted.items()
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
    text = networks.text_encoder(jnp.asarray(tokenizer([prompt(s) for s in scenes])))
    empty = networks.text_encoder(jnp.asarray(tokenizer([""] * number)))
    steps = NoiseSchedule.from_betas(**SCHEDULE).steps(STEPS)
    rows = jnp.asarray(np.stack(steps[1:5], axis=1), jnp.float32), jnp.asarray(steps.t, jnp.int32)
    graph = without_time(networks.unet)

    def step(params, x: jax.Array, row: tuple[jax.Array, jax.Array]):
        (a, b, a_next, b_next), t = row
        unet = nnx.merge(graph, params)
        t = jnp.broadcast_to(t, (number,))
        prompted, free = unet(x, t, text), unet(x, t, empty)
        v = free + GUIDANCE * (prompted - free)
        return a_next * (a * x - b * v) + b_next * (b * x + a * v), None

    side = 64 // vae.config.factor
    x = jax.random.normal(jax.random.key(seed), (number, 1, side, side, vae.config.latent_channels))
    params = nnx.state(networks.unet, over_space)
    sampled = jax.jit(lambda p, x: jax.lax.scan(lambda x, r: step(p, x, r), x, rows)[0])(params, x)
    return _pixels(nnx.jit(AutoencoderKL.decode)(vae, sampled[:, 0])), scenes


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
