"""From opening the studio's page to an approved video, and a picture of each stage on the way."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from studio_page import Studio


@contextlib.contextmanager
def running(command: Sequence[str], folder: Path) -> Iterator[str]:
    """Starts a studio with `command`; the address that it prints, with its token."""
    process = subprocess.Popen(
        [sys.executable, *command, str(folder), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines = []
        while not (lines and lines[-1].startswith("http")):
            line = process.stdout.readline()
            assert line, "".join(lines)
            lines.append(line)
        yield lines[-1].strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def until(page: Studio, expression: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not page.tab.evaluate(expression):
        assert time.monotonic() < deadline, page.tab.locator("#main").inner_text()
        time.sleep(0.2)


def tour(page: Studio, shot: Callable[[str], None], steps: int, patience: float = 300) -> None:
    """A template of four events, two takes; the second of them is approved.

    Args:
        page: opened at the form.
        shot: takes a picture of the page under a name.
        steps: denoising steps.
        patience: seconds for what the server computes.
    """
    tab = page.tab
    until(page, "document.querySelector('h1')", patience)  # the model is loaded
    shot("start")
    tab.get_by_role("radio", name="Product on a place").check()
    tab.get_by_label("Product", exact=True).fill("red ball")
    tab.get_by_role("radio", name="sandy beach").check()
    tab.get_by_label("Title").fill("Beach, first try")
    tab.locator("summary").click()
    tab.get_by_label("Steps", exact=True).fill(str(steps))
    page.seen("the red ball moves to the left").wait_for(timeout=patience * 1000)
    page.planned()
    tab.locator("summary").click()
    tab.evaluate("scrollTo(0, 0)")
    shot("template")
    page.button("Generate 2 takes").click()
    tab.locator(".progress-words").wait_for()
    sees = "(document.querySelector('.progress img:not([hidden])') || {}).naturalWidth > 0"
    shown = "[...document.querySelectorAll('.take .approve')].filter((b) => b.offsetParent)"
    finished = f"{shown}.length === 2"  # a take that is not there yet has its buttons hidden
    until(page, f"{sees} || {finished}", patience)
    shot("running")
    ready = f"{finished} && [...document.querySelectorAll('video')].every((v) => v.readyState >= 2)"
    until(page, ready, patience)
    tab.get_by_label("Your name").fill("Ada Example")
    tab.get_by_label("Comment on take B").fill("the calmer one of the two")
    tab.get_by_role("button", name="Event 2:").click()
    for _ in range(6):
        tab.keyboard.press("ArrowRight")
    page.button("Approve take B").click()
    tab.locator(".take[data-verdict=approved]").wait_for()
    tab.evaluate("scrollTo(0, 0)")
    shot("approved")
