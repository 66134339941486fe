"""Makes docs/studio/*.png: `syncos studio` with the demo model, in the system's Chromium.

python docs/make_studio_pictures.py [STEPS]
"""

import io
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import chromium  # noqa: E402
from PIL import Image  # noqa: E402
from studio_page import Studio  # noqa: E402
from studio_tour import running, tour  # noqa: E402

PICTURES = ROOT / "docs" / "studio"
COMMAND = ["-c", "from syncos_jax.cli import main; main()", "studio"]
STORY = (
    "A red ball lies on a green meadow. The ball moves to the left. Then it rises. The ball grows."
)


def keep(page: Studio, name: str) -> None:
    """A picture of what the window shows, of at most 256 colours."""
    page.tab.wait_for_timeout(400)
    with Image.open(io.BytesIO(page.tab.screenshot())) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        small.save(PICTURES / f"{name}.png", optimize=True)


def story(page: Studio) -> None:
    """Split, changed, and with an error at a field."""
    page.go("#/")
    page.tab.get_by_role("radio", name="A story").check()
    page.tab.get_by_label("Your story").fill(STORY)
    page.button("Split into events").click()
    page.tab.get_by_text("Split into 3 events").wait_for()
    page.button("Make event 2 longer").click()
    page.planned()
    page.length(3).fill("0")
    page.length(3).blur()
    page.error("events.2.seconds")
    page.tab.evaluate("scrollTo(0, 0)")
    keep(page, "story")


def main(steps: int) -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running(COMMAND, Path(folder)) as address:
        with chromium.running() as browser:
            window = {"width": 1280, "height": 860}
            with Studio(browser, address, viewport=window) as page:
                page.tab.set_default_timeout(300_000)
                tour(page, lambda name: keep(page, name), steps, patience=1800)
                story(page)
                page.go("#/videos")
                page.tab.get_by_text("1 approved").wait_for()
                keep(page, "videos")
            narrow = {"width": 390, "height": 844}
            more = {"color_scheme": "dark", "locale": "ja", "viewport": narrow}
            with Studio(browser, address, **more) as page:
                page.go("#/videos")
                page.tab.locator(".video-card").click()
                page.tab.locator(".take").first.wait_for()
                page.until(
                    "[...document.querySelectorAll('video')].every((v) => v.readyState >= 2)"
                )
                keep(page, "telephone")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
