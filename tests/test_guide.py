"""The guide's commands, run one after another; the API reference as the docstrings have it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))


def test_the_reference_is_current():
    import make_reference

    shipped = make_reference.REFERENCE.read_text(encoding="utf-8")
    assert shipped == make_reference.reference(), "run: python docs/make_reference.py"


def test_the_reference_describes_everything():
    import make_reference

    text = make_reference.reference()
    for name in ("Pipeline.plan", "Scenario.from_file", "Template.expand", "sample", "Video.save"):
        assert re.search(rf"^#+ `[\w.]*{name}`\n\n```python\n.*?```\n\n\S", text, re.M | re.S), name
    assert "**Raises**" in text and "0x" not in text


def commands():
    return re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs" / "guide.md").read_text(), re.M | re.S)


def test_every_block_is_known_to_the_test():
    assert len(commands()) == 11 and commands()[0].startswith("make demo\n")


@pytest.mark.slow
def test_the_guide_ends_with_a_page_of_three_takes(tmp_path):
    """With few steps; `make demo` itself is replaced by what it runs, as pip needs a network."""
    for name in ("examples", "Makefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    demo = "syncos generate examples/any_colour.yaml --beside co_denoising --steps 2"
    script = "\n".join(commands()).replace("make demo\n", f"mkdir -p out; {demo}\n", 1)
    environment = {
        **os.environ,
        "STEPS": "2",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SYNCOS_CACHE": str(tmp_path / "cache"),
        "JAX_PLATFORMS": "cpu",
    }
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "bit-identical to those of ball.json" in run.stderr
    takes = tmp_path / "out" / "guide" / "takes"
    names = {path.name for path in takes.iterdir()}
    assert {f"take-seed{seed}.mp4" for seed in range(3)} <= names
    pages = list(takes.parent.rglob("*.html"))
    assert len(pages) == 1
    page = pages[0].read_text(encoding="utf-8")
    assert all(f"take-seed{seed}" in page for seed in range(3))
    assert "approve" in run.stdout.lower() and "generated" in run.stdout
