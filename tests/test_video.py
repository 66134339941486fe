"""Video files and contact sheets: what is written is what was in memory, or nothing is."""

import av
import numpy as np
import pytest
from PIL import Image

from syncos_jax.errors import InputError
from syncos_jax.files import check_writable, replacing
from syncos_jax.media.video import Video, check_video_path, load_video, side_by_side


def moving(frames=6, height=32, width=48):
    """A bright square that moves over a smooth slope of colours."""
    y, x = np.mgrid[0:height, 0:width]
    slope = np.stack([40 + 3 * x, 90 + 0 * x, 60 + 4 * y], axis=-1).astype(np.uint8)
    video = np.repeat(slope[None], frames, axis=0)
    for index in range(frames):
        video[index, 8:20, 4 * index : 4 * index + 12] = (230, 60, 40)
    return video


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_round_trip(tmp_path, suffix):
    video = Video(moving(), fps=8)
    path = video.save(tmp_path / f"a{suffix}", scale=4)
    back = load_video(path)
    assert back.frames.shape == (6, 128, 192, 3) and back.fps == 8
    error = np.abs(back.frames[:, 2::4, 2::4].astype(int) - video.frames)
    assert error.mean() < 3  # yuv420p keeps a quarter of the colour
    assert len(video) == 6 and video.seconds == 0.75


def test_file_is_what_players_expect(tmp_path):
    path = Video(moving(), fps=23.976).save(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == pytest.approx(23.976, abs=1e-3)
        assert stream.frames == 6
    raw = path.read_bytes()
    assert raw.index(b"moov") < raw.index(b"mdat")  # plays before it is loaded whole


@pytest.mark.parametrize(
    ("height", "width", "scale", "shape"),
    [(7, 9, 1, (8, 10)), (7, 9, 3, (22, 28)), (1, 1, 1, (2, 2)), (64, 64, 4, (256, 256))],
)
def test_odd_sizes_are_made_even(tmp_path, height, width, scale, shape):
    frames = np.full((2, height, width, 3), 200, np.uint8)
    back = load_video(Video(frames, fps=8).save(tmp_path / "a.mp4", scale=scale))
    assert back.frames.shape[1:3] == shape
    assert np.abs(back.frames.astype(int) - 200).max() <= 3


def test_contact_sheet(tmp_path):
    events = ((0, "the square moves"), (4, "it goes on"))
    video = Video(moving(10, 64, 64), 8, events, "a red square")
    path = video.contact_sheet(tmp_path / "a.png", columns=4)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape[1] == 4 + 4 * (128 + 4)
    still = sheet[26 + 22 : 26 + 22 + 128, 4:132]  # the first: every pixel twice as wide and high
    np.testing.assert_array_equal(still[::2, ::2], video.frames[0])
    second = sheet[26 + 154 + 22 : 26 + 154 + 22 + 128, -132:-4]
    np.testing.assert_array_equal(second[::2, ::2], video.frames[9])


@pytest.mark.parametrize("frames", [1, 3, 40])
def test_contact_sheet_of_any_length(tmp_path, frames):
    video = Video(moving(frames, 16, 300), 8)
    assert Image.open(video.contact_sheet(tmp_path / "a.png")).size[0] > 300


def test_side_by_side(tmp_path):
    frames = moving(10, 64, 64)
    events = ((0, "the square moves"), (4, "it goes on"))
    videos = [Video(frames, 8, events, "one"), Video(255 - frames, 8, events, "another")]
    sheet = np.asarray(Image.open(side_by_side(videos, tmp_path / "a.png", columns=3)))
    first, second = sheet[48 : 48 + 128, 4:132], sheet[48 : 48 + 128, 3 * 132 + 20 :][:, :128]
    np.testing.assert_array_equal(first[::2, ::2], frames[0])
    np.testing.assert_array_equal(second, 255 - first)
    with pytest.raises(InputError, match="cannot be laid side by side"):
        side_by_side([videos[0], Video(frames[:5], 8)], tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()


def test_bad_frames():
    with pytest.raises(ValueError, match=r"frames are float64 \[2\]"):
        Video(np.zeros(2), 8)
    with pytest.raises(ValueError, match="fps is 0"):
        Video(moving(), 0)


def test_bad_arguments(tmp_path):
    video = Video(moving(), 8)
    with pytest.raises(InputError, match="scale must be an integer from 1 to 64, got 0"):
        video.save(tmp_path / "a.mp4", scale=0)
    with pytest.raises(InputError, match="columns is 0"):
        video.contact_sheet(tmp_path / "a.png", columns=0)
    with pytest.raises(InputError, match=r"must end in .mp4, .mov, .mkv, .webm, .gif"):
        video.save(tmp_path / "a.avi")
    assert not list(tmp_path.iterdir())


def test_unwritable_places_are_found_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    cases = {
        tmp_path: "the folder contains other files",
        tmp_path / "no" / "a.mp4": "does not exist; create it first",
        tmp_path / "file" / "a.mp4": "is not a folder",
        "/proc/a.mp4": "cannot write",
        "/dev/null": "must end in",
        tmp_path / ("n" * 300 + ".mp4"): "cannot write",
        "a\0b.mp4": "cannot write",
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=message):
            check_video_path(path)
    with pytest.raises(InputError, match="not a regular file"):
        check_writable("/dev/null")
    with pytest.raises(InputError, match="not a file name"):
        check_writable("")
    check_video_path(tmp_path / "a.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("no space left")
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_not_a_video(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        load_video(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("not a video at all")
    with pytest.raises(InputError, match="cannot be read as a video"):
        load_video(tmp_path / "text.mp4")
