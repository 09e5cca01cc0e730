"""The files of all tenants in an external S3 store: nothing changes for the tenants, with any runner."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import obstore
import pytest
from obstore.exceptions import BaseError

from airflow_training.local.process import LocalProcessError
from airflow_training.service.runners.run_folder import Outcome
from tests.engines.podman import IMAGE, Podman
from tests.engines.s3 import PREFIX, S3Server, running_s3
from tests.patience import wait_for
from tests.service.event_files import NAME, graph, old_scalar, saved_model
from tests.service.support import RunningService, Tenant, age, bucket, keys, run

TRAIN = "cat data.csv; mkdir -p model/1; echo m > model/1/saved_model.pb; echo changed >> data.csv; ln -s /etc link"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module", params=["process", "container"])
def service(
    s3: S3Server, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    podman: Podman | None = request.getfixturevalue("podman") if request.param == "container" else None
    environment = {**s3.environment, **(podman.environment if podman else {})}
    options = ("--runner", request.param, *s3.options)
    service = RunningService(tmp_path_factory.mktemp(request.param), environment, options)
    with service.running():
        yield service
    if podman:
        podman.remove_containers(service.data)


def submit(tenant: Tenant, command: str, job_id: str | None = None) -> str:
    return tenant.submit(command, job_id, image=IMAGE)


def test_event_files_and_models_are_read_in_the_store(tenant: Tenant) -> None:
    scalar, model = (base64.b64encode(made).decode() for made in (old_scalar("loss", 7, 0.5), saved_model(graph())))
    job_id = submit(
        tenant,
        f"mkdir -p logs model/1; echo {scalar} | base64 -d > logs/{NAME}"
        f"; echo {model} | base64 -d > model/1/saved_model.pb",
    )
    assert tenant.wait(job_id)["status"] == "SUCCEEDED", tenant.whole_log(job_id)
    curves = wait_for(lambda: tenant.curves(job_id), "the curves of the event file")
    assert [point[1:] for point in curves["logs/loss"]["points"]] == [[7, 0.5]]
    found = tenant.model(job_id)
    assert (found["path"], [file["name"] for file in found["files"]]) == ("model/1", ["saved_model.pb"])
    assert [signature["name"] for signature in found["signatures"]] == ["serving_default"]


@pytest.mark.parametrize("status", [0, 3])
def test_the_files_of_a_job_are_copied_in_and_its_model_out_however_it_ends(
    s3: S3Server, tenant: Tenant, status: int
) -> None:
    store, job_id = tenant.storage(), f"ends-{status}"
    obstore.put(store, f"jobs/job-{job_id}/data.csv", b"1,2,3\n")
    submit(tenant, f"{TRAIN}; exit {status}", job_id)

    ended = tenant.wait(job_id)

    assert ended["status"] == ("FAILED" if status else "SUCCEEDED"), tenant.whole_log(job_id)
    assert tenant.log(job_id) == "1,2,3\n"
    folder = f"jobs/job-{job_id}"
    assert keys(store, folder) == [f"{folder}/data.csv", f"{folder}/model/1/saved_model.pb"]
    assert bytes(obstore.get(store, f"{folder}/data.csv").bytes()) == b"1,2,3\nchanged\n"
    assert (s3.bucket / PREFIX / "tenants" / tenant.name / "data" / folder / "model/1/saved_model.pb").exists()


def test_a_job_runs_again_with_copies_that_the_store_makes(tenant: Tenant) -> None:
    store, job_id, new_id = tenant.storage(), "runs", "runs-again"
    obstore.put(store, f"jobs/job-{job_id}/below/data.csv", b"1,2,3\n")
    obstore.put(store, f"jobs/job-{job_id}/changed", b"1")
    submit(tenant, "cat below/data.csv; echo 1 > model", job_id)
    tenant.wait(job_id)

    def again(job_id: str, new_id: str) -> httpx.Response:
        return tenant.http.post(f"jobs/{job_id}/rerun", json={"job_id": new_id})

    wait_for(lambda: again(job_id, new_id).json()["submissionTime"], "the copies")

    assert tenant.wait(new_id)["status"] == "SUCCEEDED", tenant.whole_log(new_id)
    assert tenant.log(new_id) == tenant.log(job_id) == "1,2,3\n"
    obstore.put(store, f"jobs/job-{job_id}/changed", b"2")
    refused = wait_for(lambda: reply if (reply := again(job_id, "refused")).is_error else None, "the refusal")
    assert (refused.status_code, "'changed' was changed" in refused.text) == (409, True)


def test_the_files_of_a_canceled_job_survive_a_restart_of_the_service(service: RunningService, tenant: Tenant) -> None:
    job_id = submit(tenant, "echo 1 > checkpoint; echo up; sleep 600")
    wait_for(lambda: "up" in tenant.log(job_id), "the job to run")
    service.process.kill()
    service.start()
    tenant.http.delete(f"jobs/{job_id}")
    assert tenant.wait(job_id)["status"] == "CANCELED"
    assert keys(tenant.storage(), f"jobs/job-{job_id}") == [f"jobs/job-{job_id}/checkpoint"]


def test_the_keys_of_a_tenant_give_no_access_to_another_tenant(new_tenant: Callable[[], Tenant], s3: S3Server) -> None:
    one, other = new_tenant(), new_tenant()
    mine, theirs = one.storage(), other.storage()
    obstore.put(theirs, "file", b"theirs")
    for path in ("file", f"../{other.name}/data/file", f"../../{other.name}/data/file"):
        with pytest.raises((BaseError, ValueError, FileNotFoundError)):
            obstore.get(mine, path)
    access = one.access()
    with pytest.raises(BaseError):
        keys(bucket(s3.url, access["accessKey"], access["secretKey"]))
    with pytest.raises(BaseError):
        keys(bucket(access["endpoint"], s3.access_key, s3.secret_key))


def test_the_files_of_a_job_wait_for_a_store_that_is_unavailable(s3: S3Server, tenant: Tenant) -> None:
    job_id = submit(tenant, "echo up; while ! test -e go; do sleep 0.05; test $((i=i+1)) -gt 40 && touch go; done")
    wait_for(lambda: "up" in tenant.log(job_id), "the job to run")
    s3.stop()
    try:
        wait_for(lambda: tenant.http.get("storage").json()["status"] != "Ready", "the storage to be unavailable")
    finally:
        s3.start()
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    assert keys(tenant.storage(), f"jobs/job-{job_id}") == [f"jobs/job-{job_id}/go"]


def test_the_outcome_of_a_job_is_kept_while_its_model_waits_for_the_store(
    s3: S3Server, service: RunningService, tenant: Tenant
) -> None:
    job_id = tenant.submit("echo run >> runs; echo up; sleep 1", image=IMAGE, retries=1)
    wait_for(lambda: "up" in tenant.log(job_id), "the job to run")
    s3.stop()
    try:
        outcome = service.files.job_state(tenant.name, job_id) / Outcome.FILE
        wait_for(outcome.exists, "the end of the command")
        for process in service.supervisors():
            process.kill()
    finally:
        s3.start()
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    folder = f"jobs/job-{job_id}"
    assert bytes(obstore.get(tenant.storage(), f"{folder}/runs").bytes()) == b"run\n"


def test_old_jobs_are_pruned_from_the_store(service: RunningService, tenant: Tenant) -> None:
    old, young = submit(tenant, "touch a", "old"), submit(tenant, "touch a", "old-not")
    for job_id in (old, young):
        tenant.wait(job_id)
    age(service, old, timedelta(days=8))
    run("prune", "--keep-days", "7", *service.options_of_commands)
    wait_for(lambda: keys(tenant.storage(), "jobs") == [f"jobs/job-{young}/a"], "the end of the folder")


def test_the_secret_key_of_the_store_is_shown_nowhere(s3: S3Server, service: RunningService, tenant: Tenant) -> None:
    job_id = submit(tenant, "env")
    tenant.wait(job_id)
    seen = [tenant.log(job_id), service.process.output.read_text(), tenant.http.get("storage").text]
    assert not [text for text in seen if s3.secret_key in text]


@pytest.mark.parametrize(
    ("options", "environment", "said"),
    [
        (("--s3-endpoint", "store:9000"), {}, "must be a URL with http:// or https://, not 'store:9000'"),
        (("--s3-endpoint", "http://store"), {"AWS_ACCESS_KEY_ID": ""}, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_invalid_settings_of_a_store_are_refused(
    options: tuple[str, ...], environment: dict[str, str], said: str, s3: S3Server, tmp_path: Path
) -> None:
    service = RunningService(tmp_path, {**s3.environment, **environment}, options)
    with pytest.raises(LocalProcessError), service.running():
        pass
    assert said in service.process.tail()
