"""One video over many devices, and over two processes: the same latents."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from syncos_jax.errors import InputError
from syncos_jax.sampling.devices import make_mesh
from syncos_jax.sampling.hosts import initialize, is_main_process
from syncos_jax.sampling.placement import Placement, Rules

HERE = Path(__file__).parent


def environment():
    return {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}


def program(*arguments):
    """Runs `many_devices.py`; what it found."""
    command = [sys.executable, str(HERE / "many_devices.py"), *arguments]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def eight():
    return program(
        "8",
        "one_video",
        "partly_guided",
        "few_steps",
        "reused",
        "in_parts",
        "several_videos",
        "fifo",
        "different_settings",
        "weights_split",
        "known",
    )


@pytest.mark.parametrize("solver", ["renoise", "lcm"])
def test_few_steps_on_devices_and_in_a_batch(eight, solver):
    found = dict(eight["few_steps"][solver])
    assert found.pop("apart") > 0.01
    assert set(found) == {"2", "8", "batch"} and max(found.values()) <= 1e-4


def test_the_number_of_devices_does_not_change_the_video(eight):
    runs = eight["one_video"]["runs"]
    assert len(runs) == 10 and eight["one_video"]["size"] > 0.5
    worst = max(run["difference"] for run in runs.values())
    print(f"largest difference over {sorted(runs)}: {worst:.2g}")
    assert worst <= 1e-4
    for name, run in runs.items():
        devices = int(name.split()[0])
        assert run["devices"] == devices and run["replicated"]
        # Really shared out: each device has its part of each call, and one program. (Of one
        # device it is the plain run's, which is not traced again.)
        assert run["samples"] == ([] if name == "1 shard_map" else [run["of_call"] // devices])
        assert run["of_call"] % devices == 0 and run["of_call"] < 10 + devices


def test_guidance_at_some_timesteps_on_several_devices(eight):
    found = eight["partly_guided"]
    assert max(found["shard_map"], found["pmap"]) <= 1e-4 < found["apart"]


def test_what_is_reused_is_the_same_on_all_devices(eight):
    found = eight["reused"]
    assert max(found[how] for how in ("shard_map", "pmap", "taken_over")) <= 1e-4
    (skipped,) = set(found["num_skipped"])
    assert 0 < skipped < found["of_all"]


def test_a_state_goes_on_with_other_devices(eight):
    found = eight["in_parts"]
    assert found["in_round"]
    assert found["4"] <= 1e-4 and found["plain"] <= 1e-4


def test_a_batch_of_videos_is_each_of_them_alone(eight):
    found = eight["several_videos"]
    assert found["shape"][0] == 5 and found["traces"] == 1
    assert max(found["differences"]) <= 1e-5 < found["apart"]
    # Of a batch in which one video goes wrong, that one is named: window 3 is in its first call.
    assert found["named"] == {"video": 1, "call": 0, "windows": [3]}


def test_fifo_on_several_devices(eight):
    found = eight["fifo"]
    close = 1e-5 * max(1.0, found["size"])
    assert found["size"] > 0.5 and len(found["runs"]) == 6
    for name, run in found["runs"].items():
        assert run["difference"] <= close and run["traces"] <= 1, name
    (in_clip, clip), (in_queue, queue) = found["restored"].values()
    assert in_clip == -1 and in_queue >= 0  # in which iteration
    assert max(clip, queue, found["batch"]) <= close < found["apart"]


def test_videos_of_a_batch_have_settings_of_their_own(eight):
    found = eight["different_settings"]
    for name, run in found["accepted"].items():
        assert max(run["first"], run["second"]) <= 1e-5, name
        if name in ("t_min", "refine_steps"):
            assert run["apart"] <= 1e-5, name  # means the same here
        else:
            assert run["apart"] > 1e-3, name
    assert found["traces"] <= 2  # alone, and side by side
    for name, message in found["refused"].items():
        assert message and message.startswith("the videos' samplers need"), name
        assert "\n" not in message, name


def test_weights_may_be_split(eight):
    found = eight["weights_split"]
    assert found["shares"] == {"in": [3, 3], "out": [6, 3]}  # 3 cannot be halved: it is not
    assert found["difference"] <= 1e-4


def test_known_frames_on_several_devices(eight):
    found = eight["known"]
    assert max(found["one"].values()) <= 1e-4 < found["apart"] and found["exact"]
    assert max(found["batch"]) <= 1e-4  # of two videos one has known frames
    assert found["by_window"] <= 1e-4  # conditioned by window


@pytest.mark.slow
def test_the_demo_model_on_three_devices():
    found = program("3", "demo")["demo"]
    assert found["difference"] <= 1e-4 and found["devices"] == 3
    assert found["frames"] == [20, 64, 64, 3]


def test_two_processes_of_four_devices():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, str(HERE / "two_processes.py"), address]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [
        subprocess.Popen([*command, str(number)], env=environment(), **pipes) for number in (0, 1)
    ]
    try:
        (out, error), (other_out, other_error) = (p.communicate(timeout=900) for p in both)
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert [p.returncode for p in both] == [0, 0], (error + other_error)[-4000:]
    assert "devices" not in other_out  # process 0 alone speaks, beside JAX's own transport
    found = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
    assert found["devices"] == 8 and found["local"] == 4
    for name in ("shard_map", "pmap", "parts", "batch"):
        assert found[name] <= 1e-4, name


def test_meshes():
    mesh = make_mesh(1)
    assert mesh.axis_names == ("data", "segment") and mesh.shape["segment"] == 1
    with pytest.raises(InputError, match=r"devices: 9 asked for, but there are \d+ \(cpu\)"):
        make_mesh(9)
    with pytest.raises(InputError, match="1 devices cannot be divided into data=2"):
        make_mesh(1, data=2)
    assert is_main_process()


def test_rules_and_spreads_that_cannot_be():
    with pytest.raises(InputError, match="video and window are both split over the mesh axis"):
        Rules(video="segment")
    mesh = make_mesh(1)
    with pytest.raises(InputError, match="feature is split over 'model', but the mesh has"):
        Placement(mesh, rules=Rules(feature="model"))
    with pytest.raises(InputError, match="unknown 'xmap'; one of shard_map, pmap"):
        Placement(mesh, "xmap")
    with pytest.raises(InputError, match="pmap splits the windows of one video only"):
        Placement(mesh, "pmap", batched=True)
    with pytest.raises(InputError, match="mesh must be a jax.sharding.Mesh"):
        Placement(jax.devices())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("127.0.0.1:1234", None, None), "go together"),
        (("somewhere", 2, 0), "must be HOST:PORT, got 'somewhere'"),
        (("127.0.0.1:1234", 2, 2), "process_id: is 2 of 2 processes; give 0 to 1"),
    ],
)
def test_hosts_that_cannot_be(arguments, message):
    with pytest.raises(InputError, match=message):
        initialize(*arguments)


def test_without_a_cluster_it_says_so():
    code = "from syncos_jax.sampling.hosts import initialize; initialize()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1 and "no cluster was found in the environment" in done.stderr


def test_sample_takes_a_mesh_of_one():
    from many_devices import run

    np.testing.assert_allclose(run(mesh=make_mesh(1)), run(), atol=1e-5)
