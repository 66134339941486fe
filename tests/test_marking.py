"""Credentials, watermark and register of real files, against the official reader, and `verify`."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from syncos_jax.cli.app import app
from syncos_jax.errors import InputError
from syncos_jax.media import credentials, marking
from syncos_jax.media.certificates import Identity, identity_from_files, make_test_identity
from syncos_jax.media.marking import Marking
from syncos_jax.media.register import Register
from syncos_jax.media.video import Video, load_video

FACTS = {"run_id": "00000000000000ab", "created": "2026-01-31T10:00:00Z", "seed": 3}


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    folder = make_test_identity(tmp_path_factory.mktemp("identity"), "Example Studio")
    return identity_from_files(folder / "certificate.pem", folder / "key.pem"), folder


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    return (rng.integers(90, 160, (16, 1, 1, 3)) + np.zeros((16, 64, 64, 3))).astype(np.uint8)


@pytest.fixture
def signed(tmp_path, identity, frames):
    """A marked video, in a folder of its own."""
    path = tmp_path / "ball.mp4"
    Video(frames, 8.0).save(path, watermark=0xAB)
    Marking(watermark=True, identity=identity[0]).apply(path, FACTS, title="a ball")
    return path


def authority(identity):
    return (identity[1] / "authority.pem").read_text()


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".gif", ".png"])
def test_every_format_is_signed_and_keeps_its_frames(tmp_path, identity, frames, suffix):
    path = tmp_path / f"video{suffix}"
    if suffix == ".png":
        Video(frames, 8.0).contact_sheet(path)
    else:
        Video(frames, 8.0).save(path)
    before = load_video(path).frames
    credentials.sign(path, identity[0], FACTS)
    assert np.array_equal(load_video(path).frames, before)
    found = credentials.read(path, authority(identity))
    assert (found.state, found.signer, found.problems) == ("trusted", "Example Studio", ())
    assert found.run == FACTS
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]  # nothing is left beside it


def test_the_official_reader_agrees(signed):
    with c2pa.Reader(str(signed)) as reader:
        manifest = json.loads(reader.json())
        assert reader.get_validation_state() == "Valid"
    active = manifest["manifests"][manifest["active_manifest"]]
    actions = next(a for a in active["assertions"] if a["label"].startswith("c2pa.actions"))
    (action,) = actions["data"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"] == credentials.SOURCE_TYPE
    assert active["title"] == "ball"  # the prompt is not signed unless asked for
    assert "thumbnail" not in active


def test_all_marks_hold(signed, identity):
    found = marking.verify(signed, trusted=authority(identity))
    assert found.credentials.state == "trusted"
    assert found.run_id == FACTS["run_id"]
    assert (found.register, found.problems) == ("listed", ())


def problems(path, identity):
    return "; ".join(marking.verify(path, trusted=authority(identity)).problems)


def test_a_changed_byte_is_noticed(signed, identity):
    data = bytearray(signed.read_bytes())
    data[-100] ^= 1
    signed.write_bytes(data)
    assert "changed after signing" in problems(signed, identity)
    assert "not the file that the register lists" in problems(signed, identity)


def test_removed_credentials_are_noticed(signed, identity, frames):
    Video(load_video(signed).frames, 8.0).save(signed)
    assert "credentials were removed" in problems(signed, identity)


def test_a_foreign_signer_is_noticed(signed, tmp_path, identity):
    folder = make_test_identity(tmp_path / "other", "Somebody Else")
    other = identity_from_files(folder / "certificate.pem", folder / "key.pem")
    credentials.sign(signed, other, FACTS)
    assert "Somebody Else, who is not on the trust list" in problems(signed, identity)


def test_another_run_under_the_same_watermark_is_noticed(signed, identity):
    credentials.sign(signed, identity[0], {**FACTS, "run_id": "00000000000000cd"})
    assert "different runs" in problems(signed, identity)


def test_earlier_credentials_and_ingredients_are_kept(tmp_path, identity, signed, frames):
    picture = tmp_path / "start.png"
    Video(frames, 8.0).contact_sheet(picture)
    credentials.sign(picture, identity[0], {"run_id": "x"})
    approval = {"by": "Ada Example", "action": "approve", "at": "2026-01-31T10:00:00Z"}
    credentials.sign(signed, identity[0], FACTS, ingredients=[picture], approvals=[approval])
    found = credentials.read(signed)
    assert found.manifests == 3
    assert list(found.approvals) == [approval]
    assert found.state == "valid"


def test_register_is_a_chain(tmp_path):
    register = Register(tmp_path)
    for number in range(4):
        with register.next_line() as (place, entry):
            entry["file"] = f"{number}.mp4"
    assert place.line == 4
    assert [entry["file"] for entry in register.entries()] == [f"{n}.mp4" for n in range(4)]
    lines = register.path.read_bytes().splitlines(keepends=True)
    for broken, line in (
        (lines[:1] + lines[2:], 2),  # one removed
        ([lines[0].replace(b"0.mp4", b"9.mp4"), *lines[1:]], 2),  # one changed
        ([lines[1], lines[0], *lines[2:]], 1),  # two exchanged
    ):
        register.path.write_bytes(b"".join(broken))
        with pytest.raises(InputError, match=f"line {line} "):
            register.entries()


def test_the_last_line_is_missed_by_its_video(signed, identity):
    register = Register(signed.parent)
    with register.next_line() as (_, entry):
        entry["file"] = "another.mp4"
    lines = register.path.read_bytes().splitlines(keepends=True)
    register.path.write_bytes(b"")
    credentials_only = problems(signed, identity)
    assert "the line of the register that this video names is not there" in credentials_only
    register.path.write_bytes(lines[0])
    assert problems(signed, identity) == ""


def test_a_killed_writer_leaves_no_half_line(tmp_path):
    register = Register(tmp_path)
    with register.next_line() as (_, entry):
        entry["file"] = "a.mp4"
    with register.path.open("ab") as file:
        file.write(b'{"previous": "12')
    assert len(register.entries()) == 1
    with register.next_line() as (place, entry):
        entry["file"] = "b.mp4"
    assert place.line == 2
    assert len(register.entries()) == 2


def test_processes_append_one_after_another(tmp_path):
    code = (
        "import sys; from syncos_jax.media.register import Register\n"
        "for n in range(20):\n"
        "    with Register(sys.argv[1]).next_line() as (place, entry): entry['file'] = str(n)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert len(Register(tmp_path).entries()) == 40


def certificate(*extensions, days=(-1, 30)):
    """A self-made certificate and key as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    made = builder.sign(key, hashes.SHA256())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM), secret


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ((-1, 30), "an authority key identifier, the key usage digitalSignature"),
        ((-30, -1), "expired"),
        ((2, 30), "not valid before"),
    ],
)
def test_certificates_that_cannot_sign_are_refused_before_work(tmp_path, days, expected):
    for name, data in zip(("c.pem", "k.pem"), certificate(days=days), strict=True):
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=expected):
        identity_from_files(tmp_path / "c.pem", tmp_path / "k.pem")


def test_a_key_of_another_certificate_is_refused(tmp_path, identity):
    other = make_test_identity(tmp_path / "other", "x")
    with pytest.raises(InputError, match="does not belong"):
        identity_from_files(identity[1] / "certificate.pem", other / "key.pem")
    with pytest.raises(InputError, match="no certificate in PEM form"):
        identity_from_files(identity[1] / "key.pem", other / "key.pem")


def test_a_callback_signs(tmp_path, identity, frames):
    """As a key in hardware would."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(identity[0].key, None)

    def sign(data):
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    path = tmp_path / "video.mp4"
    Video(frames, 8.0).save(path)
    credentials.sign(path, Identity(identity[0].certificates, callback=sign), FACTS)
    assert credentials.read(path, authority(identity)).state == "trusted"


@pytest.mark.parametrize("name", ["video.webm", "video.mkv", "frames"])
def test_formats_without_credentials_are_refused(name, identity):
    with pytest.raises(InputError, match="cannot carry Content Credentials"):
        Marking(identity=identity[0]).check(name, 64, 64)


def test_marking_by_environment(monkeypatch, identity):
    assert Marking.from_environment() == Marking()
    monkeypatch.setenv("SYNCOS_WATERMARK", "1")
    monkeypatch.setenv("SYNCOS_CERTIFICATE", str(identity[1] / "certificate.pem"))
    with pytest.raises(InputError, match="SYNCOS_SIGNING_KEY is not set"):
        Marking.from_environment()
    monkeypatch.setenv("SYNCOS_SIGNING_KEY", str(identity[1] / "key.pem"))
    assert Marking.from_environment() == Marking(watermark=True, identity=identity[0])
    monkeypatch.setenv("SYNCOS_WATERMARK", "yes")
    with pytest.raises(InputError, match="SYNCOS_WATERMARK is 'yes'"):
        Marking.from_environment()


def test_commands(tmp_path, monkeypatch):
    """credentials new, generate with both marks, verify: as a stranger runs them."""
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    assert run(app, ["credentials", "new", "id", "--name", "Example"]).exit_code == 0
    again = run(app, ["credentials", "new", "id"])
    assert again.exit_code == 2
    assert "already" in again.output
    made = run(
        app,
        "generate --global a-ball --prompt it-rolls --seconds 2 --sampler co_denoising --steps 1"
        " --out ball.mp4 --watermark --certificate id/certificate.pem --key id/key.pem".split(),
    )
    assert made.exit_code == 0, made.output
    marks = json.loads((tmp_path / "ball.json").read_text())["marks"]
    found = run(app, ["verify", "ball.mp4", "--trust", "id/authority.pem", "--json"])
    assert found.exit_code == 0, found.output
    (report,) = json.loads(found.stdout)
    assert report["run_id"] == marks["run_id"]
    assert report["credentials"]["state"] == "trusted"
    shutil.copy("ball.png", "plain.png")
    assert run(app, ["verify", "plain.png"]).exit_code == 1  # not marked
    assert run(app, ["verify", "nothing.mp4"]).exit_code == 2
    refused = run(
        app,
        [
            "generate",
            "--prompt",
            "x",
            "--out",
            "x.webm",
            "--certificate",
            "id/certificate.pem",
            "--key",
            "id/key.pem",
        ],
    )
    assert refused.exit_code == 2
    assert not (tmp_path / "x.webm").exists()
