"""Signing identities for Content Credentials: read, check, and make certificates for tests.

The requirements are those of the C2PA technical specification 2.x, section "X.509 Certificates".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.files import replacing

CERTIFICATE_VARIABLE = "SYNCOS_CERTIFICATE"
KEY_VARIABLE = "SYNCOS_SIGNING_KEY"
TIME_STAMP_VARIABLE = "SYNCOS_TIME_STAMP_URL"
_ACCEPTED_USAGES = {
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "1.3.6.1.5.5.7.3.36": "documentSigning",
    "1.3.6.1.5.5.7.3.8": "timeStamping",
}
_MAX_PEM_BYTES = 1_000_000


@dataclass(frozen=True)
class Identity:
    """Who signs.

    Attributes:
        certificates: PEM, the signer's own certificate first, then the chain.
        key: PEM of the private key (PKCS#8); None where `callback` signs.
        callback: signs the bytes it is given, for keys held in hardware; returns the raw
            signature of `algorithm`.
        algorithm: "es256", "es384", "es512", "ps256" or "ed25519".
        time_stamp_url: address of an RFC 3161 time-stamp authority; None for none.
    """

    certificates: bytes
    key: bytes | None = None
    callback: Callable[[bytes], bytes] | None = None
    algorithm: str = "es256"
    time_stamp_url: str | None = None

    @property
    def name(self) -> str:
        """The common name in the signer's certificate; without one, its whole subject."""
        from cryptography.x509.oid import NameOID

        subject = _load(self.certificates, "the certificate")[0].subject
        named = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(named[0].value) if named else subject.rfc4514_string()


def identity_from_files(
    certificate: str | os.PathLike[str],
    key: str | os.PathLike[str],
    time_stamp_url: str | None = None,
) -> Identity:
    """Reads and checks a signing identity.

    Args:
        certificate: PEM file with the signer's certificate and its chain.
        key: PEM file with the private key that belongs to it, not encrypted.
        time_stamp_url: address of an RFC 3161 time-stamp authority; None for none.

    Raises:
        InputError: a file cannot be read, the certificate cannot sign Content Credentials (expired,
            missing extensions), or the key does not belong to it.
    """
    certificates, private = _read(certificate, "certificate"), _read(key, "key")
    return check_identity(
        Identity(
            certificates,
            private,
            algorithm=_algorithm_of(private, str(key)),
            time_stamp_url=time_stamp_url or None,  # an empty address fails inside the signer
        ),
        str(certificate),
    )


def identity_from_environment() -> Identity | None:
    """The identity named by SYNCOS_CERTIFICATE and SYNCOS_SIGNING_KEY; None where neither is set.

    Raises:
        InputError: one of the two is missing, or as `identity_from_files`.
    """
    certificate, key = os.environ.get(CERTIFICATE_VARIABLE), os.environ.get(KEY_VARIABLE)
    if not certificate and not key:
        return None
    if not certificate or not key:
        missing = KEY_VARIABLE if certificate else CERTIFICATE_VARIABLE
        raise InputError(f"{missing} is not set; signing needs a certificate and its key")
    return identity_from_files(certificate, key, os.environ.get(TIME_STAMP_VARIABLE))


def check_identity(identity: Identity, place: str = "certificate") -> Identity:
    """Returns `identity` where it can sign Content Credentials today.

    Raises:
        InputError: names what is missing or wrong, before any video is made.
    """
    leaf, *chain = _load(identity.certificates, place)
    now = datetime.now(UTC)
    if leaf.not_valid_after_utc < now:
        raise InputError(
            f"{place}: the certificate expired on {leaf.not_valid_after_utc:%Y-%m-%d}; renew it"
        )
    if leaf.not_valid_before_utc > now:
        raise InputError(
            f"{place}: the certificate is not valid before {leaf.not_valid_before_utc:%Y-%m-%d}; "
            "check the clock or wait"
        )
    missing = _missing_extensions(leaf)
    if missing:
        raise InputError(
            f"{place}: the certificate cannot sign Content Credentials: it lacks "
            f"{', '.join(missing)}; ask its issuer for a C2PA signing certificate"
        )
    if chain and leaf.issuer != chain[0].subject:
        raise InputError(
            f"{place}: the second certificate did not issue the first; put the signer's own "
            "certificate first and its issuers after it"
        )
    if identity.key is not None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        key = _load_key(identity.key, "key")
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
            raise InputError(f"{place}: the private key does not belong to this certificate")
    return identity


def make_test_identity(folder: str | os.PathLike[str], name: str, days: int = 365) -> Path:
    """Writes a test authority, a certificate it issued and the key: for trying things out.

    Nobody else trusts this certificate: it proves that files are unchanged, not who made them.

    Args:
        folder: where ``certificate.pem`` (with its authority), ``authority.pem`` and ``key.pem``
            (readable by its owner alone) go; made if missing.
        name: the organisation's name in the certificate.
        days: validity.

    Returns:
        The folder.

    Raises:
        InputError: the folder holds such files already or cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    files = {part: target / f"{part}.pem" for part in ("certificate", "authority", "key")}
    for path in files.values():
        if path.exists():
            raise InputError(f"{path} exists already; choose another folder")
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate(f"{name} test authority", authority_key, days)
    leaf = _certificate(name, key, days, issuer=(authority, authority_key))
    chain = [c.public_bytes(Encoding.PEM) for c in (leaf, authority)]
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for part, data in (
        ("certificate", b"".join(chain)),
        ("authority", chain[1]),
        ("key", secret),
    ):
        with replacing(files[part]) as temporary:
            temporary.write_bytes(data)
        if part == "key":
            files[part].chmod(0o600)
    return target


def _certificate(name: str, key: Any, days: int, issuer: tuple[Any, Any] | None = None) -> Any:
    """A certificate for `key`, by `issuer` (certificate, key), or an authority's own."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, name),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    signer, signing_key = (None, key) if issuer is None else issuer
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if signer is None else signer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=signer is not None,
                key_cert_sign=signer is None,
                crl_sign=signer is None,
                **usage,
            ),
            critical=True,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if signer is not None:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
    return builder.sign(signing_key, hashes.SHA256())


def _missing_extensions(leaf: Any) -> list[str]:
    from cryptography import x509

    found = {extension.oid._name: extension.value for extension in leaf.extensions}
    missing = []
    if not isinstance(found.get("authorityKeyIdentifier"), x509.AuthorityKeyIdentifier):
        missing.append("an authority key identifier")
    usage = found.get("keyUsage")
    if usage is None or not usage.digital_signature:
        missing.append("the key usage digitalSignature")
    extended = found.get("extendedKeyUsage") or ()
    if not any(oid.dotted_string in _ACCEPTED_USAGES for oid in extended):
        missing.append(f"an extended key usage of {' or '.join(_ACCEPTED_USAGES.values())}")
    return missing


def _read(path: str | os.PathLike[str], what: str) -> bytes:
    source = Path(path)
    try:
        if not source.is_file():
            raise InputError(f"{source}: there is no {what} file here")
        if source.stat().st_size > _MAX_PEM_BYTES:
            raise InputError(f"{source}: too large for a {what} in PEM form")
        return source.read_bytes()
    except OSError as error:
        raise InputError(f"{source}: cannot read the {what}: {error.strerror}") from error


def _load(pem: bytes, place: str) -> list[Any]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise InputError(f"{place}: no certificate in PEM form was found") from error


def _load_key(pem: bytes, place: str) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, None)
    except TypeError as error:
        raise InputError(f"{place}: the private key is encrypted; store it decrypted") from error
    except ValueError as error:
        raise InputError(f"{place}: no private key in PEM form was found") from error


def _algorithm_of(pem: bytes, place: str) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    key = _load_key(pem, place)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        found = {256: "es256", 384: "es384", 521: "es512"}.get(key.curve.key_size)
        if found is not None:
            return found
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    elif isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    raise InputError(
        f"{place}: this kind of key cannot sign Content Credentials; use P-256, P-384, P-521, "
        "Ed25519 or RSA of 2048 bits or more"
    )
