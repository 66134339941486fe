"""Scripts of the benchmarks, which are in no package, as modules."""

import importlib.util
from pathlib import Path


def benchmark(name):
    """``benchmarks/NAME.py``."""
    path = Path(__file__).parent.parent / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
