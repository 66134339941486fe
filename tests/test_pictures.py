"""Pictures and clips that people have, read as they are seen."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from syncos_jax.errors import InputError
from syncos_jax.media.pictures import describe_fit, fit_picture, load_picture
from syncos_jax.media.read import constant_rate
from syncos_jax.media.video import Video, load_video


@pytest.fixture
def half():
    """Left red, right blue, uint8 [20, 40, 3]."""
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:, :20, 0] = 200
    picture[:, 20:, 2] = 200
    return picture


def saved(tmp_path, name, image, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_phone_pictures_are_turned(tmp_path, half):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise
    path = saved(tmp_path, "phone.png", Image.fromarray(half), exif=exif)
    assert np.array_equal(load_picture(path), np.rot90(half, -1))


def test_sixteen_bits_are_scaled(tmp_path):
    values = np.linspace(0, 65535, 400).reshape(20, 20).astype(np.uint16)
    read = load_picture(saved(tmp_path, "deep.png", Image.fromarray(values)))
    assert np.array_equal(read[..., 0], np.rint(values / 257).astype(np.uint8))


def test_transparent_pictures_stand_on_white(tmp_path, half):
    clear = np.dstack([half, np.zeros((20, 40), np.uint8)])
    clear[:, :20, 3] = 255
    read = load_picture(saved(tmp_path, "clear.png", Image.fromarray(clear)))
    assert np.array_equal(read[:, :20], half[:, :20])
    assert (read[:, 20:] == 255).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_modes(tmp_path, half, mode):
    name = "picture.tiff" if mode == "CMYK" else "picture.png"
    image = Image.fromarray(half).convert(mode)
    read = load_picture(saved(tmp_path, name, image))
    assert np.array_equal(read, np.asarray(image.convert("RGB")))


def test_what_is_refused(tmp_path, half):
    image = Image.fromarray(half)
    cases = {
        "no such file": tmp_path / "nothing.png",
        "too few": saved(tmp_path, "small.png", image.resize((8, 40))),
        "an animation of 2 frames": saved(
            tmp_path, "moves.gif", image, save_all=True, append_images=[image.rotate(90)]
        ),
    }
    text = tmp_path / "text.png"
    text.write_text("hello")
    cases["not a picture"] = text
    cut = saved(tmp_path, "cut.jpg", Image.effect_noise((64, 64), 50))
    cut.write_bytes(cut.read_bytes()[:900])
    cases["damaged or cut short"] = cut
    for expected, path in cases.items():
        with pytest.raises(InputError, match=expected) as error:
            load_picture(path)
        assert path.name in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="too many"):
        load_picture(saved(tmp_path, "large.png", image), max_pixels=700)


def test_cover_cuts_the_middle_and_contain_adds_bars(half):
    covered = fit_picture(half, 20, 20)
    assert covered.shape == (20, 20, 3)
    assert covered[10, 2, 0] > 150 and covered[10, -3, 2] > 150  # the boundary stays in the middle
    contained = fit_picture(half, 40, 40, "contain")
    assert (contained[:8] == 0).all() and (contained[-8:] == 0).all()
    assert describe_fit(half.shape, 20, 20) == "40×20 to 20×20, 50 % cut off at left and right"
    assert describe_fit(half.shape, 40, 80) == "40×20 to 80×40"
    with pytest.raises(InputError, match="cover or contain"):
        fit_picture(half, 20, 20, "stretch")


def clip(path, frames, times, rotation=0):
    """Writes frames shown at `times` (milliseconds)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv444p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for frame, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(frame)
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def test_variable_rates_become_constant(tmp_path):
    frames = [np.full((32, 32, 3), level, np.uint8) for level in (20, 80, 140, 200)]
    video = load_video(clip(tmp_path / "phone.mkv", frames, [0, 40, 80, 200]))
    assert video.fps == pytest.approx(25, rel=0.02)
    shown = video.frames[:, 16, 16, 0].astype(int)
    assert np.abs(shown - [20, 80, 140, 140, 140, 200]).max() < 8


def test_own_gif_keeps_its_rate(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (24, 32, 32, 3)).astype(np.uint8)
    Video(frames, 24.0).save(tmp_path / "video.gif")
    read = load_video(tmp_path / "video.gif")
    assert (len(read), read.fps) == (24, pytest.approx(24, rel=0.01))


def test_even_times_keep_every_frame():
    rate, shown = constant_rate(np.arange(50) / 29.97)
    assert rate == pytest.approx(29.97)
    assert list(shown) == list(range(50))
