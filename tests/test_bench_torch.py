"""The comparison with PyTorch: plain loops over diffusers' UNet arrive at our latents."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = str(Path(__file__).parent.parent / "benchmarks")

if BENCHMARKS not in sys.path:
    sys.path.append(BENCHMARKS)

import compare  # noqa: E402  (scripts, not a package)
import torch_reference  # noqa: E402

SHORT = ["--steps", "2", "--iterations", "2", "--repeat", "1", "--t-min", "400"]


def run(tmp_path, *options):
    target = tmp_path / "compare.json"
    code = compare.main([*options, "--json", str(target)])
    return code, json.loads(target.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("model", ["demo", "tiny"])
def test_torch_loops_and_ours_give_the_same_latents(model, tmp_path):
    code, values = run(tmp_path, "--model", model, *SHORT)
    assert code == 0
    what = [r["what"].split(",")[0] for r in values["results"]]  # once more on several devices
    assert list(dict.fromkeys(what)) == ["unet", "co_denoising", "syncos"]
    for result in values["results"]:
        assert result["difference"] < 1e-3 * max(1, result["largest"]), result
        assert result["largest"] > 0.1
        assert result["ours"] > 0 and result["theirs"] > 0


def test_a_difference_is_said_and_fails(tmp_path, monkeypatch, capsys):
    def stub(options, temporary):
        result = {"what": "syncos", "against": "torch eager", "ours": 1.0, "theirs": 2.0}
        result |= {"ratio": 2.0, "ratio_processor": 2.0, "difference": 0.5, "largest": 3.0}
        return {"model": "tiny", "others_busy": 0.9, "cores": 2, "results": [result]}

    monkeypatch.setattr(compare, "compare", stub)
    code, _ = run(tmp_path, "--model", "tiny")
    printed = capsys.readouterr()
    assert code == 1 and "latents differ: syncos" in printed.err
    assert "not to be quoted" in printed.out and "| 2.00 |" in printed.out


def test_turns_alternate():
    order = []
    runs = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    wall, processor = compare.take_turns(runs, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert len(wall["a"]) == len(processor["b"]) == 3


def test_torch_windows_are_fused_as_ours():
    import torch

    from syncos_jax.sampling.windows import WindowLayout

    layout = WindowLayout(frames=9, window=4, stride=2)
    problem = torch_reference.Problem(
        starts=[int(s) for s in layout.starts],
        window=4,
        steps=1,
        guidance=1.0,
        batch=1,
        text=torch.zeros(layout.count, 1, 1),
        no_text=torch.zeros(layout.count, 1, 1),
    )
    loops = object.__new__(torch_reference.Sampler)
    loops.problem = problem
    x = np.random.default_rng(0).standard_normal((9, 2, 3, 5), np.float32)
    theirs = loops._windows(torch.from_numpy(np.moveaxis(x, -1, 0).copy()))
    ours = np.asarray(layout.gather(x, np.arange(layout.count)))
    np.testing.assert_array_equal(np.moveaxis(theirs.numpy(), 1, -1), ours)
    scaled = theirs * torch.arange(1.0, layout.count + 1).reshape(-1, 1, 1, 1, 1)
    expected = layout.fuse(np.moveaxis(scaled.numpy(), 1, -1))
    fused = np.moveaxis(loops._fuse(scaled).numpy(), 0, -1)
    np.testing.assert_allclose(fused, expected, rtol=0, atol=1e-5)
