"""The studio behind OpenAI's own client: create, poll, list, download, delete."""

import io
import re

import pytest
from PIL import Image
from studio_thread import TOKEN, serving

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openai") / "studio"
    with serving(folder, seconds=10.0) as served:
        yield openai.OpenAI(base_url=f"{served.base}/v1", api_key=TOKEN, max_retries=0)


def test_create_poll_list_download_delete(client):
    video = client.videos.create_and_poll(
        prompt="a cat sleeps | the cat wakes", seconds="2", poll_interval_ms=100
    )
    assert video.status == "completed" and video.progress == 100 and video.object == "video"
    assert video.completed_at >= video.created_at and video.error is None
    assert float(video.seconds) == pytest.approx(2, abs=0.3) and "x" in video.size
    assert video.prompt == "a cat sleeps | the cat wakes"
    second = client.videos.create(prompt="a dog runs", model=video.model, seconds="1")
    assert second.status in ("queued", "in_progress")
    client.videos.poll(second.id, poll_interval_ms=100)
    assert [each.id for each in client.videos.list(limit=1)] == [second.id, video.id]
    oldest = client.videos.list(order="asc", limit=5)
    assert [each.id for each in oldest.data] == [video.id, second.id] and not oldest.has_more
    assert client.videos.download_content(video.id).read()[4:8] == b"ftyp"
    picture = client.videos.download_content(video.id, variant="thumbnail").read()
    assert picture.startswith(b"\x89PNG")
    deleted = client.videos.delete(video.id)
    assert deleted.deleted and deleted.id == video.id
    with pytest.raises(openai.NotFoundError, match="no such video"):
        client.videos.retrieve(video.id)


def test_a_picture_to_begin_with(client):
    file = io.BytesIO()
    Image.new("RGB", (24, 16), "red").save(file, "PNG")
    picture = ("a.png", file.getvalue(), "image/png")
    video = client.videos.create(prompt="a cat sleeps", seconds="1", input_reference=picture)
    found = client.videos.retrieve(video.id)
    assert re.fullmatch("p[0-9a-f]{32}", found.scenario["image"])


def test_errors_are_those_of_the_client(client):
    with pytest.raises(openai.UnprocessableEntityError, match="unknown model"):
        client.videos.create(prompt="a cat", model="sora-2")
    with pytest.raises(openai.UnprocessableEntityError, match="seconds"):
        client.videos.create(prompt="a cat", seconds="many")
    with pytest.raises(openai.UnprocessableEntityError, match="not a picture"):
        client.videos.create(prompt="a cat", input_reference=("a.png", b"png", "image/png"))
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="another").videos.list()
