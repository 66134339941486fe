"""The library's errors name Python arguments; the command line words them as its options."""

import ast
import json
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
    foreign = r"pip install --[\w-]+|SLURM's ``--signal``|--neg\b"
    text = re.sub(foreign, "", text)  # options of other programs
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


OLD_WORDS = {
    r"tapes?\b": "call schedule",
    r"whole numbers?\b": "integer",
    r"beside\b": "next to",
    r"anew\b": "again",
    r"foretold\b": "predicted",
    r"spared\b": "skipped",
    r"stills\b": "contact sheet",
    r"likeness\b": "similarity",
    r"dial\b": "strength",
    r"goes on where": "resumes",
    r"leave out\b": "omit",
    r"all through\b": "throughout",
    r"leads away\b": "negative prompt",
    r"told apart\b": "statistically significant",
    r"parted by\b": "separated by",
    r"(?<!there )is no (?!\w+ for\b)": "unknown, or: not a",
    r"windows? a call\b": "windows per call",
    r"work out\b": "compute",
}
"""Words that the glossary replaces (docs/glossary.md) -> what is written instead."""
_CODE = re.compile(r"```.*?```|`[^`\n]*`|\]\([^)]*\)", re.S)
"""Code and links of a page: names of files and options are no words."""
_SAY = {"InputError", "Finding", "Phrase", "warn", "warning", "Option", "Argument", "Commands"}


def texts_that_people_read():
    """(where, text) of README, docs, help, errors, warnings and the studio's page."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if path.name not in {"glossary.md", "reference.md"}:
            yield path.relative_to(ROOT), _CODE.sub("", path.read_text(encoding="utf-8"))
    page = ROOT / "syncos_jax" / "studio" / "page" / "texts" / "en.json"
    yield page.relative_to(ROOT), "\n".join(json.loads(page.read_text("utf-8")).values())
    for folder in ("syncos_jax", "weights_convert"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                    if name in _SAY:
                        parts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                        text = " ".join(p for p in parts if isinstance(p, str) and p[:2] != "--")
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", text
                if isinstance(node, ast.FunctionDef) and "cli" in path.relative_to(ROOT).parts:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.get_docstring(node) or ""


def test_the_glossary_holds():
    found = [
        f"{where}: {match[0]!r} (write: {new})"
        for where, text in texts_that_people_read()
        for old, new in OLD_WORDS.items()
        for match in re.finditer(rf"\b{old}" if old[0] != "(" else old, text, re.IGNORECASE)
    ]
    assert found == []


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
