"""A `syncos studio` in a process of its own, for the measurements of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

TOKEN = "a-token-of-the-measurement"


class Studio:
    """The running server.

    Attributes:
        base: its address.
        process: as psutil sees it.
        folder: of its videos.
    """

    def __init__(self, base: str, process: psutil.Process, folder: Path) -> None:
        self.base = base
        self.process = process
        self.folder = folder

    def ask(self, address: str, body: Any = None, method: str | None = None) -> Any:
        """The answer's JSON; RuntimeError with what the server says where it refuses."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.base + address, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{address}: {error.code} {error.read().decode()[:300]}") from error

    def loading(self) -> bool:
        """Whether the model is not there yet."""
        try:
            self.ask("/v1/model")
        except RuntimeError as error:
            if ": 503 " not in str(error):
                raise
            return True
        return False

    def until_ended(self, id: str, pause: float = 0.5) -> dict[str, Any]:
        """Waits for a video."""
        while True:
            video = self.ask(f"/v1/videos/{id}")
            if video["status"] in ("completed", "failed", "cancelled"):
                return video
            time.sleep(pause)

    def cpu_seconds(self) -> float:
        """Of the server so far, over all its threads."""
        times = self.process.cpu_times()
        return times.user + times.system


@contextmanager
def running(folder: Path, *options: str) -> Any:
    """A server of `folder` with these options; ended at the end."""
    command = [sys.executable, "-c", "from syncos_jax.cli import main; main()", "studio"]
    command += [str(folder), "--port", "0", "--token", TOKEN, *options]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    try:
        base = run.stdout.readline().strip().rstrip("/")
        if not base.startswith("http"):
            raise SystemExit(f"the studio does not start: {base}")
        studio = Studio(base, psutil.Process(run.pid), folder)
        while studio.loading():
            time.sleep(0.2)
        yield studio
    finally:
        run.terminate()
        run.wait()
