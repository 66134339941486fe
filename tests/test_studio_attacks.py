"""What a studio refuses: other hosts and origins, paths, markup, and requests that are too much."""

import os
import socket
import time

import pytest
from studio_thread import BODY, TOKEN, serving

from syncos_jax.errors import InputError
from syncos_jax.studio import StudioSettings, security
from syncos_jax.studio.host_names import is_allowed
from syncos_jax.studio.studio import Studio

MARKUP = '"><script>alert(1)</script>\u202e{{7*7}}${x}\u0000'
BEARER = f"Authorization: Bearer {TOKEN}\r\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "secret.mp4").write_text("secret")
    with serving(folder / "studio", queue=5) as running:
        yield running


def status(raw):
    return int(raw.split(b" ", 2)[1])


def head(served, line, more=BEARER, host=None):
    host = f"127.0.0.1:{served.port}" if host is None else host
    return f"{line} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


@pytest.mark.parametrize(
    ("header", "good"),
    [
        ("127.0.0.1:8188", True),
        ("localhost:1", True),
        ("[::1]:8188", True),
        ("10.0.0.7", True),
        ("studio.example.org", True),
        ("STUDIO.example.org:8188", True),
        ("evil.example", False),
        ("evil.example:8188", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("a@127.0.0.1", False),
        ("127.0.0.1/evil.example", False),
        ("", False),
        ("2130706433", False),
        ("localhost:8188:1", False),
    ],
)
def test_names_of_this_server(header, good):
    assert is_allowed(header, {"studio.example.org"}) is good


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", ""])
def test_another_host(served, host):
    assert status(served.raw(head(served, "GET /v1/videos", host=host))) == 421


def test_two_hosts(served):
    more = f"Host: evil.example\r\n{BEARER}"
    assert status(served.raw(head(served, "GET /v1/videos", more))) in (400, 421)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},  # another server on this machine
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_another_origin(served, method, headers):
    answer = served.client.request(method, "/v1/videos", headers=headers)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_own_origin(served):
    assert served.client.get("/v1/videos", headers={"Origin": served.base}).status_code == 200


def test_no_token_no_answer(served):
    with served.new_client() as nobody:
        for method, address in [
            ("GET", "/"),
            ("GET", "/v1/templates"),
            ("GET", "/v1/videos"),
            ("POST", "/v1/videos"),
            ("GET", "/openapi.json"),
            ("GET", "/nothing"),
            ("GET", "/?token=wrong"),
            ("GET", "/v1/videos?token=" + TOKEN),
        ]:
            assert nobody.request(method, address).status_code == 401, address
        for given in ("Bearer wrong", "Basic " + TOKEN, TOKEN, "Bearer", "Bearer é"):
            answer = nobody.get("/v1/videos", headers={"Authorization": given.encode()})
            assert answer.status_code == 401 and TOKEN not in answer.text


def test_the_token_in_the_address_becomes_a_cookie(served):
    with served.new_client() as browser:
        answer = browser.get(f"/?token={TOKEN}")
        assert answer.status_code == 303 and answer.headers["location"] == "./"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        assert browser.get("/v1/videos").status_code == 200
        refused = browser.post("/v1/videos", json=BODY)  # a page says where it comes from
        assert refused.status_code == 403
        own = {"Origin": served.base, "Sec-Fetch-Site": "same-origin"}
        assert browser.post("/v1/plan", json=BODY, headers=own).status_code == 200


def test_every_answer_has_its_headers(served):
    for address in ("/v1/videos", "/nothing", "/v1/videos/x", "/v1/model"):
        headers = served.client.get(address).headers
        assert headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self'"
        )
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers


PATHS = [
    "/static/../api.py",
    "/static/..%2fapi.py",
    "/static/%2e%2e/api.py",
    "/static//etc/passwd",
    "/static/app/../../settings.py",
    "/static/index.html%00.js",
    "/v1/videos/../secret.mp4",
    "/v1/videos/..%2f..%2fsecret.mp4/content",
    "/v1/videos/%2e%2e/content",
    "/v1/videos/v0000000000000000/content?take=../../secret",
    "/v1/videos/v0000000000000000%00/content",
    "//etc/passwd",
    "/..",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out(served, path):
    raw = served.raw(head(served, f"GET {path}"))
    assert status(raw) in (404, 422) and b"secret" not in raw.split(b"\r\n\r\n")[-1]
    assert b"root:" not in raw


def test_templates_lead_nowhere(served, tmp_path):
    secret = tmp_path / "outside.yaml"
    secret.write_text("global: secret\nevents: [{prompt: x, seconds: 2}]\n")
    folder = served.studio.folder / "templates"
    folder.mkdir(exist_ok=True)
    (folder / "link.yaml").symlink_to(secret)
    assert "link" not in served.client.get("/v1/templates").text
    for name in ("link", "../templates/link", "../../outside", str(secret.with_suffix(""))):
        assert served.client.post("/v1/plan", json={"template": name}).status_code == 404
    video = served.until(served.make()["id"], "completed")
    for name in ("../x", "a/b", "", ".hidden", "x" * 100, "a\x00b", "a\nb", "..", "a\\b"):
        answer = served.client.post("/v1/templates", json={"name": name, "video": video["id"]})
        assert answer.status_code == 422 and answer.json()["error"]["field"] == "name", name


def test_symbolic_links_are_not_followed(served, tmp_path):
    video = served.until(served.make()["id"], "completed")
    folder = served.studio.folder / "videos" / video["id"]
    secret = tmp_path / "secret.mp4"
    secret.write_text("secret")
    address = video["takes"][0]["content"]
    os.rename(folder / "take1.mp4", folder / "kept.mp4")
    (folder / "take1.mp4").symlink_to(secret)
    assert served.client.get(address).status_code == 404
    (folder / "take1.mp4").unlink()
    os.rename(folder / "kept.mp4", folder / "take1.mp4")
    assert served.client.get(address).status_code == 200
    os.rename(folder, tmp_path / "moved")  # the same, a folder further up
    folder.symlink_to(tmp_path / "moved")
    assert served.client.get(address).status_code == 404


def test_markup_is_data(served):
    """In prompt, title, name and comment: it comes back as JSON, as it was, and as no HTML."""
    story = {"global": MARKUP, "events": [{"prompt": MARKUP, "seconds": 2}]}
    video = served.make(scenario=story, title=MARKUP)
    assert video["scenario"]["events"][0]["prompt"] == MARKUP and video["title"] == MARKUP
    video = served.until(video["id"], "completed", "failed")
    assert video["status"] == "completed", video["error"]
    say = {"take": 1, "verdict": "rejected", "by": MARKUP, "comment": MARKUP}
    answer = served.client.post(f"/v1/videos/{video['id']}/decision", json=say)
    assert answer.status_code == 200
    assert "<script>" in answer.json()["takes"][0]["comment"]
    assert answer.headers["content-type"] == "application/json"
    answer = served.client.post("/v1/plan", json={"template": MARKUP})
    assert answer.headers["content-type"] == "application/json" and answer.status_code == 404
    answer = served.client.get("/v1/videos", params={"status": MARKUP})
    assert answer.headers["content-type"] == "application/json" and answer.status_code == 422


def test_text_that_cannot_be_written(served):
    raw = b'{"scenario": {"global": "\\ud800", "events": [{"prompt": "\\udfff", "seconds": 1}]}}'
    answer = served.client.post(
        "/v1/plan", content=raw, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422


def test_a_body_of_a_hundred_megabytes(served):
    length = f"Content-Type: application/json\r\nContent-Length: 100000000\r\n{BEARER}"
    said = served.raw(head(served, "POST /v1/videos", length))  # refused before any of it comes
    assert status(said) == 413 and b"onnection: close" in said

    def parts():
        for _ in range(1600):
            yield b"x" * 65536

    try:
        answer = served.client.post("/v1/videos", content=parts())  # without saying how long
        assert answer.status_code == 413
    except OSError as error:  # the connection was closed while it was still being sent
        assert isinstance(error, ConnectionError)
    except Exception as error:
        assert type(error).__name__ in ("WriteError", "ReadError", "RemoteProtocolError")
    assert served.client.get("/v1/videos").status_code == 200


def test_a_head_that_is_too_long(served):
    more = f"X-Long: {'x' * 100_000}\r\n{BEARER}"
    said = served.raw(head(served, "GET /v1/videos", more))
    assert not said or status(said) in (400, 431)


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        ("GET /v1/videos", b""),  # a head without end
        ("POST /v1/videos", b"\r\n0\r\n"),  # what may stand after a body in parts, without end
    ],
)
def test_what_never_ends_is_not_held(served, begin, more):
    first = head(served, begin, f"Transfer-Encoding: chunked\r\n{BEARER}").removesuffix(b"\r\n")
    sent = 0
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(first + more)
        try:
            while sent < 64 * 2**20:
                client.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
                sent += 1010
        except OSError:  # the server has closed
            pass
    assert sent < 16 * 2**20
    assert served.client.get("/v1/videos").status_code == 200


def test_an_answer_at_hand_is_given_to_nobody_else(served):
    """The video that a client polls is answered before all routing, but not before the guard."""
    address = f"/v1/videos/{served.until(served.make()['id'], 'completed')['id']}"
    first, again = (served.client.get(address) for _ in range(2))
    same = [{**dict(answer.headers), "date": ""} for answer in (first, again)]
    assert first.content == again.content and same[0] == same[1]
    assert status(served.raw(head(served, f"GET {address}", ""))) == 401
    assert status(served.raw(head(served, f"GET {address}", host="example.org"))) == 421
    assert served.client.request("HEAD", address).status_code == 200
    say = {"take": 1, "verdict": "approved", "by": "A", "comment": ""}
    assert served.client.post(f"{address}/decision", json=say).status_code == 200
    assert served.client.get(address).json()["takes"][0]["verdict"] == "approved"


def test_slow_clients_are_left(served, monkeypatch):
    monkeypatch.setattr(security, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(security, "BODY_SECONDS", 0.5)
    begin = time.monotonic()
    assert served.raw(b"GET /v1/videos HT", wait=30) == b""  # never says the rest
    assert served.raw(b"", wait=30) == b""  # says nothing
    length = f"Content-Type: application/json\r\nContent-Length: 100\r\n{BEARER}"
    said = served.raw(head(served, "POST /v1/videos", length) + b"{", wait=30)
    assert status(said) == 408
    assert time.monotonic() - begin < 25


def test_a_client_that_takes_no_answer_is_left(served, monkeypatch):
    monkeypatch.setattr(security, "STALL_SECONDS", 0.5)
    video = served.until(served.make()["id"], "completed")
    path = served.studio.folder / "videos" / video["id"] / "take1.mp4"
    with path.open("ab") as file:
        file.truncate(64 * 2**20)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", served.port))
        slow.sendall(head(served, f"GET {video['takes'][0]['content']}"))
        time.sleep(3)
        slow.settimeout(10)
        got = 0
        try:
            while part := slow.recv(2**20):
                got += len(part)
        except ConnectionResetError:
            pass
    assert got < 32 * 2**20
    assert served.client.get("/v1/videos").status_code == 200


def test_the_queue_and_the_disk_are_bounded(served, monkeypatch):
    studio = served.studio
    answer = served.client.post("/v1/videos", json={**BODY, "takes": 6})
    assert answer.status_code == 429 and answer.headers["retry-after"]
    monkeypatch.setattr(type(studio), "disk_bytes", lambda self: 10**15)
    answer = served.client.post("/v1/videos", json=BODY)
    assert answer.status_code == 503 and "Delete videos" in answer.json()["error"]["remedy"]


def test_one_studio_a_folder(served):
    with pytest.raises(InputError, match="another studio is at this folder"):
        Studio(StudioSettings(folder=served.studio.folder))


def test_only_loopback_goes_without_a_token(tmp_path):
    with pytest.raises(InputError, match="requires a token"):
        StudioSettings(folder=tmp_path, host="0.0.0.0")
    with pytest.raises(InputError, match="16 or more"):
        StudioSettings(folder=tmp_path, host="0.0.0.0", token="short")
    assert len(StudioSettings(folder=tmp_path).token) >= 32
    assert "0.0.0.0" in repr(StudioSettings(folder=tmp_path, host="0.0.0.0", token="x" * 16))
    assert "xxxx" not in repr(StudioSettings(folder=tmp_path, host="0.0.0.0", token="x" * 16))
