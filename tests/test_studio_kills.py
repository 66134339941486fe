"""A studio that is killed, terminated, cancelled: nothing is lost, nothing is made twice."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from studio_thread import STORY, serving

from syncos_jax.studio.event_bus import EventBus

SCRIPT = Path(__file__).parent / "studio_kills.py"


def kill(kills, videos):
    command = [sys.executable, str(SCRIPT), "--kills", str(kills), "--videos", str(videos)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:] + run.stdout[-3000:]
    found = json.loads(run.stdout)
    assert found["statuses"] == {"completed": videos}, found
    assert found["kills"] == kills and found["records"] == videos
    assert found["most_often_made"] == 1 and found["left_over"] == []
    assert found["decisions_kept"] == found["decided"]
    assert found["latents"] == min(2, videos)  # of the two seeds: disturbed or not, bit for bit
    assert found["code"] == 0  # of the last SIGTERM
    return found


@pytest.mark.slow
def test_a_few_kills():
    found = kill(kills=3, videos=3)
    stopped = found["terminated"]
    assert stopped is None or (stopped["code"] == 0 and (stopped["row"] > 0 or stopped["made"]))


@pytest.mark.slow
def test_thirty_kills():
    found = kill(kills=30, videos=10)
    assert found["decided"] >= 5
    print({key: value for key, value in found.items() if key != "log"})


def test_cancelling_stops_the_run_within_two_rows(tmp_path, monkeypatch):
    with serving(tmp_path / "studio", row_seconds=0.1) as served:
        rows = []
        before = EventBus.set

        def noted(self, id, progress, **more):
            rows.append((time.monotonic(), id, progress.phase))
            return before(self, id, progress, **more)

        monkeypatch.setattr(EventBus, "set", noted)
        long = {**STORY, "events": [{"prompt": "sleeps", "seconds": 4}]}
        steps = {"steps": 60, "strength": 0.0}
        first = served.make(scenario=long, settings=steps)["id"]
        waiting = served.make(scenario=long, settings=steps, takes=2)["id"]
        assert served.video(waiting)["place"] == 1
        while len([row for row in rows if row[2] == "sampling"]) < 3:
            time.sleep(0.05)
        answer = served.client.post(f"/v1/videos/{waiting}/cancel").json()
        assert answer["status"] == "cancelled" and answer["place"] is None
        begin = time.monotonic()
        answer = served.client.post(f"/v1/videos/{first}/cancel").json()
        answered = time.monotonic()
        assert answer["status"] in ("cancelling", "cancelled")
        video = served.until(first, "cancelled")
        assert [take["status"] for take in video["takes"]] == ["cancelled"]
        after = [row for row in rows if row[0] > answered and row[1] == first]
        assert len(after) <= 2, (len(after), answered - begin)
        folder = served.studio.folder / "videos" / first
        assert [path.name for path in folder.iterdir()] == []
        again = served.client.post(f"/v1/videos/{first}/cancel")
        assert again.status_code == 409
