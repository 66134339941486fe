"""Requests made of the OpenAPI document: none of them is the server's fault."""

from contextlib import suppress

import hypothesis
import pytest
from hypothesis import HealthCheck
from studio_thread import TOKEN, serving

schemathesis = pytest.importorskip("schemathesis")

STREAMS = ("/v1/events", "/v1/videos/{id}/events")


@pytest.fixture(scope="module")
def operations(tmp_path_factory):
    """(operations of the document, the server)."""
    folder = tmp_path_factory.mktemp("schema") / "studio"
    with serving(folder, queue=3, seconds=4.0, clips=2000) as served:
        made = served.make()
        served.until(made["id"], "completed")
        document = served.client.get("/openapi.json").json()
        for path in STREAMS:  # they do not end
            del document["paths"][path]
        for path, methods in document["paths"].items():
            for parameter in [p for m in methods.values() for p in m.get("parameters", [])]:
                if path.startswith("/v1/videos/{id}") and parameter["name"] == "id":
                    parameter["schema"] = {"enum": [made["id"], "v0123456789abcdef", "../x", "é"]}
        schema = schemathesis.openapi.from_dict(document)
        schema.config.base_url = served.base
        yield [found.ok() for found in schema.get_all_operations()], served


def ask(operations, served, examples):
    """Asks `examples` times for each operation; how many requests were made, and their answers."""
    statuses: dict[int, int] = {}
    headers = {"Authorization": f"Bearer {TOKEN}"}

    def check(case):
        answer = case.call(base_url=served.base, headers=headers)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        busy = answer.status_code == 503 and "Retry-After" in str(answer.headers)
        assert answer.status_code < 500 or busy, (case.as_curl_command(), answer.text)
        if answer.status_code >= 400:
            found = answer.json()["error"]
            assert found["message"] and "Traceback" not in answer.text

    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    for operation in operations:
        for mode in modes:
            cases = operation.as_strategy(generation_mode=mode)
            run = hypothesis.given(case=cases)(check)
            limited = hypothesis.settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )(run)
            with suppress(hypothesis.errors.Unsatisfiable):  # where nothing can be wrong
                limited()
    return statuses


def test_some_requests(operations):
    statuses = ask(*operations, examples=2)
    assert sum(statuses.values()) >= 24 and min(statuses) == 200


@pytest.mark.slow
def test_two_thousand_requests(operations):
    statuses = ask(*operations, examples=110)
    print(statuses)
    assert sum(statuses.values()) >= 2000
