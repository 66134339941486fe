"""Kills a real studio at random moments, starts it again, and looks at what came of its queue.

    python tests/studio_kills.py --kills 30 --videos 10

The model is one of a few numbers (tests/fakes.py) whose rows wait a little; everything else is what
`syncos studio` does. Prints one JSON object. After the kills the server is terminated once
(SIGTERM) in the midst of a run, and then left to finish.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).parent))

import httpx2 as httpx

TOKEN = "a-token-of-the-tests"
STORY = {
    "global": "a cat in a kitchen",
    "events": [{"prompt": "sleeps", "frames": 6}, {"prompt": "wakes", "frames": 6}],
    "sampler": {"name": "syncos", "steps": 8, "iterations": 4, "t_min": 600, "batch": 3},
}


def preload():
    """What every server would import, once. No array is made: JAX must not have started yet."""
    for name in (
        "runs.cache",
        "runs.generate_video",
        "runs.metadata",
        "pipeline.pipeline",
        "studio.api",
    ):
        import_module(f"syncos_jax.{name}")
    for name in ("orbax.checkpoint", "uvicorn", "fakes", "studio_server"):
        import_module(name)


def start(folder, port, log, row_seconds):
    """A server in a process of its own: a fork of this one. Returns its id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        serve(folder, port, log.with_name("made.txt"), row_seconds)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(folder, port, made, row_seconds):
    from studio_server import patch

    from syncos_jax.cli import main
    from syncos_jax.runs import metadata

    patch(row_seconds)
    write = metadata.write_metadata

    def noted(path, sidecar):
        written = write(path, sidecar)
        with open(made, "a") as file:
            file.write(f"{path}\n")
        return written

    metadata.write_metadata = noted
    sys.argv = ["syncos", "studio", str(folder), "--model", "fake", "--port", str(port)]
    sys.argv += ["--token", TOKEN, "--checkpoint-every", "0.2"]
    main()


class Server:
    """The server, started again whenever it was killed."""

    def __init__(self, folder, log, row_seconds):
        self.folder, self.log, self.row_seconds = folder, log, row_seconds
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=60,
            trust_env=False,
        )
        self.process = 0

    def start(self):
        self.process = start(self.folder, self.port, self.log, self.row_seconds)
        for _ in range(600):
            if self.videos() is not None:
                return
            if os.waitpid(self.process, os.WNOHANG)[0]:
                self.process = 0
                raise SystemExit(self.log.read_text())
            time.sleep(0.1)
        raise SystemExit("the server does not answer: " + self.log.read_text())

    def kill(self, how=signal.SIGKILL):
        process, self.process = self.process, 0
        os.kill(process, how)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def end(self):
        """At the script's own end, whatever it is."""
        if self.process:
            self.kill()

    def videos(self):
        """All videos, the oldest first; None while nobody answers."""
        try:
            return self.client.get("/v1/videos?limit=100").json()["data"][::-1]
        except httpx.TransportError:
            return None

    def post(self, address, **more):
        """As often as it takes: the model may not be loaded yet."""
        answer = self.client.post(address, **more)
        while answer.status_code == 503:
            time.sleep(0.2)
            answer = self.client.post(address, **more)
        assert answer.status_code in (200, 202), answer.text
        return answer.json()


def submit(server, videos):
    for index in range(videos):
        body = {"scenario": STORY, "seed": index % 2, "title": f"video {index}"}
        for _ in range(2):  # the same request again makes no second video
            headers = {"Idempotency-Key": f"video {index}"}
            server.post("/v1/videos", json=body, headers=headers)


def busy(server):
    return [v for v in server.videos() or [] if v["status"] in ("queued", "in_progress")]


def a_moment(server, rng, index):
    """Waits: two times in three not for long, in whatever phase that is on this machine as busy as
    it is; else into the rows, or until one more is made, so that the queue gets shorter."""
    if index % 3 < 2:
        time.sleep(rng.uniform(0.0, 1.5) * (1 + index % 3))
        return
    left = len(busy(server))
    while left and len(busy(server)) == left:
        if index % 2 and any(video["phase"] == "sampling" for video in busy(server)):
            break
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 0.5))


def decide(server, decided):
    """Approves one more video that is done, if there is one."""
    for video in server.videos() or []:
        if video["status"] == "completed" and video["id"] not in decided:
            say = {"take": 1, "verdict": "approved", "by": "Ada", "comment": video["title"]}
            decided[video["id"]] = video["title"]
            server.post(f"/v1/videos/{video['id']}/decision", json=say)
            return


def kill_server(folder, kills, videos, seed=0, row_seconds=0.02):
    """The figures; `folder` is empty and is filled."""
    rng = random.Random(seed)
    log = folder / "log.txt"
    server = Server(folder / "studio", log, row_seconds)
    decided: dict[str, str] = {}
    found: dict[str, object] = {"kills": 0, "videos": videos}
    begin = time.monotonic()
    atexit.register(server.end)
    server.start()
    submit(server, videos)
    at = []
    while len(at) < kills:
        a_moment(server, rng, len(at))
        decide(server, decided)
        waiting = busy(server)
        phase = next((video["phase"] for video in waiting if video["phase"]), "idle")
        at.append(f"{len(waiting)} left, {phase}")
        assert server.kill() == -signal.SIGKILL
        server.start()
    found["kills"], found["killed_at"] = len(at), at
    found["terminated"] = terminate(server)
    while any(v["status"] not in ("completed", "failed", "cancelled") for v in server.videos()):
        time.sleep(0.2)
    ended = server.videos()
    found["statuses"] = dict(Counter(video["status"] for video in ended))
    found["errors"] = [video["error"] for video in ended if video["error"]]
    found["decided"] = len(decided)
    found["decisions_kept"] = sum(
        video["takes"][0]["verdict"] == "approved"
        and video["takes"][0]["comment"] == decided[video["id"]]
        for video in ended
        if video["id"] in decided
    )
    found["code"] = server.kill(signal.SIGTERM)
    records = sorted((folder / "studio" / "videos").glob("*/take1.json"))
    each = [json.loads(path.read_text()) for path in records]
    found["records"] = len(records)
    made = (folder / "made.txt").read_text().splitlines()
    found["most_often_made"] = max(Counter(made).values())
    found["latents"] = len({(item["seed"], item["latents"]["sha256"]) for item in each})
    found["left_over"] = [
        path.name
        for path in (folder / "studio" / "videos").rglob(".*")
        if path.name != ".review.lock"
    ]
    found["seconds"] = round(time.monotonic() - begin, 1)
    found["log"] = log.read_text()
    return found


def terminate(server):
    """SIGTERM while a take is being sampled: what the server says, and from where the take goes on.
    None where nothing was being made any more."""
    for _ in range(300):
        videos = server.videos() or []
        running = [v for v in videos if v["phase"] == "sampling" and v["step"] >= 1]
        if running or all(v["status"] == "completed" for v in videos):
            break
        time.sleep(0.1)
    if not running:
        return None
    code = server.kill(signal.SIGTERM)
    folder = server.folder / "videos" / running[0]["id"]
    rows = [int(p.name) for p in folder.glob(".*.run/rows/*") if p.name.isdigit()]
    made = (folder / "take1.json").exists()
    server.start()
    return {"code": code, "row": max(rows, default=0), "made": made}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--videos", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    preload()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SYNCOS_CACHE"] = str(Path(scratch) / "cache")
        work = Path(scratch) / "work"
        work.mkdir()
        result = kill_server(work, args.kills, args.videos, args.seed)
    if result["statuses"] == {"completed": args.videos}:
        del result["log"]
    print(json.dumps(result))
