"""Every kind of output: what is written is what was in memory, with its label and its comment."""

import av
import numpy as np
import pytest
from PIL import Image
from test_video import moving

from syncos_jax.errors import InputError
from syncos_jax.media.encode import check_video_path, read_comment
from syncos_jax.media.label import render
from syncos_jax.media.video import Video, load_video

COMMENT = '{"generated":true,"text":"é \\" ;=# \\\\"}'
KINDS = ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.gif", "a"]


@pytest.mark.parametrize("name", KINDS)
def test_the_comment_comes_back(tmp_path, name):
    path = Video(moving(), 8).save(tmp_path / name, comment=COMMENT)
    assert read_comment(path) == COMMENT
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert read_comment(Video(moving(), 8).save(tmp_path / name)) == ""


def test_webm(tmp_path):
    video = Video(moving(), 8)
    path = video.save(tmp_path / "a.webm", scale=4)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name in ("vp9", "libvpx-vp9") and stream.pix_fmt == "yuv420p"
    back = load_video(path)
    assert back.frames.shape == (6, 128, 192, 3) and back.fps == 8
    assert np.abs(back.frames[:, 2::4, 2::4].astype(int) - video.frames).mean() < 4


@pytest.mark.parametrize(("fps", "total"), [(8, 750), (24, 250), (50, 120)])
def test_gif(tmp_path, fps, total):
    video = Video(moving(6, 31, 47), fps)  # an odd size stays
    with Image.open(video.save(tmp_path / "a.gif")) as image:
        assert image.size == (47, 31) and image.n_frames == 6 and image.info["loop"] == 0
        spent = 0
        for index in range(6):
            image.seek(index)
            spent += image.info["duration"]
            still = np.asarray(image.convert("RGB")).astype(int)
            assert np.abs(still - video.frames[index]).mean() < 6
        assert spent == total
    with pytest.raises(InputError, match="at most 50 frames per second, not 60"):
        Video(moving(), 60).save(tmp_path / "b.gif")


def test_png_frames(tmp_path):
    video = Video(moving(12, 9, 15), 8)
    folder = video.save(tmp_path / "frames", scale=2)
    names = sorted(path.name for path in folder.iterdir())
    assert names[0] == "000000.png" and len(names) == 12
    last = np.asarray(Image.open(folder / "000011.png"))
    np.testing.assert_array_equal(last[::2, ::2], video.frames[11])
    Video(moving(3), 8).save(folder)  # an earlier run gives way, as a whole
    assert len(list(folder.iterdir())) == 3
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="the folder contains other files"):
        video.save(folder)
    assert len(list(folder.iterdir())) == 4 and [p.name for p in tmp_path.iterdir()] == ["frames"]


def test_a_failure_leaves_the_old_frames(tmp_path, monkeypatch):
    folder = Video(moving(3), 8).save(tmp_path / "frames")
    monkeypatch.setattr(
        Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        Video(moving(5), 8).save(folder)
    assert len(list(folder.iterdir())) == 3 and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", KINDS)
def test_the_label_is_drawn(tmp_path, name):
    plain = np.full((2, 20, 40, 3), 120, np.uint8)
    path = Video(plain, 8).save(tmp_path / name, scale=4, label="generated")
    source = path / "000001.png" if path.is_dir() else path
    last = np.asarray(Image.open(source)) if path.is_dir() else load_video(source).frames[-1]
    corner, rest = last[-18:, :50].astype(int), last[:40].astype(int)
    assert corner.min() < 60 and corner.max() > 200
    assert np.abs(rest - 120).max() < 8


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (" ", "one line of text"),
        ("a\nb", "one line of text"),
        ("生成", "cannot be drawn"),
        ("x" * 99, "too long for a video 160 pixels wide, got .*; shorten it"),
    ],
)
def test_bad_labels(label, message):
    with pytest.raises(InputError, match=f"label.*{message}"):
        render(label, 80, 160)


def test_labels_fit():
    for height, width in ((32, 96), (64, 64), (1080, 1920)):
        image = render("generated", height, width)
        assert image.width <= width and image.height <= height // 2


def test_names(tmp_path):
    with pytest.raises(InputError, match="must end in .mp4, .mov, .mkv, .webm, .gif, or have no"):
        check_video_path(tmp_path / "a.avi")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file: not a folder"):
        check_video_path(tmp_path / "file")
    with pytest.raises(InputError, match="no does not exist"):
        check_video_path(tmp_path / "no" / "frames")
    with pytest.raises(InputError, match="cannot be read as a video"):
        read_comment(tmp_path / "none.mp4")
