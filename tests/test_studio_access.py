"""The studio's page for everybody: by keyboard, on a telephone, in Japanese, for screen readers,
with errors at their fields and strange text in it."""

import chromium
import pytest
from studio_page import Studio

pytest.importorskip("uvicorn")
from studio_fake import TEMPLATE, example

pytestmark = chromium.needed

MARKUP = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"


def test_by_keyboard_alone(page, server):
    """From the opened page to an approved take; every stop can be seen."""
    tab, keys = page.tab, page.tab.keyboard
    keys.press("Tab")
    assert page.focused() == "Skip to content"
    keys.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"
    page.tab_to("Empty")
    assert page.outlined()
    page.tab_to("Throughout")
    assert page.outlined()
    keys.type("a red ball")
    page.tab_to("Prompt of event 1")
    keys.type("it rolls")
    page.tab_to("Seconds of event 1")
    keys.press("ArrowUp")
    page.tab_to("Prompt of event 2")
    keys.type("it grows")
    page.tab_to("Move event 2 up")
    assert page.outlined()
    keys.press("Enter")  # the focus stays with what was moved
    assert page.prompt(1).input_value() == "it grows"
    page.until("window.heard.includes('Moved to position 1 of 2.')")
    page.tab_to("Add an event")
    keys.press("Enter")
    assert page.focused() == "Prompt of event 3"
    assert page.outlined()
    keys.type("it rests")
    page.planned()
    page.tab_to("Generate 2 takes")
    assert page.outlined()
    keys.press("Enter")
    page.seen("Position 1 in the queue").wait_for()
    page.until("document.activeElement.tagName === 'H1'")
    server.finish("v1")
    tab.locator("video").nth(1).wait_for()
    events = server.videos["v1"]["scenario"]["events"]
    assert [event["prompt"] for event in events] == ["it grows", "it rolls", "it rests"]
    page.tab_to("Play")
    page.tab_to("Your name")
    keys.type("Ada")
    page.tab_to("Comment on take A")
    keys.type("good")
    page.tab_to("Approve take A")
    assert page.outlined()
    keys.press("Enter")
    tab.locator(".take[data-verdict=approved]").wait_for()
    assert page.complaints == []


VIEWS = ("#/", "#/videos", "#/videos/v1", "#/videos/v2", "#/approved")


@pytest.mark.parametrize(("locale", "scheme"), [("en", "light"), ("ja", "dark")])
def test_on_a_telephone(browser, server, locale, scheme):
    example(server, title="A long title " * 8)
    server.add({"template": TEMPLATE["name"], "variables": {}, "takes": 4})
    server.advance("v2", status="in_progress", phase="sampling", step=3, steps=50, seconds_left=400)
    size = {"width": 390, "height": 844}
    with Studio(browser, server.url, viewport=size, locale=locale, color_scheme=scheme) as page:
        wide = "document.documentElement.scrollWidth - innerWidth"
        for view in VIEWS:
            page.go(view)
            page.tab.wait_for_timeout(300)
            assert page.tab.evaluate(wide) <= 0, view
        page.go("#/")
        for start in ("template", "story", "empty"):
            page.tab.locator(f".start.{start} input").check()
            page.tab.wait_for_timeout(400)
            assert page.tab.evaluate(wide) <= 0, start
        page.tab.locator(".advanced summary").click()
        page.tab.locator(".event textarea").first.fill("word" * 100)
        page.tab.locator(".dock .primary").click()
        assert page.tab.evaluate(wide) <= 0
        small = page.tab.evaluate(
            """[...document.querySelectorAll(
              'button, select, .choice, .start, input:not([type=radio]):not([type=checkbox]),'
              + ' label:has([type=checkbox])')]
            .filter((e) => e.offsetWidth && !e.closest('.bar'))
            .filter((e) => e.offsetWidth < 30 || e.offsetHeight < 30)
            .map((e) => e.outerHTML)"""
        )
        assert small == []  # large enough for a finger; the bar repeats what the cards have
        paper = "getComputedStyle(document.body).backgroundColor"
        light = sum(map(int, page.tab.evaluate(paper)[4:-1].split(","))) > 380
        assert light == (scheme == "light")


def test_markup_is_shown_as_text(page, server):
    tab = page.tab
    page.write(MARKUP, MARKUP, "it grows")
    tab.get_by_label("Title").fill(MARKUP)
    page.planned()
    page.button("Generate 2 takes").click()
    page.seen("Position 1 in the queue").wait_for()
    assert tab.locator("h1").inner_text() == MARKUP
    server.finish("v1")
    tab.get_by_label("Your name").fill(MARKUP)
    tab.get_by_label("Comment on take A").fill(MARKUP)
    page.button("Approve take A").click()
    tab.locator(".take[data-verdict=approved]").wait_for()
    assert tab.locator(".said p").first.inner_text() == MARKUP
    assert tab.locator(".said footer").first.inner_text().startswith(MARKUP)
    server.advance("v1", status="failed", error={"message": MARKUP, "remedy": MARKUP})
    assert MARKUP in tab.locator(".outcome").inner_text()
    page.go("#/videos")
    tab.locator(".video-card").wait_for()
    assert tab.locator(".video-title").inner_text() == MARKUP
    server.templates = [{**TEMPLATE, "name": MARKUP, "description": MARKUP}]
    tab.reload()
    page.go("#/")
    tab.locator(".start.template input").check()
    assert tab.locator(".start.template .start-name").inner_text() == MARKUP
    assert tab.evaluate("document.querySelectorAll('main img[src=x], main script').length") == 0
    assert "broken" not in tab.title()
    assert page.complaints == []


def test_japanese(browser, server):
    example(server)
    with Studio(browser, server.url, locale="ja-JP") as page:
        tab = page.tab
        assert tab.locator("h1").inner_text() == "動画を作成"
        assert tab.evaluate("document.documentElement.lang") == "ja"
        tab.get_by_label("全体で変わらないもの").fill("a ball")
        page.button("2テイクを生成").click()
        assert page.error("events.0.prompt").startswith("この場面で起こること")
        page.go("#/videos/v1")
        page.button("テイクAを承認").click()
        assert page.error("by").startswith("お名前")
        page.button("English").click()
        page.button("Approve take A").wait_for()
        assert tab.evaluate("document.documentElement.lang") == "en"
        tab.reload()  # the choice is kept
        page.button("Approve take A").wait_for()
        assert page.complaints == []


def test_errors_stand_at_their_fields(page, server):
    tab = page.tab
    assert tab.locator(".error:not(:empty)").count() == 0  # nobody has been in the form yet
    assert page.button("Generate 2 takes").get_attribute("aria-disabled") == "true"
    assert "choose an example" in tab.locator(".dock-why").inner_text()
    page.prompt(1).fill("it rolls")
    assert tab.locator(".dock-why").inner_text() == ""
    page.button("Generate 2 takes").click()
    assert page.error("global") == "Describe what stays the same: subject and place."
    assert page.focused() == "Throughout"  # the first that is wrong
    assert page.error("events.1.prompt") == "Describe what happens, or remove this event."
    page.write("a ball", "it rolls", "a unicorn comes")
    page.length(1).fill("0")
    assert page.error("events.0.seconds") == "Enter a number of seconds above 0."
    page.length(1).fill("1")
    said = page.error("events.1.prompt")  # what the server says of it
    assert said == "the model knows no unicorns. name another animal"
    page.prompt(2).fill("a horse comes")
    page.planned()
    assert tab.locator(".error:not(:empty)").count() == 0
    tab.locator(".advanced summary").click()
    for label, value, field, words in (
        ("Steps", "2.5", "settings.steps", "integer from 1 to 1000"),
        ("Strength", "3", "settings.strength", "from 0 to 1"),
        ("Width in pixels", "64", "settings.size", "width and height"),
        ("Number of takes", "9", "takes", "from 1 to 4"),
    ):
        control = tab.get_by_label(label, exact=True)
        before = control.input_value()
        control.fill(value)
        control.blur()
        assert words in page.error(field)
        control.fill(before)
    page.planned()

    server.full = True
    page.button("Generate 2 takes").click()
    page.seen("the queue is full. wait until a video is done").wait_for()
    server.full = False
    page.button("Generate 2 takes").click()
    page.seen("Position 1 in the queue").wait_for()
    assert len(server.videos) == 1
    page.go("#/")
    tab.get_by_role("radio", name="Product on a place").check()
    tab.get_by_label("Pace").fill("9")
    assert page.error("variables.pace") == "Enter a number from 0.5 to 4."


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_nothing_that_axe_finds(browser, server, scheme):
    """WCAG 2.1 AA, as far as a machine can judge it: names, roles, contrast, order."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
    example(server)
    server.add({"template": TEMPLATE["name"], "variables": {}, "takes": 2})
    server.advance("v2", status="in_progress", phase="sampling", step=3, steps=50, seconds_left=400)
    with Studio(browser, server.url, color_scheme=scheme) as page:

        def check(what):
            found = axe.Axe().run(page.tab, options=rules).response["violations"]
            assert [
                (v["id"], n["html"], n["failureSummary"]) for v in found for n in v["nodes"]
            ] == [], what

        page.tab.locator(".advanced summary").click()
        page.prompt(1).fill("it rolls")
        page.button("Generate 2 takes").click()
        page.error("global")
        check("errors")
        page.tab.locator(".start.story input").check()
        page.write("a ball", " ".join(f"word{i}" for i in range(30)), "it grows")
        page.planned()
        page.tab.locator(".event mark").wait_for()
        check("story")
        page.tab.locator(".start.template input").check()
        page.planned()
        check("template")
        for view in VIEWS[1:]:
            page.go(view)
            page.tab.wait_for_timeout(300)
            check(view)
        page.button("Make a template from it").click()
        check("dialog of a name")
        page.button("Back").click()
        page.go("#/videos/v1")
        page.button("Measure the takes").click()
        page.seen("Subject consistency").wait_for()
        page.button("Wipe").click()
        check("report and wipe")
        page.button("Save as template").click()
        page.button("Add a variable").click()
        check("dialog of variables")
        page.button("Back").click()
        page.button("Generate event 2 again").click()
        page.seen("Only event 2 is generated again").wait_for()
        check("event again")
        page.button("Generate everything").click()
        page.tab.locator(".pictures summary").click()
        page.planned()
        check("pictures")
