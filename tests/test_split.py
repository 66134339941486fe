"""Stories in parts: by rules, and by a language model at an address."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from syncos_jax import Scenario
from syncos_jax.cli.app import app
from syncos_jax.errors import InputError
from syncos_jax.scenario.language_model import KEY, ModelSplitter, read_answer
from syncos_jax.scenario.split import split_story

STORIES = [
    (
        "A red ball lies on a green meadow. It rolls to the left, then it grows. "
        "Finally it shrinks.",
        "a red ball on a green meadow",
        ["the red ball rolls to the left", "the red ball grows", "the red ball shrinks"],
    ),
    (
        "There is an old lighthouse by the sea. A storm comes up! Then waves hit the rocks; "
        "after that, the sun rises.",
        "an old lighthouse by the sea",
        ["a storm comes up", "waves hit the rocks", "the sun rises"],
    ),
    (
        "A fox runs through a forest and then drinks from a river. She sleeps.",
        "a fox through a forest",
        ["a fox runs through a forest", "the fox drinks from a river", "the fox sleeps"],
    ),
    (
        "猫が台所で眠っている。それから目を覚ます。最後に牛乳を飲む。",
        "猫が台所で眠っている",
        ["猫が台所で眠っている", "目を覚ます", "牛乳を飲む"],
    ),
    ("Rain", "Rain", ["rain"]),
]


@pytest.mark.parametrize(("story", "shared", "events"), STORIES)
def test_rules(story, shared, events):
    found = split_story(story)
    assert found.global_prompt == shared
    assert [prompt for prompt, _ in found.events] == events
    assert found.by == "rules"
    scenario = Scenario.from_dict(found.scenario())  # it can be made as it is
    assert len(scenario.events) == len(events)


def test_as_many_events_as_wanted():
    story = "One is one. Two walks. Three walks. Four walks. Five walks. Six walks."
    for count in (1, 2, 3, 5):
        prompts = [prompt for prompt, _ in split_story(story, count).events]
        assert len(prompts) == count
        assert [word for p in prompts for word in p.split(", ")] == [
            p for p, _ in split_story(story).events
        ]
    assert len(split_story(story, 60).events) == 6  # there are no more


@pytest.mark.parametrize("story", ["", "  \n ", "...", "x" * 20_001])
def test_no_story(story):
    with pytest.raises(InputError, match="story: "):
        split_story(story)


def test_text_that_is_no_story_takes_no_time():
    for text in ("a " * 9_000, "the cat " * 2_000, "a-" * 9_000 + " is in", "then " * 4_000):
        split_story(text, 4)


# -- a language model ------------------------------------------------------------------------------


ANSWER = {
    "global": "a grey cat in a kitchen",
    "events": [{"prompt": "the cat  sleeps", "seconds": 3}, {"prompt": "the cat wakes"}],
}


@contextmanager
def model_server(answer, status=200, headers=()):
    """An OpenAI-compatible server that answers with this text; yields its address and requests."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, dict(self.headers), body))
            raw = answer if isinstance(answer, bytes) else completion(answer)
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def completion(text):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def test_a_language_model(monkeypatch):
    monkeypatch.setenv(KEY, "sk-secret")
    with model_server("Here you are:\n```json\n" + json.dumps(ANSWER) + "\n```") as (url, asked):
        found = split_story("A cat sleeps, then wakes.", 2, ModelSplitter(url, "small"))
    assert found.by == "model" and found.global_prompt == ANSWER["global"]
    assert found.events == (("the cat sleeps", 3.0), ("the cat wakes", 2.0))
    path, headers, body = asked[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer sk-secret"
    assert body["model"] == "small" and body["temperature"] == 0
    assert "2 events" in body["messages"][1]["content"]
    assert "A cat sleeps, then wakes." in body["messages"][1]["content"]


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ("I cannot do that", 200, "returned no list of events"),
        (b"<html>", 200, "does not answer as OpenAI's API does"),
        (b"x" * 2_000_000, 200, "more than a megabyte"),
        ('{"global": "x", "events": []}', 200, "found no events"),
        ('{"global": 1, "events": [{}]}', 200, "returned no list of events"),
        ("nothing", 401, "answers 401"),
        ("nothing", 500, "answers 500"),
    ],
)
def test_a_language_model_that_does_not_answer(answer, status, said):
    with model_server(answer, status) as (url, _), pytest.raises(InputError, match=said):
        split_story("A cat.", None, ModelSplitter(url, "small"))


def test_the_key_is_not_taken_elsewhere(monkeypatch):
    monkeypatch.setenv(KEY, "sk-secret")
    with model_server(json.dumps(ANSWER)) as (elsewhere, asked):
        to = [("Location", f"{elsewhere}/chat/completions")]
        with model_server("", 302, to) as (url, _), pytest.raises(InputError, match="answers 302"):
            split_story("A cat.", None, ModelSplitter(url, "small"))
    assert asked == []


def test_nobody_there():
    with pytest.raises(InputError, match="cannot be reached"):
        split_story("A cat.", None, ModelSplitter("http://127.0.0.1:1/v1", "small"))
    with pytest.raises(InputError, match="llm must be an address"):
        ModelSplitter("file:///etc/passwd", "small")


def test_whatever_a_model_writes_is_bounded():
    events = [{"prompt": "x" * 9000, "seconds": 1e9}, {"prompt": "y", "seconds": "NaN"}] * 99
    found = read_answer(json.dumps({"global": "g" * 9000, "events": events}))
    assert len(found.events) == 64 and found.events[0][1] == 60.0 and found.events[1][1] == 2.0
    assert max(len(prompt) for prompt, _ in found.events) == 2000 == len(found.global_prompt)
    assert read_answer('{"a": 1} {"global": "g", "events": ["runs"]}').events == (("runs", 2.0),)


def test_by_command(tmp_path):
    story = tmp_path / "story.txt"
    story.write_text(STORIES[0][0])
    out = tmp_path / "story.yaml"
    run = CliRunner().invoke(app, ["scenario", "split", str(story), "--out", str(out)])
    assert run.exit_code == 0, run.output
    assert [event.prompt for event in Scenario.from_file(out).events] == STORIES[0][2]
    again = CliRunner().invoke(app, ["scenario", "split", str(story), "--out", str(out)])
    assert again.exit_code == 2
    shown = CliRunner().invoke(app, ["scenario", "split", "-"], input=STORIES[0][0])
    assert "the red ball grows" in shown.output
    with model_server(json.dumps(ANSWER)) as (url, _):
        line = ["scenario", "split", str(story), "--llm", url, "--llm-model", "small"]
        assert "the cat wakes" in CliRunner().invoke(app, line).output
