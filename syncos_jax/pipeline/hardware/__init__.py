"""Plans for hardware that is not there: a request's programs are compiled for it, and read.

`compile_in_subprocess` does it in a process of its own; `compile.report` is what that process does.
"""

from syncos_jax.pipeline.hardware.compile_client import compile_in_subprocess
from syncos_jax.pipeline.hardware.report import Compiled, Memory, Report, Roofline, roofline
from syncos_jax.pipeline.hardware.targets import CHIPS, Target, parse

__all__ = [
    "CHIPS",
    "Compiled",
    "Memory",
    "Report",
    "Roofline",
    "Target",
    "compile_in_subprocess",
    "parse",
    "roofline",
]
