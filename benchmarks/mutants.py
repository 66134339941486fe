"""Share of mutants of ``syncos_jax/sampling`` that the tests kill.

    python benchmarks/mutants.py [--count 100] [--seed 0] [--only windows fifo] [--results FILE]

A mutant is the package with one small fault: an operator, a comparison, a constant, a condition.
Of all mutants a random sample is tested, each in a process of its own, until a test fails: first
the module's own (`FIRST`), then the others (`TESTS`). Results are appended to a file; the same
command goes on where it was stopped. Prints the share killed of those that are not equivalent to
the original (`EQUIVALENT`, each with its reason), with its 95 % interval (Wilson).
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import importlib.abc
import importlib.machinery
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "syncos_jax" / "sampling"
CACHE = ".pytest_cache/programs"
TESTS = (
    "windows call_schedule schedule svgd settings solvers drop_leading sampler_guards run fifo "
    "known_frames sampler sampler_pure sampler_solvers sampler_oracle_flow sampler_twin"
).split()
"""The tests for every mutant; those of `FIRST` come before them."""

FIRST = {
    "checks": "sampler",
    "devices": "parallel host_settings",
    "failures": "run",
    "known": "known_frames",
    "loop": "sampler_guards run",
    "memory": "run sampler_guards",
    "methods": "call_schedule",
    "noise": "sampler sampler_guards",
    "own_settings": "host_settings",
    "placement": "parallel host_settings",
    "sampler_config": "settings",
    "sampler_dict": "settings",
    "prediction": "sampler_twin",
    "samplers": "settings",
    "sampler": "sampler parallel",
    "sampling": "sampler_pure",
    "sigmas": "schedule solvers",
    "solver_choice": "solvers",
    "step_cache": "call_schedule sampler_twin",
    "syncos_calls": "call_schedule",
    "syncos_method": "sampler_twin sampler",
}
ALIVE = ("pending", "survived")  # pending: with the module's own tests only
EQUIVALENT: dict[str, str] = {}
"""Mutants that behave like the original: identity -> why."""

SWAPS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


def _annotations(tree: ast.AST) -> set[int]:
    """Nodes that never run, or only word an error: annotations and the arguments of errors."""
    found: set[int] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.AnnAssign | ast.arg):
            parts.append(node.annotation)
        if isinstance(node, ast.FunctionDef):
            parts.append(node.returns)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            parts += node.decorator_list
        if isinstance(node, ast.Raise | ast.JoinedStr):
            parts.append(node)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            parts.append(node.value if "Literal" in ast.unparse(node.value) else None)
        for part in filter(None, parts):
            found |= {id(child) for child in ast.walk(part)}
    return found


def _variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The faults that a node can have: what changes, and the changed node."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPS:
        changed = copy.copy(node)
        changed.op = SWAPS[type(node.op)]()
        yield f"{type(node.op).__name__} -> {type(changed.op).__name__}", changed
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        changed = copy.copy(node)
        changed.ops = [SWAPS[type(node.ops[0])](), *node.ops[1:]]
        yield f"{type(node.ops[0]).__name__} -> {type(changed.ops[0]).__name__}", changed
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield f"without {type(node.op).__name__}", node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        value = not node.value if isinstance(node.value, bool) else node.value + 1
        yield f"{node.value!r} -> {value!r}", ast.Constant(value)
    elif isinstance(node, ast.IfExp | ast.If):
        changed = copy.copy(node)
        changed.test = ast.UnaryOp(ast.Not(), node.test)
        yield "condition negated", changed


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else super().visit(node)


def mutants() -> list[tuple[str, str, int, int, int]]:
    """All mutants: identity, module, line, and the places of node and variant."""
    found = []
    for path in sorted(SOURCES.glob("*.py")):
        tree = ast.parse(path.read_text())
        left_out = _annotations(tree)
        lines = path.read_text().splitlines()
        seen: dict[str, int] = {}
        for index, node in enumerate(ast.walk(tree)):
            if id(node) in left_out:
                continue
            for number, (what, _) in enumerate(_variants(node)):
                line = getattr(node, "lineno", 0)
                text = f"{path.stem}: {lines[line - 1].strip()}: {what}"
                seen[text] = seen.get(text, 0) + 1
                named = text if seen[text] == 1 else f"{text} ({seen[text]})"
                found.append((named, path.stem, line, index, number))
    return found


def mutated(module: str, index: int, number: int) -> ast.Module:
    """The module's tree with one fault."""
    tree = ast.parse((SOURCES / f"{module}.py").read_text())
    node = next(n for i, n in enumerate(ast.walk(tree)) if i == index)
    changed = list(_variants(node))[number][1]
    return ast.fix_missing_locations(_Replace(node, ast.copy_location(changed, node)).visit(tree))


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed tree."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self.name, self.tree = name, tree

    def find_spec(self, name, path, target=None):
        if name != self.name:
            return None
        origin = str(SOURCES / f"{name.rpartition('.')[2]}.py")
        return importlib.machinery.ModuleSpec(name, self, origin=origin)

    def exec_module(self, module):
        module.__file__ = module.__spec__.origin
        exec(compile(self.tree, module.__file__, "exec"), module.__dict__)


class _Compiled:
    """Keeps compiled programs over all mutants: most are those of the original."""

    def pytest_runtest_setup(self, item):
        import jax

        jax.config.update("jax_compilation_cache_dir", str(item.config.rootpath / CACHE))


def child(module: str, tree: ast.Module | None, tests: list[str], log: Path) -> int:
    """Runs the tests with the changed module until one fails; pytest's exit code."""
    import pytest

    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    if tree is not None:
        name = "syncos_jax.sampling" + ("" if module == "__init__" else f".{module}")
        sys.meta_path.insert(0, _Finder(name, tree))
    files = [str(ROOT / f"tests/test_{name}.py") for name in tests]
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--durations=3"]
    return int(pytest.main([*options, "-m", "not slow", *files], plugins=[_Compiled()]))


def test(module: str, tree: ast.Module | None, tests: list[str], limit: float, log: Path) -> str:
    """ "killed", "survived" or "timeout" (which counts as killed)."""
    pid = os.fork()
    if pid == 0:
        try:  # a limit of processor time: on a busy machine a good mutant may take long
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit)))
            os._exit(child(module, tree, tests, log))
        finally:
            os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {0: "survived", -signal.SIGKILL: "timeout", -signal.SIGXCPU: "timeout"}.get(
        code, "killed"
    )


def interval(killed: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if count == 0:
        return 0.0, 1.0
    z, share = 1.96, killed / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + (z / (2 * count)) ** 2) ** 0.5
    return middle - half, middle + half


def report(rows: list[dict], population: int) -> str:
    equivalent = [row for row in rows if row["name"] in EQUIVALENT]
    counted = [row for row in rows if row["name"] not in EQUIVALENT]
    killed = sum(row["result"] not in ALIVE for row in counted)
    low, high = interval(killed, len(counted))
    survivors = [f"  {row['name']}" for row in counted if row["result"] in ALIVE]
    head = (
        f"{killed} of {len(counted)} killed: {killed / max(1, len(counted)):.1%} "
        f"({low:.1%} to {high:.1%}); {len(equivalent)} equivalent; {population} mutants in all"
    )
    return "\n".join([head, *(["survived:", *survivors] if survivors else [])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=100, help="size of the sample")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", nargs="+", help="modules, such as windows")
    parser.add_argument("--again", action="store_true", help="test survivors again")
    parser.add_argument("--no-baseline", dest="baseline", action="store_false")
    parser.add_argument(
        "--limit", type=float, default=900.0, help="processor seconds of one mutant"
    )
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/mutants.jsonl")
    parser.add_argument("--report", action="store_true", help="only print what is known")
    given = parser.parse_args()
    everything = [m for m in mutants() if not given.only or m[1] in given.only]
    # Ordered by a hash of seed and identity: a changed line changes nothing for the others.
    order = random.Random(given.seed).random()
    sample = sorted(
        everything, key=lambda m: hashlib.sha256(f"{order} {m[0]}".encode()).hexdigest()
    )[: given.count]
    given.results.parent.mkdir(parents=True, exist_ok=True)
    lines = given.results.read_text().splitlines() if given.results.exists() else []
    known = {row["name"]: row for row in map(json.loads, lines)}
    if not given.report:
        run_sample(sample, known, given)
    rows = [known[m[0]] for m in sample if m[0] in known]
    print(report(rows, len(everything)))


def run_sample(sample: list, known: dict[str, dict], given: argparse.Namespace) -> None:
    """Tests what is not known yet, and appends it to the results."""
    os.chdir(ROOT)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["PYTHONPATH"] = str(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    # What every child imports, except for the package; no backend begins before the fork.
    import diffusers  # noqa: F401
    import flax.nnx  # noqa: F401
    import hypothesis  # noqa: F401
    import jax  # noqa: F401
    import optax  # noqa: F401
    import orbax.checkpoint  # noqa: F401
    import pytest  # noqa: F401
    import torch  # noqa: F401

    log = given.results.with_suffix(".log")
    unchanged = test("", None, TESTS, 4 * given.limit, log) if given.baseline else "survived"
    if unchanged != "survived":
        sys.exit(f"the tests fail without a mutant: {log}")
    for rest in (False, True):  # first the module's own tests for all, then the others
        for name, module, line, index, number in sample:
            row = known.get(name)
            again = given.again and row and row["result"] == "survived"
            wanted = "pending" if rest else None
            if name in EQUIVALENT or (row and row["result"] != wanted and not again):
                continue
            first = FIRST.get(module, module).split()
            tests = [t for t in TESTS if t not in first] if rest else first
            begin = time.monotonic()
            result = test(module, mutated(module, index, number), tests, given.limit, log)
            if result == "survived" and not rest:
                result = "pending"
            seconds = round(time.monotonic() - begin, 1)
            known[name] = {"name": name, "line": line, "result": result, "seconds": seconds}
            with given.results.open("a") as file:
                file.write(json.dumps(known[name]) + "\n")
            print(f"{result:9}{seconds:6.1f} s  {name}", flush=True)


if __name__ == "__main__":
    main()
