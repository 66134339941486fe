"""``syncos studio``: a web page where a team creates, watches and approves videos."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from syncos_jax.cli import devices as options
from syncos_jax.cli import run_options
from syncos_jax.cli.console import user_errors
from syncos_jax.errors import InputError

EXAMPLES = """Examples:
  syncos studio
  syncos studio /data/videos --model converted/videocrafter2 --devices all
  syncos studio /data/videos --devices 2 --workers 4
  SYNCOS_STUDIO_TOKEN=... syncos studio --host 0.0.0.0 --name studio.example.org
"""

TOKEN = "SYNCOS_STUDIO_TOKEN"


def studio(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of videos, templates and jobs; created if missing.", metavar="FOLDER"
        ),
    ] = Path("studio"),
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|DIR",
            help="'demo', or a model folder; append @int8 to quantize the denoiser.",
        ),
    ] = "demo",
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "--lora",
            metavar="FILE[:STRENGTH]",
            help="A LoRA to merge into the model's weights as they are loaded. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on. Any other than this machine's loopback "
            "address needs a token in $SYNCOS_STUDIO_TOKEN.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, metavar="N", help="Port to listen on (0: any free port)."),
    ] = 8188,
    token: Annotated[
        str | None,
        typer.Option(
            envvar=TOKEN,
            metavar="TEXT",
            help="Deprecated: use $SYNCOS_STUDIO_TOKEN.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=("Host name of the server, in addition to its address; can be repeated."),
            show_default=False,
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help="Devices that share one video. Default: one; with --workers and "
            "all, an equal share.",
            show_default=False,
            rich_help_panel=options.PANEL,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Videos generated at the same time, each on its own devices.",
            rich_help_panel=options.PANEL,
        ),
    ] = 1,
    queue: Annotated[
        int, typer.Option(min=1, metavar="N", help="Maximum number of queued takes.")
    ] = 100,
    disk: Annotated[
        float, typer.Option(min=0.01, metavar="GIB", help="Maximum size of FOLDER.")
    ] = 50.0,
    seconds: Annotated[
        float, typer.Option(min=0.1, metavar="N", help="Maximum length of a video in seconds.")
    ] = 300.0,
    takes: Annotated[
        int, typer.Option(min=1, metavar="N", help="Maximum number of takes per video.")
    ] = 8,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="N",
            help="Price of a device hour; the page then shows costs in money.",
            show_default=False,
        ),
    ] = None,
    currency: Annotated[
        str, typer.Option(metavar="CODE", help="Currency of --rate (ISO 4217).")
    ] = "EUR",
    llm: run_options.LanguageModel = None,
    llm_model: run_options.LanguageModelName = None,
    checkpoint_every: run_options.CheckpointEvery = "30",
    cache: Annotated[
        bool, typer.Option(help="Cache compiled programs; see syncos compile.")
    ] = True,
) -> None:
    """Start the studio: a web page to create, watch and approve videos.

    Also serves an HTTP API, and prints its address. After a restart, queued jobs stay queued and
    running jobs resume. Clients need the token in $SYNCOS_STUDIO_TOKEN (16 characters or more;
    generated at each start by default). Needs the extra "studio".
    """
    with user_errors():
        run_options.server_modules()
        from syncos_jax.studio.serving import listening, server
        from syncos_jax.studio.settings import StudioSettings, is_loopback

        _log_warnings()
        _check_model(model, lora or [])
        with listening(host, port) as socket:
            port = socket.getsockname()[1]
            settings = StudioSettings(
                folder=folder,
                model=model,
                lora=tuple(lora or ()),
                host=host,
                port=port,
                token=token or "",
                hosts=tuple(name or ()),
                devices=options.read_devices(devices),
                spread=devices == "all",
                workers=workers,
                queue=queue,
                disk_bytes=int(disk * 2**30),
                seconds=seconds,
                takes=takes,
                every=checkpoint_every,
                cache=cache,
                rate=rate,
                currency=currency,
                llm=llm,
                llm_model=llm_model,
            )
            from syncos_jax.studio import create_app

            app = create_app(settings)
            running = server(app, app.state.studio.stop)
            app.state.studio.engine.failed = lambda: setattr(running, "should_exit", True)
            shown = host if is_loopback(host) or token is None else "HOST"
            own = f"[{shown}]" if ":" in shown else shown
            address = f"http://{own}:{port}/"
            typer.echo(address if token else f"{address}?token={settings.token}")
            typer.echo(f"studio of {folder}, model {model}; press Ctrl-C to stop (jobs are kept)")
            running.run(sockets=[socket])
        _end(app.state.studio)


def _log_warnings() -> None:
    """Logs the server's warnings; those about prompts go to whoever typed them."""
    logging.basicConfig(format="%(levelname)s: %(message)s".lower(), level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: not record.name.startswith("syncos_jax.models"))


def _check_model(model: str, lora: list[str]) -> None:
    """Raises InputError before the server starts; the model is loaded in the background."""
    from syncos_jax.pipeline.load import model_folder
    from syncos_jax.scenario.lora_files import LoraFile, check_lora

    model_folder(model)
    for text in lora:
        check_lora(LoraFile.parse(text))


def _end(studio: Any) -> None:
    """Ends the process; a worker inside a compilation cannot be stopped, and its job restarts."""
    import sys

    if studio.engine.error is not None:
        raise InputError(str(studio.engine.error))
    if any(worker.is_alive() for worker in studio.workers):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
