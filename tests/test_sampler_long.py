"""Ten minutes of video: memory grows with the latents alone, and it runs."""

import jax
import numpy as np
import pytest
from benchmark_scripts import benchmark

from syncos_jax import NoiseSchedule, SynCoS, WindowLayout
from syncos_jax.sampling import start
from syncos_jax.sampling.run import run_to_end

SIZE = (8, 8, 4)
memory = benchmark("memory")


@pytest.fixture(scope="module")
def found():
    """Bytes for videos of 1, 10 and 75 times the length."""
    return {
        frames: memory.measured(memory.prepared(frames, 16, 4, 8, SIZE))
        for frames in (64, 640, 4800)
    }


def test_memory_grows_with_the_latents_only(found):
    short, middle, long = found.values()
    per_frame = {
        name: (long[name] - middle[name]) / (4800 - 640)
        for name in ("predictions", "rest", "program")
    }
    frame = short["latents"] / 64
    print({name: value / frame for name, value in per_frame.items()})
    # Those of all windows: window / stride times the latents.
    assert per_frame["predictions"] == 4 * frame
    for windows, sizes in zip((13, 157, 1197), (short, middle, long), strict=True):
        assert sizes["predictions"] == windows * 16 * frame
    assert per_frame["rest"] <= 4.1 * frame  # x0, eps, and AdamW's two moments
    # Working memory of the refinement: about three times the predictions.
    assert per_frame["program"] <= 16 * frame
    # A straight line, but for the likeness of each window to each: a number for every two of them.
    kernel = {"rest": 0, "program": 2 * 4 * 1197**2}
    for name in kernel:
        assert long[name] <= 1.02 * (4800 / 640) * middle[name] + kernel[name]
        assert middle[name] <= 1.02 * (640 / 64) * short[name] + kernel[name]
    assert kernel["program"] < 0.1 * 4800 * 40 * 64 * 4 * 4  # little beside VideoCrafter2's latents
    # A call for each call has the windows of the call, a update those of its optimiser step.
    assert (
        long["call_schedule"] <= 8.5 * middle["call_schedule"]
        and long["call_schedule"] < long["latents"]
    )


def test_ten_minutes_with_a_toy_network():
    layout = WindowLayout(frames=4800, window=16, stride=4)
    run = start(
        memory.denoise,
        None,
        layout=layout,
        frame_shape=(2, 2, 1),
        schedule=NoiseSchedule.from_betas(beta_end=0.006),
        sampler=SynCoS(steps=3, iterations=2, t_min=500, windows_per_call=64, learning_rate=0.1),
        key=jax.random.key(0, impl="rbg"),
    )
    assert layout.count == 1197 and run.windows == 63  # 19 calls, no place unused
    seen = []
    run_to_end(run, progress=lambda done, total: seen.append(done))
    result = np.asarray(run.latents())
    assert result.shape == (4800, 2, 2, 1) and np.isfinite(result).all() and result.std() > 0.01
    assert seen[-1] == run.num_calls > 90
