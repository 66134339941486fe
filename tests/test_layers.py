"""How the library is built: imports run downwards only, no circles, short files and functions."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RENAMED = ("kernels", "weights_convert")  # at the top of the repository, installed below syncos_jax

LAYERS = (
    {"cli"},
    {"studio", "bench"},
    {"metrics"},
    {"demo"},
    {"runs"},
    {"pipeline"},
    {"media"},
    {"weights_convert"},
    {"models"},
    {"kernels"},
    {"scenario"},
    {"sampling"},
    {"files"},
    {"errors", "version"},
)
"""From top to bottom; what stands side by side does not know each other."""

MAX_LINES = 400
LONG_FILES = {}
"""Files still to be split, at most this long."""

MAX_FUNCTION = 60
"""Lines of a function without its docstring."""

COMMANDS = {
    "syncos_jax/cli/batch.py:batch",
    "syncos_jax/cli/bench.py:bench",
    "syncos_jax/cli/compile.py:compile",
    "syncos_jax/cli/convert.py:convert",
    "syncos_jax/cli/generate.py:generate",
    "syncos_jax/cli/plan.py:plan",
    "syncos_jax/cli/template.py:learn",
    "syncos_jax/cli/studio.py:studio",
}
"""Longer because their options stand in their signature; what they do is as short as the rest."""

TABLES = {"weights_convert/diffusers_folder.py:write_networks"}
"""Long because they are tables: here of the files that diffusers' classes are configured by."""

GRAPH = """
import grimp, json
graph = grimp.build_graph("syncos_jax", cache_dir=None, exclude_type_checking_imports={})
found = {{m: sorted(graph.find_modules_directly_imported_by(m)) for m in sorted(graph.modules)}}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def imports(tmp_path_factory):
    """Module -> what it imports, at its head or in a function, `if TYPE_CHECKING` or not; and the
    same without the last. Of a copy without caches and weights."""
    installed = tmp_path_factory.mktemp("installed")
    ignored = shutil.ignore_patterns("__pycache__", "model", "templates")
    shutil.copytree(ROOT / "syncos_jax", installed / "syncos_jax", ignore=ignored)
    shutil.copytree(  # `model` is a folder of weights and one of code
        ROOT / "syncos_jax" / "models", installed / "syncos_jax" / "models", dirs_exist_ok=True
    )
    return [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", GRAPH.format(without_types)],
                cwd=installed,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for without_types in (False, True)
    ]


def package(module: str) -> str:
    """``syncos_jax.runs.generate_video`` -> ``runs``; empty for ``syncos_jax`` itself."""
    return module.partition(".")[2].split(".")[0]


def test_every_package_has_its_layer(imports):
    everything, _ = imports
    packages = {package(module) for module in everything} - {""}
    assert packages == set().union(*LAYERS)


def test_imports_run_downwards(imports):
    everything, _ = imports
    level = {name: depth for depth, names in enumerate(LAYERS) for name in names}
    wrong = [
        f"{module} imports {other}"
        for module, others in everything.items()
        for other in others
        if package(module) and package(other) and package(module) != package(other)
        if level[package(other)] <= level[package(module)]
    ]
    assert not wrong


def circles(graph: dict[str, list[str]]) -> list[list[str]]:
    """Chains of imports that come back to where they began; one edge of each is then left out."""
    left = {module: set(others) for module, others in graph.items()}
    found = []
    while True:
        try:
            TopologicalSorter(left).prepare()
            return found
        except CycleError as error:
            chain = error.args[1]  # each is imported by the next one
            found.append(sorted(set(chain)))
            left[chain[1]].remove(chain[0])


def test_circles_are_found():
    assert circles({"a": ["b"], "b": ["c", "d"], "c": ["a"], "d": []}) == [["a", "b", "c"]]
    assert circles({"a": ["b"], "b": []}) == []


def test_no_circles(imports):
    """Imports for type checking and imports inside functions count as well."""
    everything, _ = imports
    assert circles(everything) == []


def test_the_top_has_few_entries():
    entries = {p.name for p in (ROOT / "syncos_jax").iterdir() if not p.is_symlink()}
    assert len(entries - {"__init__.py", "py.typed", "__pycache__"}) <= 14


def sources() -> Iterator[tuple[str, str]]:
    """(path, text) of every Python file of the product."""
    for folder in ("syncos_jax", *RENAMED):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_private_names_stay_in_their_file():
    taken = set()
    for name, text in sources():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("syncos_jax"):
                private = [a.name for a in node.names if a.name.startswith("_")]
                taken |= {f"{name} takes {n}" for n in private if not n.startswith("__")}
    assert not taken


def test_files_are_short():
    lengths = {name: text.count("\n") for name, text in sources()}
    long = {name: lines for name, lines in lengths.items() if lines > MAX_LINES}
    assert {name: n for name, n in long.items() if n > LONG_FILES.get(name, 0)} == {}


def test_functions_are_short():
    long = {}
    for name, text in sources():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                lines = node.end_lineno - (body[0].lineno if body else node.end_lineno) + 1
                if f"{name}:{node.name}" not in COMMANDS:
                    lines += node.body[0].lineno - node.lineno
                if lines > MAX_FUNCTION and f"{name}:{node.name}" not in TABLES:
                    long[f"{name}:{node.name}"] = lines
    assert long == {}


def forwarded(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many of its own parameters a function passes on unchanged, at most in one call."""
    arguments = function.args
    own = {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    most = 0
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            values = (*node.args, *(keyword.value for keyword in node.keywords))
            most = max(most, sum(isinstance(v, ast.Name) and v.id in own for v in values))
    return most


def test_forwarded_arguments_are_counted():
    function = ast.parse("def f(a, b, *, c):\n return g(a, h(b), b=b, c=c, d=1)").body[0]
    assert forwarded(function) == 3


def test_no_function_forwards_more_than_eight_arguments():
    """They are put into one value instead. Commands have a parameter for each option."""
    many = [
        f"{name}:{node.name}: {forwarded(node)}"
        for name, text in sources()
        if not name.startswith("syncos_jax/cli/")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and forwarded(node) > 8
    ]
    assert many == []
