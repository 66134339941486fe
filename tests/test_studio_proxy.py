"""The studio behind nginx, with the block that docs/studio.md shows, and with nginx's defaults."""

import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx2 as httpx
import pytest
from studio_thread import BODY, TOKEN, serving

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx-light)")
DOCS = Path(__file__).parent.parent / "docs" / "studio.md"
CONFIG = """
daemon off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; {block} }}
}}
"""
DEFAULTS = "location / {{ proxy_pass http://127.0.0.1:8188; }}".replace("{{", "{").replace(
    "}}", "}"
)
NAME = "studio.example.org"


def documented():
    """The nginx block of the docs: everything within its `server { … }`, without TLS."""
    block = re.search(r"```nginx\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1]
    return re.search(r"(location [^}]*})", block)[1]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("proxied") / "studio", hosts=(NAME,)) as running:
        yield running


@pytest.fixture
def proxy(served, tmp_path):
    """Starts nginx with a block; returns the port it listens on."""
    running = []

    def start(block):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        block = block.replace("127.0.0.1:8188", f"127.0.0.1:{served.port}")
        path = tmp_path / "nginx.conf"
        path.write_text(CONFIG.format(folder=tmp_path, port=port, block=block))
        running.append(subprocess.Popen([NGINX, "-c", str(path), "-p", str(tmp_path)]))
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return port
            except OSError:
                assert time.monotonic() < deadline and running[-1].poll() is None
                time.sleep(0.05)

    yield start
    for process in running:
        process.terminate()
        process.wait(20)


def browser(port, path="/"):
    """A client as a browser is behind TLS: the name of the site in Host and Origin."""
    return httpx.Client(
        base_url=f"http://127.0.0.1:{port}{path}",
        headers={"Host": NAME, "Origin": f"https://{NAME}", "Sec-Fetch-Site": "same-origin"},
        trust_env=False,
        timeout=60,
    )


def test_the_documented_block_below_a_path(served, proxy):
    port = proxy(documented())
    with browser(port, "/studio/") as client:
        entered = client.get("", params={"token": TOKEN})
        assert entered.status_code == 303 and entered.headers["location"] == "./"
        cookie = entered.headers["set-cookie"]
        assert "Path" not in cookie and "HttpOnly" in cookie  # the browser's default: /studio
        given = {"Cookie": cookie.split(";")[0]}
        assert "<title>SynCoS Studio" in client.get("", headers=given).text
        made = client.post("v1/videos", json=BODY, headers=given)
        assert made.status_code == 202, made.text
        served.until(made.json()["id"], "completed")
        address = served.video(made.json()["id"])["takes"][0]["content"].lstrip("/")
        assert client.get(address, headers=given).content[4:8] == b"ftyp"
        with client.stream("GET", "v1/events", headers=given) as stream:
            assert next(stream.iter_lines()) == ": listening"  # not held back by a buffer


def test_the_defaults_of_nginx_say_which_header_is_missing(proxy):
    port = proxy(DEFAULTS)
    with browser(port) as client:
        refused = client.post("/v1/videos", json=BODY, headers={"Authorization": f"Bearer {TOKEN}"})
    error = refused.json()["error"]
    assert refused.status_code == 403
    assert f"https://{NAME} does not match the Host header" in error["message"]
    assert "proxy_set_header Host" in error["remedy"] and "host name" in error["remedy"]


def test_a_name_that_the_studio_was_not_given(served):
    answer = served.client.get("/v1/model", headers={"Host": "other.example.org"})
    assert answer.status_code == 421
    error = answer.json()["error"]
    assert "other.example.org" in error["message"] and "host name" in error["remedy"]
