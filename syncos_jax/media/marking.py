"""How a generated video is marked, and what marks a file carries.

Three layers: a watermark in the pixels, signed Content Credentials in the file, and a line in the
local register. docs/marking.md says what each proves and survives.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.media import credentials
from syncos_jax.media.certificates import Identity, identity_from_environment
from syncos_jax.media.register import Register, file_sha256

RUN_ID_DIGITS = 16


@dataclass(frozen=True)
class Marking:
    """What generated videos are marked with; nothing by default.

    Attributes:
        watermark: whether the run's id is hidden in the frames.
        identity: who signs Content Credentials; None for no credentials.
        prompts: whether the credentials hold the prompts, which everybody can then read.
        register: folder of the register; None for that of each video.
    """

    watermark: bool = False
    identity: Identity | None = None
    prompts: bool = False
    register: Path | None = None

    @classmethod
    def from_environment(cls) -> Marking:
        """What SYNCOS_WATERMARK (1 or 0), SYNCOS_CERTIFICATE with SYNCOS_SIGNING_KEY, and
        SYNCOS_SIGN_PROMPTS (1 or 0) ask for.

        Raises:
            InputError: a value that is neither 1 nor 0, or an identity that cannot sign.
        """
        return cls(
            watermark=_switch("SYNCOS_WATERMARK"),
            identity=identity_from_environment(),
            prompts=_switch("SYNCOS_SIGN_PROMPTS"),
        )

    def check(self, path: str | os.PathLike[str], height: int, width: int) -> None:
        """Raises InputError, before any work, where a video of this name and size (pixels) cannot
        be marked so."""
        if self.watermark:
            from syncos_jax.media.watermark import check_size

            check_size(height, width)
        if self.identity is not None:
            credentials.check_signable(path)

    def apply(
        self,
        path: Path,
        run: Mapping[str, Any],
        *,
        title: str = "",
        ingredients: Sequence[Path] = (),
        approvals: Sequence[Mapping[str, Any]] = (),
    ) -> dict[str, Any] | None:
        """Signs a finished video and enters it in the register of its folder.

        Args:
            path: the video, whose frames hold the watermark already.
            run: facts of the run, with its "run_id".
            title: the video's title; signed only with `prompts`.
            ingredients: files that went into it; those that cannot carry credentials are left out.
            approvals: decisions of reviewers that are signed with it.

        Returns:
            What the metadata file says of the marks; None where the video has none.
        """
        if not self.watermark and self.identity is None:
            return None
        folder = self.register or path.parent
        with Register(folder).next_line() as (place, entry):
            where = {"line": place.line, "previous": place.previous}
            if self.identity is not None:
                credentials.sign(
                    path,
                    self.identity,
                    {**run, "watermark": self.watermark, "register": where},
                    title=title if self.prompts else path.stem,
                    ingredients=[
                        file for file in ingredients if file.suffix.lower() in credentials.SIGNABLE
                    ],
                    approvals=approvals,
                )
            entry.update(
                file=Path(os.path.relpath(path, folder)).as_posix(),
                run_id=run["run_id"],
                sha256=None if path.is_dir() else file_sha256(path),
                signed=self.identity is not None,
                watermark=self.watermark,
                created=run.get("created"),
            )
        return {
            "run_id": run["run_id"],
            "watermark": self.watermark,
            "signed_by": self.identity.name if self.identity is not None else None,
            "register": where,
        }


def _switch(variable: str) -> bool:
    value = os.environ.get(variable, "0")
    if value not in ("0", "1", ""):
        raise InputError(f"{variable} is {value!r}, but must be 1 (on) or 0 (off)")
    return value == "1"


def run_id(latents_sha256: str) -> str:
    """The id of a run, 16 hexadecimal digits (64 bits): the same for the same latents."""
    name = f"syncos_jax run {latents_sha256}".encode()
    return hashlib.sha256(name).hexdigest()[:RUN_ID_DIGITS]


@dataclass(frozen=True)
class Marks:
    """What `verify` found on a file.

    Attributes:
        file: its path.
        credentials: what they say.
        run_id: in the watermark; None where there is none or its payload cannot be read.
        watermark: "found", "unreadable" (present, payload lost) or "none".
        false_alarm: bound on the probability of the watermark's score in an unmarked video.
        register: "listed", "changed" (listed, with other bytes), "removed" (the file names a line
            that is not there), "missing" (not listed) or "none" (no register here).
        problems: one sentence each; empty where everything fits together.
    """

    file: str
    credentials: credentials.Credentials
    run_id: str | None
    watermark: str
    false_alarm: float
    register: str
    problems: tuple[str, ...]

    @property
    def marked(self) -> bool:
        """Whether the file itself carries a mark, intact or not."""
        return self.credentials.state != "none" or self.watermark != "none"


def verify(
    path: str | os.PathLike[str],
    *,
    trusted: str | None = None,
    register: str | os.PathLike[str] | None = None,
    search: bool = True,
) -> Marks:
    """Reads all marks of a video and compares them with one another.

    Args:
        path: the video.
        trusted: PEM certificates of trusted authorities; None for none.
        register: folder of the register; None for the nearest one, at most three folders up.
        search: whether to look for watermarks in resized, cropped and retimed videos, too.

    Raises:
        InputError: there is no such video, or the register is damaged.
    """
    from syncos_jax.media.watermark import detect, read_luma

    source = Path(path)
    if source.is_dir():
        signed = credentials.Credentials("none")
    else:
        signed = credentials.read(source, trusted)
    found = detect(*read_luma(source), search=search)
    payload = None if found.payload is None else f"{found.payload:016x}"
    kind = "none" if not found.found else "unreadable" if payload is None else "found"
    listed, entry = _listed(
        source, Register(register or _nearest_register(source)), signed, payload
    )
    return Marks(
        str(source),
        signed,
        payload,
        kind,
        found.false_alarm,
        listed,
        tuple(_problems(signed, payload, kind, listed, entry, strict=trusted is not None)),
    )


def _nearest_register(source: Path) -> Path:
    """The folder, from a video's own three upwards, that has a register; else its own."""
    folders = list(source.absolute().parents)[:3]
    return next((folder for folder in folders if Register(folder).path.exists()), source.parent)


def _listed(
    source: Path, register: Register, signed: credentials.Credentials, payload: str | None
) -> tuple[str, Mapping[str, Any] | None]:
    if not register.path.exists():
        return "none", None
    entries = register.entries()
    sha256 = None if source.is_dir() else file_sha256(source)
    for entry in reversed(entries):
        if sha256 is not None and entry.get("sha256") == sha256:
            return "listed", entry
    run = signed.run or {}
    if isinstance(run.get("register"), dict) and not register.holds(run["register"]):
        return "removed", None
    name = Path(os.path.relpath(source, register.path.parent)).as_posix()
    known = {payload, run.get("run_id")} - {None}
    for entry in reversed(entries):
        if entry.get("run_id") in known or (not known and entry.get("file") == name):
            return ("listed" if entry.get("sha256") is None else "changed"), entry
    return "missing", None


def _problems(
    signed: credentials.Credentials,
    payload: str | None,
    kind: str,
    listed: str,
    entry: Mapping[str, Any] | None,
    *,
    strict: bool,
) -> list[str]:
    problems = []
    if signed.state == "valid" and strict:
        problems.append(f"signed by {signed.signer or 'somebody'}, who is not on the trust list")
    if signed.state == "invalid":
        why = signed.problems[0] if signed.problems else "damaged"
        problems.append(f"changed after signing ({why})")
    if signed.state == "none" and entry is not None and entry.get("signed"):
        problems.append("credentials were removed: the register says that this video was signed")
    if kind == "none" and entry is not None and entry.get("watermark"):
        problems.append("the watermark is gone: the register says that there was one")
    run = signed.run or {}
    if payload is not None and run.get("run_id") not in (None, payload):
        problems.append("credentials and watermark name different runs")
    if listed == "removed":
        problems.append("the line of the register that this video names is not there")
    if listed == "changed":
        problems.append("not the file that the register lists for this run")
    return problems


def trust_list(path: str | os.PathLike[str]) -> str:
    """The text of a file of trusted certificates in PEM form.

    Raises:
        InputError: it cannot be read or holds no certificates.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: cannot be read as certificates in PEM form") from error
    if "BEGIN CERTIFICATE" not in text:
        raise InputError(f"{source}: holds no certificates in PEM form")
    return text
