"""The transformer families through scenario files: every sampler, one device and eight, weights
divided, killed and resumed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_families import FROM_PICTURES, story, write

HERE = Path(__file__).parent
FAMILIES = ("wan", "cogvideox", "ltx", "open_sora_plan")


def program(name, *arguments):
    """Runs one of the programs beside this file; what it found."""
    command = [sys.executable, str(HERE / name), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def check_devices(found):
    print({name: f"{run['difference']:.1e} of {run['size']:.2g}" for name, run in found.items()})
    for run in found.values():
        assert run["devices"] == [1, 8]
        assert run["finite"] and run["size"] > 0.3 and run["frames"] >= 4
        assert run["difference"] <= 1e-4 and run["frames_differ"] <= 1


@pytest.mark.slow
def test_one_and_eight_devices_make_the_same_video(tmp_path):
    tasks = [f"{family}:syncos" for family in FAMILIES]
    check_devices(program("many_families.py", 8, tmp_path, *tasks))


@pytest.mark.slow
def test_one_and_eight_devices_make_the_same_video_from_a_picture(tmp_path):
    tasks = [f"{family}:syncos" for family in FROM_PICTURES]
    check_devices(program("many_families.py", 8, tmp_path, *tasks))


@pytest.mark.slow
def test_the_other_samplers_on_one_and_eight_devices(tmp_path):
    tasks = [f"{family}:{name}" for family in FAMILIES for name in ("co_denoising", "fifo")]
    tasks += [f"{family}:flowlong" for family in ("ltx", "open_sora_plan")]
    check_devices(program("many_families.py", 8, tmp_path, *tasks))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_restored_in_their_place(family, tmp_path):
    """Each of four devices of the axis `model` has its part of transformer and text encoder."""
    (found,) = program("many_families.py", 8, tmp_path, f"{family}:weights").values()
    print(found)
    for name in ("transformer", "text_encoder"):
        held = found[name]
        assert held["of_device"] < 0.45 * held["bytes"]  # a quarter, and what has one axis
    assert found["vae"]["of_device"] == found["vae"]["bytes"]
    assert found["moved"] == 0 and found["difference"] <= 1e-4


@pytest.mark.slow
def test_weights_divided_by_the_command_line(tmp_path):
    write(tmp_path / "model", "wan")
    (tmp_path / "story.yaml").write_text(json.dumps(story("syncos")))
    made = []
    for name, options in (("whole", []), ("divided", ["--devices", "2", "--weights-over", "2"])):
        command = [
            str(Path(sys.executable).with_name("syncos")),
            "generate",
            "story.yaml",
            "--model",
            "model",
        ]
        command += ["--out", f"{name}.mp4", "--latents", f"{name}.npy", *options]
        environment = {**os.environ, "SYNCOS_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        made.append(np.load(tmp_path / f"{name}.npy"))
    whole, divided = made
    assert np.abs(whole).max() > 0.3
    np.testing.assert_allclose(divided, whole, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", (*FAMILIES, *FROM_PICTURES))
def test_killed_and_resumed_bit_for_bit(family, tmp_path):
    found = program("family_kills.py", family, tmp_path, 4)
    print({key: found[key] for key in ("rows", "killed_at", "went_on_from", "seconds")})
    assert found["runs"] == found["identical"] >= 1
    assert len(found["killed_at"]) == 4 and max(found["went_on_from"]) > 0
    assert set(found["codes"]) == {-signal.SIGKILL} and found["left_over"] == []
