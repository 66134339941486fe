"""Content Credentials (C2PA): a signed statement inside a file of how it was made.

The manifest says that a model created the file (IPTC's digital source type
trainedAlgorithmicMedia), which model and software, and the hash of the scenario; prompts only on
request. Signing comes last: any later remux or edit removes or invalidates it. Specification:
C2PA 2.x; implementation: c2pa-python.
"""

from __future__ import annotations

import json
import mimetypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.files import replacing
from syncos_jax.media.certificates import Identity
from syncos_jax.version import __version__

SIGNABLE = (".mp4", ".mov", ".png", ".gif", ".jpg", ".jpeg", ".webp")
"""Suffixes of the files that carry credentials; WebM, Matroska and folders of frames cannot."""
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
RUN_LABEL = "org.syncos_jax.run"
APPROVAL_LABEL = "org.syncos_jax.approvals"
_UNTRUSTED = "signingCredential.untrusted"


@dataclass(frozen=True)
class Credentials:
    """What a file's credentials say.

    Attributes:
        state: "trusted" (intact, the signer is on the trust list), "valid" (intact, unknown
            signer), "invalid" (changed after signing, or damaged) or "none".
        signer: name in the signer's certificate; "" for none.
        problems: the specification's codes of what failed, and what the reader raised.
        run: what the `RUN_LABEL` assertion holds; empty for files of other software.
        approvals: the decisions that were signed.
        manifests: number of manifests, those of ingredients included.
    """

    state: str
    signer: str = ""
    problems: tuple[str, ...] = ()
    run: Mapping[str, Any] | None = None
    approvals: Sequence[Mapping[str, Any]] = ()
    manifests: int = 0


def check_signable(path: str | os.PathLike[str]) -> None:
    """Raises InputError where a file of this name cannot carry credentials."""
    _c2pa()
    suffix = Path(path).suffix.lower()
    if suffix not in SIGNABLE:
        kind = f"{suffix} files" if suffix else "folders of frames"
        raise InputError(
            f"{path}: {kind} cannot carry Content Credentials; write one of "
            f"{', '.join(SIGNABLE[:4])}, or turn signing off"
        )


def sign(
    path: str | os.PathLike[str],
    identity: Identity,
    run: Mapping[str, Any],
    *,
    title: str = "",
    ingredients: Sequence[str | os.PathLike[str]] = (),
    approvals: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Signs a file; it is replaced only when the signed one is complete.

    Credentials that the file has already are kept as those of its parent.

    Args:
        path: a finished file, one of `SIGNABLE`.
        identity: who signs.
        run: facts of the run, JSON values; they stand in the assertion `RUN_LABEL`.
        title: the title of the work.
        ingredients: files that went into it (a start image); their own credentials are kept.
        approvals: decisions of reviewers, JSON values; with these the file counts as published.

    Returns:
        `path`.

    Raises:
        InputError: the file cannot carry credentials, or the signer refuses the certificate.
        OSError: the file cannot be written.
    """
    c2pa = _c2pa()
    check_signable(path)
    target = Path(path)
    parent = read(target).state != "none"
    manifest = _manifest(run, title or target.stem, approvals, opened=parent)
    settings = c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})
    try:
        with replacing(target) as temporary:
            temporary.unlink()  # the signer makes the file; it empties one that it reads
            with _signer(c2pa, identity) as signer:
                builder = c2pa.Builder.from_json(manifest, settings)
                if parent:
                    _add(builder, target, "parentOf")
                for ingredient in ingredients:
                    _add(builder, Path(ingredient), "inputTo")
                builder.sign_file(target, temporary, signer)
    except c2pa.C2paError as error:
        raise InputError(f"{target}: cannot be signed: {_line(error)}") from error
    return target


def read(path: str | os.PathLike[str], trusted: str | bytes | None = None) -> Credentials:
    """Reads and checks the credentials of a file.

    Args:
        path: any file.
        trusted: PEM certificates of the authorities that are trusted; None for none.

    Raises:
        InputError: there is no such file, or `trusted` holds no certificates.
    """
    c2pa = _c2pa()
    source = Path(path)
    if not source.is_file():
        raise InputError(f"{source}: there is no such file")
    if mimetypes.guess_type(source.name)[0] not in c2pa.Reader.get_supported_mime_types():
        return Credentials("none")
    context = None
    if trusted is not None:
        anchors = trusted.decode() if isinstance(trusted, bytes) else trusted
        context = c2pa.Context.from_dict(
            {"trust": {"user_anchors": anchors}, "verify": {"verify_trust": True}}
        )
    try:
        reader = c2pa.Reader.try_create(str(source), context=context)
    except c2pa.C2paError as error:  # damage in the manifest itself
        return Credentials("invalid", problems=(_line(error),))
    if reader is None:
        return Credentials("none")
    with reader:
        return _report(json.loads(reader.json()), reader.get_validation_state() or "Invalid")


def _report(found: Mapping[str, Any], state: str) -> Credentials:
    manifests = found.get("manifests", {})
    active = manifests.get(found.get("active_manifest"), {})
    data: dict[str, list[Any]] = {}
    for assertion in active.get("assertions", ()):
        data.setdefault(assertion.get("label", ""), []).append(assertion.get("data"))
    problems = tuple(
        dict.fromkeys(
            status["code"]
            for status in found.get("validation_status", ())
            if status.get("code") != _UNTRUSTED
        )
    )
    words = {"Trusted": "trusted", "Valid": "valid"}
    return Credentials(
        words.get(state, "invalid"),
        signer=str((active.get("signature_info") or {}).get("common_name", "")),
        problems=problems,
        run=next((d for d in data.get(RUN_LABEL, ()) if isinstance(d, dict)), None),
        approvals=tuple(
            entry for d in data.get(APPROVAL_LABEL, ()) for entry in d.get("decisions", ())
        ),
        manifests=len(manifests),
    )


def _manifest(
    run: Mapping[str, Any], title: str, approvals: Sequence[Mapping[str, Any]], *, opened: bool
) -> dict[str, Any]:
    software = {"name": "syncos_jax", "version": __version__}
    created = {
        "action": "c2pa.created",
        "digitalSourceType": SOURCE_TYPE,
        "softwareAgent": software,
    }
    actions = [created]
    if approvals:
        actions.append({"action": "c2pa.published", "softwareAgent": software})
    assertions = [
        {"label": "c2pa.actions", "data": {"actions": actions}},
        {"label": RUN_LABEL, "data": dict(run)},
    ]
    if approvals:
        decisions = [dict(entry) for entry in approvals]
        assertions.append({"label": APPROVAL_LABEL, "data": {"decisions": decisions}})
    return {"claim_generator_info": [software], "title": title, "assertions": assertions}


def _add(builder: Any, path: Path, relationship: str) -> None:
    kind = mimetypes.guess_type(path.name)[0]
    if kind is None:
        raise InputError(f"{path}: cannot be named as an ingredient: unknown kind of file")
    try:
        with path.open("rb") as file:
            builder.add_ingredient({"title": path.name, "relationship": relationship}, kind, file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _signer(c2pa: Any, identity: Identity) -> Any:
    if identity.callback is not None:
        return c2pa.Signer.from_callback(
            identity.callback,
            c2pa.C2paSigningAlg[identity.algorithm.upper()],
            identity.certificates.decode(),
            identity.time_stamp_url,
        )
    return c2pa.Signer.from_info(
        c2pa.C2paSignerInfo(
            identity.algorithm.encode(),
            identity.certificates,
            identity.key,
            identity.time_stamp_url.encode() if identity.time_stamp_url else None,
        )
    )


def _c2pa() -> Any:
    try:
        import c2pa
    except ImportError as error:
        raise InputError(
            'Content Credentials need the package c2pa-python; pip install "syncos-jax'
            '[credentials]"'
        ) from error
    return c2pa


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
