"""The served page: what it hands out, to whom, and what it refuses."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest
from takes import EVENTS, clip, write_take

from syncos_jax.errors import InputError
from syncos_jax.studio.review import ReviewServer, add_entry, read_reviews

NAME = "a b&.mp4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("served")
    write_take(place / "..", "secret.mp4", clip(EVENTS[0][1]), prompts=["x"])
    write_take(place, NAME, clip(EVENTS[0][1]), prompts=["the ball rolls to the left"])
    (place / "none.mp4").write_bytes(b"no video at all")
    (place / "secret-link.mp4").symlink_to("/etc/passwd")
    return place


@pytest.fixture(scope="module")
def server(folder):
    with ReviewServer(folder) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(server, route="", method="GET", body=None, token=True, **headers):
    """(status, headers, body) of a request; keywords are headers, None leaves one out."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    path = f"/{server.token}/{route}" if token else route
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    wanted = {"Host": f"127.0.0.1:{server.server_port}"}
    if method == "POST":
        body = json.dumps(body).encode() if not isinstance(body, bytes) else body
        wanted |= {"Origin": server.url.rsplit("/", 2)[0], "Content-Type": "application/json"}
        wanted["Content-Length"] = str(len(body))
    wanted |= {key.replace("_", "-"): value for key, value in headers.items()}
    for key, value in wanted.items():
        if value is not None:
            connection.putheader(key, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    raw = answer.read()
    connection.close()
    return answer.status, answer.headers, raw


def decision(server, **changes):
    state = json.loads(ask(server, "state")[2])["state"]["videos"][NAME]
    values = {"video": NAME, "action": "approve", "by": "Ada", "comment": ""}
    return {**values, "seen": state["seen"], "sha256": state["sha256"], **changes}


def test_the_page_and_its_videos(server, folder):
    status, headers, body = ask(server)
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert headers["Referrer-Policy"] == "no-referrer" and headers["X-Frame-Options"] == "DENY"
    source = re.search(r'src="(video/[^"]+)"', body.decode()).group(1)
    assert source.startswith("video/a%20b%26.mp4?")
    status, headers, body = ask(server, source)
    assert status == 200 and headers["Content-Type"] == "video/mp4"
    raw = (folder / NAME).read_bytes()
    assert body == raw
    status, headers, body = ask(server, source, Range="bytes=100-199")
    assert (status, headers["Content-Range"]) == (206, f"bytes 100-199/{len(raw)}")
    assert body == raw[100:200]
    assert ask(server, source, Range="bytes=-50")[2] == raw[-50:]
    assert ask(server, source, Range=f"bytes={len(raw)}-")[0] == 416
    status, headers, body = ask(server, source, method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(raw)), b"")


def test_a_file_that_is_no_video_stops_nothing(server):
    body = ask(server)[2].decode()
    assert "no video can be read from it: none.mp4, secret-link.mp4." in body
    assert list(json.loads(ask(server, "state")[2])["state"]["videos"]) == [NAME]


def test_a_decision_is_kept_and_shown(server, folder):
    status, _, body = ask(server, "decide", "POST", decision(server, comment="fine"))
    assert status == 200
    state = json.loads(body)["state"]["videos"][NAME]
    assert state["status"] == "approved" and state["history"][-1]["comment"] == "fine"
    assert read_reviews(folder).of(NAME)[-1].by == "Ada"
    assert b"approved" in ask(server)[2]


def test_a_decision_that_came_too_late(server, folder):
    late = decision(server)
    add_entry(folder / NAME, "reject", "Bo", "no")
    status, _, body = ask(server, "decide", "POST", late)
    answer = json.loads(body)
    assert status == 409 and "Bo wrote about" in answer["error"]
    assert answer["state"]["videos"][NAME]["status"] == "rejected"
    assert read_reviews(folder).of(NAME)[-1].by == "Bo"


FOREIGN = [
    ({"Host": "evil.example"}, 421),  # a name of its own that points to this machine
    ({"Host": None}, 400),
    ({"Host": "127.0.0.1.evil.example"}, 421),
    ({"Host": "127.0.0.1@evil.example"}, 421),
    ({"Host": ""}, 421),
    ({"Host": "127.0.0.1:1"}, 403),  # then the page's own origin is another one
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": None}, 403),
    ({"Content_Type": "text/plain"}, 415),  # what a form on another page could send
    ({"Content_Length": "100000"}, 413),
    ({"Content_Length": "-1"}, 400),
    ({"Content_Length": None}, 400),  # and so without a body
    ({"Origin": "http://localhost:1"}, 403),
    ({"Sec_Fetch_Site": "cross-site"}, 403),
]


@pytest.mark.parametrize(("headers", "status"), FOREIGN)
def test_requests_from_elsewhere_change_nothing(server, folder, headers, status):
    before = read_reviews(folder)
    assert ask(server, "decide", "POST", decision(server), **headers)[0] == status
    assert read_reviews(folder) == before


BODIES = [
    (b"{", 400),
    (b"\xff", 400),
    (b"[" * 60_000, 400),
    (b"[]", 400),
    (b"{}", 400),
    ({"action": "delete"}, 422),
    ({"by": ""}, 422),
    ({"by": 7}, 400),
    ({"seen": True}, 400),
    ({"extra": 1}, 400),
    ({"comment": "x" * 5000}, 422),
    ({"video": "../secret.mp4"}, 404),
    ({"video": "/etc/passwd"}, 404),
]


@pytest.mark.parametrize(("body", "status"), BODIES)
def test_bad_decisions(server, folder, body, status):
    before = read_reviews(folder)
    body = body if isinstance(body, bytes) else decision(server, **body)
    code, _, answer = ask(server, "decide", "POST", body)
    assert code == status and json.loads(answer)["error"], answer
    assert read_reviews(folder) == before


@pytest.mark.parametrize(
    "route",
    [
        "video/../secret.mp4",
        "video/..%2Fsecret.mp4",
        "video/%2e%2e/secret.mp4",
        "video/review.json",
        "video//etc/passwd",
        "video/",
        "../",
        "review.json",
        "video/a%00.mp4",
        "video/none.mp4",
        "video/secret-link.mp4",
    ],
)
def test_nothing_but_the_videos_of_the_folder(server, route):
    assert ask(server, route)[0] == 404


@pytest.mark.parametrize("path", ["/", "/x/", "/state", "//", "", "/%00/", "*"])
def test_nothing_without_the_token(server, path):
    status, _, body = ask(server, path, token=False)
    assert status in (400, 404) and server.token.encode() not in body


def test_loopback_only_and_a_token_of_its_own(server, folder):
    assert server.url.startswith("http://127.0.0.1:") and len(server.token) >= 32
    with ReviewServer(folder) as other:
        assert other.token != server.token


def test_a_port_that_is_taken(server, folder):
    port = server.server_port
    with pytest.raises(InputError, match=f"port {port}: Address already in use; give another"):
        ReviewServer(folder, port)


def test_other_methods(server):
    assert ask(server, method="PUT")[0] == 405
    status, headers, _ = ask(server, method="OPTIONS")
    assert status == 405 and "Access-Control-Allow-Origin" not in headers


def test_nothing_to_serve(tmp_path):
    with pytest.raises(InputError, match="has no video"):
        ReviewServer(tmp_path)


def test_by_command(folder):
    command = [sys.executable, "-c", "from syncos_jax.cli import main; main()", "review"]
    run = subprocess.Popen(
        [*command, "--serve", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        url = run.stdout.readline().strip()
        match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/[\w-]{32}/", url)
        assert match, run.communicate(timeout=60)
        connection = http.client.HTTPConnection("127.0.0.1", int(match[1]), timeout=60)
        connection.request("GET", url.split(match[1], 1)[1] + "state")
        assert NAME in json.loads(connection.getresponse().read())["state"]["videos"]
        connection.close()
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 0 and "Traceback" not in errors, errors
    finally:
        run.kill()
        run.wait()
