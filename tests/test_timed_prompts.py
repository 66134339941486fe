"""Prompts with times, as other tools write them; prompt weights and LoRA tags."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from syncos_jax.cli.app import app
from syncos_jax.errors import InputError
from syncos_jax.scenario.prompt_files import read_prompt_file
from syncos_jax.scenario.timed_prompts import foreign_syntax, read_lines

ROLLS, GROWS, JUMPS = "a ball rolls", "a ball grows", "it jumps"
SECONDS = [{"prompt": ROLLS, "seconds": 2.0}, {"prompt": GROWS, "seconds": 3.0}]
FRAMES = [{"prompt": ROLLS, "frames": 48}, {"prompt": GROWS}]
SRT = "1\n00:00:00,000 --> 00:00:02,000\na ball\nrolls\n\n2\n00:00:02,000 --> 00:00:05,000\n{}\n"

FILES = {
    "clock.txt": (f"[00:00-00:02] {ROLLS}\n[00:02 - 00:05] {GROWS}\n", SECONDS),
    "one_line.txt": (f"[0s-2s] {ROLLS} [2s-5s] {GROWS}", SECONDS),
    "colons.txt": (f"[0s: {ROLLS}]\n[2s-5s: {GROWS}]", SECONDS),
    "hours.txt": (f"[0:00:00-0:00:02] {ROLLS}\n[0:00:02.000-0:00:05] {GROWS}\n", SECONDS),
    "chapters.txt": (f"0:00-0:02 {ROLLS}\n0:02-0:05 {GROWS}\n", SECONDS),
    "lines.txt": (f"0s-2s: {ROLLS}\n2s-5s: {GROWS}\n", SECONDS),
    "frames.txt": (f"0: {ROLLS}\n48: {GROWS}\n", FRAMES),
    "quoted.txt": (f'"0": "{ROLLS}",\n"48": "{GROWS}"\n', FRAMES),
    "bracket_frames.txt": (f"[0-48] {ROLLS}\n[48: {GROWS}]", FRAMES),
    "a.srt": (SRT.format(GROWS), SECONDS),
    "a.vtt": ("WEBVTT\n\n" + SRT.format(GROWS).replace(",", "."), SECONDS),
    "a.csv": (f"start,end,prompt\n0,2,{ROLLS}\n2,5,{GROWS}\n", SECONDS),
    "clock.csv": (f"start;end;prompt\n00:00;00:02;{ROLLS}\n00:02;00:05;{GROWS}\n", SECONDS),
    "frames.csv": (f"start_frame,prompt\n0,{ROLLS}\n48,{GROWS}\n", FRAMES),
    "a.jsonl": (
        json.dumps({"prompt": ROLLS, "start": 0, "end": 2})
        + "\n"
        + json.dumps({"prompt": GROWS, "start": 2, "end": 5}),
        SECONDS,
    ),
    "deforum.json": (json.dumps({"48": GROWS, "0": ROLLS}), FRAMES),
    "settings.json": (json.dumps({"W": 512, "prompts": {"0": ROLLS, "48": GROWS}}), FRAMES),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(name, text):
    Path(name).write_text(text, encoding="utf-8")
    return read_prompt_file(name)


@pytest.mark.parametrize("name", FILES)
def test_times_become_lengths(name):
    text, events = FILES[name]
    assert list(read(name, text).events) == events


def test_what_is_assumed_is_noted():
    found = read("a.txt", f"[1s: {ROLLS}] [3s: {GROWS}] [5s: {JUMPS}]")
    assert [event.get("seconds") for event in found.events] == [3.0, 2.0, None]
    assert found.notes == (
        "a.txt: the first prompt starts at 1 seconds; used from 0",
        "a.txt: the last prompt has no end; it gets the default length",
    )
    found = read("a.txt", f"[0s-2s] {ROLLS} [3s-5s] {GROWS}")
    assert [event["seconds"] for event in found.events] == [3.0, 2.0]
    assert found.notes == ("a.txt: no prompt from 2 to 3 seconds; the one before lasts",)
    found = read("a.json", json.dumps({"prompts": {"0": "a --neg b"}, "W": 1}))
    assert found.events[0] == {"prompt": "a", "negative": "b"}
    assert found.notes[0] == "a.json: only the key prompts was read"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", f"0: {ROLLS}\n{GROWS}\n", "some lines have a time and others have none, got"),
        ("a.txt", f"0: {ROLLS}\n0: {GROWS}\n", "the prompt at 0 frames has no length"),
        ("a.txt", f"[0s-3s] {ROLLS} [2s-5s] {GROWS}", "the prompts at 0 and 2 seconds overlap"),
        ("a.txt", f"[0s-2s] {ROLLS} [2s-5s]", "no prompt at 2 seconds"),
        ("a.txt", f"[0s: {ROLLS} [2s: {GROWS}]", "a bracket is not closed"),
        ("a.txt", f"0: {ROLLS}\n1.5: {GROWS}\n", "time 1.5 has no unit; write 1.5s"),
        ("a.txt", f"10: {ROLLS}\n3s: {GROWS}\n", "times in both seconds and frames"),
        ("a.json", '{"0": "a", "max_f-1": "b"}', "keyframe 'max_f-1', expected a frame number"),
        ("a.json", '{"0": 3}', "must be a prompt, got 3"),
        ("a.csv", "start,prompt\n0,a\n,b\n", "prompt 2: has no start, but others have one"),
        ("a.csv", "start,seconds,prompt\n0,1,a\n", "has both a start and a length"),
        ("a.csv", "start,prompt\nsoon,a\n", "must be times in seconds, or clock times, got 'soon'"),
        ("a.srt", "nothing", "contains no prompt with a time"),
    ],
)  # fmt: skip
def test_times_that_contradict_are_refused(name, text, message):
    with pytest.raises(InputError, match=f"^{name}: .*{message}|^{name}: {message}"):
        read(name, text)


@pytest.mark.parametrize(
    "text", ["2001: a space odyssey", "a ball\nit grows", "[a ball] rolls", "ratio 3:4", "10 cats"]
)
def test_prompts_without_times_stay_as_they_are(text):
    assert read_lines("a.txt", text) is None


def test_weights_and_tags_of_other_tools_are_noted():
    notes = foreign_syntax(["a (red:1.3) ball <lora:foo:0.8>", "a (red) ball at 3:00 (noon)"])
    assert notes == [
        "'(red:1.3)' is read as plain text: prompts have no weights",
        "'<lora:foo:0.8>' is read as plain text: merge a LoRA when converting the model",
    ]


def test_on_the_command_line():
    syncos = CliRunner().invoke
    prompt = "[0s: a (red:1.3) ball rolls] [2s: it grows]"
    result = syncos(app, ["plan", "--prompt", prompt, "--seconds", "1", "--json"])
    assert result.exit_code == 0, result.output
    assert "note: '(red:1.3)' is read as plain text" in result.stderr
    plan = json.loads(result.stdout)
    lengths = [event["stop_seconds"] - event["start_seconds"] for event in plan["events"]]
    assert lengths == [2.0, 1.0] and any("(red:1.3)" in text for text in plan["warnings"])
