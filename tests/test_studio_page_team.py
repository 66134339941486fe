"""The studio's page for a team: examples, cost, one view to decide in, comments, queue, report."""

import re

import chromium
import pytest
from studio_page import Studio

pytest.importorskip("uvicorn")
from studio_fake import TEMPLATE, example

pytestmark = chromium.needed

ONE = {"template": TEMPLATE["name"], "variables": {}, "takes": 1}


def test_an_example_that_plays_is_one_press(browser, server):
    with Studio(browser, server.url) as page:
        tab = page.tab
        tab.locator("button.example").nth(2).wait_for()
        page.until(
            "[...document.querySelectorAll('.example video')].every((v) => v.readyState >= 2)"
        )
        generate = page.button("Generate 2 takes")
        assert generate.get_attribute("aria-disabled") == "true"
        assert "choose an example" in tab.locator(".dock-why").inner_text()
        page.button("Use the example “A star at night”").click()
        assert page.prompt(1).input_value() == "the star moves up"
        assert generate.get_attribute("aria-disabled") == "false"
        assert page.focused() == "Generate 2 takes"
        page.planned()
        facts = tab.locator(".facts").inner_text()
        assert "6 s" in facts and "€" in facts
        assert tab.locator(".examples-box").count() == 0  # the form has the place now
        generate.click()
        page.seen("Position 1 in the queue").wait_for()
        body = server.videos["v1"]["scenario"]
        assert body["global"] == "a yellow star in the night sky" and body["sampler"]["steps"] == 50
        assert page.complaints == []


def test_the_plan_is_never_that_of_another_story(page):
    page.write("a ball", "it rolls", "it grows")
    page.planned()
    held, holding = [], [True]
    page.tab.route("**/v1/plan", lambda route: held.append(route) if holding else route.continue_())
    page.prompt(1).fill("it rests")
    text = page.tab.locator(".facts").inner_text
    assert "Estimating …" in text() and "Windows" not in text()
    page.tab.get_by_role("radio", name="Product on a place").check()
    assert page.tab.locator(".dock .bar li").count() == 0
    assert "Estimating …" in text()
    page.until("document.querySelector('.dock').hasAttribute('aria-busy')")
    page.tab.wait_for_timeout(500)
    holding.clear()
    held[-1].continue_()
    page.planned()
    assert page.tab.locator(".dock .bar li").count() == 3


def test_presets(page):
    steps = page.tab.get_by_label("Steps", exact=True)
    page.button("Fast").click()
    assert steps.input_value() == "16"
    assert page.tab.get_by_label("Strength", exact=True).input_value() == "0.5"
    page.button("As published").click()
    assert steps.input_value() == ""


def test_a_decision_in_one_view(page, server):
    tab = page.tab
    tab.set_viewport_size({"width": 1280, "height": 800})
    example(server)
    page.go("#/videos/v1")
    page.until(
        "[...document.querySelectorAll('video')].filter((v) => v.readyState >= 2).length > 1"
    )
    seen = (
        "[...document.querySelectorAll('video, .approve, .reject')]"
        ".every((e) => { const b = e.getBoundingClientRect();"
        " return b.top >= 0 && b.bottom <= innerHeight && b.width > 0 })"
    )
    assert tab.evaluate(seen)
    over = (
        "[...document.querySelectorAll('.take *')].filter((e) => e.offsetWidth && "
        "e.getBoundingClientRect().right > e.closest('.take').getBoundingClientRect().right)"
        ".map((e) => e.outerHTML)"
    )
    assert tab.evaluate(over) == []
    filled = "getComputedStyle(document.querySelector('.approve')).backgroundColor"
    assert tab.evaluate(filled) == "rgb(20, 108, 67)"
    tab.get_by_label("Your name").fill("Ada")
    page.button("Approve take A").click()
    said = tab.locator(".take").first.locator(".said")
    said.get_by_text("Ada").wait_for()
    assert re.search(r"Approved\s.*Ada, .*2026", said.inner_text(), re.DOTALL)
    link = tab.get_by_label("Download take A")
    assert link.get_attribute("download") == "video-take-1.mp4"


def test_a_comment_at_a_time(page, server):
    tab = page.tab
    example(server, title="Ball: first")
    page.go("#/videos/v1")
    page.until("document.querySelector('video')?.readyState >= 2")
    tab.get_by_label("Your name").fill("Bo")
    tab.get_by_role("button", name="Event 2: 1 s").click()
    tab.get_by_label("Comment on take B").fill("it jumps")
    assert tab.get_by_label("At 1.06 s").nth(0).is_visible()
    page.button("Post comment, take B").click()
    tab.get_by_text("it jumps").wait_for()
    entry = server.videos["v1"]["takes"][1]["history"][0]
    assert (entry["action"], entry["comment"]) == ("comment", "it jumps")
    assert entry["time"] == pytest.approx(1.0625)
    assert server.videos["v1"]["takes"][1]["verdict"] == "undecided"
    tab.get_by_role("button", name="Event 1: 1 s").click()
    page.button("Go to 1.06 s").click()
    page.until("Math.abs(document.querySelector('video').currentTime - 1.0625) < 0.01")
    assert tab.get_by_label("Download take B").get_attribute("download") == "Ball-first-take-2.mp4"


def test_two_takes_divided_by_a_line(page, server):
    tab = page.tab
    example(server)
    page.go("#/videos/v1")
    page.until("document.querySelector('video')?.readyState >= 2")
    page.button("Wipe").click()
    boxes = [tab.locator(".screen").nth(n).bounding_box() for n in (0, 1)]
    assert boxes[0] == boxes[1]
    tab.get_by_label("Wipe position").fill("30")
    clip = "getComputedStyle(document.querySelector('.screen.over')).clipPath"
    assert tab.evaluate(clip) == "inset(0px 0px 0px 30%)"
    page.button("Wipe").click()
    assert tab.evaluate("!document.querySelector('.over')")


def test_one_more_take_and_one_event_changed(page, server):
    example(server, seed=7)
    page.go("#/videos/v1")
    page.button("One more take").click()
    page.seen("Position 1 in the queue").wait_for()
    assert page.tab.locator(".progress .screen").is_hidden()  # the finished takes are on the stage
    server.finish("v1")
    page.button("Approve take C").wait_for()
    assert [take["seed"] for take in server.videos["v1"]["takes"]] == [7, 8, 9]
    page.tab.get_by_label("Your name").fill("Ada")
    page.button("Approve take B").click()
    page.tab.locator(".take[data-verdict=approved]").wait_for()
    page.button("Change event 2, same seed").click()
    page.until("document.activeElement.ariaLabel === 'Prompt of event 2'")
    assert page.prompt(2).input_value() == "the red ball grows"
    assert page.tab.get_by_label("Seed", exact=True).input_value() == "8"


def test_the_queue_has_an_order(page, server):
    for title in ("First", "Second", "Third"):
        server.add({**ONE, "title": title})
    page.go("#/videos")
    titles = page.tab.locator(".queue a")
    page.button("Move “Third” forward").click()
    page.until("document.querySelectorAll('.queue a')[1]?.textContent === 'Third'")
    assert page.focused() == "Move “Third” forward"
    assert titles.all_inner_texts() == ["First", "Third", "Second"]
    assert page.button("Move “First” forward").is_disabled()
    page.button("Cancel “First”").click()
    page.until("document.querySelectorAll('.queue a').length === 2")
    assert server.videos["v1"]["status"] == "cancelled"


def test_videos_by_review(page, server):
    example(server, title="Liked")
    example(server, title="New")
    server.videos["v1"]["takes"][0]["verdict"] = "approved"
    page.go("#/videos")
    page.seen("Liked").wait_for()
    page.tab.get_by_label("Review", exact=True).select_option("approved")
    page.until("document.querySelectorAll('.video-card').length === 1")
    assert page.tab.locator(".video-title").inner_text() == "Liked"


def test_compiling_says_how_long_it_has_lasted(page, server):
    server.add(ONE)
    page.go("#/videos/v1")
    now = page.tab.evaluate("Date.now() / 1000")
    server.advance(
        "v1", status="in_progress", phase="compiling", started_at=int(now) - 70, seconds_left=90
    )
    page.seen("The first run of a size compiles the model").wait_for()
    left = page.tab.locator(".progress-left").inner_text()
    assert re.search(r"7\d s elapsed", left) and "left" not in left
    assert page.tab.evaluate(
        "!document.querySelector('.progress-side progress').hasAttribute('value')"
    )


def test_metrics_warnings_and_stills(page, server):
    example(server)
    page.go("#/videos/v1")
    page.button("Measure the takes").click()
    page.seen("Subject consistency").wait_for()
    assert page.tab.locator(".still").count() == 2
    page.button("Go to 1 s").first.click()
    page.until("Math.abs(document.querySelector('video').currentTime - 1) < 0.05")


def test_a_template_with_variables(page, server):
    example(server)
    page.go("#/videos/v1")
    page.button("Save as template").click()
    dialog = page.tab.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("Any ball")
    page.button("Add a variable").click()
    dialog.get_by_label("Words that variable 1 replaces").fill("red ball")
    dialog.get_by_label("Name of variable 1").fill("product")
    page.button("Save").click()
    page.seen("Saved as template “Any ball”.").wait_for()
    assert server.saved[-1]["variables"] == [{"text": "red ball", "name": "product"}]


def test_phases_stand_in_order_on_a_telephone(browser, server):
    server.add(ONE)
    server.advance("v1", status="in_progress", phase="sampling", step=3, steps=50)
    with Studio(browser, server.url, viewport={"width": 390, "height": 844}) as page:
        page.go("#/videos/v1")
        page.tab.locator(".phases .now").wait_for()
        places = page.tab.evaluate(
            """[...document.querySelectorAll('.phases li')].map((e) =>
            [e.getBoundingClientRect().top, e.getBoundingClientRect().left, e.textContent])"""
        )
        assert [name for *_, name in sorted(places)] == [name for *_, name in places]
        page.go("#/")
        page.write("a ball", "it rolls", "it grows")
        page.planned()
        cut = page.tab.evaluate(
            """[...document.querySelectorAll('.facts dd, .facts dt')].filter((e) => {
            const b = e.getBoundingClientRect();
            return !b.width || b.right > innerWidth || e.scrollWidth > e.clientWidth + 1 })
            .map((e) => e.textContent)"""
        )
        assert cut == []
        assert page.tab.locator(".facts dd").count() == 5


@pytest.mark.parametrize("locale", ["en", "ja"])
def test_no_placeholder_is_cut(browser, server, locale):
    with Studio(browser, server.url, locale=locale) as page:
        page.tab.locator(".start.story input").check()
        page.tab.locator(".advanced summary").click()
        cut = page.tab.evaluate(
            """[...document.querySelectorAll('input[placeholder]')].filter((e) => e.offsetWidth)
            .filter((e) => {
              const area = document.createElement('canvas').getContext('2d');
              const style = getComputedStyle(e);
              area.font = style.font;
              const room = e.clientWidth - parseFloat(style.paddingLeft)
                - parseFloat(style.paddingRight);
              return area.measureText(e.placeholder).width > room + 1 })
            .map((e) => e.placeholder)"""
        )
        assert cut == []


def test_templates_in_japanese(browser, server):
    with Studio(browser, server.url, locale="ja") as page:
        page.tab.get_by_role("radio", name="商品の紹介").check()
        page.tab.get_by_label("商品", exact=True).wait_for()
        page.seen("映す商品").wait_for()
