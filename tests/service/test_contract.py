"""The OpenAPI document is the contract: valid and invalid requests get the replies that it describes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import jsonschema

from tests.patience import PATIENCE
from tests.service.support import RunningService, Tenant

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
    "unsupported_method",
]


def test_every_endpoint_answers_as_the_document_says(
    own_service: RunningService, own_tenant: Tenant, tmp_path: Path
) -> None:
    # A job that uses the whole machine keeps the random jobs from running.
    own_tenant.submit("exec sleep 4321", resources={"cpus": 100_000})
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{own_service.url}/api/v2/openapi.json"),
        *("--header", f"Authorization: {own_tenant.http.headers['Authorization']}"),
        *("--checks", ",".join(CHECKS), "--max-examples", "60", "--generation-database", "none", "--no-color"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "unresolvable" not in done.stdout
    tested = re.search(r"Tested: (\d+)", done.stdout)
    assert tested
    assert int(tested[1]) == sum(len(methods) for methods in contract(own_service)["paths"].values())


def test_the_document_has_an_example_a_meaning_and_the_errors_of_each_endpoint(service: RunningService) -> None:
    document = contract(service)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["operationId"], (method, path)
            assert operation.get("description") or operation.get("summary"), (method, path)
            if path.startswith("/api/v2/"):
                assert {"401", "403"} <= operation["responses"].keys(), (method, path)
                assert operation["security"][0]["OAuth2"], (method, path)
            for reply in operation["responses"].values():
                schema = reply.get("content", {}).get("application/json", {}).get("schema", {})
                if "$ref" in schema:
                    answer = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
                    jsonschema.validate(answer["examples"][0], {**answer, "components": document["components"]})
    bodies = document["paths"]["/api/v2/jobs/{job_id}"]["post"]["requestBody"]["content"]
    assert {type_ for type_, body in bodies.items() if body["example"]} == {"application/json", "application/yaml"}


def test_the_page_loads_nothing_from_elsewhere(service: RunningService) -> None:
    page = httpx.get(f"{service.url}/docs").raise_for_status().text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) >= 3
    for address in loaded:
        assert address.startswith("/")
        httpx.get(f"{service.url}{address}").raise_for_status()


def contract(service: RunningService) -> Any:
    return httpx.get(f"{service.url}/api/v2/openapi.json").json()
