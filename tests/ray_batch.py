"""A batch on a Ray cluster of worker processes, one of which is killed in its middle; the same
without Ray. For test_ray.py; prints one JSON object.

    python tests/ray_batch.py --workers 3 --scenarios 40
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

from batch_kills import latents, markers, stories

HERE = Path(__file__).parent


def install():
    """In each worker: the model of a few numbers, a log of what is traced and played, and the kill
    of the first worker that comes to row 5 of its third run."""
    from fakes import FakeModel, FakeUNet

    import syncos_jax.pipeline.load
    from syncos_jax.pipeline import checkpoint

    log, pid = Path(os.environ["RAY_BATCH_LOG"]), os.getpid()
    syncos_jax.pipeline.load.load_model = lambda *_, **__: FakeModel()
    play, network = checkpoint.Checkpoint.play, FakeUNet.__call__
    runs = 0

    def note(what, name=""):
        with log.open("a") as file:
            file.write(json.dumps([pid, what, name]) + "\n")

    def traced(self, x, *args, **kwargs):
        note("traced", str(x.shape))
        return network(self, x, *args, **kwargs)

    def deadly(self, run, progress=None):
        nonlocal runs
        runs += 1
        begun = self.newest_call() or 0
        note("plays from row", begun)

        def report(done, total):
            progress(done, total)
            if runs == 3 and done >= 5:
                try:
                    os.close(os.open(log.with_name("killed"), os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    return
                os.kill(pid, signal.SIGKILL)

        return play(self, run, report)

    FakeUNet.__call__ = traced
    checkpoint.Checkpoint.play = deadly


def syncos(*arguments):
    """The exit code of the command line, in this process."""
    from syncos_jax.cli import app

    try:
        app([str(argument) for argument in arguments], standalone_mode=True)
    except SystemExit as end:
        return end.code or 0
    return 0


def main(folder, workers, scenarios):
    os.environ["RAY_AUTH_MODE"] = "disabled"  # the cluster is of this machine alone
    import ray

    log, source = folder / "log.jsonl", folder / "stories.jsonl"
    os.environ["RAY_BATCH_LOG"] = str(log)
    source.write_text("\n".join(stories(scenarios, (6, 12, 18))) + "\n")
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    environment = {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "RAY_BATCH_LOG": str(log)}
    environment["SYNCOS_CACHE"] = os.environ["SYNCOS_CACHE"]
    os.environ |= environment
    cluster = {
        "num_cpus": workers,
        "include_dashboard": False,
        "log_to_driver": False,
        "object_store_memory": 80_000_000,
        "runtime_env": {
            "env_vars": environment,
            "worker_process_setup_hook": "ray_batch.install",
        },
    }
    for attempt in range(5):  # it has 30 seconds to start, which a busy machine may not have
        try:
            ray.init(**cluster)
            break
        except Exception:
            ray.shutdown()
            if attempt == 4:
                raise
    out = folder / "videos"
    given = ["batch", source, "--model", "fake", "--no-contact-sheet", "--no-cache"]
    given += ["--checkpoint-every", "2calls"]
    found = {"code": syncos(*given, "--ray", "--workers", workers, "--out", out)}
    found["items"] = markers.here(out)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    found["again"] = syncos(*given, "--ray", "--workers", 1, "--out", out)
    found["played_again"] = len(log.read_text().splitlines()) - len(lines)
    ray.shutdown()
    found["killed"] = (folder / "killed").exists()
    traced = Counter((pid, name) for pid, what, name in lines if what == "traced")
    found["most_traced"] = max(Counter(pid for pid, _ in traced.elements()).values())
    found["workers"] = len({pid for pid, _, _ in lines})
    found["played"] = sum(what == "plays from row" for _, what, _ in lines)
    found["went_on"] = [row for _, what, row in lines if what == "plays from row" and row]
    found["left_over"] = sorted(path.name for path in out.glob(".*"))
    plain = folder / "plain"
    install()
    (folder / "killed").touch()
    found["plain"] = syncos(*given, "--out", plain)
    found["identical"] = latents.here(out) == latents.here(plain)
    found["videos"] = len(list(out.glob("*.mp4")))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--scenarios", type=int, default=40)
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.path.insert(0, str(HERE))
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SYNCOS_CACHE"] = str(Path(scratch) / "cache")
        work = Path(scratch) / "work"
        work.mkdir()
        print(json.dumps(main(work, args.workers, args.scenarios), indent=1))
