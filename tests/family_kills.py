"""`kills.py` with a tiny model of a transformer family: ``family_kills.py FAMILY FOLDER KILLS``."""

import json
import os
import signal
import sys
from pathlib import Path

from kills import ended, kill_runs, preload
from tiny_families import story_of

if __name__ == "__main__":
    family, place, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    os.environ["SYNCOS_CACHE"] = str(place / "cache")
    preload()
    child = os.fork()  # this process must not have used JAX when it forks runs
    if not child:
        from tiny_families import write

        write(place / "model", family)
        os._exit(0)
    assert ended(child) == 0
    work = place / "work"
    work.mkdir()
    scenario = story_of(family, "syncos", place)
    scenario["sampler"] |= {"steps": 16, "refine_steps": 6, "iterations": 24, "batch": 1}
    found = kill_runs(work, [signal.SIGKILL] * kills, model=place / "model", story=scenario)
    del found["log"]
    print(json.dumps(found))
