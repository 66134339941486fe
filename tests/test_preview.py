"""The preview: a linear map that finds a linear decoder, and a strip every few rows."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import FakeModel
from PIL import Image
from test_family import ToyFlow

from syncos_jax.errors import InputError
from syncos_jax.pipeline import Pipeline
from syncos_jax.pipeline.preview import Preview, colours


def test_a_linear_decoder_is_found():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(9, 3, 5, 4)).astype(np.float32)
    matrix, shift = rng.normal(size=(4, 3)) * 20, np.asarray([120, 130, 140])
    exact = latents @ matrix + shift
    frames = np.clip(exact, 0, 255).round().astype(np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    chosen = np.asarray([0, 4, 8])
    found = colours(latents, frames[chosen], chosen)
    assert np.abs(found - exact.clip(0, 255)).max() < 4


def test_looks_every_few_rows_and_at_the_end(tmp_path, monkeypatch):
    preview = Preview(Pipeline(FakeModel()), tmp_path / "p.png", every=5)
    latents = np.zeros((20, 2, 3, 4), np.float32)
    looks = []
    monkeypatch.setattr(preview, "write", looks.append)
    for row in (1, 4, 6, 9, 11, 12, 17, 20):
        preview(SimpleNamespace(next_call=row, num_calls=20, clean=latents))
    assert len(looks) == 4  # at 6, 11, 17, 20


def test_the_strip(tmp_path):
    preview = Preview(Pipeline(FakeModel()), tmp_path / "p.png")
    latents = np.zeros((20, 2, 3, 4), np.float32)
    latents[10:, ..., 0] = 0.4  # the second half is redder
    preview.write(latents)
    strip = np.asarray(Image.open(tmp_path / "p.png")).astype(int)
    assert strip.shape == (2 * (84 + 4) + 4, 8 * (126 + 4) + 4, 3)
    assert strip[40, 40, 0] + 40 < strip[130, 40, 0]
    assert [path.name for path in Path(tmp_path).iterdir()] == ["p.png"]


def test_the_strip_of_a_causal_autoencoder(tmp_path):
    preview = Preview(Pipeline(ToyFlow()), tmp_path / "p.png")
    latents = np.zeros((6, 2, 3, 2), np.float32)
    latents[3:, ..., 0] = 1.0  # the first channel is red and blue
    latents[1:5, ..., 1] = 0.5  # the second green
    preview.write(latents)
    strip = np.asarray(Image.open(tmp_path / "p.png")).astype(int)
    cells = strip[40, 40::130][:6]
    np.testing.assert_allclose(
        cells,
        [[128, 128, 128], *[[128, 158, 128]] * 2, *[[188, 158, 188]] * 2, [188, 128, 188]],
        atol=3,
    )


def test_bad_arguments(tmp_path):
    with pytest.raises(InputError, match="preview_every must be 1 or more, got 0"):
        Preview(Pipeline(FakeModel()), tmp_path / "p.png", every=0)
    with pytest.raises(InputError, match="does not exist"):
        Preview(Pipeline(FakeModel()), tmp_path / "no" / "p.png")
