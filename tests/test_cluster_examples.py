"""examples/cluster: held to the schemas of Kubernetes, to the shell, and to the command line."""

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml

from syncos_jax.cli import app
from syncos_jax.cli.console import BAD_INPUT, FAILED, TERMINATED
from syncos_jax.runs.shards import Shard, shard_of_environment

FOLDER = Path(__file__).parent.parent / "examples" / "cluster"
KUBERNETES = kubernetes_validate.latest_version()


def validate(document):
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def read(name):
    return yaml.safe_load((FOLDER / name).read_text())


def command_line(words):
    """Raises where `syncos` would not take these words."""
    assert words[0] == "syncos"
    command, rest = typer.main.get_command(app), list(words[1:])
    while hasattr(command, "commands"):
        with command.make_context(command.name, rest) as context:
            words = [*context._protected_args, *context.args]
            _, command, rest = command.resolve_command(context, words)
    command.make_context(command.name, rest).close()


def test_the_indexed_job():
    job = read("kubernetes-job.yaml")
    validate(job)
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    # What the schema does not say: a policy for failures needs restartPolicy Never.
    assert spec["completionMode"] == "Indexed" and pod["restartPolicy"] == "Never"
    actions = {}
    for rule in spec["podFailurePolicy"]["rules"]:
        for code in rule.get("onExitCodes", {}).get("values", []):
            assert rule["onExitCodes"]["containerName"] == container["name"]
            actions[code] = rule["action"]
    assert actions == {FAILED: "FailIndex", BAD_INPUT: "FailIndex", TERMINATED: "Ignore"}
    environment = {one["name"]: one["value"] for one in container["env"]}
    found = shard_of_environment(environment | {"JOB_COMPLETION_INDEX": "7"})
    assert found == Shard(7, spec["completions"])
    command_line([*container["command"], *container["args"]])


def test_a_wrong_job_is_found():
    job = read("kubernetes-job.yaml")
    job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["value"] = [2]
    with pytest.raises(jsonschema.ValidationError):
        validate(job)


def pods(job):
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return {group.get("groupName", "head"): group["template"] for group in groups}


def test_the_ray_job():
    job = read("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    for name, template in pods(job).items():
        document = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}}
        validate(document | {"template": template})
        assert template["spec"]["containers"]
    command_line(shlex.split(job["spec"]["entrypoint"]))


@pytest.mark.skipif("KUBERAY_CRD" not in os.environ, reason="KUBERAY_CRD: ray.io_rayjobs.yaml")
def test_the_ray_job_as_its_operator_has_it():
    """Against the definition that KubeRay installs; unknown keys are refused, too."""
    definition = yaml.safe_load(Path(os.environ["KUBERAY_CRD"]).read_text())
    (version,) = (v for v in definition["spec"]["versions"] if v["name"] == "v1")
    schema = strict(version["schema"]["openAPIV3Schema"])
    jsonschema.validate(read("rayjob.yaml"), schema)
    wrong = read("rayjob.yaml")
    wrong["spec"]["shutDownAfterJobFinishes"] = True
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def strict(schema):
    """An OpenAPI schema as a JSON schema that refuses keys it does not name."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {key: strict(value) for key, value in schema.items() if not key.startswith("x-")}
    named = isinstance(schema.get("properties"), dict) and "type" in schema
    free = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if named and not free:
        found["additionalProperties"] = False
    return found


SCRIPTS = ["slurm-array.sbatch", "tpu-pod.sh"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts(name):
    subprocess.run(["bash", "-n", FOLDER / name], check=True)
    text = (FOLDER / name).read_text().replace("\\\n", " ")
    lines = re.findall(r'(syncos (?:batch|generate) [^"\n]*)', text)
    lines = [line for line in lines if not line.startswith("syncos batch status")]
    assert lines
    for line in lines:
        line = re.sub(r"\"\$\{shard\[@\]\}\"|&$", "", line).replace("$worker/$WORKERS", "0/4")
        command_line(shlex.split(line.strip().rstrip("&")))


def test_the_array_goes_on_after_sigterm(tmp_path):
    """With stand-ins for both commands: SIGTERM is passed on, and 75 queues the task again."""
    log = tmp_path / "log"
    (tmp_path / "syncos").write_text(
        f"#!/bin/bash\ntrap 'exit 75' TERM\necho \"$@\" >> {log}\nkill -TERM $PPID\n"
        "for i in $(seq 100); do sleep 0.1; done\n"
    )
    (tmp_path / "scontrol").write_text(f'#!/bin/bash\necho scontrol "$@" >> {log}\n')
    for name in ("syncos", "scontrol"):
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SHARDS": "8"}
    environment |= {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "17"}
    done = subprocess.run(["bash", FOLDER / "slurm-array.sbatch"], env=environment, timeout=60)
    assert done.returncode == 75
    said = log.read_text().splitlines()
    assert said[0].endswith("--shard 3/8") and said[1] == "scontrol requeue 17_3"


def test_the_image():
    """What it copies is there, what it installs are extras that exist, and how it ends."""
    root = FOLDER.parent.parent
    text = (FOLDER / "Dockerfile").read_text()
    steps = re.findall(r"^([A-Z]+) (.*(?:\\\n.*)*)", text, re.MULTILINE)
    known = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in steps} <= known
    for name, rest in steps:
        if name == "COPY":
            *sources, _ = rest.split()
            assert all((root / source).exists() for source in sources), rest
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    (installed,) = re.findall(r"extras=([a-z0-9,]+);", text)
    assert set(installed.split(",")) | {"cuda"} <= set(extras)
    assert 'ENTRYPOINT ["syncos"]' in text
    (line,) = re.findall(r"then (syncos compile [^;]+);", text)
    command_line(line.split())
