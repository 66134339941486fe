"""A batch of 20 scenarios, 2 of them broken, killed in its middle and started again; then some of
it on two devices, terminated as well, and by two processes; then as shards. For test_batch.py and
test_shards.py; prints one JSON object.

    python tests/batch_kills.py
    python tests/batch_kills.py --shards 7 --scenarios 40 --kills 2
    python tests/batch_kills.py --shards 7 --scenarios 40 --kills 2 --store
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kills import ended, preload, start

from syncos_jax.media.video import load_video
from syncos_jax.runs.markers import Markers, read_status
from syncos_jax.runs.outputs import Outputs

SAMPLER = {"name": "syncos", "steps": 4, "iterations": 3, "t_min": 600}


def stories(count=20, lengths=(6, 12)):
    """All but 2 are sound, of these lengths in frames, with one, two or three events."""
    lines = []
    for index in range(count - 2):
        events = 1 + index // len(lengths) % 3
        frames = lengths[-1 - index % len(lengths)]
        each = [{"prompt": f"move {i}", "frames": frames // events} for i in range(events)]
        story = {"global": f"cat {index}", "events": each, "sampler": SAMPLER, "seed": index}
        lines.append(json.dumps({"name": f"cat{index:02}", **story}))
    lines.insert(4, '{"global": "a cat", "events": [')
    short = {"global": "a cat", "events": [{"prompt": "blinks", "frames": 3}]}
    lines.insert(11, json.dumps({"name": "blink", **short}))
    return lines


def in_child(function):
    """Calls it in a process of its own: what reaches object stores does not outlive a fork, and
    this process forks."""

    def call(where):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            code = 1
            try:
                os.close(read)
                with os.fdopen(write, "w") as file:
                    json.dump(function(where), file)
                code = 0
            finally:
                os._exit(code)
        os.close(write)
        with os.fdopen(read) as file:
            text = file.read()
        assert ended(child) == 0, where
        return json.loads(text)

    call.here = function
    return call


@in_child
def markers(where):
    """The markers of a batch, by name, and beside them what is pending."""
    outputs = Outputs(where, make=False)
    items = read_status(outputs).items
    found = Markers(outputs).read_all(list(items))
    return {name: found.get(name, {"status": status}) for name, status in items.items()}


def command(source, where, *more):
    given = ["batch", source, "--out", where, "--model", "fake", "--no-contact-sheet"]
    return [*given, "--checkpoint-every", "2calls", *more]


@in_child
def sessions(where):
    """What each start of a batch has made."""
    return read_status(Outputs(where, make=False)).sessions


@in_child
def videos(where):
    """How many there are."""
    return sum(name.endswith(".mp4") for name in Outputs(where, make=False).names())


@in_child
def latents(where):
    """The hash of each video's latents, from its record."""
    outputs = Outputs(where, make=False)
    files = [name for name in outputs.names() if name.endswith(".json")]
    read = zip(files, outputs.read_all(files), strict=True)
    return {Path(name).stem: json.loads(raw)["latents"]["sha256"] for name, raw in read}


def main(folder):
    lines = stories()
    source = folder / "stories.jsonl"
    source.write_text("\n".join(lines) + "\n")
    log = folder / "log.txt"
    out = folder / "videos"

    def batch(*more, where=out, **kwargs):
        before = log.stat().st_size if log.exists() else 0
        code = ended(start(command(source, where, *more), log=log, **kwargs))
        return {"code": code, "said": log.read_bytes()[before:].decode()}

    def apart(one, other):
        frames = [load_video(path).frames.astype(int) for path in (one, other)]
        return int(abs(frames[0] - frames[1]).max())

    found = {}
    found["killed"] = batch(kill_row=5, kill_run=8)
    if found["killed"]["code"] != -9:
        raise SystemExit(found["killed"]["said"])
    found["items_then"] = markers(out)
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    found["again"] = batch()
    found["items"] = markers(out)
    made = [name for name, item in found["items_then"].items() if item["status"] == "done"]
    found["touched"] = [
        name for name in made if (out / f"{name}.mp4").stat().st_mtime_ns != times[f"{name}.mp4"]
    ]
    found["left_over"] = sorted(path.name for path in out.glob(".*.run"))
    # The same on two devices, two videos at a time: terminated, and started again.
    source.write_text("\n".join(lines[:7]) + "\n")
    two = folder / "two"
    found["terminated"] = batch(
        "--devices", "all", where=two, devices=2, kill_row=5, kill_run=2, how=signal.SIGTERM
    )
    found["two"] = batch("--devices", "all", where=two, devices=2)
    found["two_items"] = markers(two)
    found["apart"] = {path.stem: apart(path, out / path.name) for path in two.glob("*.mp4")}
    found["two_left_over"] = sorted(path.name for path in two.glob(".*.run"))
    # The same line twice, without shards: nothing breaks, whatever is made by whom.
    both = folder / "both"
    pair = [start(command(source, both), log=log) for _ in range(2)]
    found["both"] = [ended(process) for process in pair]
    found["both_items"] = markers(both)
    found["both_equal"] = latents(both).items() <= latents(out).items()
    return found


def shards(folder, count, scenarios, kills, place=None):
    """`count` processes, each with its shard; the first `kills` are killed and started again."""
    source = folder / "stories.jsonl"
    source.write_text("\n".join(stories(scenarios, (6, 12, 18))) + "\n")
    log, out, plain = folder / "log.txt", place or folder / "videos", folder / "plain"
    work = folder / "work" if place else out

    def task(index, **kwargs):
        more = ["--work", work] if place else []
        shard = ["--shard", f"{index}/{count}", *more]
        return start(command(source, out, *shard), log=log, **kwargs)

    kill = {"kill_row": 5, "kill_run": 2}
    tasks = [task(index, **(kill if index < kills else {})) for index in range(count)]
    found = {"codes": [ended(process) for process in tasks]}
    found["then"] = markers(out)
    found["again"] = [ended(task(index)) for index in range(kills)]
    found["items"] = markers(out)
    done = {name: item for name, item in found["then"].items() if item["status"] != "pending"}
    found["touched"] = [name for name, item in done.items() if item != found["items"][name]]
    found["sessions"] = sessions(out)
    found["went_on"] = log.read_text().count("resuming from call")
    found["locks"] = sorted(path.name for path in work.rglob("*lock*"))
    found["left_over"] = sorted(path.name for path in work.glob(".*"))
    found["plain"] = ended(start(command(source, plain), log=log))
    found["identical"] = latents(out) == latents(plain)
    found["videos"] = videos(out)
    return found


@contextmanager
def object_store():
    """The address of a bucket in an S3-compatible server on this machine."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, **quiet)
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    make = (
        "import s3fs, time\n"
        "for _ in range(120):\n"
        "    try: s3fs.S3FileSystem().mkdir('bucket'); break\n"
        "    except Exception: time.sleep(0.5)\n"
    )
    try:
        subprocess.run([sys.executable, "-c", make], check=True)
        yield "s3://bucket/videos"
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=int, default=0)
    parser.add_argument("--scenarios", type=int, default=40)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--store", action="store_true", help="into an object store")
    args = parser.parse_args()
    preload()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        os.environ["SYNCOS_CACHE"] = str(Path(scratch) / "cache")
        work = Path(scratch) / "work"
        work.mkdir()
        if args.shards:
            place = stack.enter_context(object_store()) if args.store else None
            done = shards(work, args.shards, args.scenarios, args.kills, place)
        else:
            done = main(work)
        print(json.dumps(done, indent=1))
