"""In other people's processes: their mesh, transfer guard, generator, event loop and threads."""

import _thread
import asyncio
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from fakes import FakeModel
from jax.sharding import AxisType
from toy import FRAME, Network, conditioning, parameters

import syncos_jax
from syncos_jax import NoiseSchedule, Pipeline, Scenario, SynCoS, WindowLayout
from syncos_jax.errors import InputError
from syncos_jax.runs.metadata import describe
from syncos_jax.sampling import sample, sample_batch, start
from syncos_jax.sampling.devices import make_mesh
from syncos_jax.sampling.noise import as_key
from syncos_jax.sampling.run import run_to_end

LAYOUT = WindowLayout(frames=8, window=4, stride=2)
NETWORK = Network()
GIVEN = {
    "cond": conditioning(LAYOUT.count),
    "params": parameters(),
    "layout": LAYOUT,
    "frame_shape": FRAME,
    "schedule": NoiseSchedule.from_betas(beta_end=0.006),
    "sampler": SynCoS(steps=2, iterations=1, t_min=400, learning_rate=0.1),
    "key": jax.random.key(0),
}
STORY = Scenario.from_dict(
    {
        "global": "a cat",
        "events": [{"prompt": "sleeps", "frames": 8}, {"prompt": "wakes", "frames": 4}],
        "sampler": {"name": "co_denoising", "steps": 2},
    }
)


def latents(**changes):
    return np.asarray(sample(NETWORK, **{**GIVEN, **changes}))


@pytest.fixture(scope="module")
def expected():
    return latents()


def mesh_of(kind):
    return jax.set_mesh(jax.make_mesh((1,), ("x",), axis_types=(kind,)))


SETTINGS = {
    "explicit mesh": lambda: mesh_of(AxisType.Explicit),
    "automatic mesh": lambda: mesh_of(AxisType.Auto),
    "transfer guard": lambda: jax.transfer_guard("disallow"),
    "other generator": lambda: jax.default_prng_impl("rbg"),
    "other threefry": lambda: jax.threefry_partitionable(False),
    "strict types": lambda: jax.numpy_dtype_promotion("strict"),
    "strict ranks": lambda: jax.numpy_rank_promotion("raise"),
}


@pytest.fixture(params=SETTINGS)
def settings(request):
    with SETTINGS[request.param]():
        yield


def test_sample_gives_the_same_latents(settings, expected):
    np.testing.assert_array_equal(latents(), expected)


def test_a_watched_run_gives_the_same_latents(settings, expected):
    run = start(NETWORK, **GIVEN)
    run_to_end(run, progress=lambda *done: None, part_seconds=0.0)
    assert run.clean.shape == expected.shape and run.num_skipped == 0
    np.testing.assert_array_equal(run.latents(), expected)


def test_a_batch_gives_the_same_latents(settings, expected):
    given = {name: value for name, value in GIVEN.items() if name not in ("cond", "key")}
    made = sample_batch(NETWORK, [GIVEN["cond"]], keys=[GIVEN["key"]], mesh=make_mesh(1), **given)
    np.testing.assert_allclose(np.asarray(made)[0], expected, rtol=0, atol=1e-5)


MODEL = FakeModel()


@pytest.fixture(scope="module")
def frames():
    return Pipeline(MODEL)(STORY, seed=3).frames


def test_a_pipeline_gives_the_same_video(settings, frames):
    np.testing.assert_array_equal(Pipeline(MODEL)(STORY, seed=3).frames, frames)


def test_the_metadata_names_the_generator():
    request = Pipeline(MODEL).prepare(STORY)
    assert describe(request, np.zeros((1, 1, 1, 1), np.float32))["prng"] == "threefry2x32"
    assert jax.random.key_impl(request.key) == "threefry2x32"


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
def test_within_a_jit_below_a_mesh(kind, expected):
    with mesh_of(kind):
        made = jax.jit(lambda key: sample(NETWORK, **{**GIVEN, "key": key}))(GIVEN["key"])
    # One program where the other has several, so rounding differs.
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_of_both_styles(impl):
    with jax.default_prng_impl(impl):
        old, new = jax.random.PRNGKey(4), jax.random.key(4)
        assert jax.random.key_impl(as_key(old)) == impl and as_key(old) == new
        assert as_key(np.asarray(old)) == new
    other = latents(key=old)  # made there, used here
    assert impl == "unsafe_rbg" or np.array_equal(other, latents(key=new))


def test_a_mesh_of_plain_make_mesh(expected):
    """Its axes are explicit by default."""
    mesh = jax.make_mesh((1, 1), ("data", "segment"))
    assert mesh.axis_types == (AxisType.Explicit,) * 2
    np.testing.assert_allclose(latents(mesh=mesh), expected, rtol=0, atol=1e-5)
    with jax.set_mesh(mesh):
        assert Pipeline(MODEL, mesh=mesh)(STORY).frames.shape[0] == 12
    with pytest.raises(InputError, match="split over 'data', but the mesh has the axes x"):
        latents(mesh=jax.make_mesh((1,), ("x",)))


def test_a_result_combines_with_arrays_elsewhere(settings, expected):
    """Without a mesh it is committed to no device; with one it is, and the host's copy is not."""
    made = sample(NETWORK, **GIVEN)
    assert not made.committed
    np.testing.assert_array_equal(jax.device_get(-made), -expected)
    committed = sample(NETWORK, **GIVEN, mesh=make_mesh(1))
    assert committed.committed
    np.testing.assert_allclose(jax.device_get(committed), expected, rtol=0, atol=1e-5)


def test_the_loop_itself_transfers_nothing_implicitly():
    """Setting up may read tables of the host; what runs thousands of times may not."""
    run = start(NETWORK, **GIVEN)
    allowed = []
    guard = jax.transfer_guard_host_to_device

    def note(level):
        allowed.append(level)
        return guard(level)

    with jax.transfer_guard("disallow"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "transfer_guard_host_to_device", note)
        run.advance()
        run.wait()
        run.check()
    assert allowed == []


# -- event loops, threads, forks, interrupts -------------------------------------------------------


def test_in_a_running_event_loop(expected):
    async def cell():
        return latents()

    np.testing.assert_array_equal(asyncio.run(cell()), expected)


def test_in_threads_at_once(expected, frames):
    pipeline = Pipeline(MODEL)
    with ThreadPoolExecutor(3) as pool:
        for made in pool.map(lambda _: latents(), range(3)):
            np.testing.assert_array_equal(made, expected)
        for video in pool.map(lambda _: pipeline(STORY, seed=3), range(3)):
            np.testing.assert_array_equal(video.frames, frames)


def test_a_checkpoint_in_a_thread(tmp_path, frames):
    """Signals belong to the main thread; there are none to catch elsewhere."""
    made = []
    pipeline = Pipeline(MODEL)
    thread = threading.Thread(
        target=lambda: made.append(pipeline(STORY, seed=3, checkpoint=tmp_path / "run"))
    )
    thread.start()
    thread.join()
    np.testing.assert_array_equal(made[0].frames, frames)


def test_an_interrupted_call_can_be_made_again(frames):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    pipeline = Pipeline(MODEL)

    def interrupt(done, total):
        _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt):
        pipeline(STORY, seed=3, progress=interrupt)
        for _ in range(1000):  # the interrupt takes effect at the next bytecode
            pass
    np.testing.assert_array_equal(pipeline(STORY, seed=3).frames, frames)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


SCRIPT = """
import os, sys
import numpy as np
from fakes import FakeModel
from syncos_jax import Pipeline, Scenario
story = Scenario.from_dict({"global": "a cat", "events": [{"prompt": "sleeps", "frames": 8},
    {"prompt": "wakes", "frames": 4}], "sampler": {"name": "co_denoising", "steps": 2}})
"""


def run_script(code, *options, env=None):
    folders = [str(Path(syncos_jax.__file__).parents[1]), str(Path(__file__).parent)]
    return subprocess.run(
        [sys.executable, *options, "-c", SCRIPT + code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders), **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_without_assertions_and_docstrings(frames):
    """`python -OO`: nothing rests on an assertion or a docstring."""
    code = "print(int(Pipeline(FakeModel())(story, seed=3).frames.astype(int).sum()))"
    result = run_script(code, "-OO")
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == int(frames.astype(int).sum())


def test_a_child_of_a_fork_imports_and_plans():
    """JAX does not compute in a child forked after it began to; what needs no device works."""
    code = """
pipeline = Pipeline(FakeModel())
pipeline(story)
child = os.fork()
if child == 0:
    Scenario.from_dict(story.to_dict())
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    result = run_script(code)
    assert result.returncode == 0 and result.stdout.split() == ["7"], result.stderr
