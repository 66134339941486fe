"""What happens to commands at any moment, on a full disk, or under a clock that goes back.

    python tests/faults.py kills --kind convert --count 20 --seed 0
    python tests/faults.py disk --kind generate --count 20      # needs the right to mount a tmpfs
    python tests/faults.py clock

Each is a process of its own, a fork of this one that has imported everything (`kills.start`).
Prints one JSON object; ends with an error at the first thing that is half-written or stays.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from checkpoints import DATA, save_ckpt, weights
from kills import STORY, ended, preload, start

EVENTS = [{"prompt": "sleeps", "frames": 6}]
SAMPLER = {"name": "syncos", "steps": 4, "iterations": 3, "t_min": 600}
KINDS = ("convert", "generate", "batch")


def given(kind, inputs, folder):
    """The command line of a kind, whose results go to `folder`."""
    if kind == "convert":
        options = ["--config", DATA / "openclip_text_tiny.json", "--only", "text_encoder"]
        return ["convert", inputs / "a.ckpt", "--out", folder / "model", *options, "--force"]
    rest = ["--model", "fake", "--checkpoint-every", "4calls"]
    if kind == "generate":
        out = [inputs / "story.json", "--out", folder / "a.mp4", "--latents", folder / "a.npy"]
        return ["generate", *out, *rest]
    return ["batch", inputs / "stories.jsonl", "--out", folder / "videos", *rest]


def write_inputs(inputs):
    inputs.mkdir()
    save_ckpt(inputs / "a.ckpt", weights("openclip_text_tiny"))
    (inputs / "story.json").write_text(json.dumps(STORY))
    story = {"global": "a cat", "events": EVENTS, "sampler": SAMPLER}
    lines = [json.dumps({"name": f"cat{i}", **story, "seed": i}) for i in range(4)]
    (inputs / "stories.jsonl").write_text("\n".join(lines) + "\n")


def broken(folder):
    """Files under a final name that are not whole."""
    import numpy as np
    from PIL import Image

    from syncos_jax.media.video import load_video
    from syncos_jax.models import saved

    readers = {".json": lambda path: json.loads(path.read_text()), ".npy": np.load}
    readers |= {".mp4": load_video, ".png": lambda path: Image.open(path).load()}
    found = []
    for path in folder.rglob("*"):
        inner = path.relative_to(folder)
        if any(part.startswith(".") for part in inner.parts) or inner.parts[0] == "model":
            continue
        if path.is_file() and path.suffix in readers:
            try:
                readers[path.suffix](path)
            except Exception as error:
                found.append(f"{inner}: {error}")
    model = folder / "model"
    if model.is_dir() and saved.damaged(model) != []:
        found.append(f"model: {saved.damaged(model)}")
    return found


def left(folder):
    """Hidden things that a command has left; the lock and the markers of a batch belong to it."""
    paths = [path.relative_to(folder) for path in folder.rglob(".*")]
    return sorted(str(path) for path in paths if path.name not in (".markers", ".manifest.lock"))


def result(kind, folder):
    """What a finished command has made, to be compared."""
    if kind == "convert":  # whose other files hold the time; `broken` compares them with hashes
        return (folder / "model" / "config.json").read_text()
    files = (
        [folder / "a.json"] if kind == "generate" else sorted((folder / "videos").glob("c*.json"))
    )
    return [json.loads(path.read_text())["latents"]["sha256"] for path in files]


def check(condition, log, what):
    if not condition:
        raise SystemExit(f"{what}\n{log.read_text()[-3000:] if log.exists() else ''}")


def kills(kind, count, seed, scratch):
    """Kills a command at `count` moments, drawn evenly from its time."""
    inputs, log = scratch / "inputs", scratch / "log.txt"
    write_inputs(inputs)
    rng = random.Random(seed)
    expected, seconds = None, 0.0
    for _ in range(2):  # the first one compiles what the cache keeps
        folder = Path(tempfile.mkdtemp(dir=scratch))
        begin = time.monotonic()
        check(ended(start(given(kind, inputs, folder), log=log)) == 0, log, "undisturbed")
        seconds = time.monotonic() - begin
        expected = result(kind, folder)
    found = {"kind": kind, "seconds": round(seconds, 2), "killed": 0, "came_too_late": 0}
    found |= {"absent": 0, "finished": 0, "moments": []}
    while found["killed"] < count:
        folder = Path(tempfile.mkdtemp(dir=scratch))
        for _ in range(4):
            moment = rng.uniform(0, 1.05 * seconds)
            there = (folder / "model").is_dir()
            process = start(given(kind, inputs, folder), log=log)
            time.sleep(moment)
            os.kill(process, signal.SIGKILL)
            late = ended(process) == 0
            found["came_too_late" if late else "killed"] += 1
            found["moments"] += [] if late else [round(moment / seconds, 2)]
            check(not broken(folder), log, f"half-written: {broken(folder)}")
            check(not there or (folder / "model").is_dir(), log, "the old model is gone")
            found["absent"] += kind == "convert" and not (folder / "model").is_dir()
        time.sleep(1.1)  # what is younger is left alone
        check(ended(start(given(kind, inputs, folder), log=log)) == 0, log, "the last one failed")
        check(not broken(folder) and not left(folder), log, f"left behind: {left(folder)}")
        check(result(kind, folder) == expected, log, "another result")
        found["finished"] += 1
    return found


def one_line(log, before):
    """Whether a command's words end with one line of error, and hold no trace."""
    said = log.read_bytes()[before:].decode().strip().splitlines()
    errors = [line for line in said if line.startswith("error: ")]
    return bool(errors) and "Traceback" not in "\n".join(said)


LOG_BYTES = 1 << 16


def limited(kind, count, scratch):
    """As `full_disk` with files that may not be larger than a limit, from nothing to enough."""
    return _filled(kind, count, scratch, None)


def full_disk(kind, count, scratch):
    """A command on disks from almost nothing to almost enough, and then once there is room."""
    disk = scratch / "disk"
    disk.mkdir()
    return _filled(kind, count, scratch, disk)


def _filled(kind, count, scratch, disk):
    inputs, log = scratch / "inputs", scratch / "log.txt"
    write_inputs(inputs)
    folder = scratch / "whole"
    folder.mkdir()
    check(ended(start(given(kind, inputs, folder), log=log)) == 0, log, "undisturbed")
    expected = result(kind, folder)
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    most = 2 * sum(-(-size // 4096) * 4096 + 4096 for size in sizes) if disk else max(sizes) + 1
    found = {"kind": kind, "bytes": most, "codes": [], "words": []}
    for index in range(count):
        # The limit holds for the log, too, which a message must still fit into.
        size = max(4096 if disk else LOG_BYTES, most * index // count)
        before = log.stat().st_size
        where = disk or Path(tempfile.mkdtemp(dir=scratch))
        if disk:
            options = f"size={size}"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], check=True)
        try:
            code = ended(
                start(given(kind, inputs, where), log=log, within=None if disk else _limit(size))
            )
            found["codes"].append(code)
            check(code == 0 or (code in (1, 2) and one_line(log, before)), log, f"code {code}")
            said = [s for s in log.read_text()[before:].splitlines() if s.startswith("error: ")]
            found["words"] += [line.replace(str(where), "")[:120] for line in said[:1]]
            check(not broken(where), log, f"half-written: {broken(where)}")
            if disk:
                subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            time.sleep(1.1)
            check(ended(start(given(kind, inputs, where), log=log)) == 0, log, "with room")
            check(result(kind, where) == expected and not left(where), log, f"left: {left(where)}")
        finally:
            if disk:
                subprocess.run(["umount", disk], check=True)
            else:
                shutil.rmtree(where)
    found["words"] = sorted(set(found["words"]))
    return found


def _limit(size):
    def within():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return within


def clock(kind, scratch):
    """A command whose clock goes back by an hour whenever it looks, among files of the future."""
    inputs, log = scratch / "inputs", scratch / "log.txt"
    write_inputs(inputs)
    plain, back = scratch / "plain", scratch / "back"
    for folder in (plain, back):
        folder.mkdir()
    check(ended(start(given(kind, inputs, plain), log=log)) == 0, log, "undisturbed")
    process = start(given(kind, inputs, back), log=log)  # leaves its state
    time.sleep(1.0)
    os.kill(process, signal.SIGKILL)
    ended(process)
    for path in [*back.rglob("*"), *inputs.rglob("*")]:
        os.utime(path, (2e9 + 5e8, 2e9 + 5e8))
    real = time.time
    looked = 0

    def backwards():
        nonlocal looked
        looked += 1
        return real() - 3600.0 * looked

    def within():
        time.time = backwards

    check(ended(start(given(kind, inputs, back), log=log, within=within)) == 0, log, "clock")
    check(result(kind, back) == result(kind, plain), log, "another result")
    check(not left(back) and not broken(back), log, f"left: {left(back)}")
    return {"kind": kind}


def main(arguments):
    os.environ["SYNCOS_CACHE"] = str(arguments.scratch / "cache")
    kinds = KINDS if arguments.kind is None else (arguments.kind,)
    found = []
    for kind in kinds:
        scratch = arguments.scratch / kind
        scratch.mkdir()
        if arguments.what == "kills":
            found.append(kills(kind, arguments.count, arguments.seed, scratch))
        elif arguments.what == "clock":
            found.append(clock(kind, scratch))
        else:
            found.append(
                (full_disk if arguments.what == "disk" else limited)(kind, arguments.count, scratch)
            )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("kills", "disk", "limit", "clock"))
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    preload()
    with tempfile.TemporaryDirectory() as where:
        args.scratch = Path(where)
        print(json.dumps(main(args)))
