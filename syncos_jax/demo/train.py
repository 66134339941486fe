"""Train the demo model: ``python -m syncos_jax.demo.train --help``.

Stops and resumes: started again with the same folder it goes on from the last checkpoint.
"""

import shutil
from pathlib import Path
from typing import Annotated, Any

import jax
import typer

from syncos_jax.cli.console import user_errors
from syncos_jax.demo.export import export, training_record
from syncos_jax.demo.sizes import SIZES, TOKENS, DemoSizes
from syncos_jax.demo.tokenizer import train_tokenizer
from syncos_jax.demo.train_diffusion import train_diffusion
from syncos_jax.demo.train_vae import train_vae
from syncos_jax.errors import InputError
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.models.unet_clip.model import unet_clip
from syncos_jax.pipeline.load import load_model, model_folder


@user_errors()
def main(
    folder: Annotated[Path, typer.Option(help="Where checkpoints and logs go.")] = Path("training"),
    size: Annotated[str, typer.Option(help=f"One of {', '.join(SIZES)}.")] = "cpu",
    vae_steps: Annotated[int, typer.Option(help="Steps of the autoencoder.")] = 2000,
    steps: Annotated[int, typer.Option(help="Steps of the UNet and the text encoder.")] = 4000,
    seed: Annotated[int, typer.Option(help="Of the weights, the clips and the noise.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Write the trained model to this folder.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="Begin with the weights and the tokenizer of this model ('demo', or a folder), "
            "instead of random ones; where its UNet has another size, with its autoencoder alone."
        ),
    ] = None,
) -> None:
    """Train tokenizer, autoencoder, text encoder and UNet of the demo model on its drawn world."""
    if size not in SIZES:
        raise typer.BadParameter(f"{size!r} is not one of {', '.join(SIZES)}")
    sizes = SIZES[size]
    first = None if start is None else unet_clip(load_model(start, "float32"))
    if first is None:
        train_tokenizer(folder / "tokenizer")
    else:
        check_sizes(sizes, first.config)
        source = model_folder(str(start)) / "tokenizer"
        shutil.copytree(source, folder / "tokenizer", dirs_exist_ok=True)
    tokenizer = PromptTokenizer(folder / "tokenizer", TOKENS)
    vae = train_vae(sizes, folder / "vae", vae_steps, seed, first)
    networks, scale = train_diffusion(
        sizes, vae, tokenizer, folder / "diffusion", steps, seed, first
    )
    if out is not None:
        record = {
            "size": size,
            "vae": training_record(folder / "vae") | {"batch": sizes.vae_batch},
            "text": training_record(folder / "text"),
            "diffusion": training_record(folder / "diffusion")
            | {"batch": sizes.batch, "clips": sizes.bank},
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
        }
        notes: dict[str, Any] = {"training": record}
        if first is not None:
            notes["began with"] = dict(first.config.notes)
        export(out, sizes, networks, vae, scale, folder / "tokenizer", notes)
        print(f"wrote {out}")


def check_sizes(sizes: DemoSizes, config: ModelConfig) -> None:
    """Refuse to begin with an autoencoder of another size; a UNet of another size begins anew."""
    if sizes.vae != config.vae:
        raise InputError(
            f"the model {config.name!r} has another autoencoder than the size to be trained: "
            f"{config.vae} and not {sizes.vae}; leave --start out, or choose another --size"
        )


if __name__ == "__main__":
    typer.run(main)
