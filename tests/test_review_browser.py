"""The review page in a real browser: Debian's chromium, or another build of it."""

import threading
import time

import chromium
import pytest
from takes import EVENTS, clip, frames_of, write_take

from demo_model.world import Scene
from syncos_jax.studio.review import ReviewServer, add_entry, build_page, read_reviews

pytestmark = chromium.needed


@pytest.fixture(scope="module")
def browser():
    with chromium.running() as running:
        yield running


class Page:
    """A tab that records what it asks for and what it complains about."""

    def __init__(self, browser, url, **context):
        self.context = browser.new_context(**context)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(60_000)
        self.requests, self.complaints = [], []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("console", lambda said: self.complaints.append(said.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(url)
        ready = "[...document.querySelectorAll('video')].every((v) => v.readyState >= 2)"
        self.until(ready)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def until(self, expression):
        """Not wait_for_function: it evaluates inside the page, which the page's policy forbids."""
        deadline = time.monotonic() + 60
        while not self.tab.evaluate(expression):
            assert time.monotonic() < deadline, expression
            self.tab.wait_for_timeout(20)

    def videos(self, what):
        return self.tab.evaluate(f"[...document.querySelectorAll('video')].map((v) => {what})")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("takes")
    write_take(place, "a.mp4", seed=1)
    blue = Scene("ball", "blue", "meadow", "grow", 24, 24, 9, 1.8)
    scenes = [EVENTS[0][1], EVENTS[1][1], blue]
    write_take(place, "b.mp4", frames_of(scenes), seed=2)
    add_entry(place / "a.mp4", "comment", "Bo", "<img src=x onerror=alert(1)>")
    return place


def test_a_file_without_network(browser, folder, tmp_path):
    url = build_page(folder, tmp_path / "page.html").as_uri()
    with Page(browser, url, offline=True) as page:
        assert page.videos("[v.duration, v.videoWidth, v.videoHeight]") == [[3, 128, 128]] * 2
        tab = page.tab
        assert tab.get_by_text("The subject's colour is blue in event 3").is_visible()
        assert tab.get_by_text("<img src=x onerror=alert(1)>").first.is_visible()

        tab.get_by_role("button", name="Event 2: the ball rises").click()
        seeked = "[...document.querySelectorAll('video')].every((v) => !v.seeking)"
        page.until(seeked)
        assert page.videos("v.currentTime") == [pytest.approx(1 + 1 / 16)] * 2
        assert "9/24" in tab.locator("#clock").inner_text()
        tab.keyboard.press("ArrowRight")
        assert "10/24" in tab.locator("#clock").inner_text()
        tab.locator("button.goto").first.click()  # the warning: where it is
        assert "17/24" in tab.locator("#clock").inner_text()

        tab.locator("[data-chart=drift]").hover(position={"x": 3, "y": 20})
        assert tab.locator("[data-reading=drift]").inner_text().count("A 0.9") == 1
        heat = tab.locator("[data-heat='1']")
        heat.focus()
        heat.press("ArrowDown")
        said = tab.locator(".map .reading").nth(1).inner_text()
        assert said.startswith("frame 1 (event 1) and frame 2 (event 1): ")
        assert 0.5 < float(said.rsplit(" ", 1)[1]) <= 1

        assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
        assert page.complaints == []
        # The policy holds: even a script of the page could reach nothing.
        blocked = "fetch('http://127.0.0.1:9/').then(() => false, () => true)"
        assert tab.evaluate(blocked)
        assert any("Content Security Policy" in said for said in page.complaints)


@pytest.mark.parametrize("busy", [False, True])
def test_takes_play_in_step(browser, folder, tmp_path, busy):
    with Page(browser, build_page(folder, tmp_path / "page.html").as_uri()) as page:
        tab = page.tab
        if busy:  # nothing is drawn while the videos play
            tab.evaluate("() => { window.requestAnimationFrame = () => 0 }")
        tab.keyboard.press(" ")
        assert tab.locator("#play").get_attribute("aria-label") == "Pause"
        page.until("document.querySelector('video').currentTime > 0.4")
        tab.keyboard.press(" ")
        page.until("[...document.querySelectorAll('video')].every((v) => v.paused)")
        times = page.videos("v.currentTime")
        assert times[0] == times[1] > 0.4  # stopped on the same frame
        tab.keyboard.press("End")
        assert "24/24" in tab.locator("#clock").inner_text()
        assert page.complaints == []


def test_linked_videos_play_from_disk(browser, folder):
    out = build_page(folder, folder / "linked.html", link=True)
    with Page(browser, out.as_uri()) as page:
        assert page.videos("[v.duration, v.videoWidth]") == [[3, 128]] * 2
        assert page.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_telephone(browser, folder, tmp_path, scheme):
    url = build_page(folder, tmp_path / "page.html").as_uri()
    size = {"width": 360, "height": 740}
    with Page(browser, url, viewport=size, color_scheme=scheme) as page:
        wide = page.tab.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0  # nothing to scroll sideways but tables
        paper = "getComputedStyle(document.body).backgroundColor"
        light = sum(map(int, page.tab.evaluate(paper)[4:-1].split(","))) > 380
        assert light == (scheme == "light")
        page.tab.locator("#theme").click()
        page.tab.locator("#theme").click()
        dark = sum(map(int, page.tab.evaluate(paper)[4:-1].split(","))) < 380
        assert dark  # by hand, whatever the system says


def test_everything_has_a_name(browser, folder, tmp_path):
    """What a screen reader meets: every control and picture says what it is."""
    with Page(browser, build_page(folder, tmp_path / "page.html").as_uri()) as page:
        unnamed = page.tab.evaluate(
            """[...document.querySelectorAll(
              'button, input, select, textarea, video, [role=img], [tabindex]')].filter((e) =>
              !(e.getAttribute('aria-label') || e.title || e.innerText || e.labels?.length))
              .map((e) => e.outerHTML)"""
        )
        assert unnamed == []
        assert page.tab.evaluate("[...document.images].every((i) => i.hasAttribute('alt'))")


def test_buttons_of_the_served_page(browser, tmp_path):
    write_take(tmp_path, "a.mp4", clip(EVENTS[0][1]), prompts=["the ball rolls to the left"])
    with ReviewServer(tmp_path) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Page(browser, server.url) as page:
            tab = page.tab
            assert page.videos("[v.duration, v.videoWidth]") == [[1, 128]]
            status, answer = tab.locator("[data-status]"), tab.locator(".answer")
            tab.locator("#by").fill("Ada")
            tab.get_by_placeholder("Comment").fill("<b>good</b>")
            tab.get_by_role("button", name="Approve").click()
            answer.get_by_text("Kept in review.json.").wait_for()
            assert status.inner_text() == "approved"
            assert "<b>good</b>" in tab.locator("[data-log]").inner_text()
            entry = read_reviews(tmp_path).of("a.mp4")[0]
            assert (entry.action, entry.by, entry.comment) == ("approve", "Ada", "<b>good</b>")

            tab.get_by_role("button", name="Comment").click()  # without a text
            answer.get_by_text("the comment is empty").wait_for()

            # Somebody else decides; the page has not seen it when its button is pressed.
            tab.route("**/state", lambda route: route.abort())
            add_entry(tmp_path / "a.mp4", "reject", "Bo", "wait")
            tab.get_by_role("button", name="Approve").click()
            answer.get_by_text("Bo wrote about a.mp4 meanwhile").wait_for()
            assert status.inner_text() == "rejected"
            tab.get_by_role("button", name="Approve").click()  # now it has
            answer.get_by_text("Kept in review.json.").wait_for()
            assert [e.action for e in read_reviews(tmp_path).of("a.mp4")][1:] == [
                "reject",
                "approve",
            ]
            assert all(url.startswith(server.url) for url in page.requests if url[:5] != "data:")
        server.shutdown()
