"""Videos of the studio that carry marks, and approvals that are signed."""

import json

import c2pa
import pytest
from studio_thread import BODY, serving

from syncos_jax.media import credentials, marking
from syncos_jax.media.certificates import make_test_identity
from syncos_jax.media.register import Register


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("marked")
    identity = make_test_identity(folder / "identity", "Example Studio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNCOS_CERTIFICATE", str(identity / "certificate.pem"))
        patch.setenv("SYNCOS_SIGNING_KEY", str(identity / "key.pem"))
        with serving(folder / "studio") as running:
            running.trusted = (identity / "authority.pem").read_text()
            yield running


@pytest.fixture(scope="module")
def made(served):
    body = {"settings": {**BODY["settings"], "label": "AI", "watermark": True}}
    return served.until(served.make(**body)["id"], "completed", "failed")


def decide(served, made, verdict, **more):
    body = {"take": 1, "verdict": verdict, "by": "Ada", **more}
    answer = served.client.post(f"/v1/videos/{made['id']}/decision", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["takes"][0]


def test_the_studio_says_how_it_marks(served):
    facts = served.client.get("/v1/model").json()["marking"]
    assert facts == {"signer": "Example Studio", "watermark": False}


def test_a_take_has_the_marks_that_were_asked_for(served, made):
    assert made["status"] == "completed", made["error"]
    assert (made["label"], made["watermark"]) == ("AI", True)
    path = served.studio.folder / "videos" / made["id"] / "take1.mp4"
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["video"]["label"] == "AI" and record["marks"]["watermark"]
    found = marking.verify(path, trusted=served.trusted)  # in the studio's own register
    assert found.credentials.state == "trusted" and found.register == "listed"
    assert found.problems == () or found.watermark == "unreadable"
    (entry,) = Register(served.studio.folder / "videos").entries()
    assert entry["file"] == f"{made['id']}/take1.mp4"


def test_an_approval_is_signed_into_a_copy(served, made):
    take = decide(served, made, "approved", comment="good")
    raw = served.client.get(take["published"])
    assert raw.status_code == 200 and "take-1.mp4" in raw.headers["content-disposition"]
    folder = served.studio.folder / "videos" / made["id"]
    copy = folder / "published" / "take1.mp4"
    assert raw.content == copy.read_bytes() != (folder / "take1.mp4").read_bytes()
    found = credentials.read(copy, served.trusted)
    assert found.state == "trusted" and found.manifests == 2  # its own, and the take's
    (approval,) = found.approvals
    assert (approval["by"], approval["comment"]) == ("Ada", "good")
    with c2pa.Reader(str(copy)) as reader:
        assert reader.get_validation_state() == "Valid"
    assert marking.verify(copy, trusted=served.trusted, search=False).register == "listed"
    assert take["verdict"] == "approved"  # about the bytes of the take, which are what they were

    assert decide(served, made, "rejected")["published"] is None
    assert not copy.exists()
    assert served.client.get(take["published"]).status_code == 404
    assert decide(served, made, "approved")["published"]


def test_a_key_that_does_not_sign_any_more(served, made, monkeypatch):
    decide(served, made, "undecided")

    def refuse(*_, **__):
        raise credentials.InputError("the certificate expired")

    monkeypatch.setattr(credentials, "sign", refuse)
    body = {"take": 1, "verdict": "approved", "by": "Ada"}
    answer = served.client.post(f"/v1/videos/{made['id']}/decision", json=body)
    assert answer.status_code == 503 and "cannot be signed" in answer.json()["error"]["message"]
    take = served.video(made["id"])["takes"][0]
    assert take["verdict"] == "approved" and take["published"] is None


@pytest.mark.parametrize(
    ("settings", "field", "words"),
    [
        ({"label": "W" * 100, "size": [24, 16]}, "settings.label", "too long"),
        ({"label": "生成"}, "settings.label", "cannot be drawn"),
        ({"label": "a\nb"}, "settings.label", "one line"),
        ({"watermark": "yes"}, "settings.watermark", "boolean"),
    ],
)
def test_marks_that_do_not_fit(served, settings, field, words):
    answer = served.client.post("/v1/plan", json={**BODY, "settings": settings})
    error = answer.json()["error"]
    assert answer.status_code == 422 and error["field"] == field and words in error["message"]
