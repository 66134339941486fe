"""The package as it installs: every module is in it, under the right name."""

import ast
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import syncos_jax

ROOT = Path(__file__).parent.parent
RENAMED = ("kernels", "weights_convert")


def test_public_names():
    for name in syncos_jax.__all__:
        if name != "load_model" or (ROOT / "syncos_jax" / "models" / "__init__.py").exists():
            assert getattr(syncos_jax, name) is not None
    assert set(syncos_jax.__all__) <= set(dir(syncos_jax))
    with pytest.raises(AttributeError, match="no attribute 'Pipelin'"):
        syncos_jax.Pipelin  # noqa: B018


@pytest.mark.parametrize("folder", RENAMED)
def test_top_level_folders_are_subpackages(folder):
    module = importlib.import_module(f"syncos_jax.{folder}")
    assert Path(module.__file__) == ROOT / "syncos_jax" / folder / "__init__.py"
    shipped = Path(module.__file__).read_bytes()  # a link in a clone, a copy in an sdist
    assert (ROOT / folder / "__init__.py").read_bytes() == shipped


def test_no_torch_at_run_time():
    code = (
        "import sys, syncos_jax.cli.generate, syncos_jax.pipeline, syncos_jax.media.video;"
        "sys.exit(bool({'torch', 'transformers', 'scipy.ndimage', 'jinja2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_version_and_scripts():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"syncos": "syncos_jax.cli:main"}
    assert importlib.metadata.version("syncos-jax") == syncos_jax.__version__


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built from a copy, with the hatchling that is here."""
    source = tmp_path_factory.mktemp("source")
    for name in ("syncos_jax", *RENAMED):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    demo = source / "syncos_jax" / "demo" / "model" / "unet"
    demo.mkdir(parents=True, exist_ok=True)
    (demo / "probe.safetensors").write_bytes(b"x")
    code = "import hatchling.build as b; print(b.build_wheel('dist'))"
    (source / "dist").mkdir()
    run = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return source / "dist" / run.stdout.splitlines()[-1]


def test_wheel_holds_every_module(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {str(p.relative_to(ROOT)) for p in (ROOT / "syncos_jax").rglob("*.py")}
    for folder in RENAMED:
        expected |= {f"syncos_jax/{p.relative_to(ROOT)}" for p in (ROOT / folder).rglob("*.py")}
    for folder in ("review/templates", "templates", "page"):
        files = (p for p in (ROOT / "syncos_jax" / "studio" / folder).rglob("*") if p.is_file())
        expected |= {str(path.relative_to(ROOT)) for path in files}
    expected |= {"syncos_jax/py.typed", "syncos_jax/demo/model/unet/probe.safetensors"}
    assert expected <= names, sorted(expected - names)
    stray = {name.split("/")[0] for name in names} - {"syncos_jax"}
    assert all(name.endswith(".dist-info") for name in stray), stray


def test_wheel_imports_by_itself(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, '.'); sys.meta_path[:] = "
        "[f for f in sys.meta_path if 'editable' not in repr(f).lower()];"
        "import syncos_jax.kernels, syncos_jax.weights_convert;"
        "print(syncos_jax.kernels.__file__)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.strip().startswith(str(tmp_path)), run.stderr


def test_every_file_has_a_licence():
    command = Path(sys.executable).with_name("reuse")
    if not command.exists():
        pytest.skip("reuse is not installed")
    _run([command, "--root", ROOT, "lint", "--quiet"])


def test_tested_versions_are_the_declared_ones():
    """CI's newest interpreter and the oldest have a classifier; README states the same range."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tested = {c.rpartition(" ")[2] for c in project["classifiers"] if "Python :: 3." in c}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    newest = re.search(r"^NEWEST \?= python(3\.\d+)", (ROOT / "Makefile").read_text(), re.M)[1]
    assert project["requires-python"].startswith(">=3.11") and tested == {"3.11", newest}
    assert f"Python 3.11–{newest}" in readme


DECLARED = {"PIL": "pillow", "yaml": "pyyaml", "orbax": "orbax-checkpoint", "etils": "etils"}
"""Name of an import -> name of its package, where they differ."""


def test_base_dependencies_cover_what_is_imported_at_once():
    """What a module imports at its top is installed by the base, or its folder has an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = {re.match(r"[\w-]+", line)[0].lower() for line in project["dependencies"]}
    extra = {"metrics/frames.py": "scipy"}
    missing = []
    for folder in ("syncos_jax", *RENAMED):
        for path in (ROOT / folder).rglob("*.py"):
            if {"studio", "kernels"} & set(path.parts[len(ROOT.parts) + 1 :]):
                continue
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module:
                    names = [node.module]
                for name in {name.partition(".")[0] for name in names}:
                    known = name in sys.stdlib_module_names or name == "syncos_jax"
                    allowed = str(path.relative_to(ROOT / folder)) in extra
                    if not known and not allowed and DECLARED.get(name, name).lower() not in base:
                        missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert missing == []


def _installed_with(names):
    """Names of packages that pip installs with these, as far as they are installed here."""
    found, todo = set(), [re.sub(r"[-_.]+", "-", name).lower() for name in names]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needs = [Requirement(line) for line in importlib.metadata.requires(name) or ()]
        except importlib.metadata.PackageNotFoundError:
            continue
        for need in needs:
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                todo.append(canonicalize_name(need.name))
    return found


def test_extra_for_tests_covers_what_tests_import():
    """A new machine has what every test imports: the base, the extra `test`, what they need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["test"]
    expected = _installed_with([re.match(r"[\w.-]+", line)[0] for line in lines])
    packages = importlib.metadata.packages_distributions()
    ours = ("tests", "benchmarks", "docs", "examples")
    here = {path.stem for folder in ours for path in (ROOT / folder).rglob("*.py")}
    here |= {"demo_model", "experiment", "syncos_jax"}
    missing = set()
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names}:
                if name in sys.stdlib_module_names or name in here:
                    continue
                owners = {canonicalize_name(owner) for owner in packages.get(name, [name])}
                if not owners & expected:
                    missing.add(f"{path.name}: {name}")
    assert missing == set()


def _run(words, **options):
    run = subprocess.run([str(w) for w in words], capture_output=True, text=True, **options)
    assert run.returncode == 0, (words, run.stdout[-2000:], run.stderr[-2000:])
    return run.stdout


@pytest.mark.slow
def test_wheel_in_an_empty_environment(tmp_path):
    """``python -m build``, then pip install of the wheel without the Makefile, then a video."""
    _run([sys.executable, "-m", "build", "--no-isolation", "-o", tmp_path / "dist", ROOT])
    (built,) = (tmp_path / "dist").glob("*.whl")
    _run([sys.executable, "-m", "venv", tmp_path / "empty"])
    bin = tmp_path / "empty" / "bin"
    _run([bin / "python", "-m", "pip", "install", "--quiet", built])
    story = tmp_path / "story.yaml"
    story.write_text("global: a red ball\nevents:\n  - {prompt: the ball grows, seconds: 1}\n")
    command = [bin / "syncos", "generate", story, "--steps", "2", "--out", tmp_path / "out.mp4"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    _run(command, cwd=tmp_path, env=environment)
    assert (tmp_path / "out.mp4").stat().st_size > 0


@pytest.mark.slow
def test_tests_of_the_sdist_run(tmp_path):
    _run([sys.executable, "-m", "build", "--no-isolation", "--sdist", "-o", tmp_path, ROOT])
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / built.name.removesuffix(".tar.gz")
    files = ["windows", "schedule", "kernels_attention", "scenario", "packaging"]
    files = [f"tests/test_{name}.py" for name in files]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "not slow", *files]
    _run(command, cwd=folder, env=environment)
