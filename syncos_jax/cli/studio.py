"""``syncos studio``: the page where a team makes, watches and approves videos."""

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

EXAMPLES = """[bold]Examples[/bold]

syncos studio

syncos studio /data/videos --model converted/videocrafter2 --devices all

syncos studio /data/videos --devices 2 --workers 4

SYNCOS_STUDIO_TOKEN=... syncos studio --host 0.0.0.0 --name studio.example.org
"""

TOKEN = "SYNCOS_STUDIO_TOKEN"


def studio(
    folder: Annotated[
        Path,
        typer.Argument(help="Of videos, templates and jobs; made if missing.", metavar="FOLDER"),
    ] = Path("studio"),
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|DIR",
            help="'demo', or the folder of a converted model; @int8 behind it quantizes the "
            "denoiser.",
        ),
    ] = "demo",
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where to listen. Anything but this machine's own address needs --token.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="0 takes a free one.")
    ] = 8188,
    token: Annotated[
        str | None,
        typer.Option(
            envvar=TOKEN,
            metavar="TEXT",
            help="What clients have to show, 16 characters or more; better given in the "
            "environment. By default one is made at each start.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name under which the server is reached, beside its address; may be repeated.",
            show_default=False,
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help="Devices that make one video together. Default: one; with --workers an equal "
            "share of all.",
            show_default=False,
            rich_help_panel=options.PANEL,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Videos made at a time, each on devices of its own.",
            rich_help_panel=options.PANEL,
        ),
    ] = 1,
    queue: Annotated[
        int, typer.Option(min=1, metavar="N", help="Takes that may wait, at most.")
    ] = 100,
    disk: Annotated[
        float, typer.Option(min=0.01, metavar="GIB", help="What FOLDER may hold, at most.")
    ] = 50.0,
    seconds: Annotated[
        float, typer.Option(min=0.1, metavar="N", help="Seconds of a video, at most.")
    ] = 300.0,
    takes: Annotated[int, typer.Option(min=1, metavar="N", help="Takes of a video, at most.")] = 8,
    llm: run_options.LanguageModel = None,
    llm_model: run_options.LanguageModelName = None,
    checkpoint_every: run_options.CheckpointEvery = "30",
    cache: Annotated[
        bool, typer.Option(help="Keep compiled programs for the next start; see syncos compile.")
    ] = True,
) -> None:
    """Open the studio: a page to make, watch and approve videos, and an HTTP API.

    It prints an address. What was being made when it was killed or terminated goes on at the next
    start, and what waited still waits. Needs the extra "studio".
    """
    with user_errors():
        run_options.server_modules()
        from syncos_jax.studio.serving import listening, server
        from syncos_jax.studio.settings import StudioSettings, is_loopback

        _log_warnings()
        _check_model(model)
        with listening(host, port) as socket:
            port = socket.getsockname()[1]
            settings = StudioSettings(
                folder=folder,
                model=model,
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
            typer.echo(f"the studio of {folder}, model {model}; Ctrl-C ends, and keeps what waits")
            running.run(sockets=[socket])
        _end(app.state.studio)


def _log_warnings() -> None:
    """Of the server; what a model does not see of a prompt is told to whoever typed it."""
    logging.basicConfig(format="%(levelname)s: %(message)s".lower(), level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: not record.name.startswith("syncos_jax.models"))


def _check_model(model: str) -> None:
    """Before anything is opened; the model itself is loaded beside the server."""
    from syncos_jax.pipeline.load import model_folder

    model_folder(model)


def _end(studio: Any) -> None:
    """A worker that is within a compilation cannot be stopped; what it makes is begun anew."""
    import sys

    if studio.engine.error is not None:
        raise InputError(str(studio.engine.error))
    if any(worker.is_alive() for worker in studio.workers):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
