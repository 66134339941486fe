"""A studio with the fake model, served by a thread of this process over loopback."""

import socket as sockets
import threading
import time
from contextlib import contextmanager

import httpx2 as httpx
from studio_server import patch

import syncos_jax.pipeline.load
from syncos_jax.studio import StudioSettings, create_app
from syncos_jax.studio.serving import listening, server

TOKEN = "a-token-of-the-tests"
STORY = {
    "global": "a cat in a kitchen",
    "events": [{"prompt": "sleeps", "seconds": 2}, {"prompt": "wakes", "seconds": 1}],
}
BODY = {"scenario": STORY, "settings": {"steps": 3, "strength": 0.5}}


class Served:
    """The address of a running studio, and clients of it."""

    def __init__(self, app, port):
        self.app = app
        self.port = port
        self.studio = app.state.studio
        self.base = f"http://127.0.0.1:{port}"
        self.client = self.new_client({"Authorization": f"Bearer {TOKEN}"})

    def new_client(self, headers=None):
        return httpx.Client(base_url=self.base, headers=headers, timeout=120, trust_env=False)

    def until_loaded(self):
        """The model is loaded beside the server."""
        while self.client.get("/v1/model").status_code == 503:
            time.sleep(0.2)

    def make(self, **more):
        """Puts a video into the queue; its document."""
        answer = self.client.post("/v1/videos", json={**BODY, **more})
        assert answer.status_code == 202, answer.text
        return answer.json()

    def video(self, id):
        return self.client.get(f"/v1/videos/{id}").json()

    def until(self, id, *wanted):
        """Waits until a video has one of these statuses."""
        deadline = time.monotonic() + 600
        while (video := self.video(id))["status"] not in wanted:
            assert time.monotonic() < deadline, video
            time.sleep(0.1)
        return video

    def raw(self, data, wait=10.0):
        """What the server answers to these bytes, until it closes or has said nothing a while."""
        with sockets.create_connection(("127.0.0.1", self.port), timeout=wait) as connection:
            connection.sendall(data)
            said = b""
            while True:
                try:
                    part = connection.recv(65536)
                except (TimeoutError, ConnectionResetError):
                    return said
                if not part:
                    return said
                said += part
                if b"\r\n\r\n" in said and b"ontent-" in said:
                    return said


@contextmanager
def serving(folder, row_seconds=0.0, **settings):
    """A `Served` studio of a folder; ended gracefully."""
    before = syncos_jax.pipeline.load.load_model, syncos_jax.pipeline.load.model_folder
    from syncos_jax.pipeline.checkpoint import Checkpoint

    play = Checkpoint.play
    patch(row_seconds)
    try:
        with listening("127.0.0.1", 0) as socket:
            port = socket.getsockname()[1]
            settings = {"cache": False, "token": TOKEN, "every": "1", **settings}
            app = create_app(StudioSettings(folder=folder, port=port, **settings))
            running = server(app, app.state.studio.stop)
            thread = threading.Thread(target=running.run, kwargs={"sockets": [socket]}, daemon=True)
            thread.start()
            served = Served(app, port)
            try:
                served.until_loaded()
                yield served
            finally:
                served.client.close()
                running.should_exit = True
                thread.join(timeout=60)
                assert not thread.is_alive()
    finally:
        syncos_jax.pipeline.load.load_model, syncos_jax.pipeline.load.model_folder = before
        Checkpoint.play = play
