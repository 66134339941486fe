"""Pictures and clips that people have, read as they are seen."""

import struct
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from syncos_jax.errors import InputError
from syncos_jax.media.pictures import describe_fit, fit_picture, load_picture
from syncos_jax.media.read import at_rate, constant_rate
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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(tmp_path, half, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = load_picture(saved(tmp_path, "p.png", Image.fromarray(half), exif=exif))
    assert read.shape == ((20, 40, 3) if orientation < 5 else (40, 20, 3))
    red_first = orientation in (1, 4, 5, 6)  # at the left, or on top
    assert read[2, 2].tolist() == ([200, 0, 0] if red_first else [0, 0, 200])


def test_transparency_of_other_modes(tmp_path, half):
    grey = np.dstack([half[..., 0], np.full((20, 40), 128, np.uint8)])
    read = load_picture(saved(tmp_path, "la.png", Image.fromarray(grey, "LA")))
    assert read[2, 2].tolist() == [227] * 3 and read[2, -2].tolist() == [127] * 3
    keyed = saved(tmp_path, "key.png", Image.fromarray(half), transparency=(200, 0, 0))
    assert load_picture(keyed)[2, 2].tolist() == [255] * 3
    clip = [Image.fromarray(np.dstack([half, np.full((20, 40), a, np.uint8)])) for a in (0, 255)]
    saved(tmp_path, "clip.webp", clip[0], save_all=True, append_images=clip[1:], lossless=True)
    frames = load_video(tmp_path / "clip.webp").frames
    assert (frames[0] == 255).all() and np.array_equal(frames[1], half)
    assert load_video(tmp_path / "clip.webp").fps == 10  # without durations, as in browsers


def test_pictures_of_numbers(tmp_path):
    """Floats from 0 to 1 or to 255, 32-bit integers, what is no number."""
    values = np.linspace(0, 1, 400).reshape(20, 20)
    expected = np.rint(values * 255).astype(np.uint8)
    kinds = {
        "unit": values.astype(np.float32),
        "bytes": (values * 255).astype(np.float32),
        "integers": np.rint(values * 65535).astype(np.int32),
    }
    for name, kind in kinds.items():
        read = load_picture(saved(tmp_path, f"{name}.tif", Image.fromarray(kind)))
        assert np.abs(read[..., 0].astype(int) - expected).max() <= 1, name
    nothing = np.full((20, 20), np.nan, np.float32)
    assert (load_picture(saved(tmp_path, "nan.tif", Image.fromarray(nothing))) == 0).all()


def test_hostile_files(tmp_path, half):
    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)  # 11 GB when decoded
    png = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    files = {
        "bomb.png": (b"\x89PNG\r\n\x1a\n" + png, "pixels are too many"),
        "run.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", "not a picture"),
        "photo.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC files cannot be read"),
        "empty.png": (b"", "not a picture"),
    }
    for name, (content, expected) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=expected) as error:
            load_picture(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="a folder"):
        load_picture(tmp_path)
    assert load_picture(saved(tmp_path, "burst.mpo", Image.fromarray(half))).shape == half.shape
    strip = saved(tmp_path, "strip.png", Image.new("RGB", (20_000, 16)))
    assert fit_picture(load_picture(strip), 64, 64).shape == (64, 64, 3)


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


def clip(path, frames, times):
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
    rate, shown = constant_rate(np.zeros(3))  # no times at all
    assert rate == 8 and list(shown) == [0, 1, 2]


def film(path, frames, options=None, pixels="yuv444p", rotation=0):
    """Writes frames at 25 fps, with key frames, B-frames and a display matrix, as phones do."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(
            "libx264", rate=25, options={"crf": "5", "bf": "2", "g": "10"}
        )
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        if rotation:
            stream.set_display_rotation(rotation)
        if pixels.startswith("yuvj"):
            stream.codec_context.color_range = 2
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame)
            container.mux(stream.encode(picture.reformat(format=pixels)))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, -1), (180, 2)])
def test_phone_clips_are_turned_upright(tmp_path, half, rotation, turns):
    frames = load_video(film(tmp_path / "phone.mp4", [half] * 3, rotation=rotation)).frames
    assert np.abs(frames[0].astype(int) - np.rot90(half, turns)).max() < 8


@pytest.mark.parametrize(
    "options",
    [
        {},  # begins with an edit list
        {"use_editlist": "0"},
        {"movflags": "frag_keyframe+empty_moov+default_base_moof"},
    ],
)
def test_every_frame_of_a_clip_with_b_frames(tmp_path, options):
    levels = np.arange(40, 240, 5)
    path = film(tmp_path / "clip.mp4", [np.full((32, 32, 3), n, np.uint8) for n in levels], options)
    video = load_video(path)
    assert (len(video), video.fps) == (40, pytest.approx(25))
    assert np.abs(video.frames[:, 16, 16, 0].astype(int) - levels).max() <= 1


def test_full_range_clips_keep_black_and_white(tmp_path):
    frames = [np.full((32, 32, 3), level, np.uint8) for level in (255, 0, 128)]
    shown = load_video(film(tmp_path / "clip.mp4", frames, pixels="yuvj420p")).frames[:, 16, 16]
    assert np.abs(shown.astype(int) - [[255], [0], [128]]).max() <= 2


def test_frames_at_another_rate():
    def shown(times, fps):
        return [
            int(frame) for frame in at_rate(zip(times, np.arange(len(times)), strict=True), fps)
        ]

    assert shown(np.arange(12) / 24, 8) == [0, 3, 6, 9]
    assert shown(np.arange(4) / 8, 24) == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert shown(np.round(np.arange(24) / 24, 2), 24) == list(range(24))  # a GIF's hundredths
    assert shown([0, 0.5, 0.6, 1.0], 10) == [0] * 5 + [1] + [2] * 4 + [3] * 4
    assert shown([0.0], 8) == [0] and shown([], 8) == []


def test_frames_of_several_sizes(tmp_path, half):
    (tmp_path / "clip").mkdir()
    for number, picture in enumerate((half, half[:, :30])):
        Image.fromarray(picture).save(tmp_path / "clip" / f"{number}.png")
    with pytest.raises(InputError, match="several sizes: 30×20, 40×20"):
        load_video(tmp_path / "clip")
