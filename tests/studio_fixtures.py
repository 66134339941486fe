"""What the tests of the studio's page share: a browser, a server in memory, a tab with the page."""

import chromium
import pytest
from studio_page import Studio
from takes import frames_of, write_take


@pytest.fixture(scope="module")
def browser():
    with chromium.running() as running:
        yield running


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("clip")
    write_take(folder, "a.mp4")
    Image.fromarray(frames_of()[12]).save(folder / "a.png")
    return folder / "a.mp4", folder / "a.png"


@pytest.fixture
def server(files):
    from studio_fake import FakeStudio

    with FakeStudio(*files) as running:
        yield running


@pytest.fixture
def page(browser, server):
    with Studio(browser, server.url) as opened:
        yield opened
