"""Train the demo model: ``python -m syncos_jax.demo.train --help``.

Stops and resumes: started again with the same folder it goes on from the last checkpoint.
"""

from pathlib import Path
from typing import Annotated

import jax
import typer

from syncos_jax.demo.export import export, training_record
from syncos_jax.demo.sizes import SIZES, TOKENS
from syncos_jax.demo.tokenizer import train_tokenizer
from syncos_jax.demo.train_diffusion import train_diffusion
from syncos_jax.demo.train_vae import train_vae
from syncos_jax.models.tokenizer import PromptTokenizer


def main(
    folder: Annotated[Path, typer.Option(help="Where checkpoints and logs go.")] = Path("training"),
    size: Annotated[str, typer.Option(help=f"One of {', '.join(SIZES)}.")] = "cpu",
    vae_steps: Annotated[int, typer.Option(help="Steps of the autoencoder.")] = 2000,
    steps: Annotated[int, typer.Option(help="Steps of the UNet and the text encoder.")] = 4000,
    seed: Annotated[int, typer.Option(help="Of the weights, the clips and the noise.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Write the trained model to this folder.")
    ] = None,
) -> None:
    """Train tokenizer, autoencoder, text encoder and UNet of the demo model on its drawn world."""
    if size not in SIZES:
        raise typer.BadParameter(f"{size!r} is not one of {', '.join(SIZES)}")
    sizes = SIZES[size]
    train_tokenizer(folder / "tokenizer")
    tokenizer = PromptTokenizer(folder / "tokenizer", TOKENS)
    vae = train_vae(sizes, folder / "vae", vae_steps, seed)
    networks, scale = train_diffusion(sizes, vae, tokenizer, folder / "diffusion", steps, seed)
    if out is not None:
        record = {
            "size": size,
            "vae": training_record(folder / "vae") | {"batch": sizes.vae_batch},
            "diffusion": training_record(folder / "diffusion")
            | {"batch": sizes.batch, "clips": sizes.bank},
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
        }
        export(out, sizes, networks, vae, scale, folder / "tokenizer", {"training": record})
        print(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
