"""The review page: what it says of takes that are known by construction, and that it is safe."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from takes import EVENTS, clip, frames_of, sidecar, write_take
from typer.testing import CliRunner

from demo_model.world import Scene
from syncos_jax.cli import app
from syncos_jax.errors import InputError
from syncos_jax.media.video import Video
from syncos_jax.studio.review import add_entry, build_page
from syncos_jax.studio.review.figures import axis, colours, levels, polyline
from syncos_jax.studio.review.measure import measure, most_changed, reading
from syncos_jax.studio.review.takes import Event, events_of, find_takes, read_take

LEFT, UP, GROW = (scene for _, scene in EVENTS)


def warnings(folder, scenes=None, frames=None, **more):
    path = write_take(folder, frames=frames_of(scenes) if frames is None else frames, **more)
    return [(w.kind, w.text, w.frame) for w in measure(read_take(path)).warnings]


# -- reading --------------------------------------------------------------------------------------


def test_a_take(tmp_path):
    take = read_take(write_take(tmp_path, seed=3))
    assert (take.width, take.height, take.fps, len(take), take.seconds) == (128, 128, 8, 24, 3)
    assert take.small.shape == (24, 64, 64, 3)
    assert np.abs(take.small.astype(int) - frames_of()).mean() < 3  # the enlargement is undone
    assert take.events[1] == Event(1, "the ball rises", 8, 16)
    assert take.event_at(7).index == 0 and take.event_at(8).index == 1
    assert sorted(take.stills)[:6] == [0, 1, 3, 4, 6, 7] and len(take.stills) == 18
    assert take.notes == () and take.sidecar["seed"] == 3
    seen = reading(measure(take), take.events[2])
    assert seen == "seen: red ball, motion grow, meadow"


@pytest.mark.parametrize(
    ("events", "note"),
    [
        ([], "name no events"),
        ([{"start": 0}], "Event 1 in the notes has no usable start"),
        ([{"start": 0, "stop": True}], "Event 1"),
        ([{"start": 0, "stop": 8}, {"start": 9, "stop": 24}], "without gaps"),
        ([{"start": 0, "stop": 30}], "speak of 30 frames, but the video has 24"),
        ("x", "name no events"),
    ],
)
def test_events_that_do_not_fit_are_noted(events, note):
    found, notes = events_of({"format": "x", "events": events}, 24)
    assert found[0].start == 0 and found[-1].stop == 24
    assert len(notes) == 1 and note in notes[0]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (None, "There is no take1.json beside this video"),
        ("{", "cannot be used"),
        ("{}", "not the metadata file of a video"),
        ('{"format": "syncos_jax review"}', "not the metadata file of a video"),
    ],
)
def test_a_video_without_usable_notes_is_shown_all_the_same(tmp_path, text, note):
    path = write_take(tmp_path, frames=frames_of([LEFT]))
    path.with_suffix(".json").unlink()
    if text is not None:
        path.with_suffix(".json").write_text(text)
    take = read_take(path)
    assert take.events == (Event(0, "", 0, 8),) and take.small.shape[1:3] == (64, 64)
    kinds = [w.kind for w in measure(take).warnings if note in w.text]
    assert kinds == ["Notes"]
    assert note in build_page(tmp_path).read_text()


def test_what_the_video_itself_says(tmp_path):
    """Its metadata stand in for a sidecar that is lost, and tell when the sidecar is another's."""
    comment = {"generated": True, "seed": 5, "sampler": {"name": "syncos"}, "latents_sha256": "a"}
    path = tmp_path / "a.mp4"
    Video(frames_of(), 8).save(path, scale=2, comment=json.dumps(comment))
    take = read_take(path)
    assert take.sidecar == {"seed": 5, "sampler": {"name": "syncos"}}
    assert [note[:22] for note in take.notes] == ["There is no a.json bes"]
    assert "seed 5" in build_page(tmp_path).read_text()
    for latents, notes in [("a", 0), ("b", 1)]:
        data = sidecar("a.mp4", latents={"sha256": latents})
        path.with_suffix(".json").write_text(json.dumps(data))
        take = read_take(path)
        assert len(take.notes) == notes and len(take.events) == 3
        assert all("another video than this one" in note for note in take.notes)


def test_folders_that_cannot_be_shown(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        find_takes(tmp_path / "none")
    with pytest.raises(InputError, match="has no video in it"):
        find_takes(tmp_path)
    (tmp_path / "a.mkv").write_bytes(b"x")
    with pytest.raises(InputError, match="browsers do not play a.mkv"):
        build_page(tmp_path)
    (tmp_path / "a.mp4").write_text("not a video")
    with pytest.raises(InputError, match="a.mp4: .* as a video"):
        build_page(tmp_path)
    assert not (tmp_path / "review.html").exists()


def test_one_file_that_is_no_video_is_left_out_and_named(tmp_path):
    write_take(tmp_path, "good.mp4", clip(EVENTS[0][1]), prompts=["x"])
    (tmp_path / "bad.mp4").write_text("not a video")
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:700])
    html = build_page(tmp_path).read_text()
    assert "no video can be read from it: bad.mp4, cut.mp4." in html
    assert html.count("bad.mp4") == 1 and "good.mp4" in html


# -- warnings -------------------------------------------------------------------------------------


def test_nothing_to_warn_of(tmp_path):
    assert warnings(tmp_path) == []


def test_a_cut_inside_an_event(tmp_path):
    frames = frames_of()
    frames[12:16] = clip(Scene("ball", "red", "night", "up", 24, 30, 9, 20))[:4]
    frames[16:] = clip(Scene("ball", "red", "night", "grow", 24, 24, 9, 1.8))
    found = warnings(tmp_path, frames=frames)
    assert ("Cut", "The picture changes abruptly inside event 2.", 12) in found
    assert [kind for kind, _, _ in found].count("Cut") == 1  # none between the events
    found = warnings(tmp_path, [LEFT, UP, Scene("ball", "red", "night", "grow", 24, 24, 9, 1.8)])
    assert ("Cut", "Event 3 begins with a hard cut.", 16) in found


def test_a_frozen_stretch(tmp_path):
    frames = frames_of()
    frames[2:7] = frames[2]
    (kind, text, frame), jump = warnings(tmp_path, frames=frames)
    assert (kind, frame, jump[0], jump[2]) == ("Frozen", 2, "Cut", 7)  # it jumps when it goes on
    assert text == "Nothing changes for 0.5 s, from frame 3 to 7 (in event 1)."


def test_an_event_that_does_not_move(tmp_path):
    frames = frames_of()
    frames[8:16] = frames[8]
    found = warnings(tmp_path, frames=frames)
    assert [kind for kind, _, _ in found] == ["Frozen"]
    assert "(all of event 2)" in found[0][1]
    slow = Scene("ball", "red", "meadow", "up", 24, 44, 9, 1.0)  # creeps one pixel
    found = warnings(tmp_path, [LEFT, slow, GROW])
    assert ("Still", "Event 2 hardly moves: “the ball rises”.", 8) in found


def test_a_subject_that_changes(tmp_path):
    blue = Scene("ball", "blue", "meadow", "grow", 24, 24, 9, 1.8)
    text = "The subject's colour is blue in event 3; the prompt says red."
    assert ("Colour", text, 16) in warnings(tmp_path, [LEFT, UP, blue])
    told_nothing = {"scenario": {"global": "a thing on a meadow"}}
    text = "The subject's colour changes: red in event 1, blue in event 3."
    assert ("Colour", text, 16) in warnings(tmp_path, [LEFT, UP, blue], **told_nothing)
    found = warnings(tmp_path, [LEFT, Scene("ball", "red", "meadow", "right", 24, 44, 9), GROW])
    text = "Event 2 shows the motion right; the prompt says up."
    assert ("Motion", text, 8) in found


def test_videos_of_anything_else(tmp_path):
    """Not the demo world: no tracker, but drift and cuts all the same."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    first = np.stack([np.roll(texture // 4, 5 * i, axis=1) for i in range(8)])
    last = np.stack([np.roll(255 - texture // 4, 5 * i, axis=1) for i in range(8)])
    notes = sidecar("take1.mp4", ["it goes", "it goes on"])
    path = write_take(tmp_path, frames=np.concatenate([first, last]), notes=notes)
    take = read_take(path)
    measured = measure(take)
    assert measured.report["world"] is None and take.small.shape == (16, 60, 80, 3)
    assert {"Cut", "Drift"} == {w.kind for w in measured.warnings}
    assert measured.similarity.shape == (16, 16) and measured.drift.shape == (16,)
    assert reading(measured, take.events[0]) == ""


def test_a_single_frame(tmp_path):
    write_take(tmp_path, frames=frames_of()[:1], notes=sidecar("take1.mp4", ["x"], frames=1))
    assert build_page(tmp_path).exists()


def test_most_changed():
    before = np.zeros((2, 16, 24, 3), np.uint8)
    after = before.copy()
    after[1, 0:2, 0:3] = 80  # one area of 8 × 8
    np.testing.assert_allclose(most_changed(before, after), [0, 80])
    assert most_changed(before[:, :3, :5], after[:, :3, :5]).shape == (
        2,
    )  # fewer pixels than areas


# -- plots ----------------------------------------------------------------------------------------


def test_figures():
    assert polyline([0, 0.5, 1], [1, 0.5, 0], 0, 1) == "0.0,0.0 500.0,100.0 1000.0,200.0"
    assert levels(np.asarray([[0.5, 0.75, 1.0]]), 0.5).tolist() == [[0, 128, 255]]
    light = colours(np.linspace(0, 1, 9)).astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(light) > 0).all()  # readable in grey
    assert axis([0.62, 0.9], 1.0) == pytest.approx((0.6, 1.0))
    assert axis([0.0, 3.2]) == (0.0, 4.0)
    assert axis([1.0, 1.0], 1.0)[0] < 1 and axis([0.0]) == (0.0, 1.0)


# -- the page -------------------------------------------------------------------------------------


class Parsed(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.found = [], "", {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += f"{data} "


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A page whose every text tries to become markup or script."""
    folder = tmp_path_factory.mktemp("x") / "a<b onload=alert(1)>"
    folder.mkdir()
    evil = "</script></style><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}\"'"
    more = {"model": {"name": evil}, "sampler": {"name": evil, evil: evil}, "seed": evil}
    name = "<img src=y onerror=alert(2)>.mp4"
    path = write_take(folder, name, prompts=[evil, "x", "y"], scenario={"global": evil}, **more)
    write_take(folder, "b.mp4", prompts=[evil, "x", evil])
    add_entry(path, "comment", evil[:100], evil)
    return build_page(folder).read_text(), evil


def test_texts_cannot_inject(hostile):
    html, evil = hostile
    page = Parsed(html)
    kinds = [tag for tag, _ in page.tags]
    assert kinds.count("script") == 2 and kinds.count("style") == 1
    assert not [a for _, a in page.tags for key in a if key.startswith("on")]
    assert not [a for _, a in page.tags if "style" in a]
    assert "alert(1)</script>" not in html and "<img src=x" not in html and "<img src=y" not in html
    assert evil in page.text and "49" not in evil
    data = re.search(r'id="data">(.*?)</script>', html, re.DOTALL).group(1)
    assert json.loads(data)["takes"][0]["events"][0]["prompt"] == evil


def test_the_page_forbids_and_needs_no_network(hostile):
    html, _ = hostile
    page = Parsed(html)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["connect-src"] == "'none'"
    assert rules["media-src"] == rules["img-src"] == "data:"
    assert "unsafe" not in policy and "http" not in policy
    for tag, attributes in page.tags:
        for key in ("src", "href", "srcset", "action", "poster"):
            value = attributes.get(key, "#")
            assert value.startswith(("data:", "#")), (tag, value[:80])


def test_what_the_page_says(tmp_path):
    write_take(tmp_path, "a.mp4", seed=1)
    blue = Scene("ball", "blue", "meadow", "grow", 24, 24, 9, 1.8)
    write_take(tmp_path, "b.mp4", frames_of([LEFT, UP, blue]), seed=2)
    add_entry(tmp_path / "a.mp4", "approve", "Ada", "good")
    text = " ".join(Parsed(build_page(tmp_path).read_text()).text.split())
    for said in (
        "2 takes",
        "approved",
        "undecided",
        "The subject's colour is blue in event 3",
        "seed 2 syncos, 50 steps model demo sampled in 12 s",
        "the ball rises 1.0 to 2.0 s",
        "a red ball on a green meadow",
        "Subject consistency",
        "syncos review approve",
        "syncos generate --from",
    ):
        assert said in text, said
    differs = text.split("What differs between the takes")[1].split("What is the same")[0]
    assert "seed 1 2" in differs and "sampler" not in differs


def test_linked_videos(tmp_path):
    takes = tmp_path / "a b"
    takes.mkdir()
    write_take(takes)
    out = build_page(takes, tmp_path / "page.html", link=True)
    tags = Parsed(out.read_text()).tags
    assert [a["src"] for tag, a in tags if tag == "video"] == ["a%20b/take1.mp4"]
    assert any("media-src 'self' file:;" in a.get("content", "") for _, a in tags)


def test_videos_that_are_too_large_to_be_held(tmp_path, monkeypatch):
    write_take(tmp_path)
    monkeypatch.setattr("syncos_jax.studio.review.page.MAX_EMBEDDED", 1000)
    with pytest.raises(InputError, match="pass `link=True`"):
        build_page(tmp_path)
    assert not (tmp_path / "review.html").exists()
    build_page(tmp_path, link=True)


def syncos(*arguments):
    result = CliRunner().invoke(app, ["review", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_by_command(tmp_path):
    write_take(tmp_path)
    result = syncos(tmp_path, "--out", tmp_path / "p.html")
    assert result.exit_code == 0 and "p.html: " in result.stdout
    assert (tmp_path / "p.html").read_text().startswith("<!doctype html>")
    for arguments, message in [
        ([tmp_path / "none"], "no such folder"),
        ([tmp_path, "--out", tmp_path / "p.pdf"], "must end in .html"),
        ([tmp_path, "--out", tmp_path / "no" / "p.html"], "does not exist"),
        ([tmp_path, "--serve", "--link"], "--serve cannot be combined with --out or --link"),
        ([tmp_path, "--port", "8000"], "--port needs --serve"),
    ]:
        result = syncos(*arguments)
        assert result.exit_code == 2 and message in result.stderr.splitlines()[-1]
    assert "syncos review takes --serve" in syncos("--help").stdout
    assert "--link" in syncos("page", "--help").stdout


def test_long_videos_are_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr("syncos_jax.studio.review.measure.MAP_SIDE", 10)
    monkeypatch.setattr("syncos_jax.studio.review.measure.CURVE_POINTS", 12)
    frames = frames_of()
    frames[14] = 0
    measured = measure(read_take(write_take(tmp_path, frames=frames)))
    assert measured.similarity.shape == (10, 10)
    assert measured.frames[0] == 0 and measured.frames[-1] == 23
    assert len(measured.points) == 12 and sorted(measured.points) == measured.points
    assert measured.change.max() > 27  # of two frames, the one that changes more is kept
