"""The watermark: read again after what happens to videos, silent where there is none."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from syncos_jax.errors import InputError
from syncos_jax.media import watermark
from syncos_jax.media.watermark import Watermark, detect

PAYLOAD = 0x0123456789ABCDEF
FPS = 8.0


@pytest.fixture(scope="module")
def frames():
    """A disc that moves over a textured ground, uint8 [40, 256, 256, 3]."""
    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.integers(60, 200, (24, 24, 3)).astype(np.uint8))
    ground = np.asarray(small.resize((256, 256), Image.Resampling.BICUBIC))
    y, x = np.mgrid[:256, :256]
    video = np.repeat(ground[None], 40, axis=0)
    for index in range(40):
        video[index, np.hypot(y - 128, x - 40 - 4 * index) < 40] = (220, 60, 40)
    return video


@pytest.fixture(scope="module")
def marked(frames):
    mark = Watermark(PAYLOAD, 256, 256, FPS).mark
    return np.stack([mark(frame, index) for index, frame in enumerate(frames)])


def luma(frames):
    return np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in frames])


def times(frames, fps=FPS):
    return np.arange(len(frames)) / fps


def recoded(frames, codec, crf):
    """The frames after a lossy codec."""
    options = {"crf": str(crf)} | ({"b": "0", "cpu-used": "5"} if "vp9" in codec else {})
    file = io.BytesIO()
    with av.open(file, "w", format="mp4" if codec == "libx264" else "webm") as container:
        stream = container.add_stream(codec, rate=Fraction(8), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def resized(frames, height, width):
    size = (width, height)
    return np.stack([np.asarray(Image.fromarray(f).resize(size)) for f in frames])


def test_the_change_is_small(frames, marked):
    error = np.mean((marked.astype(float) - frames) ** 2)
    assert 42.0 <= 10 * np.log10(255**2 / error) <= 43.5


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda v: v, id="as marked"),
        pytest.param(lambda v: recoded(v, "libx264", 28), id="H.264 crf 28"),
        pytest.param(lambda v: recoded(v, "libx264", 35), id="H.264 crf 35"),
        pytest.param(lambda v: recoded(v, "libvpx-vp9", 36), id="VP9"),
        pytest.param(lambda v: resized(resized(v, 128, 128), 256, 256), id="half and back"),
        pytest.param(lambda v: resized(v, 128, 128), id="half"),
        pytest.param(lambda v: v[:, 13:-13, 13:-13], id="cropped"),
        pytest.param(lambda v: resized(v[:, 13:-13, 13:-13], 256, 256), id="cropped, enlarged"),
        pytest.param(lambda v: v[3:], id="beginning cut off"),
    ],
)
def test_payload_survives(marked, change):
    video = change(marked)
    found = detect(luma(video), times(video))
    assert found.payload == PAYLOAD
    assert found.false_alarm <= 1e-6


def test_payload_survives_another_frame_rate(marked):
    shown = np.arange(0, 40, 1.25).astype(int)
    assert detect(luma(marked[shown]), times(marked)[shown]).payload == PAYLOAD
    assert detect(luma(marked), times(marked, fps=10.0)).payload == PAYLOAD  # plays faster


def test_unmarked_videos_have_none(frames):
    found = detect(luma(frames), times(frames))
    assert (found.payload, found.found) == (None, False)
    assert found.false_alarm > 0.01


def test_false_alarms_follow_the_bound():
    """Over 200 keys of noise, the score is below what the bound allows: about normal."""
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(200):
        video = rng.integers(0, 256, (4, 64, 64)).astype(np.uint8)
        scores.append(detect(video, np.arange(4) / 2.0, search=False).score)
    assert max(scores) < 7.1  # 64 * 64 * 4 positions at one in a million
    assert 3.0 < np.median(scores) < 4.5  # the largest of some thousand normal values


def test_every_bit_of_the_payload_is_carried():
    for payload in (0, 2**64 - 1, *(1 << bit for bit in range(0, 64, 7))):
        assert watermark._decode(1.0 - 2.0 * watermark._encode(payload)) == payload


def test_code_corrects_noise_and_refuses_more():
    rng = np.random.default_rng(1)
    clean = 1.0 - 2.0 * watermark._encode(PAYLOAD)
    noisy = clean + rng.normal(0, 0.7, len(clean))
    assert np.count_nonzero((noisy < 0) != (clean < 0)) > 5
    assert watermark._decode(noisy) == PAYLOAD
    assert watermark._decode(rng.normal(0, 1, len(clean))) is None


def test_what_cannot_be_marked_is_refused():
    with pytest.raises(InputError, match="too small for a watermark"):
        Watermark(1, 48, 80, FPS)
    with pytest.raises(InputError, match="64 bits"):
        Watermark(2**64, 64, 64, FPS)
