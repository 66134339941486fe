"""Power cuts while videos are made: what is marked as done is whole. Needs root, ext4, loop mounts.

    PYTHONPATH=.:tests python tests/power_cut.py generate|batch|studio [SNAPSHOTS]

The image of an ext4 file system (default options) is copied while the command writes into it, and
for some seconds after; each copy is what the disk would hold after a power cut then. The same
command is started again in each copy; videos that then count as done must be whole. Prints JSON.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

from fakes import FakeModel
from studio_thread import serving
from typer.testing import CliRunner

import syncos_jax.pipeline.load
import syncos_jax.studio.studio
from syncos_jax.cli import app
from syncos_jax.media.video import load_video

SECONDS_AFTER = 9.0
COMPLETED = """SELECT id, take FROM takes JOIN videos ON takes.video = videos.number
WHERE takes.status = 'completed'"""
STORY = {
    "global": "a cat",
    "events": [{"prompt": "sleeps", "frames": 48}],
    "sampler": {"name": "co_denoising", "steps": 2},
}


def sh(*arguments: object) -> None:
    subprocess.run([str(a) for a in arguments], check=True, capture_output=True)


def make(command: str, where: Path, source: Path) -> list[int]:
    """Runs the command; exit codes."""
    if command == "studio":
        with serving(where / "o") as served:
            known = [video["id"] for video in served.client.get("/v1/videos").json()["data"]]
            for name in known or [served.make(takes=3)["id"]]:
                served.until(name, "completed")
        return [0]
    options = ["--no-cache", "--checkpoint-every", "1calls"]
    if command == "batch":
        given = [["batch", source, "--out", where / "o", *options]]
    else:
        (where / "o").mkdir(exist_ok=True)
        given = [
            [
                "generate",
                source,
                "--seed",
                n,
                "--scale",
                8,
                "--out",
                where / f"o/v{n}.mp4",
                *options,
            ]
            for n in range(3)
        ]
    return [CliRunner().invoke(app, [str(a) for a in line]).exit_code for line in given]


def frames(folder: Path) -> dict[str, bytes]:
    paths = sorted([*folder.glob("v*.mp4"), *folder.glob("videos/*/take*.mp4")])
    return {str(p.relative_to(folder)): load_video(p).frames.tobytes() for p in paths}


def rows(where: Path, query: str) -> list:
    """What the studio's database says; nothing where it is not there or empty."""
    path = where / "o" / "jobs.sqlite"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as database:
        tables = database.execute("SELECT name FROM sqlite_master").fetchall()
        return database.execute(query).fetchall() if ("takes",) in tables else []


def done(command: str, where: Path) -> list[str]:
    """The videos that count as done."""
    if command == "studio":
        return [f"videos/{name}/take{take}.mp4" for name, take in rows(where, COMPLETED)]
    folder = where / "o" / "manifest" / "items" if command == "batch" else where / "o"
    return [f"{p.stem}.mp4" for p in folder.glob("v*.json")]


def main() -> None:
    command, wanted = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 30
    syncos_jax.studio.studio.LEAST_FREE = 0
    syncos_jax.pipeline.load.load_model = lambda *_, **__: FakeModel()
    with tempfile.TemporaryDirectory() as scratch:
        base, where = Path(scratch), Path(scratch) / "mount"
        os.environ["SYNCOS_CACHE"] = str(base / "cache")
        where.mkdir()
        lines = [{"name": f"v{n}", **STORY, "seed": n} for n in range(3)]
        source = base / ("list.jsonl" if command == "batch" else "story.json")
        text = "\n".join(map(json.dumps, lines)) if command == "batch" else json.dumps(STORY)
        source.write_text(text)
        make(command, base, source)  # compiles
        image = base / "disk.img"
        sh("truncate", "-s", "64M", image)
        sh("mkfs.ext4", "-q", "-F", image)
        sh("mount", "-o", "loop", image, where)
        snapshots: list[tuple[float, Path]] = []
        stop = threading.Event()

        def snap() -> None:
            while not stop.is_set():
                copy = base / f"snap{len(snapshots)}.img"
                sh("cp", "--sparse=always", image, copy)
                snapshots.append((time.monotonic(), copy))
                time.sleep(0.02 if len(snapshots) < wanted // 2 else 2 * SECONDS_AFTER / wanted)

        thread = threading.Thread(target=snap)
        thread.start()
        codes = make(command, where, source)
        end = time.monotonic()
        time.sleep(SECONDS_AFTER)
        stop.set()
        thread.join()
        whole = frames(where / "o")
        sh("umount", where)
        found = {"codes": codes, "snapshots": len(snapshots), "done": [], "damaged": []}
        for at, copy in snapshots:
            sh("mount", "-o", "loop", copy, where)
            count = 0
            for name in done(command, where):  # before anything is started again
                count += 1
                try:
                    same = load_video(where / "o" / name).frames.tobytes() == whole[name]
                except Exception:
                    same = False
                if not same:
                    found["damaged"].append(f"{name} at {at - end:+.1f} s")
            if command == "studio" and not rows(where, "SELECT id FROM videos"):
                again, same = [0], True  # nothing was asked for yet
            else:
                again = make(command, where, source)
                same = frames(where / "o") == whole
            if set(again) != {0} or not same:
                found["damaged"].append(f"started again at {at - end:+.1f} s: {again}")
            found["done"].append(count)
            sh("umount", where)
            copy.unlink()
        print(json.dumps(found))


if __name__ == "__main__":
    main()
