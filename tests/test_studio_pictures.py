"""Pictures that the studio takes in, and videos that build on takes of it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from studio_thread import STORY, serving

from syncos_jax.media.video import load_video
from syncos_jax.runs.metadata import read_metadata

GPS = 0x8825


def picture(width=48, height=32, form="PNG", colour=(200, 30, 30), **more):
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, form, **more)
    return file.getvalue()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("pictures") / "studio", pictures=6) as running:
        yield running


def upload(served, data, name="a.png"):
    return served.client.post("/v1/pictures", files={"picture": (name, data, "image/png")})


def plan(served, scenario):
    body = {"scenario": scenario, "settings": {"steps": 3, "strength": 0.5}}
    return served.client.post("/v1/plan", json=body)


def test_a_picture_is_stored_upright_and_without_metadata(served):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    exif.get_ifd(GPS)[1] = "N"
    answer = upload(served, picture(form="JPEG", exif=exif), "a.jpg")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["width"], made["height"]) == (32, 48)  # turned
    raw = served.client.get(made["content"])
    assert raw.headers["content-type"] == "image/png" and len(raw.content) == made["bytes"]
    with Image.open(io.BytesIO(raw.content)) as image:
        assert not image.getexif() and not image.info and image.mode == "RGB"
    assert b"camera" not in raw.content
    assert upload(served, picture(form="JPEG", exif=exif), "b.jpg").json()["id"] == made["id"]
    names = [path.name for path in (served.studio.folder / "pictures").iterdir()]
    assert names == [f"{made['id']}.png"]  # one, and nothing left beside it


LARGE = picture(4000, 20)


def test_a_large_picture_becomes_smaller(served):
    made = upload(served, LARGE).json()
    assert (made["width"], made["height"]) == (2048, 10)


def animation():
    file = io.BytesIO()
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 422, "not a picture"),
        (b"<svg onload=alert(1)>", 422, "not a picture"),
        (picture()[:60], 422, "damaged"),
        (picture(8, 8), 422, "too few"),
        (animation(), 422, "animation of 2 frames"),
        (b"x" * (10 * 2**20 + 1), 413, "10.0 MiB"),
    ],
    ids=["empty", "markup", "cut short", "small", "animation", "long"],
)
def test_what_is_no_picture_is_refused_in_one_line(served, data, status, words):
    answer = upload(served, data)
    error = answer.json()["error"]
    assert answer.status_code == status and words in error["message"]
    assert error["field"] == "picture" and error["remedy"]
    assert str(served.studio.folder) not in answer.text and "\n" not in error["message"]


def test_a_bomb_is_not_unpacked(served):
    head = struct.pack(">IIBBBBB", 7000, 7000, 8, 2, 0, 0, 0)  # 147 MB, all of it promised
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
    answer = upload(served, data)
    assert answer.status_code == 422 and "pixels are too many" in answer.json()["error"]["message"]


def test_forms_that_are_none(served):
    answer = served.client.post("/v1/pictures", data={"picture": "text"})
    assert answer.status_code == 422
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for body in (b"", b"--x", b"--x\r\n\r\n--x--", b"--y\r\n"):
        answer = served.client.post("/v1/pictures", content=body, headers=kind)
        assert answer.status_code in (400, 422) and answer.json()["error"]["message"]


@pytest.mark.parametrize("id", ["../jobs.sqlite", "p" + "0" * 32, "%2e%2e", "v" + "0" * 16])
def test_no_other_file_is_a_picture(served, id):
    assert served.client.get(f"/v1/pictures/{id}").status_code in (404, 422)


def test_old_pictures_make_room_but_not_those_in_use(served):
    first = upload(served, picture(colour=(1, 1, 1))).json()["id"]
    used = served.make(scenario={**STORY, "image": first})["id"]
    assert served.client.post(f"/v1/videos/{used}/cancel").status_code == 200
    others = [upload(served, picture(colour=(n, n, n))).json()["id"] for n in range(2, 9)]
    kept = {path.stem for path in (served.studio.folder / "pictures").iterdir()}
    assert first in kept and others[-1] in kept and len(kept) == 6
    gone = plan(served, {**STORY, "image": others[0]})
    error = gone.json()["error"]
    assert gone.status_code == 422 and error["field"] == "image" and "no such picture" in gone.text


@pytest.fixture(scope="module")
def made(served):
    """A video from a picture to a picture: (its document, both pictures)."""
    colours = ((250, 0, 0), (0, 0, 250))
    start, end = (upload(served, picture(colour=colour)).json()["id"] for colour in colours)
    events = [STORY["events"][0], {**STORY["events"][1], "image": end}]
    video = served.make(scenario={**STORY, "events": events, "image": start})
    return served.until(video["id"], "completed", "failed"), start, end


def test_a_video_from_a_picture_to_a_picture(served, made):
    """Known frames, by reference in what is stored; the files in what is made."""
    video, start, end = made
    assert video["status"] == "completed", video["error"]
    assert video["scenario"]["image"] == start
    assert video["scenario"]["events"][1]["image"] == end
    path = served.studio.folder / "videos" / video["id"] / "take1.json"
    inputs = read_metadata(path)["inputs"]
    assert [entry["role"] for entry in inputs] == ["image", "event 2 image"]
    first = load_video(path.with_suffix(".mp4")).frames[0].mean(axis=(0, 1))
    assert first[0] > first[2]


def test_one_event_is_made_again_and_a_take_goes_on(served, made):
    take = f"{made[0]['id']}/1"
    again = served.make(scenario={**STORY, "redo": {"video": take, "events": [2]}}, seed=9)
    on = served.make(scenario={**STORY, "extend": take})
    done = served.until(again["id"], "completed", "failed")
    assert done["status"] == "completed", done["error"]
    old, new = (
        load_video(served.studio.folder / "videos" / id / "take1.mp4").frames.astype(int)
        for id in (made[0]["id"], again["id"])
    )
    changed = np.abs(old - new).mean(axis=(1, 2, 3))
    assert changed[:8].max() < 6 < changed[8:].max()  # event 1 has eight frames
    assert served.until(on["id"], "completed", "failed")["status"] == "completed"


@pytest.mark.parametrize(
    ("keys", "field", "words"),
    [
        ({"image": "/etc/passwd"}, "image", "by path"),
        ({"image": "../jobs.sqlite"}, "image", "by path"),
        ({"image": "v0123456789abcdef/1"}, "image", "by path"),
        ({"end_image": "a.png"}, "end_image", "by path"),
        ({"audio": "/etc/passwd"}, "audio", "soundtracks"),
        ({"extend": "take1.mp4"}, "extend", "by path"),
        ({"extend": "v0123456789abcdef/1"}, "extend", "no such take"),
        ({"redo": {"video": "v0123456789abcdef/1", "events": [1]}}, "redo", "no such take"),
        ({"redo": {"video": "../../x/1", "events": [1]}}, "redo", "by path"),
        ({"image": "p" + "0" * 32}, "image", "no such picture"),
        ({"image": "p" + "0" * 32, "extend": "v0123456789abcdef/1"}, None, "beginning"),
    ],
)
def test_references_lead_nowhere_else(served, keys, field, words):
    answer = plan(served, {**STORY, **keys})
    error = answer.json()["error"]
    assert answer.status_code == 422 and words in error["message"] and error["field"] == field
    assert str(served.studio.folder) not in answer.text


def test_an_event_names_its_picture(served):
    events = [{**STORY["events"][0], "image": "p" + "1" * 32}]
    error = plan(served, {**STORY, "events": events}).json()["error"]
    assert error["field"] == "events.0.image" and "no such picture" in error["message"]


def test_lengths_that_do_not_fit_say_so_without_paths(served, made):
    take = f"{made[0]['id']}/1"
    events = [{"prompt": "sleeps", "seconds": 5}]
    answer = plan(served, {**STORY, "events": events, "redo": {"video": take, "events": [1]}})
    error = answer.json()["error"]
    assert answer.status_code == 422 and "12 frames" in error["message"], error
    assert error["field"] == "redo" and take in error["message"]
    assert str(served.studio.folder) not in answer.text


def test_a_model_without_encoder_says_so(served, monkeypatch):
    monkeypatch.setitem(vars(served.studio.engine), "takes_pictures", False)
    answer = plan(served, {**STORY, "image": "p" + "0" * 32})
    assert "takes no pictures" in answer.json()["error"]["message"]
