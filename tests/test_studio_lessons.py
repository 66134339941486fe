"""What gets approved: from the decisions in a studio to a new template, and to a dataset."""

import io
import json
import zipfile

import numpy as np
import pytest
from studio_thread import serving

from syncos_jax.media.video import Video
from syncos_jax.runs.metadata import METADATA
from syncos_jax.studio.review import add_entry

TEMPLATE = """# A ball on a place
variables:
  place: {default: meadow, allowed: [meadow, beach]}
global: a ball on a {place}
events:
  - {prompt: it rolls, seconds: 1}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A studio whose team likes beaches, with twenty decided videos and one that is not."""
    with serving(tmp_path_factory.mktemp("lessons") / "studio") as running:
        studio = running.studio
        (studio.folder / "templates").mkdir(exist_ok=True)
        (studio.folder / "templates" / "Ball.yaml").write_text(TEMPLATE)
        for worker in studio.workers:  # the videos below are drawn, not generated
            worker.stop()
        for number in range(25):
            place = "beach" if number % 2 else None  # left out: the default
            body = {"template": "Ball", "variables": {"place": place} if place else {}}
            body["settings"] = {"steps": 3}
            video = running.client.post("/v1/videos", json=body).json()
            draw(studio, video, number, place)
        yield running


def draw(studio, video, number, place):
    folder = studio.folder / "videos" / video["id"]
    folder.mkdir()
    path = folder / "take1.mp4"
    Video(np.full((4, 16, 16, 3), number, np.uint8), 4.0).save(path)
    values = {"place": place} if place else {}
    record = {
        **METADATA.head, "title": "a ball", "seed": number,
        "scenario": {}, "versions": {}, "device": {}, "files": {},
        "model": {"id": "x", "weights_sha256": "x"}, "latents": {"sha256": "x"},
        "events": [{"prompt": "it rolls", "start": 0, "stop": 4}], "video": {"fps": 4.0},
        "sampler": {"name": "syncos", "steps": 3}, "template": {"values": values},
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(record))
    stored, take = studio.jobs.claim()
    studio.jobs.ended(stored, take.take, "completed", 1.0)
    if number:
        add_entry(path, "approve" if place else "reject", "Ada")


def lessons(served, **query):
    answer = served.client.get("/v1/lessons", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_values_with_counts_and_intervals(served):
    found = lessons(served)
    assert found["templates"] == [{"name": "Ball", "decided": 24, "approved": 12}]
    assert (found["template"], found["decided"], found["approved"]) == ("Ball", 24, 12)
    assert [(e["factor"], e["value"], e["approved"], e["decided"]) for e in found["evidence"]] == [
        ("place", "beach", 12, 12),
        ("place", "meadow", 0, 12),
    ]
    best, worst = found["evidence"]
    assert worst["high"] < best["low"] < best["rate"] < best["high"] and best["proposed"]
    assert found["proposals"] == {"place": "beach"}
    assert {"place": "beach"} in found["trials"]
    assert lessons(served, template="Product on a place")["evidence"] == []


def test_a_template_with_the_proposed_values(served):
    body = {"template": "Ball", "name": "Beach ball"}
    answer = served.client.post("/v1/lessons/template", json=body)
    assert answer.status_code == 201 and answer.json() == {"name": "Beach ball"}
    items = {item["name"]: item for item in served.client.get("/v1/templates").json()["items"]}
    (variable,) = items["Beach ball"]["variables"]
    assert variable["default"] == "beach" and variable["choices"] == ["meadow", "beach"]
    for name, status in (("Beach ball", 409), ("../x", 422)):
        answer = served.client.post("/v1/lessons/template", json={**body, "name": name})
        assert answer.status_code == status and answer.json()["error"]["field"] == "name"
    for template, status in (("nothing", 404), ("Product on a place", 409)):
        other = {"template": template, "name": "Other"}
        assert served.client.post("/v1/lessons/template", json=other).status_code == status


def test_approved_takes_as_a_dataset(served):
    answer = served.client.get("/v1/dataset", params={"template": "Ball"})
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        lines = archive.read("captions.jsonl").decode().splitlines()
        captions = [json.loads(line) for line in lines]
        assert len(captions) == 12 and len(archive.namelist()) == 13
        first = captions[0]
        assert first["events"] == [{"prompt": "it rolls", "start": 0, "stop": 4}]
        assert first["seed"] == 1
        video, file = first["file"].split("-")
        path = served.studio.folder / "videos" / video / file
        assert archive.read(first["file"]) == path.read_bytes()
    assert len(served.client.get("/v1/dataset").content) == len(answer.content)
