"""Train the demo model: ``python -m syncos_jax.demo.train --help``.

Stops and resumes: started again with the same folder it goes on from the last checkpoint. Between
the stages the tracker reads what has been learned, and stops the training where that is too little.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer
from flax import nnx

from syncos_jax.cli.console import user_errors
from syncos_jax.demo import gates
from syncos_jax.demo.diffusion import TextToVideo, over_time, zero_last
from syncos_jax.demo.export import export, training_record
from syncos_jax.demo.sizes import SIZES, TOKENS, DemoSizes
from syncos_jax.demo.tokenizer import train_tokenizer
from syncos_jax.demo.train_clips import train_clips
from syncos_jax.demo.train_frames import train_frames
from syncos_jax.demo.train_text import train_text
from syncos_jax.demo.train_vae import train_vae
from syncos_jax.errors import InputError
from syncos_jax.models import Model
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet_clip.vae import AutoencoderKL
from syncos_jax.pipeline.load import load_model, model_folder

STAGES = ("autoencoder", "decoder", "frames", "clips")
TEXT_STEPS = 1500
GATE_FRAMES = 192


@user_errors()
def main(
    folder: Annotated[Path, typer.Option(help="Where checkpoints and logs go.")] = Path("training"),
    size: Annotated[str, typer.Option(help=f"One of {', '.join(SIZES)}.")] = "cpu",
    autoencoder_steps: Annotated[
        int | None, typer.Option(help="Steps of the autoencoder; default: the size's.")
    ] = None,
    decoder_steps: Annotated[
        int | None, typer.Option(help="Steps of its decoder alone; default: the size's.")
    ] = None,
    frames_steps: Annotated[
        int | None, typer.Option(help="Steps of the UNet on frames; default: the size's.")
    ] = None,
    clips_steps: Annotated[
        int | None, typer.Option(help="Steps of the UNet on clips; default: the size's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the clips and the noise.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Write the trained model to this folder.")
    ] = None,
    until: Annotated[
        str, typer.Option(help="The last stage: clips, or frames for a model of stills.")
    ] = "clips",
    start: Annotated[
        str | None,
        typer.Option(help="Begin with the clips, from this model (a folder that --out wrote)."),
    ] = None,
) -> None:
    """Train tokenizer, autoencoder, text encoder and UNet of the demo model on its drawn world."""
    if size not in SIZES:
        raise typer.BadParameter(f"{size!r} is not one of {', '.join(SIZES)}")
    if until not in ("frames", "clips"):
        raise typer.BadParameter(f"--until {until}: give frames or clips")
    given = dict(
        zip(STAGES, (autoencoder_steps, decoder_steps, frames_steps, clips_steps), strict=True)
    )
    sizes = with_steps(SIZES[size], given)
    if start is None:
        networks, vae, tokenizer = until_frames(sizes, folder, seed)
        inflate, began = True, None
    else:
        first = load_model(start, "float32")
        networks, vae, tokenizer = begun(first, sizes, str(start), folder)
        inflate, began = first.config.notes.get("stage") == "frames", dict(first.config.notes)
    if until == "clips":
        train_clips(networks, vae, tokenizer, sizes, folder / "clips", seed, inflate)
    else:
        silence(networks)
    if out is not None:
        notes: dict[str, Any] = {"stage": until, "training": record(folder, size, sizes)}
        if began is not None:
            notes["began with"] = began
        dtype = np.float16 if until == "frames" else np.float32
        export(out, sizes, networks, vae, folder / "tokenizer", notes, dtype)
        print(f"wrote {out}")


def with_steps(sizes: DemoSizes, steps: dict[str, int | None]) -> DemoSizes:
    """The sizes with other lengths of some stages."""
    changed = {
        name: dataclasses.replace(getattr(sizes, name), steps=count)
        for name, count in steps.items()
        if count is not None
    }
    return dataclasses.replace(sizes, **changed)


def until_frames(
    sizes: DemoSizes, folder: Path, seed: int
) -> tuple[TextToVideo, AutoencoderKL, PromptTokenizer]:
    """All stages before the clips, each with what it must reach.

    Raises:
        InputError: a stage does not.
    """
    train_tokenizer(folder / "tokenizer")
    tokenizer = PromptTokenizer(folder / "tokenizer", TOKENS)
    vae = train_vae(sizes, folder / "vae", seed)
    seen = gates.reconstructions(vae, sizes.subjects, GATE_FRAMES, seed)
    gates.check("autoencoder", gates.frames_right(*seen), gates.AUTOENCODER, folder)
    networks = TextToVideo(sizes, tokenizer.vocabulary, rngs=nnx.Rngs(seed))
    zero_last(networks.unet)
    networks.text_encoder = train_text(
        networks.text_encoder, tokenizer, folder / "text", TEXT_STEPS, seed
    )
    train_frames(networks, vae, tokenizer, sizes, folder / "frames", seed)
    seen = gates.drawn_frames(networks, vae, tokenizer, sizes.subjects, GATE_FRAMES, seed)
    gates.check("frames", gates.frames_right(*seen), gates.FRAMES, folder)
    return networks, vae, tokenizer


def begun(
    first: Model, sizes: DemoSizes, start: str, folder: Path
) -> tuple[TextToVideo, AutoencoderKL, PromptTokenizer]:
    """The networks and the tokenizer of a model to go on from.

    Raises:
        InputError: it has other sizes than what is to be trained.
    """
    source = model_folder(start) / "tokenizer"
    shutil.copytree(source, folder / "tokenizer", dirs_exist_ok=True)
    tokenizer = PromptTokenizer(folder / "tokenizer", TOKENS)
    ours = {"vae": sizes.vae, "unet": sizes.unet, "text": sizes.text(tokenizer.vocabulary)}
    for name, config in ours.items():
        theirs = getattr(first.config, name)
        if theirs != config:
            raise InputError(
                f"the model {first.config.name!r} has another {name} than the size to be trained: "
                f"{theirs} and not {config}; leave --start out, or choose another --size"
            )
    networks = nnx.eval_shape(lambda: TextToVideo(sizes, tokenizer.vocabulary, rngs=nnx.Rngs(0)))
    networks.unet, networks.text_encoder = first.unet, first.text_encoder
    if first.config.notes.get("stage") == "frames":
        fresh = TextToVideo(sizes, tokenizer.vocabulary, rngs=nnx.Rngs(0))
        zero_last(fresh.unet)
        nnx.update(networks.unet, nnx.state(fresh.unet, over_time))
    return networks, first.vae, tokenizer


def silence(networks: TextToVideo) -> None:
    """Set the temporal layers, which were not trained, to zero: every frame is drawn alone."""
    time = nnx.state(networks.unet, over_time)
    nnx.update(networks.unet, jax.tree.map(jnp.zeros_like, time))


def record(folder: Path, size: str, sizes: DemoSizes) -> dict[str, Any]:
    """How the model was trained, for its notes."""
    logs = {"autoencoder": "vae", "decoder": "vae-decoder", "frames": "frames", "clips": "clips"}
    stages = {
        name: training_record(folder / log) | {"batch": getattr(sizes, name).batch}
        for name, log in logs.items()
    }
    return {
        "size": size,
        **stages,
        "text": training_record(folder / "text"),
        "stills": sizes.stills,
        "bank": sizes.bank,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }


if __name__ == "__main__":
    typer.run(main)
