"""A batch of 20 scenarios, 2 of them broken, killed in its middle and started again; then some of
it on two devices, terminated as well, and by two processes. For test_batch.py; prints one JSON
object.

    python tests/batch_kills.py
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from pathlib import Path

from kills import ended, preload, start

from syncos_jax.pipeline.video import load_video

SAMPLER = {"name": "syncos", "steps": 4, "iterations": 3, "t_min": 600}


def stories():
    """18 that are sound, of two lengths with one, two or three events; 2 that are not."""
    lines = []
    for index in range(18):
        events = 1 + index % 3
        frames = 6 if index % 2 else 12
        each = [{"prompt": f"move {i}", "frames": frames // events} for i in range(events)]
        story = {"global": f"cat {index}", "events": each, "sampler": SAMPLER, "seed": index}
        lines.append(json.dumps({"name": f"cat{index:02}", **story}))
    lines.insert(4, '{"global": "a cat", "events": [')
    short = {"global": "a cat", "events": [{"prompt": "blinks", "frames": 3}]}
    lines.insert(11, json.dumps({"name": "blink", **short}))
    return lines


def main(folder):
    lines = stories()
    source = folder / "stories.jsonl"
    source.write_text("\n".join(lines) + "\n")
    log = folder / "log.txt"
    out = folder / "videos"

    def command(where):
        given = ["batch", source, "--out", where, "--model", "fake", "--no-contact-sheet"]
        return [*given, "--checkpoint-every", "2rows"]

    def batch(*more, where=out, **kwargs):
        before = log.stat().st_size if log.exists() else 0
        code = ended(start([*command(where), *more], log=log, **kwargs))
        return {"code": code, "said": log.read_bytes()[before:].decode()}

    def items(where=out):
        return json.loads((where / "manifest.json").read_text())["items"]

    def apart(one, other):
        frames = [load_video(path).frames.astype(int) for path in (one, other)]
        return int(abs(frames[0] - frames[1]).max())

    found = {}
    found["killed"] = batch(kill_row=5, kill_run=8)
    if found["killed"]["code"] != -9:
        raise SystemExit(found["killed"]["said"])
    found["items_then"] = items()
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    found["again"] = batch()
    found["items"] = items()
    found["touched"] = [
        name for name, time in times.items() if (out / name).stat().st_mtime_ns != time
    ]
    found["left_over"] = sorted(path.name for path in out.glob(".*.run"))
    # The same on two devices, two videos at a time: terminated, and started again.
    source.write_text("\n".join(lines[:7]) + "\n")
    two = folder / "two"
    found["terminated"] = batch(
        "--devices", "all", where=two, devices=2, kill_row=5, kill_run=2, how=signal.SIGTERM
    )
    found["two"] = batch("--devices", "all", where=two, devices=2)
    found["two_items"] = items(two)
    found["apart"] = {path.stem: apart(path, out / path.name) for path in two.glob("*.mp4")}
    # Two processes that share the work; one is killed, and the other takes its video over.
    shared = folder / "shared"
    both = [
        start(command(shared), log=log, kill_row=5, kill_run=1),
        start(command(shared), log=log),
    ]
    found["shared"] = [ended(process) for process in both]
    found["shared_items"] = items(shared)
    found["two_left_over"] = sorted(path.name for path in two.glob(".*.run"))
    return found


if __name__ == "__main__":
    preload()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SYNCOS_CACHE"] = str(Path(scratch) / "cache")
        work = Path(scratch) / "work"
        work.mkdir()
        print(json.dumps(main(work), indent=1))
