"""What machines do: killed processes, links, players, absent platforms, flipped bits."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from checkpoints import DATA, save_ckpt, syncos, weights

from syncos_jax.errors import InputError
from syncos_jax.files import replacing, replacing_folder
from syncos_jax.files.atomic import remove_leftovers, temporary_folder
from syncos_jax.media.video import Video
from syncos_jax.pipeline.load import load_model

OPTIONS = ("--config", DATA / "openclip_text_tiny.json", "--only", "text_encoder")

KILLED = """
import os, sys, pathlib
from syncos_jax.files.atomic import replacing, temporary_folder
with temporary_folder(pathlib.Path("model")) as folder, replacing("a.mp4") as file:
    (folder / "weights").write_bytes(b"1234")
    file.write_bytes(b"1234")
    print("there", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "there\n"
    time.sleep(1.1)  # what is younger is left alone
    held = set(os.listdir())
    assert len(held) == 2
    with temporary_folder(Path("model")), replacing("a.mp4") as file:
        file.write_bytes(b"mine")
        assert held < set(os.listdir())
    process.kill()
    process.communicate()
    assert held < set(os.listdir())
    with temporary_folder(Path("model")), replacing("a.mp4") as file:
        file.write_bytes(b"mine")
        assert not held & set(os.listdir())
    assert os.listdir() == ["a.mp4"]


def test_names_of_others_are_left_alone(tmp_path):
    for name in (".a.notes.mp4", ".a.12345678.txt", ".b.12345678.mp4", ".a.12345678.mp4x"):
        Path(name).write_text("mine")
        os.utime(name, (0, 0))
    Path(".a.abcdefgh").mkdir()  # a folder without our lock
    assert remove_leftovers(tmp_path, [Path("a.mp4"), Path("a")]) == 0
    assert len(os.listdir()) == 5


def test_a_link_is_followed(tmp_path):
    Path("disk").mkdir()
    Path("a.txt").symlink_to("disk/a.txt")  # leads nowhere yet
    for text in ("one", "two"):
        with replacing("a.txt") as file:
            file.write_text(text)
        assert Path("a.txt").is_symlink() and Path("disk/a.txt").read_text() == text
    Path("disk/frames").mkdir()
    Path("frames").symlink_to("disk/frames")
    with replacing_folder("frames") as folder:
        (folder / "1").write_text("x")
    assert Path("frames").is_symlink() and os.listdir("disk/frames") == ["1"]
    assert sorted(os.listdir("disk")) == ["a.txt", "frames"]
    Path("lost.txt").symlink_to("nowhere/a.txt")
    with pytest.raises(InputError, match="nowhere does not exist"), replacing("lost.txt"):
        pass


def test_files_that_players_cannot_open_are_not_written():
    video = Video(np.zeros((2, 16, 16, 3), np.uint8), 8.0)
    for name in ("a.mp4", "a.MOV"):
        with pytest.raises(InputError, match="QuickTime, iOS and Firefox do not play"):
            video.save(name, crf=0)
    for crf in (-1, 52, 1.5):
        with pytest.raises(InputError, match="must be an integer from 0"):
            video.save("a.mp4", crf=crf)
    assert os.listdir() == []
    video.save("a.mkv", crf=0)


def test_a_platform_that_is_not_there():
    code = "from syncos_jax.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code, "info"],
        env={**os.environ, "JAX_PLATFORMS": "cuda"},
        capture_output=True,
        text=True,
    )
    if run.returncode == 0:
        pytest.skip("there is one")
    assert run.returncode == 2 and run.stderr.count("\n") == 1, run.stderr
    assert "JAX finds no cuda device here (JAX_PLATFORMS=cuda)" in run.stderr


def test_every_flipped_bit_is_found(tmp_path):
    source = save_ckpt("a.ckpt", weights("openclip_text_tiny"))
    assert syncos("convert", source, "--out", "m", *OPTIONS).exit_code == 0
    assert syncos("info", "m", "--verify").stdout.endswith("all files match their hashes\n")
    rng = np.random.default_rng(0)
    paths = sorted(p for p in Path("m").rglob("*") if p.is_file() and p.name != "files.json")
    for path in paths:
        whole = path.read_bytes()
        if not whole:
            continue
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(changed))
        result = syncos("info", "m", "--verify")
        assert result.exit_code == 2 and f"{path.relative_to('m')} has other" in result.stderr
        if path.parts[1] in ("text_encoder", "tokenizer"):
            with pytest.raises(InputError):
                load_model("m")
        path.write_bytes(whole)
    paths[-1].unlink()
    assert "is missing" in syncos("info", "m", "--verify").stderr


def test_leftovers_from_before_the_clock_went_back_go(tmp_path):
    for age in (30.0, 3600.0):
        Path(".a.12345678.txt").write_text("half")
        os.utime(".a.12345678.txt", (time.time() + age,) * 2)
        assert remove_leftovers(tmp_path, [Path("a.txt")]) == (age > 60)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_as_a_whole(tmp_path, monkeypatch, exchange):
    if not exchange:  # as on systems that cannot
        monkeypatch.setattr("syncos_jax.files.atomic._exchange", lambda *_: False)
    for text in ("one", "two"):
        with replacing_folder("frames") as folder:
            (folder / "1").write_text(text)
        assert os.listdir() == ["frames"] and Path("frames/1").read_text() == text
    monkeypatch.setattr("syncos_jax.files.atomic._exchange", lambda *_: False)
    replace = os.replace

    def fails(old, new):
        if Path(new).name == "frames" and Path(old).name == "new":
            raise OSError(5, "Input/output error")
        replace(old, new)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError), replacing_folder("frames") as folder:
        (folder / "1").write_text("three")
    assert os.listdir() == ["frames"] and Path("frames/1").read_text() == "two"


@pytest.mark.parametrize("given", [None, "temporary", "other.txt"])
def test_an_error_of_writing_names_what_was_to_be_written(given):
    with pytest.raises(OSError) as raised, replacing("a.txt") as file:
        named = {None: (), "temporary": (str(file),), "other.txt": ("other.txt",)}[given]
        raise OSError(28, "No space left on device", *named)
    assert str(raised.value.filename) == ("other.txt" if given == "other.txt" else "a.txt")
    assert os.listdir() == []
