"""The library's errors name Python arguments; the command line words them as its options."""

import ast
import re
from pathlib import Path

import typer

from syncos_jax.cli.app import app
from syncos_jax.cli.console import OPTIONS

ROOT = Path(__file__).parent.parent

OWN_COMMAND_LINES = ("syncos_jax/cli/",)
"""Files of commands: they may name options, their own."""


def options(command):
    found = {name for p in command.params for name in [*p.opts, *p.secondary_opts]}
    for inner in getattr(command, "commands", {}).values():
        found |= options(inner)
    return found


def test_every_option_of_the_table_exists():
    named = {name for name in OPTIONS.values() if name.startswith("--")}
    assert named <= options(typer.main.get_command(app))


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
    text = re.sub(r"pip install --[\w-]+|SLURM's ``--signal``", "", text)  # not ours
    return re.findall(r"(?<![\w-])--[a-z][\w-]*", text)


def test_every_argument_in_an_error_is_in_the_table():
    """What a remedy tells to pass has to be an option, or the command line shows Python."""
    named = set()
    for folder in ("syncos_jax", "weights_convert"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.is_relative_to(ROOT / "syncos_jax/cli"):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Argument":
                    named |= {n.value for n in node.args[:1] if isinstance(n, ast.Constant)}
    known = {key.split("=")[0] for key in OPTIONS}
    assert named - known <= PYTHON_ONLY
    assert len(named) > 15


PYTHON_ONLY: set[str] = set()
"""Arguments of functions that no command calls."""


_READS_ERROR_TEXT = re.compile(
    r"str\((?:error|exc|exception|err|e)\)\s*\.(?!encode)\w+"
    r"|(?:in|not in|==) str\((?:error|exc|exception|err|e)\)"
    r"|re\.\w+\([^)]*str\((?:error|exc|exception|err|e)\)"
    r"|(?:error|exc)\.(?:args\[0\]|message)\s*\.\w+\("
)
_OF_OTHERS = {
    "RESOURCE_EXHAUSTED": "XLA's errors of memory have no class of their own",
    ".split()": "foreign text is folded to one line",
    ".strip().splitlines()": "foreign text is folded to one line",
}
"""What may be read: texts of other libraries, which carry no data."""


def test_nobody_reads_the_text_of_an_error():
    found = []
    for folder in ("syncos_jax", "kernels", "weights_convert"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                foreign = any(text in line for text in _OF_OTHERS)
                if _READS_ERROR_TEXT.search(line) and not foreign:
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []
