"""A studio with a model of a few numbers (tests/fakes.py), as a process of its own.

    python tests/studio_server.py FOLDER --row-seconds 0.02 [options of syncos studio]

Everything but the model is what `syncos studio` does. Each row of a run waits a little, as a real
network would take a while.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parent))


def patch(row_seconds: float = 0.0) -> None:
    """From here on every model that is loaded is the fake one, and rows last so long."""
    from fakes import FakeModel

    import syncos_jax.pipeline.load
    from syncos_jax.pipeline import checkpoint

    syncos_jax.pipeline.load.load_model = lambda *_, **__: FakeModel()
    syncos_jax.pipeline.load.model_folder = lambda name: Path(".")
    if not row_seconds:
        return
    play = checkpoint.Checkpoint.play

    def slowly(self, run, progress=None, **more):
        def report(done, total):
            time.sleep(row_seconds)
            progress(done, total)

        return play(self, run, report, **more)

    checkpoint.Checkpoint.play = slowly


if __name__ == "__main__":
    arguments = sys.argv[1:]
    seconds = 0.0
    if "--row-seconds" in arguments:
        at = arguments.index("--row-seconds")
        seconds = float(arguments[at + 1])
        del arguments[at : at + 2]
    patch(seconds)
    from syncos_jax.cli import main

    sys.argv = ["syncos", "studio", *arguments]
    main()
