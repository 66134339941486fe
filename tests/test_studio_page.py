"""The studio's page in a real browser, without a network, against a server in memory."""

import json

import chromium
import pytest
from studio_page import Studio

pytest.importorskip("uvicorn")
from studio_fake import TEMPLATE, FakeStudio, example

pytestmark = chromium.needed


def test_from_opening_the_page_to_an_approved_take(browser, server):
    """A template, two takes, no scenario file."""
    with Studio(browser, f"{server.url}?token=secret") as page:
        tab = page.tab
        assert "token" not in tab.url
        tab.get_by_role("radio", name="Product on a place").check()
        tab.get_by_label("Product", exact=True).fill("blue box")
        tab.get_by_role("radio", name="sandy beach").check()
        page.seen("a blue box on a sandy beach").wait_for()
        assert tab.locator(".board .event").count() == 3
        page.planned()
        assert "3 s" in tab.locator(".facts").inner_text()
        assert tab.get_by_label("Number of takes").input_value() == "2"
        page.button("Generate 2 takes").click()

        page.seen("Position 1 in the queue").wait_for()
        assert server.bodies[-1]["template"] == TEMPLATE["name"]
        server.advance(
            "v1",
            status="in_progress",
            place=0,
            phase="sampling",
            step=12,
            steps=50,
            seconds_left=42,
        )
        page.seen("Sampling: step 12 of 50").wait_for()
        assert "Take 1 of 2 · about 42 s left" in tab.locator(".progress-left").inner_text()
        assert tab.locator(".progress-side progress").evaluate("(p) => p.value") == 0.12
        server.advance("v1", preview="v1/videos/v1/preview?v=13")
        tab.get_by_alt_text("Preview of the take in progress").wait_for()
        page.until("document.querySelector('.progress img').naturalWidth === 64")
        server.advance("v1", done=1)
        page.until("document.querySelectorAll('video').length === 1")
        server.finish("v1")
        page.until("document.querySelectorAll('video').length === 2")
        page.until("[...document.querySelectorAll('video')].every((v) => v.readyState >= 2)")

        tab.get_by_label("Your name").fill("Ada")
        tab.get_by_label("Comment on take B").fill("the calmer one")
        page.button("Approve take B").click()
        tab.locator(".take[data-verdict=approved]").get_by_text("the calmer one").wait_for()
        take = server.videos["v1"]["takes"][1]
        assert (take["verdict"], take["by"], take["comment"]) == (
            "approved",
            "Ada",
            "the calmer one",
        )
        assert server.videos["v1"]["variables"]["place"] == "sandy beach"
        page.button("Reject take A").click()
        page.until("window.heard.includes('Take A is rejected.')")
        page.button("Undo the decision on take A").click()
        page.button("Approve take A").wait_for()
        assert server.videos["v1"]["takes"][0]["verdict"] == "undecided"

        tab.get_by_role("link", name="Videos", exact=True).click()
        page.seen("1 approved").wait_for()
        assert all(url.startswith(server.url) for url in page.requests)
        assert page.complaints == []


def test_a_late_answer_does_not_undo_what_an_event_told(page, server):
    body = {"template": TEMPLATE["name"], "variables": {}, "takes": 1}
    server.add(body)
    server.sends.clear()
    page.go("#/videos/v1")
    page.seen("Position 1 in the queue").wait_for()
    while not server.held:
        page.tab.wait_for_timeout(10)
    server.advance("v1", status="in_progress", place=0, phase="sampling", step=12, steps=50)
    page.seen("Sampling: step 12 of 50").wait_for()
    with page.tab.expect_response("**/v1/videos/v1"):
        server.sends.set()
    page.tab.wait_for_timeout(100)
    assert page.seen("Sampling: step 12 of 50").is_visible()


@pytest.mark.parametrize("busy", [False, True])
def test_takes_play_in_step(page, server, busy):
    example(server)
    page.go("#/videos/v1")
    page.until(
        "[...document.querySelectorAll('video')].filter((v) => v.readyState >= 2).length === 2"
    )
    times = "[...document.querySelectorAll('video')].map((v) => v.currentTime)"
    page.button("Repeat").click()  # off
    if busy:  # nothing is drawn while the videos play
        page.tab.evaluate("() => { window.requestAnimationFrame = () => 0 }")
    page.button("Play").click()
    page.until("document.querySelector('video').currentTime > 0.3")
    page.button("Pause").click()
    page.until("[...document.querySelectorAll('video')].every((v) => v.paused && !v.seeking)")
    first, second = page.tab.evaluate(times)
    assert first == second > 0.3
    page.tab.get_by_role("button", name="Event 2: 1 s").click()
    assert page.tab.evaluate(times) == [pytest.approx(1 + 1 / 16)] * 2
    assert "frame 9 of 24" in page.tab.locator(".clock").inner_text()
    page.tab.keyboard.press("ArrowRight")
    assert "frame 10 of 24" in page.tab.locator(".clock").inner_text()
    assert page.tab.locator(".now").inner_text() == "the red ball grows"


def test_a_video_asked_for_twice_is_made_once(page, server):
    """The answer is lost on its way; the same button, pressed again, brings the same video."""
    page.write("a ball", "it rolls", "it grows")
    page.planned()
    lost = []

    def lose(route):
        if route.request.method == "POST" and not lost:
            lost.append(route.fetch())
            return route.abort()
        return route.fallback()

    page.tab.route("**/v1/videos", lose)
    page.button("Generate 2 takes").click()
    page.seen("The server does not answer.").wait_for()
    page.button("Generate 2 takes").click()
    page.seen("Position 1 in the queue").wait_for()
    assert list(server.videos) == ["v1"]


def test_words_that_are_cut_are_marked(page):
    long = " ".join(f"word{i}" for i in range(30))
    page.write("a red ball", long, "it grows")
    page.planned()
    mark = page.tab.locator(".event mark")
    mark.wait_for()
    assert mark.inner_text().split() == [f"word{i}" for i in range(21, 30)]
    assert "ignores “word21" in page.tab.locator(".event .cut").first.inner_text()
    page.prompt(1).fill("it rolls")
    page.planned()
    page.until("!document.querySelector('.event mark')")


def test_events_by_button_and_by_drag(page):
    tab = page.tab
    page.write("a ball", "first", "second")
    page.button("Add an event").click()
    page.prompt(3).fill("third")
    page.button("Make event 3 longer").click()
    shares = "[...document.querySelectorAll('.dock .bar li')].map((e) => Number(e.style.flexGrow))"
    assert tab.evaluate(shares) == [1, 1, 1.5]
    prompts = "[...document.querySelectorAll('.event textarea')].map((e) => e.value)"
    page.button("Move event 3 up").click()
    assert tab.evaluate(prompts) == ["first", "third", "second"]
    grip = tab.locator(".grip").first.bounding_box()
    last = tab.locator(".event").nth(2).bounding_box()
    tab.mouse.move(grip["x"] + 5, grip["y"] + 5)
    tab.mouse.down()
    tab.mouse.move(grip["x"] + 5, last["y"] + last["height"] - 4, steps=12)
    tab.mouse.up()
    assert tab.evaluate(prompts) == ["third", "second", "first"]
    page.button("Remove event 2").click()
    assert tab.evaluate(prompts) == ["third", "first"]
    assert page.focused() == "Prompt of event 2"
    page.button("Remove event 1").click()
    assert page.button("Remove event 1").is_disabled()  # one has to stay
    tab.reload()
    assert page.prompt(1).input_value() == "first"  # the draft is kept


def test_a_story_is_split(page):
    tab = page.tab
    tab.get_by_role("radio", name="A story").check()
    page.button("Split into events").click()
    assert page.error("story") == "Write a story first."
    tab.get_by_label("Your story").fill("One sentence.")
    page.button("Split into events").click()
    assert page.error("story").startswith("the story has one sentence")
    tab.get_by_label("Your story").fill("A red ball. It rolls. It rises. It grows.")
    page.button("Split into events").click()
    page.seen("Split into 3 events. Edit them as needed.").wait_for()
    assert tab.get_by_label("Throughout").input_value() == "A red ball"
    assert page.prompt(3).input_value() == "It grows"
    page.planned()


def test_again_from_an_earlier_video(page, server):
    """Of a template with its variables; of a scenario with all that the form does not show."""
    example(server, settings={"steps": 20}, seed=7)
    page.go("#/videos/v1")
    page.button("Duplicate & edit").click()
    assert page.tab.get_by_role("radio", name="sandy beach").is_checked()
    assert page.tab.get_by_label("Steps", exact=True).input_value() == "20"
    page.button("Edit the prompts").click()
    assert page.prompt(2).input_value() == "the red ball grows"
    assert page.tab.get_by_label("Throughout").input_value() == "a red ball on a sandy beach"

    events = [{"prompt": "it rolls", "frames": 12, "negative": "blur"}]
    sampler = {"name": "co_denoising", "steps": 30, "eta": 0.5}
    scenario = {"global": "a ball", "crossfade": 1, "sampler": sampler, "events": events}
    server.add({"scenario": scenario, "takes": 1, "seed": 3})
    server.finish("v2")
    page.go("#/videos/v2")
    page.button("Duplicate & edit").click()
    assert page.length(1).input_value() == "1.5"
    assert (
        "crossfade, sampler; settings of 1 event"
        in page.tab.locator(".advanced .note").filter(has_text="Also kept").inner_text()
    )
    page.planned()
    sent = server.bodies[-1]
    assert sent["scenario"] == {
        "global": "a ball",
        "crossfade": 1,
        "sampler": {"name": "co_denoising", "eta": 0.5},
        "events": [{"prompt": "it rolls", "seconds": 1.5, "negative": "blur"}],
    }
    assert (sent["seed"], sent["settings"]["steps"], sent["takes"]) == (3, 30, 1)


def test_again_from_a_record(page, tmp_path):
    record = tmp_path / "ball.json"
    events = [{"prompt": "it rolls", "frames": 12}]
    scenario = {"global": "a ball", "events": events, "sampler": {"name": "syncos", "steps": 9}}
    record.write_text(json.dumps({"scenario": scenario, "seed": 5, "format": "syncos_jax.video"}))
    choose = page.tab.locator("input[type=file][accept*=json]")
    choose.set_input_files(record)
    page.until("document.querySelectorAll('.event').length === 1")
    page.planned()
    assert page.prompt(1).input_value() == "it rolls"
    assert page.tab.get_by_label("Seed", exact=True).input_value() == "5"
    assert page.tab.get_by_label("Steps", exact=True).input_value() == "9"
    record.write_text("[1, 2]")
    choose.set_input_files(record)
    page.seen("This file is neither a video").wait_for()


def test_history(page, server):
    for number in range(26):
        example(server, title=f"Number {number}")
    server.add({"template": TEMPLATE["name"], "variables": {}, "takes": 1, "title": "Waiting one"})
    tab = page.tab
    page.go("#/videos")
    tab.locator(".queue").get_by_text("Waiting one").wait_for()
    assert tab.locator(".video-card").count() == 24
    assert tab.locator("#busy").inner_text() == "1"
    page.button("Show older videos").click()
    page.until("document.querySelectorAll('.video-card').length === 27")
    tab.get_by_label("Search titles and prompts").fill("number 7")
    page.until("document.querySelectorAll('.video-card').length === 1")
    tab.get_by_label("Search titles and prompts").fill("")
    tab.get_by_role("radio", name="Queued").check()
    tab.locator(".history:not(:has(li + li))").get_by_text("Waiting one").wait_for()
    server.advance("v27", status="in_progress", place=0, phase="sampling", step=25, steps=50)
    tab.locator(".history").get_by_text("Sampling: step 25 of 50").wait_for()
    tab.get_by_label("Search titles and prompts").fill("nowhere")
    page.seen("No matches. Change the search or the filter.").wait_for()


def test_cancel_and_template(page, server):
    tab = page.tab
    server.add({"template": TEMPLATE["name"], "variables": {}, "takes": 1, "title": "Beach"})
    page.go("#/videos/v1")
    server.advance("v1", status="in_progress", place=0, phase="sampling", step=1, steps=50)
    page.seen("step 1 of 50").wait_for()
    page.button("Cancel").click()
    tab.locator(".progress-words").get_by_text("Stopping").wait_for()
    assert page.button("Cancel").is_disabled()
    server.advance("v1", status="cancelled", phase=None, place=None)
    page.seen("Cancelled before it was completed").wait_for()

    page.button("Save as template").click()
    name = tab.get_by_role("dialog").get_by_label("Name")
    name.fill("")
    page.button("Save").click()
    assert page.error("name") == "Enter a name for the template."
    name.fill(TEMPLATE["name"])
    page.button("Save").click()
    page.until(
        "document.querySelector('[data-field=name] .error').textContent.startsWith('there is')"
    )
    name.fill("Saved")
    page.button("Save").click()
    page.seen("Saved as template “Saved”.").wait_for()
    page.button("Delete").click()
    page.button("Delete video").click()
    page.seen("No videos yet. Videos you create appear here.").wait_for()
    assert server.videos == {}
    page.go("#/")
    tab.get_by_role("radio", name="Saved").wait_for()


def test_while_the_model_is_loaded(browser, server):
    server.loading = True
    with Studio(browser, server.url) as page:
        page.seen("Loading the model …").wait_for()
        server.loading = False
        page.button("Generate 2 takes").wait_for()
        assert page.tab.locator("#trouble").is_hidden()


def test_polling_where_events_do_not_come_through(browser, files):
    with FakeStudio(*files, events=False) as server, Studio(browser, server.url) as page:
        server.add({"template": TEMPLATE["name"], "variables": {}, "takes": 1})
        page.go("#/videos/v1")
        page.seen("Position 1 in the queue").wait_for()
        server.advance("v1", status="in_progress", place=0, phase="decoding")
        page.tab.locator(".progress-words").get_by_text("Decoding").wait_for()
        server.finish("v1")
        page.button("Approve take A").wait_for()
