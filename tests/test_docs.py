"""README and docs: commands that run, options and files that exist, Python that runs, links.

A block of commands is run as it stands, with a model of a few numbers in place of the demo model,
unless the line before it says ``<!-- not run: why -->``; then its commands have to exist with all
their options. The guide, whose commands build on each other, has a test of its own.
"""

import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path

import jax
import pytest
import typer
from fakes import FakeModel
from typer.testing import CliRunner

from syncos_jax.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))]
WRITTEN = [page for page in PAGES if page != "docs/reference.md"]  # that one is made
OWN_TEST = {"docs/guide.md"}

BLOCK = re.compile(r"(?:^<!-- not run: (.+) -->\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)


def blocks(page, language):
    """(reason not to be run, text) of each block of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [(m[1], m[3]) for m in BLOCK.finditer(text) if m[2] == language]


def commands(text):
    """The words of each command, without comments and variables before it."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            del words[0]
        if words:
            yield words


CASES = [
    pytest.param(text, id=f"{page}-{number}")
    for page in WRITTEN
    if page not in OWN_TEST
    for number, (reason, text) in enumerate(blocks(page, "bash"))
    if reason is None
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with what the pages speak of: ``story.yaml``, ``stories.jsonl``, ``examples``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("syncos_jax.pipeline.load.load_model", lambda *_, **__: FakeModel())
    monkeypatch.setenv("SYNCOS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    sampler = {"name": "syncos", "steps": 3, "iterations": 2}
    events = [{"prompt": "sleeps", "seconds": 1}, {"prompt": "wakes up", "seconds": 1}]
    story = {"global": "a cat", "events": events}
    Path("story.yaml").write_text(json.dumps(story))  # JSON is YAML
    lines = [{"name": name, **story, "sampler": sampler} for name in ("ball", "cat")]
    Path("stories.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


@pytest.mark.parametrize("text", CASES)
def test_commands_run(text, folder):
    for words in commands(text):
        if words[0] == "make":
            run = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True)
            assert run.returncode == 0, run.stderr
            continue
        if words[0] == "mkdir":
            Path(words[1]).mkdir()
            continue
        assert words[0] == "syncos", f"{words}: say why it is not run"
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, (words, result.output)


def parsed(words):
    """Parses a line of ``syncos``; the command is not invoked."""
    command, rest = typer.main.get_command(app), words[1:]
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
        if hasattr(command, "complete"):  # of batch, the command that makes is not named
            rest = command.complete(rest)
    if not hasattr(command, "commands"):
        command.make_context(words[1], list(rest))
    else:  # `syncos review DIR`, `syncos --version`
        assert rest, words


@pytest.mark.parametrize("page", [page for page in WRITTEN if page not in OWN_TEST])
def test_commands_exist(page):
    for _, text in blocks(page, "bash"):
        for words in commands(text):
            where = next((i for i, word in enumerate(words) if word == "syncos"), None)
            if words[:2] == ["python", "-m"]:
                assert importlib.util.find_spec(words[2]) is not None
            elif words[0] == "python":
                script = ROOT / words[1]
                assert script.is_file() or (script / "__main__.py").is_file(), words
            elif where is not None:
                parsed(words[where:])


def test_commands_that_do_not_exist_are_found():
    with pytest.raises(Exception, match="--stepz"):
        parsed(["syncos", "generate", "story.yaml", "--stepz", "3"])


PYTHON = [
    # The gradient of a UNet takes a minute to compile.
    pytest.param(text, id=f"{page}-{number}", marks=[pytest.mark.slow] if "optax" in text else [])
    for page in WRITTEN
    for number, (reason, text) in enumerate(blocks(page, "python"))
    if reason is None
]


@pytest.mark.parametrize("text", PYTHON)
def test_python_runs(text, folder):
    """With JAX's own promotion, as users have it; the suite's is stricter."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(text, "block", "exec"), {})


@pytest.mark.parametrize("page", WRITTEN)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
            slugs = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
            assert anchor in slugs, target


def test_the_readme_is_short():
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 130
