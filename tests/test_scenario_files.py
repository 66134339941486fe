"""500 damaged scenario files: each is accepted, or refused in one line that helps."""

import copy
import io
import json
import re
from contextlib import redirect_stderr, redirect_stdout

import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from syncos_jax.cli import app, scenario
from syncos_jax.files.documents import read_mapping
from syncos_jax.files.text import short
from syncos_jax.scenario import Scenario

FILE = {
    "variables": {
        "place": {"default": "beach", "allowed": ["beach", "street"], "description": "where"},
        "pace": 1.5,
        "who": ["a cat", "a dog"],
    },
    "global": "{who} on a {place}",
    "negative": "",
    "events": [
        {"prompt": "it {{sleeps}}", "seconds": "{pace}"},
        {"prompt": "it wakes", "frames": 12, "negative": "dark"},
    ],
    "overrides": [{"prompt": "it yawns", "seconds": [0.5, 1]}, {"prompt": "x", "frames": [1, 9]}],
    "crossfade": 1,
    "size": [64, 48],
    "fps": 8,
    "stride": 2,
    "structured": True,
    "sampler": {"name": "syncos", "steps": 5, "learning_rate": 0.5, "grounded_timestep": True},
    "seed": 3,
}
REMEDY = re.compile(
    r"expected|did you mean|known are|known:|remove|give |add |write |choose|make |save it|put |"
    r"use |must be|at most|declare|allowed are|shorten|not readable as|cannot be read|"
    r"nested too deeply"
)


def places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


PLACES = [path for path in places(FILE) if path]
words = st.text(max_size=20) | st.sampled_from(
    ["{place}", "{plaice}", "{{", "}", "{pace}", "seconds", "syncos", "1e3", "yes", ""]
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.integers(-2, 99), words)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.integers(), inner),
    max_leaves=6,
)


@st.composite
def mutated(draw):
    """A file with one to three of its values replaced, removed, renamed or doubled, or its text
    damaged."""
    data = copy.deepcopy(FILE)
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from(PLACES))
        holder = data
        for key in above:
            if isinstance(holder, dict) and key in holder:
                holder = holder[key]
            elif isinstance(holder, list) and isinstance(key, int) and key < len(holder):
                holder = holder[key]
            else:
                holder = None
        if not isinstance(holder, dict | list) or isinstance(holder, list) is isinstance(last, str):
            continue
        if isinstance(holder, list) and last >= len(holder):
            continue
        kind = draw(st.sampled_from(["replace", "remove", "rename", "double"]))
        if kind == "replace" or (kind == "rename" and isinstance(holder, list)):
            holder[last] = draw(values)
        elif isinstance(holder, list):
            holder.insert(last, holder[last]) if kind == "double" else holder.pop(last)
        elif kind == "rename":
            holder[draw(words)] = holder.pop(last, None)
        elif kind == "remove":
            holder.pop(last, None)
        else:
            holder[last] = [holder.get(last)] * 2
    text = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.text(max_size=5)) + text[at + draw(st.integers(0, 5)) :]
    return text.encode("utf-8", "surrogatepass")


def checked(file):
    """``syncos scenario check FILE``, without building the whole command for each file."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            scenario.check([file])
        except typer.Exit as error:
            return error.exit_code, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


@settings(max_examples=500)
@given(raw=mutated())
def test_500_damaged_files(tmp_path_factory, raw):
    file = tmp_path_factory.getbasetemp() / "damaged.yaml"
    file.write_bytes(raw)
    code, out, err = checked(file)
    if code == 0:
        assert out.startswith(f"{file}: ok, ") and err == ""
        return
    assert code == 2 and out == ""
    for line in err.splitlines():
        refused(file, line)


def refused(file, line):
    """One line that names the file, the key, and what to do."""
    if re.fullmatch(r"error: \.\.\. and \d+ more", line):
        return
    assert line.startswith(f"error: {file}:") and len(line) < 1000
    message = line.removeprefix(f"error: {file}:")
    assert REMEDY.search(message), message
    unreadable = "readable as YAML" in message or "cannot be read" in message
    if not unreadable and "not UTF-8" not in message and "mapping of keys" not in message:
        known = {field.alias or name for name, field in Scenario.model_fields.items()}
        names = [*known, "variables", *map(short, read_mapping(file))]
        assert any(name in message for name in [*names, "variable"]), message


def test_the_file_itself_is_accepted(tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(FILE, sort_keys=False))
    result = CliRunner().invoke(app, ["scenario", "check", str(tmp_path / "a.yaml")])
    assert result.exit_code == 0, result.output
    assert "2 events, place = beach, pace = 1.5, who = a cat" in result.stdout


# -- the other commands on files -------------------------------------------------------------------


@pytest.fixture
def syncos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["scenario", *map(str, arguments)])


@pytest.mark.parametrize("options", [[], ["--template"]])
def test_new_writes_what_check_and_show_accept(syncos, tmp_path, options):
    assert syncos("new", "a.yaml", *options).exit_code == 0
    first = (tmp_path / "a.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=scenario.schema.json"
    assert json.loads((tmp_path / "scenario.schema.json").read_text())["title"]
    assert syncos("check", "a.yaml").exit_code == 0
    shown = yaml.safe_load(syncos("show", "a.yaml").stdout)
    assert shown["global"] == "a red ball on a green meadow" and "variables" not in shown
    again = syncos("new", "a.yaml")
    assert again.exit_code == 2 and "a.yaml: already exists; choose another name" in again.stderr
    assert syncos("new", "a.json").exit_code == 2


def test_check_goes_through_all_files(syncos, tmp_path):
    (tmp_path / "open.yaml").write_text(
        'variables: {who: {}, n: {}, other: 1}\nglobal: "{who}"\n'
        'events: [{prompt: x, seconds: "{n}"}]\n'
    )
    syncos("new", "good.yaml")
    result = syncos("check", "none.yaml", "good.yaml", "open.yaml")
    assert result.exit_code == 2 and result.stdout.startswith(
        "good.yaml: ok, 3 events, 5.5 s\n  global: a red ball on a green meadow\n  0: the"
    )
    first, second, third = result.stderr.splitlines()
    assert first == "error: none.yaml: no such file"
    assert "got 'n'" in second and third.endswith("without defaults; add --set who=... --set n=...")
    result = syncos("check", "open.yaml", "--set", "n=2")
    assert "ok, 1 event, 2 s, who: required, n = None" not in result.stdout
    assert "who: required" in result.stdout and "other = 1 (unused)" in result.stdout


def test_show_every_take(syncos):
    syncos("new", "a.yaml", "--template")
    result = syncos("show", "a.yaml", "--set", "place=*", "--takes", 2, "--set", "product={cat}")
    made = list(yaml.safe_load_all(result.stdout))
    assert len(made) == 6 and made[0]["global"] == "a {{cat}} on a green meadow"
    assert "--- # white-snow-seed1" in result.stdout


def test_schema(syncos):
    assert json.loads(syncos("schema").stdout)["properties"]["variables"]
