"""The body of a submit: valid job descriptions, and the replies to others."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.service.support import RunningService, Tenant

YAML = b"""
job:
  name: train-census
  env: [{name: TRAIN_DATA, value: adult.data}, {name: EPOCHS, value: 50}]
  execution:
    image: tensorflow/tensorflow:1.6.0-gpu-py3
    command: echo "$TRAIN_DATA $EPOCHS"
    completionTime: 10000
    resources: {cpus: 1, gpus: 0, memory: 32000}
    retries: 0
"""
YAML_2019 = YAML.replace(b"resources: {cpus: 1, gpus: 0, memory: 32000}", b"resourcePlanId: basic")
EXECUTION = {"command": "echo \U0001f600\t'x'", "completionTime": "20h"}
JSON = json.dumps({"job": {"name": "a", "execution": EXECUTION}}).encode()
JSON_WITH_TABS = json.dumps({"job": {"name": "a", "execution": EXECUTION}}, indent="\t").encode()


@pytest.mark.parametrize("content_type", [None, "application/x-yaml", "application/json", "text/plain; charset=x"])
@pytest.mark.parametrize("body", [YAML, YAML_2019, JSON, JSON_WITH_TABS], ids=["2018", "2019", "json", "tabs"])
def test_old_clients_submit_as_they_always_did(tenant: Tenant, body: bytes, content_type: str | None) -> None:
    job_id = str(uuid4())
    headers = {"Content-Type": content_type} if content_type else {}
    reply = tenant.http.post(f"jobs/{job_id}", content=body, headers=headers)
    assert reply.status_code == 202, reply.text
    assert reply.json()["job_id"] == job_id
    assert reply.json()["status"] in ("PENDING", "RUNNING")
    assert tenant.http.delete(f"jobs/{job_id}").status_code == 202


def test_text_arrives_in_the_job_as_it_was_written(tenant: Tenant) -> None:
    job_id = str(uuid4())
    tenant.http.post(f"jobs/{job_id}", content=JSON).raise_for_status()
    tenant.wait(job_id)
    assert tenant.log(job_id) == "\U0001f600 x\n"


def test_a_value_without_quotes_arrives_in_the_job_as_it_was_written(tenant: Tenant) -> None:
    job_id = str(uuid4())
    written = ["2019-01-31", "3.10", "no", "01067", "010", "22:30:00", "1e3", "True", "5", "0.50"]
    variables = ", ".join(f"{{name: V{number}, value: {value}}}" for number, value in enumerate(written))
    command = "echo " + " ".join(f"$V{number}" for number in range(len(written)))
    body = f"job: {{name: a, env: [{variables}], execution: {{command: {command}, completionTime: 60}}}}"
    tenant.http.post(f"jobs/{job_id}", content=body.encode()).raise_for_status()
    tenant.wait(job_id)
    assert tenant.log(job_id).split() == written


def job(**changes: object) -> bytes:
    return json.dumps({"job": {"name": "a", "execution": EXECUTION} | changes}).encode()


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        (b"", 422, "the document"),
        (b"[]", 422, "the document"),
        (b"just text", 422, "the document"),
        (b"{job: {name: a}}", 422, "execution: field required"),
        (b"\x00\x01", 400, "neither YAML nor JSON"),
        (b"\xff\xfe\xff", 400, "neither YAML nor JSON"),
        (b"job: [", 400, "in line 2"),
        (b"a: " + b"9" * 5000, 400, "neither YAML nor JSON"),
        (b"a: [" + b"1," * 200_000 + b"1]", 400, "it has more than 50000 parts"),
        (b"completionTime: 1" + b":59" * 150_000, 400, "a number has more than 1000 characters"),
        (b"completionTime: 1" + b":59" * 150_000 + b".5", 400, "a number has more than 1000 characters"),
        (b"[" * 50_000, 400, "neither YAML nor JSON"),
        (b"a: &a [x]\nb: [*a, *a]", 400, "references are not supported"),
        (b"a: !!python/object:os.system x", 400, "tags are not supported"),
        (b"a: !!int ''", 400, "tags are not supported"),
        (job(env=[{"name": "A", "value": "a\0b"}]), 422, "env[0].value: contains a NUL"),
        (job(env=[{"name": "1A", "value": 1}]), 422, "env[0].name"),
        (job(env=[{"name": "A", "value": "\ud800"}]), 422, "unpaired surrogate"),
        (job(execution=EXECUTION | {"command": "a\0b"}), 422, "execution.command"),
        (job(execution=EXECUTION | {"command": "\ud800"}), 422, "execution.command"),
        (job(execution=EXECUTION | {"command": ""}), 422, "execution.command"),
        (job(name="../x"), 422, "name"),
        (job(name="a/b"), 422, "name"),
        (job(name="a\n"), 422, "name"),
        (job(name=".."), 422, "name"),
        (job(name="a\0b"), 422, "name"),
        (job(name="\u0430dmin"), 422, "name"),
        (job(name="x" * 300), 422, "name"),
        (job(env=[{"name": f"A{i}", "value": 1} for i in range(1001)]), 422, "env: tuple should have at most 1000"),
        (job(env=[{"name": "A", "value": "x" * 32_769}]), 422, "env[0].value: has 32769 bytes; the limit is 32768"),
        (job(env=[{"name": "A" * 257, "value": 1}]), 422, "env[0].name"),
        (job(masks=["s3cr3t", ""]), 422, "masks[1]: "),
        (job(masks="s3cr3t"), 422, "masks: "),
        (job(execution=EXECUTION | {"command": "x" * 100_001}), 422, "execution.command"),
        (job(execution=EXECUTION | {"command": "é" * 50_001}), 422, "execution.command: has more than 100000 bytes"),
        (job(execution=EXECUTION | {"completionTime": "x" * 65}), 422, "execution.completionTime"),
        (job(execution=EXECUTION | {"completionTime": None}), 422, "execution.completionTime"),
        (job(execution=EXECUTION | {"retries": 101}), 422, "execution.retries"),
        (job(execution=EXECUTION | {"resources": {"memory": 10**30}}), 422, "execution.resources.memory"),
        (job(execution=EXECUTION | {"resources": {"gpus": 9000}}), 422, "The job requests 9000 GPUs, but this service"),
        (job(execution=EXECUTION | {"resourcePlanId": "huge"}), 422, "The resource plan 'huge' is unknown; known"),
        (job(execution=EXECUTION | {"pythonMajorVersion": 2}), 422, "use the container runner"),
        (
            job(execution=EXECUTION | {"command": "pip2 install six && python2 a.py"}),
            422,
            "The job needs Python 2, but",
        ),
        (job(execution=EXECUTION | {"command": "exec python3.3 train.py"}), 422, "The job needs Python 3.3, but"),
        (job(execution=EXECUTION | {"pythonVersion": "3.3"}), 422, "The job needs Python 3.3, but"),
        (job(execution=EXECUTION | {"pythonVersion": "3.11.7"}), 422, "execution.pythonVersion"),
        (b"x" * (1024 * 1024 + 1), 413, "larger than"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_bad_body_is_refused_in_one_sentence(tenant: Tenant, body: bytes, status: int, part: str) -> None:
    reply = tenant.http.post(f"jobs/{uuid4()}", content=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, str(status))
    assert part in error["message"]
    assert "\n" not in error["message"]


def test_all_mistakes_are_told_at_once(tenant: Tenant) -> None:
    wrong = {"name": "", "execution": {"command": 1, "resources": {"cpus": 0}}}
    message = tenant.http.post(f"jobs/{uuid4()}", json={"job": wrong}).json()["error"]["message"]
    for place in ("name: ", "execution.command: ", "execution.completionTime: ", "execution.resources.cpus: "):
        assert place in message


def test_a_resource_plan_stands_for_resources(tmp_path: Path) -> None:
    service = RunningService(tmp_path, options=("--resource-plan", "large=cpus:64,memory:640000", "--cpus", "2"))
    with service.running():
        tenant = Tenant(service)
        job_id = tenant.submit("true", resourcePlanId="large")
        tenant.wait(job_id)
        assert "The job requested 64 CPUs and 640000 MB of memory, but the machine has less" in tenant.whole_log(job_id)
        small = tenant.submit("true", resourcePlanId="basic")
        tenant.wait(small)
        assert "The job requested" not in tenant.whole_log(small)
        tenant.leave()


def test_a_text_is_no_program(tenant: Tenant) -> None:
    job_id = tenant.submit("echo 'python2 is gone; python2.7 too'")
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    "job_id", ["a_b", "a.b", "x" * 65, "x" * 300, "%2e%2e", "a%00", "é", "\u0430", "a%2fb", "..%2fx"]
)
def test_an_id_that_could_be_a_path_is_refused(tenant: Tenant, job_id: str) -> None:
    reply = tenant.http.post(f"jobs/{job_id}", content=JSON)
    assert reply.status_code in (404, 405, 422)
    assert reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/v2/nothing", 404),
        ("PUT", "/api/v2/jobs", 405),
        ("POST", "/healthz", 405),
    ],
)
def test_errors_of_every_kind_have_one_shape(tenant: Tenant, method: str, path: str, status: int) -> None:
    reply = httpx.request(method, f"{tenant.service.url}{path}")
    assert reply.status_code == status
    assert reply.json()["error"]["code"] == str(status)
    assert reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "allowed"), [("/api/v2/jobs/a", "DELETE, GET, POST"), ("/oauth/token", "GET, POST"), ("/healthz", "GET")]
)
def test_a_refused_method_is_told_all_that_are_possible(tenant: Tenant, path: str, allowed: str) -> None:
    assert httpx.put(f"{tenant.service.url}{path}").headers["Allow"] == allowed


def test_the_contract_is_served(tenant: Tenant) -> None:
    document = httpx.get(f"{tenant.service.url}/api/v2/openapi.json").json()
    assert {"/api/v2/jobs/{job_id}", "/api/v2/storage", "/oauth/token"} <= document["paths"].keys()
