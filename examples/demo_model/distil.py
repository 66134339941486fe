"""Distil the demo model to a few steps: ``python examples/demo_model distil --help``.

The student begins as the teacher, and learns to go in one step, without guidance, where the teacher
goes in several guided ones (``demo_model/teacher.py``): trajectory distillation at a fixed list of
timesteps, after Salimans and Ho, arXiv 2202.00512, and Meng et al., arXiv 2210.03142. Weights,
averages and moments are float32. Stops and resumes: started again with the same folder it resumes
from the last checkpoint, with the pairs that it has.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer
from flax import nnx

from demo_model.diffusion import TextToVideo
from demo_model.export import export, training_record
from demo_model.loop import Training
from demo_model.sizes import SIZES, TOKENS, DemoSizes
from demo_model.teacher import Pairs, Teacher
from demo_model.world import Subjects
from syncos_jax.errors import InputError
from syncos_jax.models.few_steps import FewSteps
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet_clip.vae import AutoencoderKL
from syncos_jax.pipeline.load import model_folder
from syncos_jax.runs.exits import exit_on_error
from syncos_jax.weights_convert.diffusers_folder import read_config, read_network

TIMESTEPS = (999.0, 840.0, 600.0, 250.0)
SHARES = (0.45, 0.25, 0.15, 0.15)  # of a batch: the first steps decide most
BATCH = 8
RATE = 5e-4
CHUNKS = 24  # of pairs, in all
AT_FIRST = 3  # chunks before the first step
EVERY = 24  # steps: one more chunk


def batches(teacher: Teacher, start: int, seed: int) -> Iterator[Pairs]:
    """Batches from step `start` on, of more and more pairs."""
    rng = np.random.default_rng((seed, 21, start))
    have: list[Pairs] = []
    step = start
    while True:
        wanted = min(CHUNKS, AT_FIRST + step // EVERY)
        while len(have) < wanted:
            have.append(teacher.pairs(len(have)))
        chosen = []
        for level in rng.choice(len(SHARES), size=BATCH, p=SHARES):
            chunk = have[int(rng.integers(len(have)))]
            size = len(chunk.t) // len(SHARES)
            row = int(level) * size + int(rng.integers(size))
            chosen.append(Pairs(*(column[row] for column in chunk)))
        x, v, *others = (np.stack(column) for column in zip(*chosen, strict=True))
        yield Pairs(x.astype(np.float32), v.astype(np.float32), *others)
        step += 1


def distil(
    networks: TextToVideo, teacher: Teacher, folder: Path, steps: int, seed: int = 0
) -> None:
    """Train (or resume) in ``folder``; ``networks.unet`` gets the averaged weights."""
    graph, params = nnx.split(networks.unet)

    def loss(params: Any, batch: Pairs, key: jax.Array) -> jax.Array:
        text = networks.text_encoder(batch.ids)
        t = jnp.where(batch.known > 0, 0, batch.t[:, None])
        error = jnp.square(nnx.merge(graph, params)(batch.x, t, text) - batch.v)
        made = 1 - batch.known
        return (error.mean(axis=(2, 3, 4)) * made).sum() / made.sum()

    training = Training(folder, steps, RATE, loss)
    average = training.run(params, lambda start: batches(teacher, start, seed), seed)
    nnx.update(networks.unet, average)


@exit_on_error()
def main(
    folder: Annotated[Path, typer.Option(help="Where checkpoints, pairs and the log go.")] = Path(
        "distillation"
    ),
    model: Annotated[str, typer.Option(help="The teacher: demo, or a folder of train --out.")] = (
        "demo"
    ),
    size: Annotated[str, typer.Option(help=f"The teacher's: one of {', '.join(SIZES)}.")] = "cpu",
    steps: Annotated[int, typer.Option(help="Training steps.")] = 1200,
    seed: Annotated[int, typer.Option(help="Of the clips and the noise.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Write the distilled model to this folder.")
    ] = None,
) -> None:
    """Distil a demo model to four steps without guidance."""
    if size not in SIZES:
        raise typer.BadParameter(f"{size!r} is not one of {', '.join(SIZES)}")
    networks, vae, tokenizer, sizes = trained(model, SIZES[size])
    teacher = Teacher(
        networks, vae, tokenizer, sizes.subjects, list(map(int, TIMESTEPS)), folder / "pairs", seed
    )
    distil(networks, teacher, folder, steps, seed)
    if out is not None:
        note = {"teacher": model, "batch": BATCH, **training_record(folder)}
        export(
            out,
            sizes,
            networks,
            vae,
            model_folder(model) / "tokenizer",
            {"stage": "distilled", "distillation": note},
            FewSteps("demo, 4 steps", len(TIMESTEPS), timesteps=TIMESTEPS),
        )
        print(f"wrote {out}")


def trained(
    model: str, sizes: DemoSizes
) -> tuple[TextToVideo, AutoencoderKL, PromptTokenizer, DemoSizes]:
    """The networks of a model's folder, in float32, and their sizes.

    Raises:
        InputError: the folder's networks have other sizes.
    """
    source = model_folder(model)
    config = read_config(source)
    tokenizer = PromptTokenizer(source / "tokenizer", TOKENS)
    if (config.unet, config.vae) != (sizes.unet, sizes.vae):
        raise InputError(
            f"the model {source} has other networks than this size", remedy="choose another --size"
        )
    networks = TextToVideo(sizes, tokenizer.vocabulary, rngs=nnx.Rngs(0))
    networks.unet = read_network(source, "unet", config)
    networks.text_encoder = read_network(source, "text_encoder", config)
    noted = config.notes.get("subjects")
    if noted is not None:
        subjects = Subjects(
            tuple(noted["size"]),
            noted["grown"],
            tuple(noted["travel"]),
            objects=noted.get("objects", False),
        )
        sizes = dataclasses.replace(sizes, subjects=subjects)
    return networks, read_network(source, "vae", config), tokenizer, sizes
