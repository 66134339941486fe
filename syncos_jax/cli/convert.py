"""``syncos convert``: convert PyTorch checkpoints."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from syncos_jax.cli.console import flag, user_errors
from syncos_jax.cli.scenario_options import read_size
from syncos_jax.errors import worded
from syncos_jax.runs.progress import Phases

EXAMPLES = """Examples:
  syncos convert checkpoints/base_512_v2/model.ckpt --out models/videocrafter2
  syncos convert text-to-video-ms-1.7b --out models/modelscope --dtype bfloat16
  syncos convert --transformer wan2.1_t2v_1.3B_fp16.safetensors --vae wan_2.1_vae.safetensors
    --text-encoder umt5_xxl_fp16.safetensors --out models/wan
  syncos convert unet.safetensors --config inference_t2v_512_v2.0.yaml --only unet --out models/unet

Then: syncos generate story.yaml --model models/videocrafter2 --out story.mp4
"""


class Format(StrEnum):
    """Checkpoint formats."""

    videocrafter = "videocrafter"
    diffusers = "diffusers"
    wan = "wan"


class Network(StrEnum):
    """Networks of a model."""

    unet = "unet"
    transformer = "transformer"
    transformer_2 = "transformer_2"
    connectors = "connectors"
    vae = "vae"
    text_encoder = "text_encoder"


class DType(StrEnum):
    """Dtypes of weights on disk."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def _file(text: str) -> Any:
    return typer.Option(metavar="FILE", help=text, show_default=False)


def convert(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.")],
    source: Annotated[
        str | None,
        typer.Argument(
            help="A checkpoint file (safetensors, GGUF or PyTorch), a folder in diffusers' or the "
            "authors' layout, ComfyUI's models folder, or an id on the Hugging Face hub.",
            metavar="[SOURCE]",
            show_default=False,
        ),
    ] = None,
    transformer: Annotated[
        Path | None, _file("The transformer's file or folder, in place of SOURCE.")
    ] = None,
    transformer_2: Annotated[
        Path | None,
        _file("The second transformer's (low noise), for Wan 2.2 A14B."),
    ] = None,
    text_encoder: Annotated[Path | None, _file("The text encoder's file or folder.")] = None,
    vae: Annotated[Path | None, _file("The autoencoder's file or folder.")] = None,
    format: Annotated[
        Format | None,
        typer.Option("--format", help="Format of SOURCE; detected by default.", show_default=False),
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="For VideoCrafter checkpoints: the original YAML, or JSON of "
            "unet_config, ddconfig, text_cfg; can be repeated. Default: "
            "VideoCrafter2's.",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        Network | None,
        typer.Option(
            help="Convert one network only; SOURCE may hold just its tensors.", show_default=False
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder with the tokenizer's files, where SOURCE has none; for CLIP by default "
            "that of an installed open_clip, else from the hub.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        DType | None,
        typer.Option(
            help="Dtype of the weights on disk. Default: the checkpoint's.", show_default=False
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help=("Frames per clip, if SOURCE does not state it (diffusers folders do not)."),
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help=("Width and height of a frame in pixels. Default: as stated in SOURCE."),
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=("Which set of weights to convert, if the checkpoint has several."),
            show_default=False,
        ),
    ] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Convert the averaged weights (EMA).")] = False,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "--lora",
            metavar="FILE[:SCALE]",
            help="A LoRA to merge, into the denoiser and, where it has layers of it, the text "
            "encoder; NETWORK=FILE for one network alone. May be given several times.",
            show_default=False,
        ),
    ] = None,
    motion: Annotated[
        str | None,
        typer.Option(
            metavar="ADAPTER",
            help="An AnimateDiff motion module (folder, file or hub id), where SOURCE is Stable "
            "Diffusion 1.5, a folder or a checkpoint.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace DIR if it exists.")] = False,
) -> None:
    """Convert PyTorch checkpoints for use with syncos.

    Supports VideoCrafter2, ModelScope text-to-video, ZeroScope, AnimateDiff, CogVideoX, LTX-2, and
    Wan 2.1 and 2.2 (text-to-video) at any size, in float, fp8 (scaled or not) or GGUF.

    Missing, unknown and misshaped tensors are errors. Pickle code is never executed.
    """
    with user_errors():
        phases = Phases()
        with phases.phase("convert", "tensors") as progress:
            from syncos_jax.weights_convert.convert import convert as work

            options: dict[str, Any] = {
                "format": format and format.value,
                "config": config,
                "only": only and only.value,
                "tokenizer": tokenizer,
                "dtype": dtype and dtype.value,
                "window": window,
                "size": None if size is None else read_size(size),
                "key": key,
                "ema": ema,
                "lora": lora or (),
                "motion": motion,
                "force": force,
            }
            # Not in a thread: Ctrl-C must come to where the half-written folder is removed.
            given = {
                "transformer": transformer,
                "transformer_2": transformer_2,
                "text_encoder": text_encoder,
                "vae": vae,
            }
            files = {network: path for network, path in given.items() if path is not None}
            result = work(source, out, files=files, **options, progress=progress)
        for warning in result.warnings:
            phases.say(f"warning: {worded(warning, flag)}")
        counts = ", ".join(f"{name} {count:,}" for name, count in result.parameters.items())
        typer.echo(f"{out}: {counts} parameters, {result.nbytes / 2**30:.2f} GiB")
