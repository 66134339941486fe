"""Kills real runs of the command line at random rows, starts them again, and compares.

    python tests/kills.py --kills 50               # SIGKILL
    python tests/kills.py --kills 3 --terms 2      # then SIGTERM

The model is one of a few numbers (tests/fakes.py), so that a run takes about a second; everything
else is what `syncos generate` does. Prints one JSON object: how many runs were killed at which
rows, from which rows they went on, and whether the latents of every finished run are bit for bit
those of an undisturbed one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

STORY = {
    "global": "a cat",
    "events": [{"prompt": "sleeps", "frames": 6}, {"prompt": "wakes", "frames": 5}],
    "sampler": {"name": "syncos", "steps": 12, "iterations": 10, "t_min": 600, "batch": 3},
}


def start(
    arguments, kill_row=None, how=signal.SIGKILL, log=None, kill_run=1, devices=1, within=None
):
    """Runs ``syncos ARGUMENTS`` in a process of its own, which sends itself a signal at `kill_row`
    of the `kill_run`-th run that it plays; `within` is called there first.

    A fork of this process, which has imported everything but not used it. Returns its id.
    """
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        if log is not None:
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(file, 1)
            os.dup2(file, 2)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
        if within is not None:
            within()
        code = command(arguments, kill_row, how, kill_run)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def command(arguments, kill_row, how, kill_run):
    from fakes import FakeModel, FakeUNet

    import syncos_jax.pipeline.load
    from syncos_jax.cli import main
    from syncos_jax.pipeline import checkpoint
    from syncos_jax.runs import signals

    if "fake" in arguments:
        syncos_jax.pipeline.load.load_model = lambda *_, **__: FakeModel()
    play, network = checkpoint.Checkpoint.play, FakeUNet.__call__
    runs, sent = 0, False  # a second SIGTERM would not be waited for

    def deadly(self, run, progress=None):
        nonlocal runs
        runs += 1

        def report(done, total):
            nonlocal sent
            progress(done, total)
            if kill_row is not None and not sent and runs == kill_run and done >= kill_row:
                sent = True
                os.kill(os.getpid(), how)
                # The main thread takes it when it can: this one must not have played to the end.
                signals._requested.wait(timeout=60)

        return play(self, run, report)

    def traced(*args, **kwargs):
        print("traced", flush=True)
        return network(*args, **kwargs)

    FakeUNet.__call__ = traced

    checkpoint.Checkpoint.play = deadly
    sys.argv = ["syncos", *map(str, arguments)]
    main()
    return 0


def ended(process):
    """The exit code of a process, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def preload():
    """What every child would import, once. No array is made: JAX must not have started yet."""
    for name in (
        "runs.cache",
        "runs.batch",
        "runs.generate_video",
        "runs.metadata",
        "pipeline.pipeline",
    ):
        import_module(f"syncos_jax.{name}")
    import_module("orbax.checkpoint")
    import_module("fakes")


def kill_runs(folder, signals, seed=0, model="fake", story=STORY):
    """The figures for these signals, one after the other; `folder` is empty and is filled."""
    import numpy as np

    path = folder / "story.json"
    path.write_text(json.dumps(story))
    log = folder / "log.txt"

    def generate(name, **kwargs):
        out = folder / f"{name}.mp4"
        arguments = ["generate", path, "--model", model, "--out", out]
        arguments += ["--latents", folder / f"{name}.npy", "--checkpoint-every", "10calls"]
        return ended(start([*arguments, "--no-contact-sheet"], log=log, **kwargs))

    def state(name):
        rows = folder / f".{name}.mp4.run" / "rows"
        found = [int(path.name) for path in rows.glob("*") if path.name.isdigit()]
        return max(found, default=0)

    begin = time.monotonic()
    if generate("undisturbed"):
        raise SystemExit(log.read_text())
    seconds = time.monotonic() - begin
    total = json.loads((folder / "undisturbed.json").read_text())["cost"]["calls"]
    expected = np.load(folder / "undisturbed.npy").tobytes()
    rng = random.Random(seed)
    found = {"rows": total, "killed_at": [], "went_on_from": [], "runs": 0, "identical": 0}
    found |= {"codes": []}
    while len(found["killed_at"]) < len(signals):
        name = f"run{found['runs']}"
        # About three kills a run, so that runs come to their end as well.
        while len(found["killed_at"]) < len(signals):
            before = state(name)
            row = rng.randint(before + 1, min(total - 1, before + total // 2))
            how = signals[len(found["killed_at"])]
            code = generate(name, kill_row=row, how=how)
            found["codes"].append(code)
            if code == 0:
                raise SystemExit(f"not killed at row {row}: {log.read_text()[-2000:]}")
            found["killed_at"].append(row)
            found["went_on_from"].append(before)
            if row > 0.8 * total:
                break
        if code := generate(name):
            raise SystemExit(f"exit code {code}: {log.read_text()[-2000:]}")
        found["runs"] += 1
        found["identical"] += np.load(folder / f"{name}.npy").tobytes() == expected
    found["left_over"] = sorted(path.name for path in folder.glob(".*"))
    found["seconds"] = {"undisturbed": round(seconds, 1)}
    found["seconds"]["all"] = round(time.monotonic() - begin, 1)
    found["log"] = log.read_text()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--terms", type=int, default=0, help="after them, so many SIGTERMs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", action="store_true", help="also what the runs said")
    args = parser.parse_args()
    preload()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SYNCOS_CACHE"] = str(Path(scratch) / "cache")
        work = Path(scratch) / "work"
        work.mkdir()
        signals = [signal.SIGKILL] * args.kills + [signal.SIGTERM] * args.terms
        result = kill_runs(work, signals, args.seed)
    if not args.log:
        del result["log"]
    print(json.dumps(result))
