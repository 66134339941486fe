"""``syncos review``: the page to judge takes by, and the decisions on them."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from syncos_jax.cli.console import FAILED, user_errors
from syncos_jax.cli.run_options import server_modules
from syncos_jax.runs.progress import Phases

if TYPE_CHECKING:
    from syncos_jax.studio.review import Gallery

EXAMPLES = """[bold]Examples[/bold]

syncos review takes

syncos review takes --link --out takes/page.html

syncos review takes --serve

syncos review approve takes/take2.mp4 --by "Ada Example"

syncos review reject takes/take1.mp4 --by "Ada Example" --comment "the ball turns blue"

syncos review status takes --all-approved
"""

_DEFAULT = "page"


class _Group(TyperGroup):
    """``syncos review DIR`` is short for ``syncos review page DIR``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help=(
        "Judge the takes of a folder: a page that shows them side by side, and who approved what."
        "\n\n[bold]syncos review DIR[/bold] writes DIR/review.html, one file that needs no "
        "network: players in step, stills of every event, measures, warnings, settings. Its "
        "options: [bold]syncos review page --help[/bold]."
        "\n\nDecisions are kept in review.json beside the videos. A decision holds for the very "
        "file it was about: a video that is made again is undecided again. (A folder called "
        "approve is given as ./approve.)"
    ),
    epilog=EXAMPLES,
)

Video = Annotated[Path, typer.Argument(help="The video's file.", metavar="VIDEO")]
By = Annotated[
    str | None,
    typer.Option(
        "--by", metavar="NAME", help="Who decides; your login name by default.", show_default=False
    ),
]
Text = Annotated[str, typer.Option("--comment", metavar="TEXT", help="Why, for the others.")]


@app.command("page")
def page(
    folder: Annotated[
        Path, typer.Argument(help="Folder of videos, made by syncos generate.", metavar="DIR")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The page to write; DIR/review.html by default.",
            show_default=False,
        ),
    ] = None,
    link: Annotated[
        bool,
        typer.Option(
            "--link", help="Refer to the videos by relative paths; the page does not hold them."
        ),
    ] = False,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="Show the page with working buttons at an address of this machine (loopback "
            "only), until Ctrl-C; writes no page.",
        ),
    ] = False,
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            metavar="N",
            help="Of --serve; 0 takes a free one.",
            show_default=False,
        ),
    ] = 0,
) -> None:
    """Write the review page of a folder; 'page' may be left out."""
    with user_errors():
        from syncos_jax.errors import InputError
        from syncos_jax.studio.review import Gallery, build_page

        phases = Phases()
        if serve:
            if out is not None or link:
                raise InputError("--serve writes no page; leave out --out and --link")
            return _serve(Gallery(folder), port, phases)
        if port:
            raise InputError("--port belongs to --serve")
        with phases.phase("read", "videos") as progress:
            target = build_page(folder, out, link=link, progress=_videos(progress))
        typer.echo(f"{target}: {target.stat().st_size / 2**20:.1f} MiB; open it in a browser")


def _videos(progress: Any) -> Any:
    """Frames within a video are too many to report off a terminal: videos are counted."""

    def begin(_path: Path, index: int, count: int) -> None:
        progress(index, count)

    return begin


def _serve(gallery: Gallery, port: int, phases: Phases) -> None:
    server_modules()
    from syncos_jax.studio.review import ReviewServer

    with phases.phase("read", "videos") as progress:
        gallery.shown(_videos(progress))
    with ReviewServer(gallery.folder, port, gallery) as server:
        typer.echo(f"{server.url}\nreviewing {gallery.folder}; Ctrl-C ends")
        server.serve_forever()
        phases.say("ended; decisions are in review.json")


@app.command("approve")
def approve(video: Video, by: By = None, comment: Text = "") -> None:
    """Approve a video, as it is now."""
    _decide("approve", video, by, comment)


@app.command("reject")
def reject(video: Video, by: By = None, comment: Text = "") -> None:
    """Reject a video, as it is now; also takes back an approval."""
    _decide("reject", video, by, comment)


@app.command("comment")
def comment(video: Video, comment: Text, by: By = None) -> None:
    """Say something about a video without deciding."""
    _decide("comment", video, by, comment)


def _decide(action: str, video: Path, by: str | None, comment: str) -> None:
    with user_errors():
        from syncos_jax.studio.review.approvals import add_entry

        reviews = add_entry(video, action, by if by is not None else _login(), comment)
        entry = reviews.of(video.name)[-1]
        typer.echo(f"{video}: {entry.action} by {entry.by}, {entry.at}")


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return ""


@app.command("status")
def status(
    place: Annotated[Path, typer.Argument(help="A folder of videos, or one.", metavar="DIR|VIDEO")],
    all_approved: Annotated[
        bool,
        typer.Option(
            "--all-approved",
            help="Exit with code 1 unless every video is approved as it is now (for scripts that "
            "publish).",
        ),
    ] = False,
) -> None:
    """Say what is decided: approved, rejected, undecided, or changed since the decision."""
    with user_errors():
        from rich.console import Console
        from rich.table import Table

        from syncos_jax.studio.review.approvals import check_video, file_sha256, read_reviews
        from syncos_jax.studio.review.takes import find_videos

        videos = find_videos(place) if place.is_dir() else [check_video(place)]
        reviews = read_reviews(videos[0].parent)
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("video", "status", "by", "at", "last said"):
            table.add_column(column, overflow="fold")
        states = []
        for video in videos:
            states.append(reviews.status(video.name, file_sha256(video)))
            decision = reviews.decision(video.name)
            who = (decision.by, decision.at) if decision else ("", "")
            comments = [f"{e.by}: {e.comment}" for e in reviews.of(video.name) if e.comment]
            table.add_row(video.name, states[-1], *who, *comments[-1:])
        Console(highlight=False, markup=False).print(table)
        if all_approved and set(states) != {"approved"}:
            raise typer.Exit(FAILED)
