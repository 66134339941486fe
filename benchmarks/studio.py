"""What clients that poll cost a run: the same video with and without them, in turn.

    python benchmarks/studio.py [--model demo] [--clients 100] [--every 1] [--repeat 3]

The clients are a process of their own, each with a connection that it keeps, and ask for the video
that is being made. A run's time is that of its sampling, from its record. Wall-clock times of a
shared machine vary; the server's own processor time, over all its threads, does not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from studio_server import TOKEN, Studio, running

BODY = {
    "scenario": {
        "global": "a red ball on a green meadow",
        "events": [
            {"prompt": "the ball rolls to the left", "seconds": 2},
            {"prompt": "the ball grows", "seconds": 2},
        ],
    }
}


async def poll(base: str, clients: int, every: float) -> None:
    """Asks for the address on stdin's first line until stdin is closed; prints how often, and how
    long the answers took."""
    print("ready", flush=True)
    address = (await asyncio.to_thread(sys.stdin.readline)).strip()
    host, _, port = base.removeprefix("http://").partition(":")
    lasted: list[float] = []
    stop = asyncio.Event()
    head = f"GET {address} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"

    async def client(number: int) -> None:
        await asyncio.sleep(every * number / clients)
        reader, writer = await asyncio.open_connection(host, int(port))
        while not stop.is_set():
            begin = time.perf_counter()
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            assert answer.startswith(b"HTTP/1.1 200"), answer
            lasted.append(time.perf_counter() - begin)
            await asyncio.sleep(max(0.0, every - lasted[-1]))
        writer.close()

    tasks = [asyncio.create_task(client(number)) for number in range(clients)]
    begin = time.perf_counter()
    await asyncio.to_thread(sys.stdin.read)
    seconds = time.perf_counter() - begin
    stop.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [str(item) for item in done if item is not None]
    quick = sorted(lasted)
    found = {"requests": len(lasted), "seconds": round(seconds, 2), "failed": failed[:3]}
    found["median_ms"] = round(1000 * statistics.median(quick), 2)
    found["p99_ms"] = round(1000 * quick[int(0.99 * (len(quick) - 1))], 2)
    print(json.dumps(found))


def once(studio: Studio, body: dict[str, Any], clients: int, every: float) -> dict[str, Any]:
    """One video; its seconds of sampling, the server's processor time, what the clients saw."""
    polling = None
    if clients:  # started before the run, which is not to wait for it
        command = [sys.executable, __file__, "--poll", studio.base]
        command += ["--clients", str(clients), "--every", str(every)]
        polling = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert polling.stdout is not None and polling.stdout.readline() == "ready\n"
    id = studio.ask("/v1/videos", body)["id"]
    cpu = studio.cpu_seconds()
    if polling is not None and polling.stdin is not None:
        polling.stdin.write(f"/v1/videos/{id}\n")
        polling.stdin.flush()
    video = studio.until_ended(id, pause=1.0)
    assert video["status"] == "completed", video
    cpu = studio.cpu_seconds() - cpu
    said = polling.communicate()[0] if polling else "null"
    record = json.loads((studio.folder / "videos" / id / "take1.json").read_text())
    studio.ask(f"/v1/videos/{id}", method="DELETE")
    return {"sample": record["timings"]["sample"], "cpu": cpu, "clients": json.loads(said)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two requests")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--poll", metavar="BASE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.poll:
        uvloop.run(poll(args.poll, args.clients, args.every))
        return
    body = {**BODY, "settings": {"steps": args.steps}}
    with tempfile.TemporaryDirectory() as scratch:
        with running(Path(scratch) / "studio", "--model", args.model) as studio:
            once(studio, body, 0, args.every)  # compiles
            alone, beside = [], []
            for _ in range(args.repeat):
                alone.append(once(studio, body, 0, args.every))
                beside.append(once(studio, body, args.clients, args.every))
                print(json.dumps({"alone": alone[-1], "beside": beside[-1]}), flush=True)
    for key, what in (("sample", "seconds of sampling"), ("cpu", "processor seconds")):
        a, b = (statistics.median(run[key] for run in runs) for runs in (alone, beside))
        # Of pairs one after the other: a shared machine is slower for minutes at a time.
        more = [two[key] / one[key] - 1 for one, two in zip(alone, beside, strict=True)]
        print(
            f"{what}: alone {a:.2f}, beside {args.clients} clients {b:.2f}; "
            f"of pairs {statistics.median(more):+.1%} ({min(more):+.1%} to {max(more):+.1%})"
        )


if __name__ == "__main__":
    main()
