"""The model of a job, as the service describes it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_training.api.insights import Signature
from airflow_training.service.http import insights
from airflow_training.service.http.auth import ServiceParts
from airflow_training.service.insights import readers
from airflow_training.service.insights.job_model import Format
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
        "path": "model/1",
        "format": "SavedModel",
        "files": [
            {"name": "saved_model.pb", "size": len(content)},
            {"name": "variables/variables.index", "size": 8},
        ],
        "signatures": [SIGNATURE],
        "reason": "",
        "choice": "",
    }
    assert tenant.model(job_id) == expected
    assert tenant.model(job_id) == expected, "the cached result too"


def test_the_folder_of_the_job_may_be_the_model(tenant: Tenant) -> None:
    model = tenant.model(train(tenant, saved_model(graph()), "."))
    assert (model["path"], model["signatures"]) == (".", [SIGNATURE])
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


# A graph g(x: float[N, 4], w) -> p, a sequence, whose weight is w.
ONNX = bytes.fromhex("3a2c1201672a034201775a140a0178120f0a0d080112090a0312014e0a0208045a030a017762070a017012022200")
ONNX_SIGNATURE = {
    "name": "g",
    "inputs": [{"name": "x", "type": "float32", "shape": [None, 4]}],
    "outputs": [{"name": "p", "type": "not a tensor", "shape": None}],
}
MLMODEL = b"""
flavors: {python_function: {loader_module: mlflow.sklearn, python_version: 3.12}}
model_uuid: 0f3c
signature:
  inputs: '[{"type": "double", "name": "age", "required": true}, {"type": "array", "name": "tags"}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1, 2]}}]'
  params: null
"""
MLFLOW_SIGNATURE = {
    "name": "predict",
    "inputs": [
        {"name": "age", "type": "double", "shape": [None]},
        {"name": "tags", "type": "array", "shape": [None]},
    ],
    "outputs": [{"name": "", "type": "int64", "shape": [None, 2]}],
}


def write(name: str, content: bytes) -> str:
    """The command that writes a file."""
    folder = Path(name).parent
    return f"mkdir -p {folder}; echo {base64.b64encode(content).decode()} | base64 -d > {name}"


@pytest.mark.parametrize(
    ("files", "model", "expected"),
    [
        (
            {"model.joblib": b"pickle", "other": b""},
            "*.joblib",
            {"path": "model.joblib", "format": "", "files": ["model.joblib"], "signatures": None},
        ),
        (
            {"out/model.onnx": ONNX, "out/other": b""},
            "out/model.onnx",
            {"path": "out/model.onnx", "format": "ONNX", "files": ["model.onnx"], "signatures": [ONNX_SIGNATURE]},
        ),
        (
            {"out/model.onnx": ONNX, "out/other": b""},
            "out",
            {"path": "out", "format": "ONNX", "files": ["model.onnx", "other"], "signatures": [ONNX_SIGNATURE]},
        ),
        (
            {"model/MLmodel": MLMODEL, "model/model.pkl": b"pickle"},
            "model",
            {
                "path": "model",
                "format": "MLflow",
                "files": ["MLmodel", "model.pkl"],
                "signatures": [MLFLOW_SIGNATURE],
            },
        ),
        (
            {"a": b"", "b/c": b""},
            "",
            {"path": ".", "format": "", "files": ["a", "b/c"], "signatures": None},
        ),
    ],
    ids=["joblib", "onnx", "folder of onnx", "mlflow", "nothing"],
)
def test_any_model_has_files_and_signatures_if_its_format_has_some(
    tenant: Tenant, files: dict[str, bytes], model: str, expected: dict[str, Any]
) -> None:
    job_id = tenant.submit("\n".join(write(name, content) for name, content in files.items()), model=model)
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"

    found = tenant.model(job_id)

    assert {**found, "files": [file["name"] for file in found["files"]]} == {**expected, "reason": "", "choice": ""}


def test_the_choice_among_several_models_is_described(tenant: Tenant) -> None:
    job_id = tenant.submit("touch a.pt b.pt", model="*.pt")
    tenant.wait(job_id)

    model = tenant.model(job_id)

    assert model["path"] == "a.pt"
    assert model["choice"] == "Found several models of the name *.pt, using a.pt; ignored: b.pt"


def test_the_name_of_a_missing_model_and_what_is_there_are_reported(tenant: Tenant) -> None:
    job_id = tenant.submit("touch model.pkl", model="model.joblib")
    tenant.wait(job_id)

    reply = tenant.http.get(f"jobs/{job_id}/model")

    assert reply.status_code == 404
    assert "has left no model.joblib, only model.pkl." in reply.json()["error"]["message"]


def test_a_job_without_a_model_has_none(tenant: Tenant) -> None:
    job_id = tenant.submit("ln -s /etc model; ln -s /etc/passwd saved_model.pb")
    tenant.wait(job_id)
    reply = tenant.http.get(f"jobs/{job_id}/model")
    assert reply.status_code == 404
    message = reply.json()["error"]["message"]
    assert "has left no SavedModel (a folder with saved_model.pb) and no other file." in message
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
    assert read_signatures("SavedModel", saved_model(made))[0]["outputs"] == [
        {"name": "label", "type": "type 4711", "shape": []}
    ]
    with pytest.raises(UnreadableModel, match="no graph with the tag serve"):
        read_signatures("SavedModel", saved_model(graph(("train",))))
    with pytest.raises(UnreadableModel, match="more than 100 signatures"):
        read_signatures("SavedModel", saved_model(graph(signatures=tuple(map(str, range(101))))))


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


@pytest.mark.parametrize(
    ("format_", "content", "reason"),
    [
        ("ONNX", b"garbage", "The file is damaged, or not an ONNX model."),
        ("ONNX", b"", "The ONNX model has no outputs."),
        ("MLflow", b"flavors: {}", "MLmodel has no signature"),
        ("MLflow", b"signature: {inputs: '[{]'}", "MLmodel is damaged"),
        ("MLflow", b"signature: {inputs: '{\"a\": 1}'}", "MLmodel is damaged"),
        ("MLflow", b"- [", "MLmodel is damaged"),
        (
            "MLflow",
            b"""signature: {inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "a", "shape": [Infinity]}}]'}""",
            "MLmodel is damaged",
        ),
    ],
)
def test_a_signature_that_cannot_be_read_has_a_reason(format_: Format, content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableModel, match=reason):
        read_signatures(format_, content)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=50), st.integers(0, 500), st.sampled_from([("ONNX", ONNX), ("MLflow", MLMODEL)]))
def test_garbage_in_other_formats_is_read_or_refused(change: bytes, place: int, of: tuple[Format, bytes]) -> None:
    format_, whole = of
    for damaged in (change, whole[:place], whole[:place] + change + whole[place + len(change) :]):
        with suppress(UnreadableModel):
            for signature in read_signatures(format_, damaged):
                Signature.model_validate(signature)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300), st.binary(max_size=4))
def test_garbage_is_read_or_refused(content: bytes, place: int, change: bytes) -> None:
    whole = saved_model(graph())
    for damaged in (content, whole[:place], whole[:place] + change + whole[place + len(change) :]):
        with suppress(UnreadableModel):
            assert isinstance(read_signatures("SavedModel", damaged), list)
