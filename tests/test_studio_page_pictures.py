"""The studio's page: pictures, one event again, the continuation of a take, marks, approvals."""

import chromium
import pytest
from studio_page import Studio

pytest.importorskip("uvicorn")
from studio_fake import MODEL, PICTURE, TEMPLATE, example

pytestmark = chromium.needed


def choose(page, place, *files):
    page.tab.locator(f'[data-field="{place}"] input[type=file]').set_input_files(list(files))


def test_pictures_to_begin_and_end_with_and_of_an_event(page, server, files, tmp_path):
    tab = page.tab
    page.write("a ball", "it rolls", "it grows")
    tab.locator(".pictures summary").click()
    choose(page, "image", files[1])
    page.until("document.querySelector('[data-field=image] img').naturalWidth === 64")
    assert page.button("Change: Start picture").is_visible()
    choose(page, "events.1.image", files[1])
    page.button("Change: picture of event 2").wait_for()
    page.planned()
    sent = server.bodies[-1]["scenario"]
    assert sent["image"] == PICTURE and "end_image" not in sent
    assert [event.get("image") for event in sent["events"]] == [None, PICTURE]
    assert tab.locator(".advanced .note").filter(has_text="Also kept").count() == 0
    page.button("Move event 2 up").click()
    page.button("Change: picture of event 1").wait_for()
    tab.reload()  # the draft keeps them
    page.button("Remove: Start picture").click()
    assert page.focused() == "Choose: Start picture"
    page.planned()
    assert "image" not in server.bodies[-1]["scenario"]

    wrong = tmp_path / "notes.png"
    wrong.write_text("no picture")
    choose(page, "end_image", wrong)
    assert page_error(page, "end_image").startswith("not a picture that can be read")
    wrong.write_bytes(bytes(MODEL["limits"]["picture_bytes"] + 1))
    choose(page, "end_image", wrong)
    page.seen("The picture is too large").wait_for()
    assert page.complaints == [] or all("422" in said for said in page.complaints)


def page_error(page, field):
    node = page.tab.locator(f'[data-field="{field}"] > .error:not(:empty)')
    node.wait_for()
    return node.inner_text()


def test_one_event_again(page, server):
    example(server, seed=7)
    page.go("#/videos/v1")
    page.tab.get_by_label("Your name").fill("Ada")
    page.button("Approve take B").click()
    page.tab.locator(".take[data-verdict=approved]").wait_for()
    page.button("Generate event 2 again").click()
    page.until("document.activeElement.ariaLabel === 'Prompt of event 2'")
    page.seen("Only event 2 is generated again; all other frames stay.").wait_for()
    page.prompt(2).fill("it shrinks")
    page.planned()
    sent = server.bodies[-1]
    assert sent["scenario"]["redo"] == {"video": "v1/2", "events": [2]}
    assert (sent["seed"], sent["takes"]) == (9, 1)
    page.button("Generate everything").click()
    page.planned()
    assert "redo" not in server.bodies[-1]["scenario"]


def test_a_take_goes_on(page, server):
    example(server)
    page.go("#/videos/v1")
    page.button("Continue take A in a new video").click()
    page.seen("Continues an earlier take").wait_for()
    page.planned()
    assert server.bodies[-1]["scenario"]["extend"] == "v1/1"


def test_marks(page, server):
    tab = page.tab
    page.write("a ball", "it rolls", "it grows")
    tab.locator(".advanced summary").click()
    page.seen("Signed with Content Credentials by Example Studio.").wait_for()
    tab.get_by_label("Visible label").fill("AI generated")
    tab.get_by_label("Imperceptible watermark").check()
    page.planned()
    page.button("Generate 2 takes").click()
    page.seen("Position 1 in the queue").wait_for()
    video = server.videos["v1"]
    assert (video["label"], video["watermark"]) == ("AI generated", True)
    server.finish("v1")
    tab.get_by_label("Your name").fill("Ada")
    page.button("Approve take A").click()
    page.seen("The download carries this approval, signed.").first.wait_for()
    assert tab.get_by_label("Download take A").get_attribute("href").endswith("variant=published")
    page.button("Duplicate & edit").click()
    assert tab.get_by_label("Visible label").input_value() == "AI generated"
    assert tab.get_by_label("Imperceptible watermark").is_checked()


def test_what_gets_approved(page, server):
    tab = page.tab
    page.go("#/approved")
    page.seen("No decisions yet.").wait_for()
    example(server)
    page.go("#/videos")
    tab.get_by_role("link", name="Approvals").click()
    page.seen("14 of 24 decided takes approved").wait_for()
    row = tab.locator(".evidence tbody tr").first.inner_text()
    assert "sandy beach" in row and "11 of 12" in row and "88 % (68 % to 100 %)" in row
    assert tab.locator(".evidence .chip").all_inner_texts() == ["Proposed"]
    link = tab.get_by_role("link", name="Download 14 approved takes")
    assert link.get_attribute("href") == "v1/dataset?template=Product+on+a+place"
    page.button("Make a template from it").click()
    tab.get_by_role("dialog").get_by_label("Name").fill("Beach")
    page.button("Save").click()
    page.seen("Saved as template “Beach”.").wait_for()
    assert server.saved[-1] == {"template": TEMPLATE["name"], "name": "Beach"}
    page.button("Use combination 1").click()
    assert tab.get_by_role("radio", name="sandy beach").is_checked()
    assert tab.get_by_label("Steps", exact=True).input_value() == "20"
    assert page.complaints == []


WORDS = {
    "en": {
        "example": "Use the example “A star at night”", "generate": "Generate 2 takes",
        "wipe": "Wipe", "place": "Wipe position", "second": "Event 2: 1.5 s",
        "name": "Your name", "comment": "Comment on take B", "say": "Post comment, take B",
        "approve": "Approve take B", "save": "Download take B",
    },
    "ja": {
        "example": "例「夜空の星」を使う", "generate": "2テイクを生成", "wipe": "ワイプ比較",
        "place": "ワイプの位置", "second": "場面2: 1.5秒", "name": "お名前",
        "comment": "テイクBへのコメント", "say": "テイクBへのコメントを投稿",
        "approve": "テイクBを承認", "save": "テイクBをダウンロード",
    },
}  # fmt: skip
SIZES = {"wide": {"width": 1280, "height": 800}, "telephone": {"width": 390, "height": 844}}


@pytest.mark.parametrize(
    ("locale", "size"),
    [
        ("en", "wide"),
        pytest.param("ja", "wide", marks=pytest.mark.slow),
        pytest.param("en", "telephone", marks=pytest.mark.slow),
        pytest.param("ja", "telephone", marks=pytest.mark.slow),
    ],
)
def test_the_whole_walk_by_keyboard(browser, server, locale, size):
    """Example, two takes, comparison, comment at a time, approval, download."""
    say = WORDS[locale]
    with Studio(browser, server.url, locale=locale, viewport=SIZES[size]) as page:
        tab, keys = page.tab, page.tab.keyboard
        tab.locator("button.example").nth(2).wait_for()
        page.tab_to(say["example"])
        assert page.outlined()
        keys.press("Enter")
        page.until(f"document.activeElement.innerText.trim() === '{say['generate']}'")
        page.planned()
        keys.press("Enter")
        tab.locator(".progress-words").wait_for()
        server.finish("v1")
        page.until(
            "[...document.querySelectorAll('video')].filter((v) => v.readyState >= 2).length === 2"
        )
        page.tab_to(say["wipe"])
        keys.press("Enter")
        page.tab_to(say["place"])
        before = tab.locator(".wipe input").input_value()
        keys.press("ArrowRight")
        assert tab.locator(".wipe input").input_value() != before
        page.tab_to(say["second"])
        keys.press("Enter")
        keys.press("ArrowRight")
        page.tab_to(say["name"])
        keys.type("Ada")
        page.tab_to(say["comment"])
        keys.type("it jumps")
        assert page.outlined()
        page.tab_to(say["say"])
        keys.press("Enter")
        tab.get_by_text("it jumps").wait_for()
        entry = server.videos["v1"]["takes"][1]["history"][0]
        assert entry["action"] == "comment" and entry["time"] > 1.5
        page.tab_to(say["approve"])
        assert page.outlined()
        keys.press("Enter")
        tab.locator(".take[data-verdict=approved]").wait_for()
        page.tab_to(say["save"])
        with tab.expect_download() as download:
            keys.press("Enter")
        assert download.value.suggested_filename.endswith("-take-2.mp4")
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert page.complaints == []
