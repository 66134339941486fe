"""The page and its server together: `syncos studio` as it stands, with a model of a few numbers."""

from pathlib import Path

import chromium
import pytest
from studio_page import Studio
from studio_tour import running, tour

pytest.importorskip("fastapi")
pytestmark = chromium.needed

SERVER = str(Path(__file__).parent / "studio_server.py")


def test_from_opening_the_page_to_an_approved_video(tmp_path):
    """Without a scenario file and without a network; then again from it, and as a template."""
    with running([SERVER, "--no-cache"], tmp_path / "studio") as address:
        with chromium.running() as browser, Studio(browser, address) as page:
            tab, stages = page.tab, []
            assert "token" not in tab.url
            tour(page, stages.append, steps=3)
            assert stages == ["start", "template", "running", "approved"]
            page.button("Save as template").click()
            tab.get_by_role("dialog").get_by_label("Name").fill("Beach")
            page.button("Save").click()
            answered = "document.querySelector('dialog .error:not(:empty)')"
            page.until(f"!document.querySelector('dialog') || {answered}")
            assert tab.locator("dialog .error").all_inner_texts() == []
            page.seen("Saved as template “Beach”.").wait_for()
            page.button("Duplicate & edit").click()
            assert tab.get_by_role("radio", name="sandy beach").is_checked()
            assert tab.get_by_label("Steps", exact=True).input_value() == "3"
            tab.get_by_role("radio", name="Beach", exact=False).first.wait_for()
            page.button("Edit the prompts").click()
            page.prompt(1).fill("<b>the ball rests</b>")
            page.planned()
            tab.get_by_label("Guidance (CFG) scale").fill("2")
            page.planned()
            page.go("#/videos")
            tab.get_by_text("1 approved").wait_for()
            page.until("document.querySelector('.video-picture img').naturalWidth > 0")
            here = address.split("?")[0]
            assert all(url.startswith(here) for url in page.requests)
            assert page.complaints == []
        files = sorted(path.name for path in (tmp_path / "studio").rglob("*.mp4"))
        assert files == ["take1.mp4", "take2.mp4"]
