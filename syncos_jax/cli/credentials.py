"""``syncos credentials``: certificates to sign videos with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from syncos_jax.cli.command import Commands
from syncos_jax.cli.console import user_errors

app = Commands("Make and check certificates for Content Credentials (C2PA).")


@app.command("new")
def new(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.", metavar="DIR")],
    name: Annotated[
        str, typer.Option(metavar="TEXT", help="Organisation named in the certificate.")
    ] = "syncos_jax test",
    days: Annotated[int, typer.Option(min=1, max=3650, metavar="N", help="Validity.")] = 365,
) -> None:
    """Make a test certificate, its authority and its key.

    Nobody else trusts it: it shows that a video is unchanged, not who made it. To sign for others,
    obtain a C2PA signing certificate from an authority on their trust list.
    """
    with user_errors():
        from syncos_jax.media.certificates import (
            CERTIFICATE_VARIABLE,
            KEY_VARIABLE,
            make_test_identity,
        )

        made = make_test_identity(folder, name, days)
        typer.echo(f"{made}: certificate.pem, authority.pem, key.pem (a test certificate)")
        typer.echo(f"export {CERTIFICATE_VARIABLE}={made / 'certificate.pem'}")
        typer.echo(f"export {KEY_VARIABLE}={made / 'key.pem'}")


@app.command("check")
def check(
    certificate: Annotated[
        Path, typer.Argument(help="PEM: the certificate and its chain.", metavar="CERTIFICATE")
    ],
    key: Annotated[Path, typer.Argument(help="PEM: its private key.", metavar="KEY")],
) -> None:
    """Check that a certificate and its key can sign videos today."""
    with user_errors():
        from syncos_jax.media.certificates import identity_from_files

        identity = identity_from_files(certificate, key)
        typer.echo(f"{certificate}: {identity.name}, {identity.algorithm}: can sign")
