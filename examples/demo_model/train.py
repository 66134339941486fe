"""Train the demo model: ``python examples/demo_model train --help``.

Stops and resumes: started again with the same folder it resumes from the last checkpoint. Between
the stages the tracker reads what has been learned, and stops the training where that is too little.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import typer
from flax import nnx

from demo_model import gates
from demo_model.diffusion import TextToVideo, over_space, over_time, zero_last
from demo_model.export import export, training_record
from demo_model.sizes import SIZES, TOKENS, DemoSizes
from demo_model.tokenizer import train_tokenizer
from demo_model.train_clips import train_clips
from demo_model.train_frames import train_frames
from demo_model.train_text import train_text
from demo_model.train_vae import train_vae
from syncos_jax.errors import InputError
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet_clip.vae import AutoencoderKL
from syncos_jax.pipeline.load import model_folder
from syncos_jax.runs.exits import exit_on_error
from syncos_jax.weights_convert.diffusers_folder import read_config, read_network

STAGES = ("autoencoder", "decoder", "frames", "clips")
UNTIL = ("autoencoder", "frames", "clips")
Parts = tuple[TextToVideo, AutoencoderKL, PromptTokenizer]
TEXT_STEPS = 1500
GATE_FRAMES = 192
GATE_CLIPS = 32


@exit_on_error()
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
    until: Annotated[str, typer.Option(help=f"The last stage: {', '.join(UNTIL)}.")] = "clips",
    start: Annotated[
        str | None,
        typer.Option(help="Go on from a folder that --out wrote, with the stage that follows."),
    ] = None,
) -> None:
    """Train tokenizer, autoencoder, text encoder and UNet of the demo model on its drawn world."""
    if size not in SIZES:
        raise typer.BadParameter(f"{size!r} is not one of {', '.join(SIZES)}")
    if until not in UNTIL:
        raise typer.BadParameter(f"--until {until}: not one of {', '.join(UNTIL)}")
    given = dict(
        zip(STAGES, (autoencoder_steps, decoder_steps, frames_steps, clips_steps), strict=True)
    )
    sizes = with_steps(SIZES[size], given)
    notes: dict[str, Any] = {"stage": until}
    if start is None:
        parts, done = learn_to_see(sizes, folder, seed), UNTIL[0]
    else:
        parts, done, notes["began with"] = begun(sizes, model_folder(start), folder, seed)
    if done == "autoencoder" and until != done:
        learn_to_draw(*parts, sizes, folder, seed)
    if until == "clips":
        train_clips(*parts, sizes, folder / "clips", seed, inflate=done != "clips")
        made = gates.completed_clips(*parts, sizes.subjects, GATE_CLIPS, seed)
        gates.check(
            "clips", gates.completed_right(*made, (0,), sizes.subjects), gates.CLIPS, folder
        )
    if out is not None:
        networks, vae, _ = parts
        if until == "frames":
            silence(networks)
        notes["training"] = record(folder, size, sizes)
        export(out, sizes, networks, vae, folder / "tokenizer", notes)
        print(f"wrote {out}")


def with_steps(sizes: DemoSizes, steps: dict[str, int | None]) -> DemoSizes:
    """The sizes with other lengths of some stages."""
    changed = {
        name: dataclasses.replace(getattr(sizes, name), steps=count)
        for name, count in steps.items()
        if count is not None
    }
    return dataclasses.replace(sizes, **changed)


def learn_to_see(sizes: DemoSizes, folder: Path, seed: int) -> Parts:
    """Tokenizer, autoencoder and text encoder; the UNet has not learned anything yet.

    Raises:
        InputError: the autoencoder is not good enough.
    """
    train_tokenizer(folder / "tokenizer", subjects=sizes.subjects)
    tokenizer = PromptTokenizer(folder / "tokenizer", TOKENS)
    vae = train_vae(sizes, folder / "vae", seed)
    seen = gates.reconstructions(vae, sizes.subjects, GATE_FRAMES, seed)
    gates.check("autoencoder", gates.frames_right(*seen, sizes.subjects), gates.AUTOENCODER, folder)
    networks = untrained(sizes, tokenizer, seed)
    networks.text_encoder = train_text(
        networks.text_encoder, tokenizer, folder / "text", TEXT_STEPS, seed, sizes.subjects
    )
    return networks, vae, tokenizer


def learn_to_draw(
    networks: TextToVideo,
    vae: AutoencoderKL,
    tokenizer: PromptTokenizer,
    sizes: DemoSizes,
    folder: Path,
    seed: int,
) -> None:
    """The UNet on single frames.

    Raises:
        InputError: what it draws is not good enough.
    """
    train_frames(networks, vae, tokenizer, sizes, folder / "frames", seed)
    seen = gates.drawn_frames(networks, vae, tokenizer, sizes.subjects, GATE_FRAMES, seed)
    gates.check("frames", gates.frames_right(*seen, sizes.subjects), gates.FRAMES, folder)


def untrained(sizes: DemoSizes, tokenizer: PromptTokenizer, seed: int) -> TextToVideo:
    """The networks to begin with, whose branches add nothing."""
    networks = TextToVideo(sizes, tokenizer.vocabulary, rngs=nnx.Rngs(seed))
    zero_last(networks.unet)
    return networks


def begun(
    sizes: DemoSizes, source: Path, folder: Path, seed: int
) -> tuple[Parts, str, dict[str, Any]]:
    """The networks of a folder that `export` wrote, its last stage, and its notes.

    Raises:
        InputError: it has other sizes than what is to be trained.
    """
    shutil.copytree(source / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    tokenizer = PromptTokenizer(folder / "tokenizer", TOKENS)
    config = read_config(source)
    ours = {"vae": sizes.vae, "unet": sizes.unet, "text": sizes.text(tokenizer.vocabulary)}
    for name, wanted in ours.items():
        theirs = getattr(config, name)
        if theirs != wanted:
            raise InputError(
                f"the model {source} has another {name} than the size to be trained: {theirs} "
                f"and not {wanted}; leave --start out, or choose another --size"
            )
    stage = str(config.notes.get("stage", "clips"))
    networks = untrained(sizes, tokenizer, seed)
    networks.text_encoder = read_network(source, "text_encoder", config)
    if stage != "autoencoder":
        trained = nnx.state(
            read_network(source, "unet", config), *(() if stage == "clips" else (over_space,))
        )
        nnx.update(networks.unet, trained)
    parts = networks, read_network(source, "vae", config), tokenizer
    return parts, stage, dict(config.notes)


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
