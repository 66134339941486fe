"""Settings of the studio."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from syncos_jax.errors import Argument, InputError
from syncos_jax.pipeline.checkpoint import parse_save_interval

PORT = 8188
LEAST_TOKEN = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class StudioSettings:
    """Settings of the studio.

    Attributes:
        folder: of the videos, templates and jobs; made where it does not exist.
        model: name or folder of the model.
        lora: LoRA files to merge into its weights, ``[NETWORK=]FILE[:STRENGTH]`` each.
        host, port: where the server listens; port 0 takes a free one.
        token: what a client has to show; made at random where it is empty, which only a loopback
            address may have.
        hosts: names under which the server is reached, beside addresses and ``localhost``.
        devices: of each worker; None for JAX's default device, or with several workers an equal
            share of all.
        spread: with one worker, take all devices.
        workers: videos that are made at a time, each on devices of its own.
        queue: takes that may wait, at most.
        disk_bytes: what the folder may hold, at most.
        body_bytes: of a request's body, at most.
        picture_bytes: of an uploaded picture, at most.
        pictures: uploaded pictures that are kept, at most.
        events, seconds, takes: of a video, at most.
        clips: predictions of the network for one take, at most.
        every: how often the state of a run is saved, as for `parse_save_interval`.
        cache: whether compiled programs are kept for the next start.
        rate: price of a device hour, for showing costs; None shows none.
        currency: ISO 4217 code of `rate`.
        llm, llm_model: address of an OpenAI-compatible server and its model, which split stories;
            None for rules.
    """

    folder: Path
    model: str = "demo"
    lora: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = PORT
    token: str = field(default="", repr=False)
    hosts: tuple[str, ...] = ()
    devices: int | None = None
    spread: bool = False
    workers: int = 1
    queue: int = 100
    disk_bytes: int = 50 * 2**30
    body_bytes: int = 256 * 2**10
    picture_bytes: int = 10 * 2**20
    pictures: int = 500
    events: int = 64
    seconds: float = 300.0
    takes: int = 8
    clips: int = 500_000
    every: str = "30"
    cache: bool = True
    rate: float | None = None
    currency: str = "EUR"
    llm: str | None = None
    llm_model: str | None = None

    def __post_init__(self) -> None:
        parse_save_interval(self.every)
        least = (
            "workers",
            "queue",
            "disk_bytes",
            "body_bytes",
            "picture_bytes",
            "pictures",
            "events",
            "seconds",
            "takes",
            "clips",
        )
        for name in least:
            if getattr(self, name) <= 0:
                raise InputError(
                    argument=name, expected="a number above 0", value=getattr(self, name)
                )
        if not self.token:
            if not is_loopback(self.host):
                raise InputError(
                    f"can be reached from other machines, which requires a token of at least "
                    f"{LEAST_TOKEN} characters",
                    argument="host",
                    value=self.host,
                    remedy=("pass ", Argument("token")),
                )
            object.__setattr__(self, "token", secrets.token_urlsafe(24))
        if (
            len(self.token) < LEAST_TOKEN
            or not self.token.isascii()
            or not self.token.isprintable()
        ):
            raise InputError(
                argument="token",
                expected=f"{LEAST_TOKEN} or more printable ASCII characters",
                remedy="omit it to use a generated token",
            )
        if (self.llm is None) != (self.llm_model is None):
            raise InputError(
                (Argument("llm"), " and ", Argument("llm_model"), " must be passed together")
            )
