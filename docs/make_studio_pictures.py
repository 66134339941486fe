"""Makes docs/studio/*.png in the system's Chromium.

``python docs/make_studio_pictures.py 50`` shows `syncos studio` with the demo model at 50 steps;
with ``drawn`` in place of the number the page's server is one in memory, and the takes are clips
that the demo model's world draws, which takes seconds. One picture needs a Japanese font
(``apt-get install fonts-noto-cjk``).
"""

import contextlib
import io
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "examples")]

import chromium  # noqa: E402
from PIL import Image  # noqa: E402
from studio_fake import FakeStudio  # noqa: E402
from studio_page import Studio  # noqa: E402
from studio_tour import running, tour  # noqa: E402
from takes import frames_of, write_take  # noqa: E402

from demo_model.world import Scene  # noqa: E402

PICTURES = ROOT / "docs" / "studio"
COMMAND = ["-c", "from syncos_jax.cli import main; main()", "studio"]
STORY = "A red ball lies on a green meadow. The ball moves left. Then it rises. The ball grows."
READY = "[...document.querySelectorAll('video')].every((v) => v.readyState >= 2)"


@contextlib.contextmanager
def drawn(folder: Path) -> Iterator[str]:
    """The page on a server in memory, whose first video is done after some seconds."""
    moves = [Scene("ball", "red", "beach", move, 40, 40, 9, 20) for move in ("left", "up", "right")]
    for name, order in (("a.mp4", (0, 1, 2)), ("b.mp4", (2, 0, 1))):
        write_take(folder, name, frames_of([moves[i] for i in order]))
    Image.fromarray(frames_of(moves)[4]).save(folder / "a.png")
    with FakeStudio(folder / "a.mp4", folder / "a.png") as server:
        server.clips.append(folder / "b.mp4")

        def work() -> None:
            while not server.videos:
                time.sleep(0.2)
            state = {
                "status": "in_progress",
                "place": 0,
                "phase": "sampling",
                "step": 12,
                "steps": 50,
            }
            server.advance("v1", **state, seconds_left=42, preview="v1/videos/v1/preview?v=12")
            time.sleep(20)
            server.finish("v1")

        threading.Thread(target=work, daemon=True).start()
        yield server.url


def keep(page: Studio, name: str) -> None:
    """A picture of what the window shows, of at most 256 colours."""
    if name == "approved":  # with the decisions below the takes
        page.tab.set_viewport_size({"width": 1280, "height": 1160})
    page.tab.wait_for_timeout(600)
    with Image.open(io.BytesIO(page.tab.screenshot())) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        small.save(PICTURES / f"{name}.png", optimize=True)


def story(page: Studio) -> None:
    """Split, changed, and with an error at a field."""
    page.tab.set_viewport_size({"width": 1280, "height": 860})
    page.go("#/")
    page.tab.get_by_role("radio", name="A story").check()
    page.tab.get_by_label("Your story").fill(STORY)
    page.button("Split into events").click()
    page.seen("Split into 3 events").wait_for()
    page.button("Make event 2 longer").click()
    page.planned()
    page.length(3).fill("0")
    page.length(3).blur()
    page.error("events.2.seconds")
    page.tab.evaluate("scrollTo(0, 0)")
    keep(page, "story")


def givens(page: Studio, picture: Path) -> None:
    """A picture to begin with; and what gets approved."""
    page.go("#/")
    page.tab.locator(".start.empty input").check()
    page.write("a red ball on a sandy beach", "the ball moves left", "the ball grows", "it rests")
    page.tab.locator(".pictures summary").click()
    page.tab.locator('[data-field="image"] input[type=file]').set_input_files(picture)
    page.button("Change: Start picture").wait_for()
    page.planned()
    page.tab.locator(".columns").scroll_into_view_if_needed()
    keep(page, "pictures")
    page.go("#/videos")
    page.tab.locator(".video-card").first.click()
    page.button("Generate event 2 again").click()
    page.planned()
    page.tab.locator(".base").scroll_into_view_if_needed()
    keep(page, "again")
    page.go("#/approved")
    page.seen("decided takes approved").wait_for()
    keep(page, "approvals")


def pictures(browser, address: str, steps: int) -> None:
    with Studio(browser, address, viewport={"width": 1280, "height": 860}) as page:
        page.tab.set_default_timeout(300_000)
        tour(page, lambda name: keep(page, name), steps, patience=1800)
        story(page)
        page.go("#/videos")
        page.seen("1 approved").wait_for()
        keep(page, "videos")
        with tempfile.TemporaryDirectory() as name:
            picture = Path(name) / "ball.png"
            Image.fromarray(frames_of()[4]).save(picture)
            givens(page, picture)
    narrow = {"width": 390, "height": 844}
    with Studio(browser, address, viewport=narrow, color_scheme="dark", locale="ja") as page:
        page.go("#/videos")
        page.tab.locator(".video-card").click()
        page.tab.locator(".take").first.wait_for()
        page.until(READY)
        keep(page, "telephone")


def main(asked: str = "50") -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, chromium.running() as browser:
        folder = Path(name)
        server = drawn(folder) if asked == "drawn" else running(COMMAND, folder)
        with server as address:
            pictures(browser, address, 50 if asked == "drawn" else int(asked))


if __name__ == "__main__":
    main(*sys.argv[1:])
