"""Plans for hardware you don't have: a request's programs are compiled for it and analysed.

`compile_in_subprocess` does it in a process of its own, which calls `compile.report`.
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
