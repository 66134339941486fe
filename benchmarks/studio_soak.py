"""A studio at work for a long time: does its memory stay where it is?

    python benchmarks/studio_soak.py --minutes 60

Videos of one shape are put into the queue as fast as they are made; each is polled, watched,
decided on and, some later, forgotten; every tenth is cancelled. Prints the server's resident memory
now and then, and at the end how it grew: a line through the second half of the measurements.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import urllib.request
from pathlib import Path

from studio_server import TOKEN, Studio, running

STORY = {
    "global": "a red ball on a green meadow",
    "events": [{"prompt": "the ball grows", "seconds": 2}],
}
KEPT = 10


def slope(points: list[tuple[float, float]]) -> float:
    """Of the line through (x, y) that fits best."""
    n = len(points)
    x, y = sum(p[0] for p in points) / n, sum(p[1] for p in points) / n
    across = sum((p[0] - x) ** 2 for p in points)
    return sum((p[0] - x) * (p[1] - y) for p in points) / across if across else 0.0


def use(studio: Studio, number: int, steps: int) -> str:
    """One video, as a person would: made, watched, judged. Its id."""
    body = {"scenario": STORY, "seed": number, "settings": {"steps": steps}}
    id = studio.ask("/v1/videos", body)["id"]
    studio.ask("/v1/plan", body)
    if number % 10 == 9:
        studio.ask(f"/v1/videos/{id}", method="DELETE")
        studio.until_ended(id)
        return id
    video = studio.until_ended(id)
    assert video["status"] == "completed", video
    for part in ("content", "thumbnail"):
        request = urllib.request.Request(
            studio.base + video["takes"][0][part], headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.read()
    say = {"take": 1, "verdict": "approved", "by": "soak", "comment": f"number {number}"}
    studio.ask(f"/v1/videos/{id}/decision", say)
    studio.ask("/v1/videos?limit=50")
    return id


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=2)
    args = parser.parse_args()
    points: list[tuple[float, float]] = []
    kept: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        with running(Path(scratch) / "studio", "--model", args.model) as studio:
            begin, number = time.monotonic(), 0
            while (minutes := (time.monotonic() - begin) / 60) < args.minutes:
                kept.append(use(studio, number, args.steps))
                number += 1
                if len(kept) > KEPT:
                    studio.ask(f"/v1/videos/{kept.pop(0)}", method="DELETE")
                megabytes = studio.process.memory_info().rss / 2**20
                points.append((minutes, megabytes))
                if number % 10 == 0:
                    print(
                        f"{minutes:6.1f} min  {number:5} videos  {megabytes:7.1f} MiB", flush=True
                    )
            files = studio.process.num_fds()
            threads = studio.process.num_threads()
    half = points[len(points) // 2 :]
    found = {
        "minutes": round(points[-1][0], 1),
        "videos": number,
        "first_mib": round(points[0][1], 1),
        "half_mib": round(half[0][1], 1),
        "last_mib": round(points[-1][1], 1),
        "mib_per_hour_second_half": round(60 * slope(half), 1),
        "open_files": files,
        "threads": threads,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
