"""The library's errors name Python arguments; the command line words them as its options."""

import ast
import re
from pathlib import Path

import pytest
import typer

from syncos_jax.cli.app import app
from syncos_jax.cli.console import OPTIONS, worded

ROOT = Path(__file__).parent.parent

OWN_COMMAND_LINES = ("syncos_jax/cli/",)
"""Files of commands: they may name options, their own."""


def options(command):
    found = {name for p in command.params for name in [*p.opts, *p.secondary_opts]}
    for inner in getattr(command, "commands", {}).values():
        found |= options(inner)
    return found


def test_every_option_of_the_table_exists():
    assert set(OPTIONS.values()) <= options(typer.main.get_command(app))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("give `resume=False` to start anew", "give --no-resume to start anew"),
        ("needs `only=unet`, vae", "needs --only unet, vae"),
        ("enlarge it with `scale`", "enlarge it with --scale"),
        ("give one: `values={'place': ...}`", "give one: --set place=..."),
        ("`resume=True` and `somebody's` own", "`resume=True` and `somebody's` own"),
    ],
)
def test_arguments_become_options(message, said):
    assert worded(message) == said


def test_the_library_names_no_options():
    """A string that is nothing but an option is a word of a command that is shown or run."""
    found = []
    for folder in ("syncos_jax", "kernels", "weights_convert"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if name.startswith(OWN_COMMAND_LINES):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                text = node.value if isinstance(node, ast.Constant) else None
                if isinstance(text, str) and not re.fullmatch(r"--[a-z-]+", text):
                    found += [f"{name}:{node.lineno}: {o}" for o in _options_in(text)]
    assert found == []


def _options_in(text):
    text = re.sub(r"pip install --[\w-]+", "", text)  # not ours
    return re.findall(r"(?<![\w-])--[a-z][\w-]*", text)


def test_every_argument_that_is_named_is_in_the_table():
    """A backquoted argument with a value is meant for the table."""
    named = set()
    for folder in ("syncos_jax", "weights_convert"):
        for path in (ROOT / folder).rglob("*.py"):
            if "cli" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError":
                    parts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                    text = "".join(part for part in parts if isinstance(part, str))
                    named |= set(re.findall(r"`(\w+)(?:=[^`]*)?`", text))
    known = {key.split("=")[0] for key in OPTIONS}
    assert named <= known, named - known
