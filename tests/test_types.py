"""Editors and type checkers see the package and its types."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import syncos_jax

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "tests" / "data" / "user_script.py"
WRONG = """
from syncos_jax import Pipeline, SynCoS

SynCoS(stepz=1)
SynCoS(steps="many")
Pipeline.from_pretrained("demo").sampel()
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """What ``mypy --strict`` prints on the script and on the wrong one, both in one run."""
    folder = tmp_path_factory.mktemp("mypy")
    wrong = folder / "wrong.py"
    wrong.write_text(WRONG)
    package = Path(syncos_jax.__file__).parent.parent  # where an editable install points
    result = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"),
            *("--config-file=", "--cache-dir", folder / "cache", SCRIPT, wrong),
        ],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(package)},
        capture_output=True,
        text=True,
    )
    return result.stdout


def test_a_script_of_a_user_is_typed(checked):
    assert "user_script.py" not in checked, checked


def test_wrong_arguments_are_rejected(checked):
    lines = [line for line in checked.splitlines() if "wrong.py" in line and ": error:" in line]
    assert len(lines) == 3, checked
    assert 'Unexpected keyword argument "stepz"' in lines[0]
    assert 'Argument "steps"' in lines[1]
    assert '"Pipeline" has no attribute "sampel"' in lines[2]
