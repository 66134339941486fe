"""The package as it installs: every module is in it, under the right name."""

import importlib
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

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
    assert (ROOT / folder / "__init__.py").samefile(module.__file__)


def test_no_torch_at_run_time():
    code = (
        "import sys, syncos_jax.cli.generate, syncos_jax.pipeline, syncos_jax.media.video;"
        "sys.exit('torch' in sys.modules)"
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
