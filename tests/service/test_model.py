"""The SavedModel of a job, as the service describes it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_training.service.http import insights
from airflow_training.service.http.auth import ServiceParts
from airflow_training.service.insights import readers
from airflow_training.service.insights.readers import ReaderPrograms
from airflow_training.service.insights.signatures import SignatureRecord, UnreadableModel, read_signatures
from airflow_training.service.scheduling.job import JobKey
from airflow_training.service.storage.job_files import JobFile
from tests.service.event_files import graph, saved_model
from tests.service.support import Tenant

SIGNATURE = {
    "name": "serving_default",
    "inputs": [
        {"name": "age", "type": "float32", "shape": [None, 3]},
        {"name": "city", "type": "string", "shape": None},
    ],
    "outputs": [{"name": "label", "type": "int64", "shape": []}],
}


def train(tenant: Tenant, content: bytes, folder: str = "model/1") -> str:
    job_id = tenant.submit(f"""
        mkdir -p {folder}/variables; echo weights > {folder}/variables/variables.index; echo log > other
        echo {base64.b64encode(content).decode()} | base64 -d > {folder}/saved_model.pb
    """)
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    return job_id


def test_a_model_has_files_and_signatures(tenant: Tenant) -> None:
    content = saved_model(graph(("train",), ("train",)), graph())
    job_id = train(tenant, content)
    expected = {
        "folder": "model/1",
        "files": [
            {"name": "saved_model.pb", "size": len(content)},
            {"name": "variables/variables.index", "size": 8},
        ],
        "signatures": [SIGNATURE],
        "reason": "",
    }
    assert tenant.model(job_id) == expected
    assert tenant.model(job_id) == expected, "the cached result too"


def test_the_folder_of_the_job_may_be_the_model(tenant: Tenant) -> None:
    model = tenant.model(train(tenant, saved_model(graph()), "."))
    assert (model["folder"], model["signatures"]) == (".", [SIGNATURE])
    assert [file["name"] for file in model["files"]] == ["other", "saved_model.pb", "variables/variables.index"]


def test_a_damaged_model_has_files_and_a_reason(tenant: Tenant) -> None:
    model = tenant.model(train(tenant, b"garbage"))
    assert [file["name"] for file in model["files"]] == ["saved_model.pb", "variables/variables.index"]
    assert (model["signatures"], model["reason"]) == (None, "saved_model.pb is damaged, or not a SavedModel.")


def test_a_model_that_is_too_large_is_listed_and_not_read(tenant: Tenant) -> None:
    job_id = tenant.submit("truncate -s 257M saved_model.pb")
    tenant.wait(job_id)
    model = tenant.model(job_id)
    assert model["files"] == [{"name": "saved_model.pb", "size": 257 * 1024 * 1024}]
    assert (model["signatures"], model["reason"]) == (None, "saved_model.pb is larger than 256 MiB and is not read.")


def test_a_job_without_a_model_has_none(tenant: Tenant) -> None:
    job_id = tenant.submit("ln -s /etc model; ln -s /etc/passwd saved_model.pb")
    tenant.wait(job_id)
    reply = tenant.http.get(f"jobs/{job_id}/model")
    assert reply.status_code == 404
    assert "has left no SavedModel" in reply.json()["error"]["message"]
    waiting = tenant.submit("true", resources={"cpus": 100_000})
    assert tenant.http.get(f"jobs/{waiting}/model").status_code == 404


def test_the_model_of_another_tenant_is_not_visible(new_tenant: Callable[[], Tenant]) -> None:
    tenant, other = new_tenant(), new_tenant()
    job_id = train(tenant, saved_model(graph()))
    assert other.http.get(f"jobs/{job_id}/model").status_code == 404
    # A job of the same id and name has a folder of its own.
    assert other.submit("true", job_id=job_id) == job_id
    other.wait(job_id)
    assert other.http.get(f"jobs/{job_id}/model").status_code == 404


def test_an_unknown_type_or_tag_is_reported() -> None:
    made = graph()
    made.signature_def["serving_default"].outputs["label"].dtype = 4711
    assert read_signatures(saved_model(made))[0]["outputs"] == [{"name": "label", "type": "type 4711", "shape": []}]
    with pytest.raises(UnreadableModel, match="no graph with the tag serve"):
        read_signatures(saved_model(graph(("train",))))
    with pytest.raises(UnreadableModel, match="more than 100 signatures"):
        read_signatures(saved_model(graph(signatures=tuple(map(str, range(101))))))


def test_the_fallback_result_is_not_shown_while_the_program_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = JobFile("model/saved_model.pb", 1, "1")
    service = SimpleNamespace(programs=ReaderPrograms())
    noted, may_end = asyncio.Event(), asyncio.Event()

    async def program(*_: object) -> None:
        (tmp_path / "model.json").write_text(
            SignatureRecord(file=marker, signatures=None, reason="too much").model_dump_json()
        )
        noted.set()
        await may_end.wait()

    async def is_read() -> bool:
        return await insights._is_read(cast("ServiceParts", service), JobKey("tenant", "1"), tmp_path, marker)

    async def ask() -> None:
        first = asyncio.create_task(is_read())
        await noted.wait()
        assert not await is_read()
        may_end.set()
        assert await is_read()
        await first

    monkeypatch.setattr(readers, "_program", program)
    monkeypatch.setattr(insights, "_SIGNATURES_TIMEOUT", 0.1)
    asyncio.run(ask())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300), st.binary(max_size=4))
def test_garbage_is_read_or_refused(content: bytes, place: int, change: bytes) -> None:
    whole = saved_model(graph())
    for damaged in (content, whole[:place], whole[:place] + change + whole[place + len(change) :]):
        with suppress(UnreadableModel):
            assert isinstance(read_signatures(damaged), list)
