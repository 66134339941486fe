"""The studio's API, over HTTP, with a model of a few numbers."""

import json
import threading

import pytest
from studio_thread import BODY, STORY, serving

from syncos_jax.media.video import load_video
from syncos_jax.runs.metadata import read_metadata
from syncos_jax.studio.engine import presets
from syncos_jax.studio.review import add_entry, read_reviews


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("studio") / "folder") as running:
        yield running


@pytest.fixture(scope="module")
def made(served):
    """A video of two takes."""
    return served.until(served.make(takes=2, seed=7)["id"], "completed", "failed")


def error(answer, status):
    assert answer.status_code == status, answer.text
    found = answer.json()["error"]
    assert set(found) >= {"message", "remedy", "field"} and found["message"]
    return found


def test_the_model(served):
    facts = served.client.get("/v1/model").json()
    assert facts["name"] == "fake" and facts["clip_frames"] == 4
    assert facts["limits"]["takes"] == 8
    assert facts["limits"]["size"] == {"minimum": 8, "maximum": 48, "multiple": 8}
    assert facts["defaults"] == {"steps": 4, "guidance": 2.0, "strength": None, "seed": 0}


def test_from_a_scenario_to_two_takes(served, made):
    assert made["status"] == "completed" and made["error"] is None and made["place"] is None
    assert [take["seed"] for take in made["takes"]] == [7, 8]
    assert made["scenario"]["sampler"] == {"name": "syncos", "steps": 3, "strength": 0.5}
    folder = served.studio.folder / "videos" / made["id"]
    for take in made["takes"]:
        raw = served.client.get(take["content"])
        assert raw.headers["content-type"] == "video/mp4"
        path = folder / f"take{take['take']}.mp4"
        assert raw.content == path.read_bytes()
        assert len(load_video(path)) == 12 and take["seconds"] == 3.0
        record = read_metadata(path.with_suffix(".json"))
        assert record["seed"] == take["seed"] and record["take"]["count"] == 2
        assert served.client.get(take["thumbnail"]).content.startswith(b"\x89PNG")
    part = served.client.get(made["takes"][0]["content"], headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and len(part.content) == 10
    left = {path.name for path in folder.iterdir()}
    assert not [name for name in left if name.endswith(".run") or name == "preview.png"]


def test_the_plan_is_the_pipelines_own(served):
    plan = served.client.post("/v1/plan", json={**BODY, "takes": 3}).json()
    pipeline = served.studio.engine.pipeline
    from syncos_jax import Scenario

    request = pipeline.prepare(Scenario.from_dict(plan["scenario"]))
    own = pipeline.plan(request)
    assert plan["frames"] == own.frames and plan["windows"] == len(own.windows)
    assert plan["calls"] == 3 * own.cost.calls
    assert plan["memory_bytes"] == pytest.approx(own.cost.memory_bytes, rel=0.05)
    assert [event["frames"] for event in plan["events"]] == [8, 4]
    assert not served.client.get("/v1/videos?search=nothing-of-the-kind").json()["data"]


def test_words_that_the_model_does_not_see(served, monkeypatch):
    model = served.studio.engine.pipeline.model

    def tokenize(texts):
        import logging

        for text in texts:
            if len(text.split()) > 6:
                logger = logging.getLogger("syncos_jax.models.tokenizer")
                logger.warning("prompt cut to %d tokens, without %r", 6, text.split()[6])
        return type(model).tokenize(model, texts)

    monkeypatch.setattr(model, "tokenizer", tokenize)
    prompts = ("sleeps", "wakes up unicorns")
    events = [{"prompt": prompt, "seconds": 1} for prompt in prompts]
    body = {"scenario": {"global": "a cat in a", "events": events}}
    plan = served.client.post("/v1/plan", json=body).json()
    assert [event["cut"] for event in plan["events"]] == [None, "unicorns"]


def one_event(**event):
    return {"scenario": {**STORY, "events": [event]}}


def of_template(**variables):
    return {"template": "Product on a place", "variables": variables}


MANY = {"name": "syncos", "steps": 9999, "iterations": 9999}
WRONG = [
    ({}, None, "exactly one of scenario"),
    ({"scenario": {"events": []}}, "events", "has 0 entries"),
    (one_event(prompt="", seconds=1), "events.0.prompt", "got ''"),
    (one_event(prompt="x"), "events.0.seconds", "has no length"),
    (one_event(prompt="x", seconds=0), "events.0.seconds", "got 0"),
    (one_event(prompt="x", seconds=9e3), "events", "9000 seconds"),
    (one_event(prompt="x", seconds=0.5), "events", "2 frames"),
    ({"scenario": {"events": STORY["events"]}}, "global", "missing"),
    ({"scenario": {**STORY, "colour": 1}}, None, "unknown key"),
    ({"scenario": {**STORY, "variables": {}}}, "variables", "variables"),
    ({"scenario": {**STORY, "sampler": {"name": "x"}}}, None, "sampler"),
    ({"scenario": {**STORY, "sampler": MANY}}, "settings.steps", "predictions of the network"),
    ({**BODY, "settings": {"steps": 0}}, "settings.steps", "steps must be"),
    ({**BODY, "settings": {"strength": 2}}, "settings.strength", "strength must be"),
    ({**BODY, "settings": {"size": [10, 16]}}, "settings.size", "10 × 16"),
    ({**BODY, "settings": {"size": [8000, 8000]}}, "settings.size", "8000 × 8000"),
    ({**BODY, "settings": {"colour": 2}}, "settings.colour", "unknown key"),
    ({**BODY, "takes": 9}, "takes", "too many"),
    ({**BODY, "takes": 0}, "takes", "takes"),
    ({**BODY, "seed": -1}, "seed", "seed"),
    ({**BODY, "title": "x" * 999}, "title", "title"),
    ({**BODY, "variables": {"pace": 1}}, "variables", "need a template"),
    (of_template(place="moon"), "variables.place", "moon"),
    (of_template(pace="x"), "variables.pace", "'x'"),
    (of_template(pcae=1), "variables.pcae", "no variable"),
]


@pytest.mark.parametrize(("body", "field", "said"), WRONG)
def test_what_is_wrong_is_said_at_its_field(served, body, field, said):
    for address in ("/v1/plan", "/v1/videos"):
        found = error(served.client.post(address, json=body), 422)
        assert found["field"] == field and said in found["message"], found


def test_several_things_wrong_are_all_said(served):
    events = [{"prompt": "", "seconds": -1}, {"prompt": "fine", "seconds": "long"}]
    found = error(served.client.post("/v1/plan", json={"scenario": {"events": events}}), 422)
    fields = [item["field"] for item in found["fields"]]
    assert fields == ["events.0.prompt", "events.0.seconds", "events.1.seconds"]
    assert all(item["remedy"] for item in found["fields"])


@pytest.mark.parametrize(
    "raw", [b"{", b"\xff", b"[" * 100_000, b'{"takes": 1e999999}', b"9" * 5000]
)
def test_bodies_that_are_no_json(served, raw):
    answer = served.client.post(
        "/v1/videos", content=raw, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["error"]["message"]


def test_a_repeated_request_makes_one_video(served):
    headers = {"Idempotency-Key": "once and only once"}
    first = served.client.post("/v1/videos", json=BODY, headers=headers)
    again = served.client.post("/v1/videos", json=BODY, headers=headers)
    assert first.json()["id"] == again.json()["id"] and again.status_code == 202
    other = served.client.post("/v1/videos", json={**BODY, "seed": 3}, headers=headers)
    assert "Idempotency-Key" in error(other, 409)["message"]


def test_templates(served, made):
    found = {item["name"]: item for item in served.client.get("/v1/templates").json()["items"]}
    variables = {v["name"]: v for v in found["Product on a place"]["variables"]}
    assert variables["place"]["choices"] == ["green meadow", "sandy beach"]
    assert (variables["pace"]["kind"], variables["pace"]["default"]) == ("number", 1)
    body = {"template": "Product on a place", "variables": {"product": "blue {square}", "pace": 2}}
    plan = served.client.post("/v1/plan", json=body).json()
    assert (
        plan["seconds"] == 8 and plan["scenario"]["global"] == "a blue {square} on a green meadow"
    )
    answer = served.client.post("/v1/templates", json={"name": "猫 (1)", "video": made["id"]})
    assert answer.status_code == 201 and answer.json() == {"name": "猫 (1)"}
    again = served.client.post("/v1/templates", json={"name": "猫 (1)", "video": made["id"]})
    assert error(again, 409)["field"] == "name"
    plan = served.client.post("/v1/plan", json={"template": "猫 (1)"}).json()
    assert plan["scenario"] == made["scenario"] | {"seed": 7}
    nothing = served.client.post("/v1/plan", json={"template": "none"})
    assert error(nothing, 404)["field"] == "template"
    (served.studio.folder / "templates" / "broken.yaml").write_text("{")
    assert "猫 (1)" in {item["name"] for item in served.client.get("/v1/templates").json()["items"]}


def test_a_template_of_a_templates_video_keeps_its_variables(served):
    body = {
        "template": "Product on a place",
        "variables": {"product": "blue {square}"},
        "settings": {"steps": 2, "strength": 0.0},
        "seed": 5,
    }
    video = served.make(**body, scenario=None)
    served.client.post(f"/v1/videos/{video['id']}/cancel")
    answer = served.client.post("/v1/templates", json={"name": "Square", "video": video["id"]})
    assert answer.status_code == 201
    found = {item["name"]: item for item in served.client.get("/v1/templates").json()["items"]}
    variables = {v["name"]: v for v in found["Square"]["variables"]}
    assert variables["product"]["default"] == "blue {square}"
    assert variables["place"]["choices"] == ["green meadow", "sandy beach"]
    plan = served.client.post("/v1/plan", json={"template": "Square"}).json()
    assert plan["scenario"] == video["scenario"]


def test_decisions_are_those_of_the_review(served, made):
    address = f"/v1/videos/{made['id']}/decision"
    say = {"take": 1, "verdict": "approved", "by": "Ada", "comment": "keep <b>this</b>"}
    answer = served.client.post(address, json=say)
    assert answer.status_code == 200, answer.text
    take = answer.json()["takes"][0]
    assert (take["verdict"], take["by"], take["comment"]) == ("approved", "Ada", say["comment"])
    folder = served.studio.folder / "videos" / made["id"]
    assert read_reviews(folder).decision("take1.mp4").by == "Ada"
    add_entry(folder / "take1.mp4", "reject", "Bo", "no")  # from the command line
    assert served.video(made["id"])["takes"][0]["verdict"] == "rejected"
    take = served.client.post(address, json={**say, "verdict": "undecided"}).json()["takes"][0]
    assert take["verdict"] == "undecided"
    assert [e.action for e in read_reviews(folder).of("take1.mp4")] == [
        "approve",
        "reject",
        "reopen",
    ]
    assert error(served.client.post(address, json={**say, "by": " "}), 422)["field"] == "by"
    assert error(served.client.post(address, json={**say, "take": 3}), 404)["field"] == "take"
    long = {**say, "comment": "x" * 5000}
    assert error(served.client.post(address, json=long), 422)["field"] == "comment"
    path = folder / "take2.mp4"
    served.client.post(address, json={**say, "take": 2})
    path.write_bytes(path.read_bytes() + b"\0")  # a decision is about the bytes that were seen
    assert served.video(made["id"])["takes"][1]["verdict"] == "undecided"


def test_history(served, made):
    items = served.client.get("/v1/videos", params={"search": "KITCHEN wakes"}).json()["data"]
    assert made["id"] in {item["id"] for item in items}
    assert served.client.get("/v1/videos", params={"status": "failed"}).json()["data"] == []
    first = served.client.get("/v1/videos?limit=1").json()
    rest = served.client.get("/v1/videos", params={"limit": 100, "after": first["last_id"]}).json()
    assert first["data"][0]["id"] not in {item["id"] for item in rest["data"]}
    assert rest["has_more"] is False
    oldest = served.client.get("/v1/videos?limit=1&order=asc").json()["data"][0]
    assert oldest["created_at"] <= first["data"][0]["created_at"]
    assert error(served.client.get("/v1/videos?after=x"), 422)["field"] is None
    error(served.client.get("/v1/videos/v0000000000000000"), 404)


def test_events(served):
    said, ready = [], threading.Event()

    def listen():
        with served.client.stream("GET", "/v1/events") as stream:
            for line in stream.iter_lines():
                ready.set()
                if line.startswith("data: "):
                    said.append(json.loads(line[6:]))
                    if said[-1]["title"] == "listened to" and said[-1]["status"] == "completed":
                        return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    assert ready.wait(60)
    # Changes within a tenth of a second are one event; eight takes are not made so fast.
    id = served.make(title="listened to", takes=8)["id"]
    thread.join(120)
    assert not thread.is_alive()
    own = [video for video in said if video["id"] == id]
    assert own[0]["status"] in ("queued", "in_progress") and own[-1]["status"] == "completed"
    assert len(own) > 2 and {video["status"] for video in own[1:-1]} <= {"queued", "in_progress"}
    with served.client.stream("GET", f"/v1/videos/{id}/events") as stream:
        line = next(line for line in stream.iter_lines() if line.startswith("data: "))
    assert json.loads(line[6:])["id"] == id


def test_finished_videos_are_deleted_not_cancelled(served):
    id = served.make(settings={"steps": 60, "strength": 0.0})["id"]
    if served.video(id)["status"] != "completed":
        assert "/cancel" in error(served.client.delete(f"/v1/videos/{id}"), 409)["remedy"]
    served.until(id, "completed")
    assert "DELETE" in error(served.client.post(f"/v1/videos/{id}/cancel"), 409)["remedy"]
    assert served.client.delete(f"/v1/videos/{id}").json() == {
        "id": id,
        "object": "video.deleted",
        "deleted": True,
    }
    error(served.client.get(f"/v1/videos/{id}"), 404)
    assert not (served.studio.folder / "videos" / id).exists()
    error(served.client.delete(f"/v1/videos/{id}"), 404)


def test_stories_are_split(served):
    story = "A red ball lies on a green meadow. It rolls to the left, then it grows."
    found = served.client.post("/v1/split", json={"story": story}).json()
    assert found["global"] == "a red ball on a green meadow" and found["by"] == "rules"
    assert [event["prompt"] for event in found["events"]] == [
        "the red ball rolls to the left",
        "the red ball grows",
    ]
    assert error(served.client.post("/v1/split", json={"story": " "}), 422)["field"] == "story"


def test_the_document_of_the_api(served):
    document = served.client.get("/openapi.json").json()
    assert "/v1/videos/{id}/decision" in document["paths"]
    answers = document["paths"]["/v1/videos"]["post"]["responses"]
    assert {"202", "409", "422", "429"} <= set(answers)
    assert answers["202"]["content"]["application/json"]["schema"]["$ref"].endswith("VideoAnswer")


def test_more_takes_have_the_next_seeds(served):
    id = served.until(served.make(seed=5)["id"], "completed")["id"]
    made = served.client.post(f"/v1/videos/{id}/takes", json={"count": 2})
    assert made.status_code == 202 and made.json()["status"] in ("queued", "in_progress")
    video = served.until(id, "completed")
    assert [take["seed"] for take in video["takes"]] == [5, 6, 7]
    assert video["device_minutes"] > 0 and all(take["content"] for take in video["takes"])
    many = served.client.post(f"/v1/videos/{id}/takes", json={"count": 900})
    assert error(many, 409)["field"] == "count"


def test_comments_at_a_time_and_the_time_of_a_decision(served):
    id = served.until(served.make()["id"], "completed")["id"]
    address = f"/v1/videos/{id}/decision"
    served.client.post(address, json={"take": 1, "by": "Ada", "comment": "jumps", "time": 0.5})
    told = {"take": 1, "by": "Bo", "verdict": "approved"}
    take = served.client.post(address, json=told).json()["takes"][0]
    assert [(e["action"], e["by"], e["time"]) for e in take["history"]] == [
        ("comment", "Ada", 0.5),
        ("approve", "Bo", None),
    ]
    assert take["decided_at"] == take["history"][1]["at"]
    error(served.client.post(address, json={"take": 1, "by": "Ada"}), 422)
    error(served.client.post(address, json={**told, "time": -1}), 422)
    listed = served.client.get("/v1/videos", params={"review": "approved"}).json()["data"]
    assert id in {video["id"] for video in listed}
    listed = served.client.get("/v1/videos", params={"review": "rejected"}).json()["data"]
    assert id not in {video["id"] for video in listed}


def test_a_download_has_a_real_name(served):
    id = served.until(served.make(title="Ball / 猫: 1")["id"], "completed")["id"]
    said = served.client.get(f"/v1/videos/{id}/content").headers["content-disposition"]
    assert said == "inline; filename*=utf-8''Ball-%E7%8C%AB-1-take-1.mp4"


def test_head_is_get_without_a_body(served, made):
    for path in ("/", "/v1/videos", f"/v1/videos/{made['id']}", "/v1/events", "/healthz"):
        head = served.client.head(path)
        assert head.status_code == 200 and head.content == b"", path
    head = served.client.head(f"/v1/videos/{made['id']}/content")
    whole = served.client.get(f"/v1/videos/{made['id']}/content")
    assert int(head.headers["content-length"]) == len(whole.content) > 0


def test_monitoring_needs_no_token(served):
    with served.new_client() as anyone:
        assert anyone.get("/healthz").json() == {"status": "ok"}
        text = anyone.get("/metrics").text
        assert "syncos_workers_alive 1" in text and 'syncos_takes{status="queued"}' in text
        assert anyone.get("/v1/videos").status_code == 401
        page = anyone.get("/", headers={"Accept": "text/html"})
        assert page.status_code == 401 and "token" in page.text and "<form" in page.text
        assert anyone.get("/static/style/base.css").status_code == 200
        assert anyone.get("/").json()["error"]["message"]


def test_no_error_ends_a_worker(served, monkeypatch):
    """A full disk while files are removed, and a listener that fails, must not stop the queue."""
    from syncos_jax.studio import worker

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(worker, "_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(worker, "preview_file", full)
    failures = []

    def fail_twice(*arguments, ended=served.studio.jobs.ended):
        if len(failures) < 2:
            failures.append(arguments)
            full()
        ended(*arguments)

    monkeypatch.setattr(served.studio.jobs, "ended", fail_twice)
    announce = served.studio.jobs._on_change
    monkeypatch.setattr(served.studio.jobs, "_on_change", lambda id: (announce(id), full()))
    first = served.make()["id"]
    served.until(first, "completed")
    assert len(failures) == 2
    served.until(served.make()["id"], "completed")
    assert served.client.get("/healthz").status_code == 200


def test_a_dead_worker_is_reported(served, monkeypatch):
    monkeypatch.setattr(type(served.studio.workers[0]), "is_alive", lambda self: False)
    answer = served.client.get("/healthz")
    assert (answer.status_code, answer.json()) == (503, {"status": "failed"})


def test_metrics_warnings_and_stills_of_the_takes(served):
    id = served.until(served.make(takes=2)["id"], "completed")["id"]
    found = served.client.get(f"/v1/videos/{id}/report").json()
    assert [take["take"] for take in found["takes"]] == [1, 2]
    assert {row["label"] for row in found["metrics"]} >= {"Subject consistency", "Warnings"}
    assert [event["prompt"] for event in found["events"]] == ["sleeps", "wakes"]
    still = found["events"][1]["takes"][1]["stills"][0]
    assert still["time"] == 2.0 and still["src"].startswith("data:image/jpeg")
    waiting = served.make(settings={"steps": 60, "strength": 0.0})["id"]
    error(served.client.get(f"/v1/videos/{waiting}/report"), 409)
    served.client.post(f"/v1/videos/{waiting}/cancel")


def test_a_template_with_new_variables(served):
    id = served.make()["id"]
    variables = [{"name": "animal", "text": "cat", "description": "who it is about"}]
    body = {"name": "Animals", "video": id, "variables": variables}
    assert served.client.post("/v1/templates", json=body).status_code == 201
    items = served.client.get("/v1/templates").json()["items"]
    found = next(item for item in items if item["name"] == "Animals")
    assert [(v["name"], v["default"], v["description"]) for v in found["variables"]] == [
        ("animal", "cat", "who it is about")
    ]
    plan = {"template": "Animals", "variables": {"animal": "dog"}}
    answer = served.client.post("/v1/plan", json=plan).json()
    assert answer["scenario"]["global"] == "a dog in a kitchen"
    for wrong in ({"name": "animal", "text": "unicorn"}, {"name": "a b", "text": "cat"}):
        refused = served.client.post(
            "/v1/templates", json={"name": "Other", "video": id, "variables": [wrong]}
        )
        assert error(refused, 422)["field"] == "variables"


def test_costs_follow_the_teams_rate(tmp_path):
    with serving(tmp_path / "studio", rate=2.5, currency="USD") as served:
        model = served.client.get("/v1/model").json()
        assert model["rate"] == {"per_hour": 2.5, "currency": "USD"} and model["devices"] >= 1
        names = [preset["name"] for preset in model["presets"]]
        assert names == ["published", "four_steps"]  # a model of four steps
        assert [preset["name"] for preset in presets(50)] == ["published", "fast"]
