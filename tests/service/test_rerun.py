"""A job runs again with the files that it began with; its secrets are shown nowhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest

from airflow_training.api.description import JobDescription
from airflow_training.api.naming import job_folder
from airflow_training.api.resources import Resources
from airflow_training.service.database.models import open_database
from airflow_training.service.reruns import Rerun, Reruns
from airflow_training.service.scheduling.capacity import Capacity
from airflow_training.service.scheduling.job import JobKey
from airflow_training.service.scheduling.job_table import JobTable, StoredJob
from airflow_training.service.scheduling.scheduler import Scheduler
from airflow_training.service.settings import DataFolder
from airflow_training.service.storage.bucket import open_buckets
from tests.patience import PATIENCE, wait_for
from tests.service.support import RunningService, Tenant, age, run

TRAIN = "cat data.csv 'below/a b'; find . -type f | sort; echo model > model.txt"


def post(tenant: Tenant, job_id: str, new_id: str, **changes: Any) -> httpx.Response:
    """Request a rerun until it is submitted, or refused."""

    def answered() -> httpx.Response | None:
        reply = tenant.http.post(f"jobs/{job_id}/rerun", json={"job_id": new_id, "changes": changes})
        return reply if reply.is_error or reply.json()["submissionTime"] else None

    return wait_for(answered, "the copies of the files")


def rerun(tenant: Tenant, job_id: str, **changes: Any) -> str:
    """Run a job again to its end."""
    new_id = str(uuid4())
    post(tenant, job_id, new_id, **changes).raise_for_status()
    tenant.wait(new_id)
    return new_id


def refusal(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["message"]


def described(tenant: Tenant, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = tenant.http.get(f"jobs/{job_id}/description").raise_for_status().json()["job"]
    return job


def upload(tenant: Tenant, job_id: str, files: dict[str, str]) -> None:
    for name, content in files.items():
        file = tenant.folder(job_id) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


def trained(tenant: Tenant, command: str = TRAIN, **execution: Any) -> str:
    """A job with two files that has ended."""
    job_id = str(uuid4())
    upload(tenant, job_id, {"data.csv": "1,2,3\n", "below/a b": "text\n"})
    tenant.submit(command, job_id, **execution)
    tenant.wait(job_id)
    return job_id


def test_a_job_runs_again_with_the_same_result_and_nothing_is_uploaded(tenant: Tenant) -> None:
    job_id = trained(tenant)

    again = rerun(tenant, job_id)
    and_again = rerun(tenant, again, name="third")

    assert tenant.log(job_id) == "1,2,3\ntext\n./below/a b\n./data.csv\n"
    assert tenant.log(and_again) == tenant.log(again) == tenant.log(job_id), "what the job wrote is no input"
    assert (tenant.folder(and_again, "third") / "model.txt").read_text() == "model\n"
    assert (described(tenant, again)["rerunOf"], described(tenant, and_again)["rerunOf"]) == (job_id, again)


def test_what_a_rerun_changes_is_changed_and_all_else_stays(tenant: Tenant) -> None:
    env = [{"name": "EPOCHS", "value": 5}, {"name": "TEXT", "value": "it's"}]
    command = """echo "$EPOCHS" "$TEXT" "${NEW:-old}"; echo --epochs=5 '--text=it'"'"'s' --epochs_more=5"""
    job_id = tenant.submit(command, env=env, resources={"cpus": 1, "memory": 300}, retries=2)
    tenant.wait(job_id)

    again = rerun(
        tenant,
        job_id,
        env=[{"name": "EPOCHS", "value": 7}, {"name": "TEXT", "value": "a 'b'"}, {"name": "NEW", "value": "n"}],
        resources={"memory": 400},
        completionTime="2h",
    )

    assert tenant.log(job_id) == "5 it's old\n--epochs=5 --text=it's --epochs_more=5\n"
    assert tenant.log(again) == "7 a 'b' n\n--epochs=7 --text=a 'b' --epochs_more=5\n"
    execution = described(tenant, again)["execution"]
    assert execution["resources"] == {"cpus": 1, "gpus": 0, "memory": 400}
    assert (execution["completionTime"], execution["retries"]) == ("2h", 2)
    assert tenant.log(rerun(tenant, job_id, command="echo other")) == "other\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image": "i", "retries": 3}, "changes.retries: Extra inputs are not permitted"),
        ({"completionTime": "soon"}, "changes.completionTime"),
        ({"resources": {"cpus": 0}}, "changes.resources.cpus"),
        ({"resources": {"gpus": 999}}, "[AT-626]"),
        ({"name": "a b"}, "name: string should match"),
    ],
)
def test_invalid_changes_are_refused_in_a_sentence(tenant: Tenant, changes: dict[str, Any], said: str) -> None:
    job_id = tenant.submit("true", env=[{"name": "EPOCHS", "value": 5}])

    status, message = refusal(post(tenant, job_id, str(uuid4()), **changes))

    assert status == 422
    assert said in message
    assert len(tenant.http.get("jobs").json()["jobs"]) == 1


def test_a_repeated_rerun_is_the_same_job(tenant: Tenant) -> None:
    job_id, new_id = trained(tenant), str(uuid4())
    other = trained(tenant)

    with ThreadPoolExecutor() as threads:
        replies = list(threads.map(lambda _: post(tenant, job_id, new_id), range(4)))
    tenant.wait(new_id)

    assert {reply.status_code for reply in replies} <= {200, 202}
    repeated = post(tenant, job_id, new_id)
    assert (repeated.status_code, repeated.json()) == (200, tenant.status(new_id))
    assert len(tenant.http.get("jobs").json()["jobs"]) == 3
    assert refusal(post(tenant, job_id, new_id, name="other"))[0] == 409
    assert refusal(post(tenant, other, new_id))[0] == 409, "the same description, with other files"


def test_jobs_of_other_tenants_and_removed_jobs_do_not_exist(
    service: RunningService, new_tenant: Callable[[], Tenant]
) -> None:
    mine, other = new_tenant(), new_tenant()
    job_id = trained(mine)

    for reply in (post(other, job_id, str(uuid4())), other.http.get(f"jobs/{job_id}/description")):
        assert refusal(reply)[0] == 404
    age(service, job_id, timedelta(days=8))
    run("prune", "--keep-days", "7", *service.options_of_commands)
    status, message = refusal(post(mine, job_id, str(uuid4())))
    assert (status, message.split(":")[0]) == (404, f"There is no job {job_id}")


def test_a_client_for_reading_sees_the_description_and_cannot_rerun(service: RunningService, tenant: Tenant) -> None:
    job_id = trained(tenant)
    credentials = (tenant.credentials.client_id, tenant.credentials.client_secret)
    form = {"grant_type": "client_credentials", "scope": "jobs:read"}
    token = httpx.post(f"{service.url}/oauth/token", data=form, auth=credentials).json()["access_token"]
    tenant.http.headers["Authorization"] = f"Bearer {token}"

    assert described(tenant, job_id)["execution"]["command"] == TRAIN
    assert refusal(post(tenant, job_id, str(uuid4())))[0] == 403


def test_secrets_are_in_the_new_job_and_are_shown_nowhere(tenant: Tenant) -> None:
    env = [
        {"name": "CODE", "value": "it's s3cr3t"},
        {"name": "HF_TOKEN", "value": "hf_abcdef"},
        {"name": "API_KEY", "value": "k1"},
        {"name": "DATABASE", "value": "postgresql://me:pa55@host/db"},
        {"name": "EPOCHS", "value": 5},
    ]
    command = (
        """printf '%s' "$CODE$HF_TOKEN$API_KEY" | md5sum; echo "$HF_TOKEN"; : --api_key=k1 '--code=it'"'"'s s3cr3t'"""
    )
    job_id = tenant.submit(command, env=env, masks=["it's s3cr3t"])
    tenant.wait(job_id)

    again = rerun(tenant, job_id)
    changed = rerun(tenant, job_id, env=[{"name": "CODE", "value": "n3w s3cr3t"}])

    digests = [tenant.log(job)[:32] for job in (job_id, again, changed)]
    assert digests[0] == digests[1] != digests[2]
    assert tenant.log(again).splitlines()[1] == "***"
    shown = described(tenant, again)
    assert {variable["name"]: variable["value"] for variable in shown["env"]} == {
        "CODE": "***",
        "HF_TOKEN": "***",
        "API_KEY": "***",
        "DATABASE": "postgresql://me:***@host/db",
        "EPOCHS": 5,
    }
    assert "masks" not in shown
    for job in (again, changed):
        for text in (json.dumps(described(tenant, job)), tenant.whole_log(job), json.dumps(tenant.status(job))):
            for secret in ("s3cr3t", "hf_abcdef", "=k1", "pa55"):
                assert secret not in text


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo more >> data.csv", "'data.csv' was changed"),
        ("echo other > 'below/a b'; mv 'below/a b' data.csv", "'data.csv' was changed"),
    ],
)
def test_a_job_that_changed_its_files_does_not_run_again_with_others(tenant: Tenant, command: str, said: str) -> None:
    job_id = trained(tenant, command)
    new_id = str(uuid4())

    status, message = refusal(post(tenant, job_id, new_id))

    assert status == 409
    assert said in message
    assert "[AT-680]" in message
    assert not (tenant.service.files.bucket(tenant.name) / job_folder("job", new_id)).exists()
    assert tenant.http.get(f"jobs/{new_id}").status_code == 404


def test_a_file_that_is_gone_is_named(tenant: Tenant) -> None:
    job_id = trained(tenant)
    (tenant.folder(job_id) / "data.csv").unlink()

    assert "'data.csv' is gone" in refusal(post(tenant, job_id, str(uuid4())))[1]


def test_a_running_job_and_one_that_never_started_can_run_again(
    own_service: RunningService, own_tenant: Tenant
) -> None:
    running, canceled = str(uuid4()), str(uuid4())
    upload(own_tenant, running, {"data.csv": "running\n"})
    upload(own_tenant, canceled, {"data.csv": "canceled\n"})
    own_tenant.submit("cat data.csv; echo >> data.csv; sleep 600", running, resources={"cpus": 100_000})
    own_tenant.submit("cat data.csv", canceled)
    wait_for(lambda: "running" in own_tenant.log(running), "the job to run")
    own_tenant.http.delete(f"jobs/{canceled}")
    own_tenant.wait(canceled)

    new_ids = [str(uuid4()), str(uuid4())]
    for job_id, new_id in zip((running, canceled), new_ids, strict=True):
        post(own_tenant, job_id, new_id, command="cat data.csv").raise_for_status()
    own_tenant.http.delete(f"jobs/{running}")
    for new_id in new_ids:
        own_tenant.wait(new_id)

    assert [own_tenant.log(new_id) for new_id in new_ids] == ["running\n", "canceled\n"]


def test_a_rerun_does_not_fill_the_disk(tmp_path: Path) -> None:
    service = RunningService(tmp_path, options=("--free-disk", "100000000"))
    with service.running():
        tenant, job_id = Tenant(service), str(uuid4())
        upload(tenant, job_id, {"data.csv": "x" * 2**20})
        tenant.submit("true", job_id)

        status, message = refusal(post(tenant, job_id, str(uuid4())))

        assert status == 507
        assert "MB are kept free" in message
        tenant.leave()


@pytest.mark.anyio
async def test_a_rerun_goes_on_without_its_client(tmp_path: Path) -> None:
    data = DataFolder.at(tmp_path)
    jobs = JobTable(open_database(data.database_url), Capacity(Resources(1, 1000, 0), ()))
    woken: list[bool] = []

    class Woken:
        def wake(self) -> None:
            woken.append(True)

    reruns = Reruns(data, open_buckets(data), jobs, cast(Scheduler, Woken()), free_disk=0)
    wire = {"name": "a", "execution": {"command": "true", "completionTime": 60}}
    description, key = JobDescription.from_wire(wire), JobKey("t", "new")
    (data.bucket("t") / "jobs/a-old").mkdir(parents=True)
    (data.bucket("t") / "jobs/a-old" / "data.csv").write_text("1,2,3")
    requested = Resources(1, 1, 0)
    order = Rerun(key, description, requested, "old", StoredJob(description, requested, began=False))

    assert not await reruns.run(order, 0)
    wait = asyncio.create_task(reruns.run(order, PATIENCE))
    await asyncio.sleep(0)
    wait.cancel()
    assert await reruns.run(order, PATIENCE)

    assert (data.bucket("t") / "jobs/a-new" / "data.csv").read_text() == "1,2,3"
    assert jobs.exists(key)
    assert woken
