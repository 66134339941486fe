"""``syncos convert``: PyTorch weights in, a model's folder out."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from syncos_jax.cli.console import flag, user_errors
from syncos_jax.errors import InputError, worded
from syncos_jax.runs.progress import Phases

EXAMPLES = """[bold]Examples[/bold]

syncos convert checkpoints/base_512_v2/model.ckpt --out models/videocrafter2

syncos convert text-to-video-ms-1.7b --out models/modelscope --dtype bfloat16

syncos convert unet.safetensors --config inference_t2v_512_v2.0.yaml --only unet --out models/unet

Then: syncos generate story.yaml --model models/videocrafter2 --out story.mp4
"""


class Format(StrEnum):
    """Formats of checkpoints."""

    videocrafter = "videocrafter"
    diffusers = "diffusers"
    wan = "wan"


class Network(StrEnum):
    """Networks of a model."""

    unet = "unet"
    transformer = "transformer"
    transformer_2 = "transformer_2"
    vae = "vae"
    text_encoder = "text_encoder"


class DType(StrEnum):
    """Types of weights on disk."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def read_size(text: str) -> tuple[int, int]:
    """``"576x320"`` -> ``(576, 320)``; raises InputError."""
    found = re.fullmatch(r"\s*0*(\d{1,5})\s*[xX×*]\s*0*(\d{1,5})\s*", text)
    if not found or "0" in found.groups():
        raise InputError(f"--size: {text!r} is no size; give WIDTHxHEIGHT in pixels, as 576x320")
    return int(found[1]), int(found[2])


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="VideoCrafter's model.ckpt (or the same as .safetensors), a folder of diffusers' "
            "text-to-video pipelines, a folder or file of Wan's own, or an id on the Hugging Face "
            "hub.",
            metavar="SOURCE",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="The model's folder to write.")
    ],
    format: Annotated[
        Format | None,
        typer.Option("--format", help="What SOURCE is; recognised by default.", show_default=False),
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="For VideoCrafter checkpoints: the original code's YAML, or JSON of unet_config, "
            "ddconfig, text_cfg; may be given several times. VideoCrafter2's by default.",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        Network | None,
        typer.Option(
            help="One network alone; SOURCE may hold just its tensors.", show_default=False
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder with CLIP's vocab.json and merges.txt, where SOURCE has no tokenizer; by "
            "default that of an installed open_clip, else from the hub.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        DType | None,
        typer.Option(
            help="Of the weights on disk; the checkpoint's by default.", show_default=False
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Frames of a clip, where SOURCE does not say (a folder of diffusers' does not).",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Width and height of a frame in pixels; by default what SOURCE says.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of several sets of weights in a checkpoint, the one to take.",
            show_default=False,
        ),
    ] = None,
    ema: Annotated[
        bool, typer.Option("--ema", help="Take the averaged copy (EMA) of the weights.")
    ] = False,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "--lora",
            metavar="FILE[:SCALE]",
            help="A LoRA to merge into the denoiser (NETWORK=FILE for another network); may be "
            "given several times.",
            show_default=False,
        ),
    ] = None,
    motion: Annotated[
        str | None,
        typer.Option(
            metavar="ADAPTER",
            help="A motion adapter of AnimateDiff's (folder, file or hub id), where SOURCE is a "
            "folder of Stable Diffusion 1.5.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace DIR if it is there.")] = False,
) -> None:
    """Convert PyTorch weights to a model that generate, info and load_model take.

    VideoCrafter2 as published, ModelScope's text-to-video, ZeroScope, AnimateDiff, CogVideoX, Wan
    2.1 and 2.2 (text to video), and their like of any size.

    Every tensor has to find its place and every place its tensor; nothing in a pickle is executed.
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
            result = work(source, out, **options, progress=progress)
        for warning in result.warnings:
            phases.say(f"warning: {worded(warning, flag)}")
        counts = ", ".join(f"{name} {count:,}" for name, count in result.parameters.items())
        typer.echo(f"{out}: {counts} parameters, {result.nbytes / 2**30:.2f} GiB")
