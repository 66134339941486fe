"""The system's Chromium, headless, for the tests of the pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)

needed = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here (apt-get install chromium); .ci/run installs it"
)


@contextmanager
def running() -> Iterator[Any]:
    """A browser; skips the test where playwright is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        root = os.geteuid() == 0  # where Chromium refuses its sandbox
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--disable-gpu", *["--no-sandbox"] * root],
            timeout=120_000,
        )
        yield browser
        browser.close()
