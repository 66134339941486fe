"""Videos and markers in an object store: a server of S3's interface, in a thread of the test."""

import json
import subprocess
import sys
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


# -- several processes, and uploads that fail ------------------------------------------------------


def test_an_upload_that_fails_publishes_nothing(store, monkeypatch, tmp_path):
    """s3fs commits what was written when `open(..., "wb")` is left by an exception: half a file
    replaced a good one."""
    outputs = Outputs(store, tmp_path / "work")
    old, path = b"old" * 1000, tmp_path / "work" / "c.mp4"
    outputs.write("c.mp4", old)
    path.write_bytes(b"new" * 9_000_000)  # several parts
    import s3fs

    async def fails(self, *args, **kwargs):
        if args[0] in ("upload_part", "put_object"):
            fails.calls += 1
            if fails.calls > 1 or args[0] == "put_object":
                raise OSError(5, "Input/output error")
        return await call(self, *args, **kwargs)

    fails.calls = 0
    call = s3fs.S3FileSystem._call_s3
    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", fails)
    with pytest.raises(OSError):
        outputs.publish(path)
    monkeypatch.undo()
    assert fails.calls and outputs.read("c.mp4") == old and path.exists()
    outputs.publish(path)
    assert outputs.read("c.mp4") == b"new" * 9_000_000 and not path.exists()


def test_an_upload_of_a_file_that_cannot_be_read_publishes_nothing(store, tmp_path):
    outputs = Outputs(store, tmp_path / "work")
    outputs.write("d.mp4", b"old")
    with pytest.raises(OSError):
        outputs.publish(tmp_path / "work" / "d.mp4")  # is not there
    assert outputs.read("d.mp4") == b"old"


OTHER_PROCESS = """
import sys
from syncos_jax.runs.outputs import Outputs
outputs = Outputs(sys.argv[1], sys.argv[2])
print(sorted(outputs.names("manifest/items")), outputs.has("e.mp4"), flush=True)
sys.stdin.readline()
print(sorted(outputs.names("manifest/items")), outputs.has("e.mp4"), flush=True)
sys.stdin.readline()
outputs.write("manifest/items/f.json", b"{}")
print("written", flush=True)
"""


def test_two_processes_see_what_the_other_has_done(store, tmp_path):
    """A listing was cached for the life of a process, so hosts made each other's videos again."""
    place = "s3://bucket/shared"
    own = Outputs(place, tmp_path / "own")
    assert own.names("manifest/items") == set() and not own.has("e.mp4")
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, place, str(tmp_path / "other")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "[] False\n"
        own.write("e.mp4", b"video")
        own.write("manifest/items/e.json", b"{}")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "['e.json'] True\n"
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "written\n"
        assert own.names("manifest/items") == {"e.json", "f.json"}
    finally:
        process.kill()
        process.wait()


def test_what_another_host_has_made_is_not_made_again(store, monkeypatch, tmp_path):
    """Looked up again before each video: the other host made "b" while this one made "a"."""
    place = "s3://bucket/two-hosts"
    lines = [{"name": name, **STORY, "seed": n} for n, name in enumerate("ab")]
    Path("list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    given = ["batch", "list.jsonl", "--no-cache", "--no-contact-sheet", "--out", place]
    made = []
    from syncos_jax.runs import batch

    write = batch.decode_and_write

    def note(pipeline, job, *args, **kwargs):
        made.append(job.out.parent.name + "/" + job.out.stem)
        if made == ["one/a"]:
            assert syncos(*given, "--work", "two").exit_code == 0
        return write(pipeline, job, *args, **kwargs)

    monkeypatch.setattr(batch, "decode_and_write", note)
    monkeypatch.setattr(batch.Batch, "_starts_beside", lambda self, after: False)
    plain = batch.Batch.__init__

    def one_by_one(self, *args, **kwargs):
        plain(self, *args, **kwargs)
        self.overlap = False

    monkeypatch.setattr(batch.Batch, "__init__", one_by_one)
    result = syncos(*given, "--work", "one")
    assert result.exit_code == 0 and "2 done" in result.stderr
    assert made == ["one/a", "two/a", "two/b"]  # "b" once
