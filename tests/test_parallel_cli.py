"""The command line on several devices and as several processes."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from fakes import FakeModel
from typer.testing import CliRunner

import syncos_jax.pipeline.load
from syncos_jax.cli import app
from syncos_jax.sampling import memory
from syncos_jax.sampling.devices import cores

HERE = Path(__file__).parent
STORY = {
    "global": "a cat",
    "events": [{"prompt": "sleeps", "frames": 6}, {"prompt": "wakes", "frames": 4}],
    "sampler": {"name": "co_denoising", "steps": 2},
}


@pytest.fixture(autouse=True)
def fake_models(monkeypatch, tmp_path):
    monkeypatch.setattr(syncos_jax.pipeline.load, "load_model", lambda *_, **__: FakeModel())
    monkeypatch.chdir(tmp_path)
    Path("story.yaml").write_text(yaml.safe_dump(STORY))


def generate(*arguments):
    command = ["generate", "story.yaml", "--no-cache", *map(str, arguments)]
    result = CliRunner().invoke(app, command)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def latents(name, *arguments):
    result = generate("--out", f"{name}.mp4", "--latents", f"{name}.npy", *arguments)
    assert result.exit_code == 0, result.stderr
    return np.load(f"{name}.npy"), result.stderr


def test_devices_and_pmap_make_the_same_video():
    plain, _ = latents("plain")
    for name, options in (("one", ["--devices", 1]), ("pmap", ["--parallel", "pmap"])):
        np.testing.assert_allclose(latents(name, *options)[0], plain, atol=1e-5)


def test_as_many_windows_as_fit(monkeypatch):
    plain, _ = latents("plain")
    auto, said = latents("auto", "--windows-per-call", "auto")
    assert re.search(r"4 of 4 windows per call: needs 0\.\d\d GiB of \d+\.\d\d GiB", said)
    np.testing.assert_allclose(auto, plain, atol=1e-5)

    monkeypatch.setattr(memory, "free_bytes", lambda run: 0)
    result = generate("--out", "a.mp4", "--windows-per-call", "auto")
    assert result.exit_code == 2 and not Path("a.mp4").exists()
    assert "error: one window per device needs" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "some"], "--devices: must be a number, 1 or more, or all; got 'some'"),
        (["--devices", "0"], "--devices: must be a number, 1 or more, or all; got '0'"),
        (["--devices", "999"], "devices: 999 asked for, but there are"),
        (["--windows-per-call", "few"], "--windows-per-call: must be a number, 1 or more, or auto"),
        (["--batch", "0"], "--windows-per-call: must be a number, 1 or more, or auto; got '0'"),
        (["--processes", "2"], "--coordinator, --processes and --process-id need --distributed"),
        (["--distributed", "--processes", "2"], "go together"),
        (["--distributed", "--coordinator", "x", "--processes", "2", "--process-id", "0"], "HOST:"),
    ],
)
def test_bad_options_are_one_line(arguments, message):
    result = generate(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["story.yaml"]


SCRIPT = """
import sys
import syncos_jax.pipeline.load
from fakes import FakeModel
syncos_jax.pipeline.load.load_model = lambda *_, **__: FakeModel()
from syncos_jax.cli import app
app(sys.argv[1:])
"""


def test_two_processes_write_once():
    """As typed in two terminals: the second one says nothing and writes nothing."""
    plain, _ = latents("plain")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    command = [sys.executable, "-c", SCRIPT, "generate", f"{Path('story.yaml').resolve()}"]
    command += ["--out", "both.mp4", "--latents", "both.npy", "--no-cache", "--distributed"]
    command += ["--coordinator", address, "--processes", "2", "--process-id"]
    folders = Path("first"), Path("second")
    for folder in folders:
        folder.mkdir()
    both = [
        subprocess.Popen(
            [*command, str(number)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, folder in enumerate(folders)
    ]
    try:
        (out, error), (other_out, other_error) = (p.communicate(timeout=900) for p in both)
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert [process.returncode for process in both] == [0, 0], (error + other_error)[-4000:]
    assert "both.mp4: 10 frames" in out and "sample" in error
    assert "both.mp4" not in other_out and "sample" not in other_error
    assert not list(Path("second").iterdir())
    np.testing.assert_allclose(np.load("first/both.npy"), plain, atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "flags", "devices"),
    [
        (None, "", min(cores(), 8)),
        (1, "", 1),
        (999, "", cores()),
        (1, "--xla_force_host_platform_device_count=3", 3),
    ],
)
def test_a_cpu_is_as_many_devices_as_asked_for(asked, flags, devices):
    script = (
        "import jax; from syncos_jax.sampling.devices import provide_cpu_devices as provide; "
        f"provide({asked}); print(jax.device_count()); provide(2); print(jax.device_count())"
    )
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(devices)] * 2  # the second time it is too late


def test_weights_may_be_divided():
    """Each of two devices has half of the columns; the video is the same."""
    plain, _ = latents("plain")
    script = SCRIPT.replace(
        "app(sys.argv[1:])",
        "from syncos_jax.sampling.run import Run\n"
        "real = Run.__init__\n"
        "def noted(self, *given):\n"
        "    real(self, *given)\n"
        "    (weight,) = __import__('jax').tree.leaves(self.inputs.params)\n"
        "    print('shards', [list(s.data.shape) for s in weight.addressable_shards])\n"
        "Run.__init__ = noted\n"
        "app(sys.argv[1:])",
    )
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}", **flags}
    arguments = ["generate", "story.yaml", "--no-cache", "--out", "split.mp4"]
    arguments += ["--latents", "split.npy", "--devices", "4", "--weights-over", "2"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "shards [[2, 2], [2, 2], [2, 2], [2, 2]]" in done.stdout
    np.testing.assert_allclose(np.load("split.npy"), plain, atol=1e-5)
    result = generate("--weights-over", 2, "--out", "a.mp4")
    assert result.exit_code == 2 and "--weights-over needs --devices" in result.stderr
