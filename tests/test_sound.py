"""Soundtracks: cut, followed by silence, repeated, kept in step with the pictures."""

import wave

import av
import numpy as np
import pytest

from syncos_jax import Scenario
from syncos_jax.errors import InputError
from syncos_jax.media.sound import RATE, Soundtrack, has_sound
from syncos_jax.media.video import Video, load_video

FRAMES = np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3)).astype(np.uint8)


def heard(path, in_sync=False):
    """The sound of a file, float32 ``[channels, n]``."""
    return np.concatenate(list(Soundtrack(str(path), in_sync=in_sync).samples(60)), axis=1)


@pytest.fixture
def tone(tmp_path):
    """One second of silence, one of a tone; stereo, 44.1 kHz."""
    path, rate = tmp_path / "tone.wav", 44_100
    time = np.arange(2 * rate) / rate
    sound = np.where(time < 1, 0, np.sin(2 * np.pi * 440 * time)) * 0.5
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.stack([sound, sound], axis=1) * 32767).astype("<i2").tobytes())
    return str(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_sound_begins_with_the_first_frame(tmp_path, tone, suffix):
    path = tmp_path / f"video{suffix}"
    Video(FRAMES, 8.0, sound=Soundtrack(tone)).save(path)  # 3 seconds
    sound = np.abs(heard(path, in_sync=True)[0])
    loud = np.flatnonzero(sound > 0.1)
    assert loud[0] / RATE == pytest.approx(1, abs=0.01)
    assert loud[-1] / RATE == pytest.approx(2, abs=0.01)  # then silence
    with av.open(str(path)) as container:
        assert container.duration / 1e6 == pytest.approx(3, abs=0.05)
        (stream,) = container.streams.audio
        assert stream.codec_context.name == ("opus" if suffix == ".webm" else "aac")
        assert stream.channels == 2
    assert (len(load_video(path)), load_video(path).fps) == (24, pytest.approx(8))


def test_long_sound_is_cut_and_short_sound_repeated(tmp_path, tone):
    length = {"cut": (1.5, False, 1.5), "silent": (5.0, False, 1.0), "repeated": (5.0, True, 2.0)}
    for seconds, loop, loud in length.values():
        sound = np.concatenate(list(Soundtrack(tone, loop).samples(seconds)), axis=1)
        assert sound.shape == (2, round(seconds * RATE))
        spent = (np.abs(sound[0]) > 0.1).mean() * seconds
        assert spent == pytest.approx((loud if seconds > 2 else 0.5) * 0.87, abs=0.1)
    assert Soundtrack(tone).check(1.5) == "cut after 1.5 s"
    assert Soundtrack(tone).check(2) == "2 s"
    assert Soundtrack(tone).check(5) == "2.0 s, then silence up to 5 s"
    assert Soundtrack(tone, loop=True).check(5) == "2.0 s, repeated up to 5 s"


def test_sound_of_a_clip_keeps_its_place(tmp_path, tone):
    """A sound that begins half a second after the pictures does so in the new video, too."""
    path = tmp_path / "late.mkv"
    with av.open(tone) as source, av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=8)
        video.height = video.width = 32
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=44_100, layout="stereo")
        for picture in FRAMES:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(video.encode(None))
        for frame in source.decode(audio=0):
            frame.pts += 22_050
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    for in_sync, begin in ((True, 1.5), (False, 1.0)):
        loud = np.flatnonzero(np.abs(heard(path, in_sync)[0]) > 0.1)
        assert loud[0] / RATE == pytest.approx(begin, abs=0.02)


def test_what_is_refused(tmp_path, tone):
    Video(FRAMES, 8.0).save(tmp_path / "silent.mp4")
    text = tmp_path / "text.mp3"
    text.write_text("hello")
    short = tmp_path / "short.wav"
    with wave.open(str(short), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(2 * 80))
    cases = {
        "no such file": tmp_path / "none.wav",
        "has no sound in it": tmp_path / "silent.mp4",
        "cannot be read": text,
        "0.01 s of sound are too short": short,
    }
    for expected, path in cases.items():
        with pytest.raises(InputError, match=expected) as error:
            Soundtrack(str(path), loop=True).check(1)
        assert path.name in str(error.value) and "\n" not in str(error.value)
    assert has_sound(tone)
    assert not any(has_sound(path) for path in (*cases.values(), tmp_path))


def test_keys_that_have_no_effect():
    story = {"global": "a ball", "events": [{"prompt": "rolls", "frames": 8}]}
    assert Scenario.from_dict({**story, "audio": "a.mp3", "loop_audio": True}).loop_audio
    for key, needed in (("loop_audio", "audio"), ("join", "extend")):
        with pytest.raises(InputError, match=f"{key} has no effect without {needed}"):
            Scenario.from_dict({**story, key: True})
