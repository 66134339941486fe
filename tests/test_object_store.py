"""Videos and markers in an object store: a server of S3's interface, in a thread of the test."""

import json
from pathlib import Path

import pytest
from fakes import FakeModel
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

import syncos_jax.pipeline.load
from syncos_jax.cli import app
from syncos_jax.errors import InputError
from syncos_jax.runs.markers import Markers, read_status
from syncos_jax.runs.outputs import Outputs, remote_filesystem

STORY = {
    "global": "a cat",
    "events": [{"prompt": "sleeps", "frames": 6}],
    "sampler": {"name": "co_denoising", "steps": 2},
}


@pytest.fixture(scope="module")
def store():
    """The address of an empty bucket."""
    import s3fs

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket/videos"
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(autouse=True)
def fake_models(monkeypatch, tmp_path):
    monkeypatch.setattr(syncos_jax.pipeline.load, "load_model", lambda *_, **__: FakeModel())
    monkeypatch.setenv("SYNCOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def syncos(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_batch_into_an_object_store(store):
    lines = [{"name": "a", **STORY}, {"name": "b", **STORY, "seed": 3}, "{"]
    Path("stories.jsonl").write_text("\n".join(s if s == "{" else json.dumps(s) for s in lines))
    batch = ["batch", "stories.jsonl", "--no-cache", "--out", store, "--work", "work"]
    first = syncos(*batch, "--shard", "0/1")
    assert first.exit_code == 1 and "2 done, 1 failed, 0 pending" in first.stderr
    outputs = Outputs(store, make=False)
    files = {f"{name}.{suffix}" for name in "ab" for suffix in ("mp4", "png", "json")}
    assert outputs.names() - {"manifest", "videos"} == files
    assert list(Path("work").iterdir()) == []  # nothing is left here
    assert json.loads(outputs.read("a.json"))["seed"] == 0
    status = syncos("batch", "status", store, "--json")
    found = json.loads(status.stdout)
    assert status.exit_code == 1 and found["items"] == {"a": "done", "b": "done", "0003": "failed"}
    assert found["sessions"][0]["videos"] == 2
    assert "0 of 3 videos to make" in syncos(*batch).stderr
    outputs._fs.rm("bucket/videos/b.mp4")  # a video that is gone is made again
    assert "1 of 3 videos to make" in syncos(*batch).stderr
    assert [Markers(outputs).read(name)["made"] for name in "ab"] == [1, 2]
    other = syncos(*batch, "--steps", 3)
    assert other.exit_code == 2
    assert "s3://bucket/videos/a.mp4: was made with other settings: sampler.steps" in other.stderr


def test_nothing_was_begun_there(store):
    with pytest.raises(InputError, match="s3://bucket/none: no batch here"):
        read_status(Outputs("s3://bucket/none", make=False))


def test_a_store_that_refuses(store):
    result = syncos("batch", "status", "s3://no-such-bucket/videos")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.stderr


def test_places_that_are_not_known():
    with pytest.raises(
        InputError, match="unknown kind of object store, expected a folder, or one of s3://"
    ):
        remote_filesystem("ftp://host/videos")
    with pytest.raises(InputError, match="needs the package adlfs; pip install adlfs"):
        remote_filesystem("az://host/videos")
