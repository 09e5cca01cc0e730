"""Operation of the service: health, metrics, the access log, retention and migrations."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import obstore
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from obstore.exceptions import BaseError
from obstore.store import S3Store
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine, select, text

from airflow_training.service.database.migrations import upgrade
from airflow_training.service.database.models import Job, Table, open_database
from airflow_training.service.errors import ServiceNotStarted
from tests.patience import PATIENCE, wait_for
from tests.service.support import RunningService, Tenant, age, close, keys, on_both, run


def test_health_names_the_part_that_does_not_work(own_service: RunningService) -> None:
    reply = httpx.get(f"{own_service.url}/healthz")
    assert reply.json() == {"status": "ok", "database": "ok", "storage": "ok", "runner": "ok"}
    endpoint = own_service.storage_endpoint()
    endpoint.send_signal(signal.SIGSTOP)
    reply = httpx.get(f"{own_service.url}/healthz")
    endpoint.send_signal(signal.SIGCONT)
    assert reply.status_code == 503
    assert reply.json() == {"status": "failed", "database": "ok", "storage": "failed", "runner": "ok"}


def test_metrics_tell_of_jobs_and_requests(own_service: RunningService, own_tenant: Tenant) -> None:
    own_tenant.wait(own_tenant.submit("echo 123456789"))
    own_tenant.wait(own_tenant.submit("exit 1"))
    own_tenant.wait(own_tenant.submit("exec sleep 4321"), "RUNNING")
    own_tenant.http.get("jobs/none")

    found = metrics(own_service)

    assert found["training_jobs", ("SUCCEEDED",)] == 1
    assert found["training_jobs", ("FAILED",)] == 1
    assert found["training_jobs", ("RUNNING",)] == 1
    assert found["training_jobs", ("PENDING",)] == 0
    assert found["training_job_queue_seconds_count", ()] == 2
    assert found["training_job_seconds_count", ("FAILED",)] == 1
    assert found["training_job_log_bytes_total", ()] > len("123456789\n")
    assert found["training_request_seconds_count", ("GET", "/api/v2/jobs/{job_id}", "404")] == 1
    assert found["training_request_seconds_count", ("POST", "/api/v2/jobs/{job_id}", "202")] == 3


def metrics(service: RunningService) -> dict[tuple[str, tuple[str, ...]], float]:
    reply = httpx.get(f"{service.url}/metrics").raise_for_status()
    families = text_string_to_metric_families(reply.text)
    return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}


def test_the_access_log_tells_who_asked_what_and_no_secret(own_service: RunningService, own_tenant: Tenant) -> None:
    client = own_tenant.credentials
    own_tenant.http.get("jobs", params={"finished": 3}, headers={"X-Request-ID": "mine-1"})
    own_tenant.http.get("jobs/none", headers={"X-Request-ID": "not an id!"})
    httpx.get(f"{own_service.url}/oauth/token?client_secret={client.client_secret}&grant_type=password")
    own_tenant.storage()
    access = own_tenant.http.get("storage").json()

    log = (own_service.data / "access.log").read_text()
    requests = {request["request_id"]: request for request in map(json.loads, log.splitlines())}

    mine = requests["mine-1"]
    assert (mine["client_id"], mine["method"], mine["path"]) == (client.client_id, "GET", "/api/v2/jobs")
    assert (mine["status"], mine["address"]) == (200, "127.0.0.1")
    assert mine["bytes"] > 0
    assert mine["milliseconds"] > 0
    assert mine["time"].endswith("Z")
    assert [r["status"] for r in requests.values() if r["path"] == "/api/v2/jobs/none"] == [404]
    token = own_tenant.http.headers["Authorization"].split()[1]
    for secret in (client.client_secret, token, access["secretKey"], access["accessKey"]):
        assert secret not in log
    assert own_tenant.http.get("jobs", headers={"X-Request-ID": "mine-2"}).headers["X-Request-ID"] == "mine-2"


def test_old_jobs_are_pruned_by_hand_and_young_ones_are_not(own_service: RunningService, own_tenant: Tenant) -> None:
    old, young, runs = (own_tenant.submit(command) for command in ("touch a", "touch a", "exec sleep 4321"))
    linked = own_tenant.submit("cd ..; rm -r job-linked; ln -s /etc job-linked", job_id="linked")
    # What it leaves behind can be removed all the same.
    locked = own_tenant.submit("mkdir -p a/b; touch a/b/c; chmod -R a-w .", job_id="locked")
    # "job" with the id "a-b", and "job-a" with the id "b", are in one folder.
    shared = own_tenant.submit("touch shared", job_id="a-b")
    own_tenant.wait(shared)
    own_tenant.wait(own_tenant.submit("true", job_id="b", name="job-a"))
    for job_id in (old, young, linked, locked):
        own_tenant.wait(job_id)
    own_tenant.wait(runs, "RUNNING")
    for job_id in (old, linked, locked, shared, runs):
        age(own_service, job_id, timedelta(days=8))

    assert run("prune", "--keep-days", "7", *own_service.options_of_commands) == "4 jobs were removed.\n"

    assert own_tenant.http.get(f"jobs/{old}").status_code == 404
    assert own_tenant.http.get(f"jobs/{old}/logs").status_code == 404
    assert not own_service.files.job_state(own_tenant.name, old).exists()
    left = [f"jobs/job-{young}/a", "jobs/job-a-b/shared"]
    wait_for(lambda: keys(own_tenant.storage()) == sorted(left), "the end of the folder")
    assert Path("/etc/passwd").exists(), "what a link points to is not the job's"
    assert own_tenant.status(young)["status"] == "SUCCEEDED"
    assert own_tenant.status(runs)["status"] == "RUNNING"
    assert own_tenant.wait(own_tenant.submit("true", job_id=old))["status"] == "SUCCEEDED"


def test_old_jobs_are_removed_by_the_service(tmp_path: Path) -> None:
    service = RunningService(tmp_path, options=("--keep-days", "7"))
    with service.running():
        tenant = Tenant(service)
        job_id = tenant.submit("true")
        tenant.wait(job_id)
        service.stop()
        age(service, job_id, timedelta(days=8))
        service.start()
        wait_for(lambda: tenant.http.get(f"jobs/{job_id}").status_code == 404, "the end of the job")
        tenant.leave()


def test_a_client_that_is_removed_loses_its_storage_keys_too(own_service: RunningService, own_tenant: Tenant) -> None:
    other = Tenant(own_service, own_tenant.name)
    mine, theirs = own_tenant.storage(), other.storage()
    obstore.put(theirs, "a", b"1")
    run("clients", "remove", other.credentials.client_id, *own_service.options_of_commands)
    other.http.close()

    wait_for(lambda: not opens(theirs), "the end of the keys")
    wait_for(lambda: opens(mine), "the storage of the client that stays")
    assert keys(mine) == ["a"]


def opens(store: S3Store) -> bool:
    try:
        keys(store)
    except BaseError:
        return False
    return True


@on_both
def test_a_database_of_the_first_schema_is_brought_up_to_date(sessions_url: str) -> None:
    engine = create_engine(sessions_url)
    upgrade(engine, "0001")
    wanted = {"name": "a", "execution": {"command": "true", "completionTime": 1, "resources": {"cpus": 3, "gpus": 1}}}
    values = {"description": json.dumps({"job": wanted}), "now": "2026-01-01 00:00:00"}
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO clients VALUES ('c', 'hash', 'tenant', :now)"), values)
        connection.execute(
            text(
                "INSERT INTO jobs VALUES ('tenant', 'id', 'a', :description, 'RUNNING', true, false, '', :now, :now,"
                " NULL, NULL, '')"
            ),
            values,
        )
        # As it was before versions were counted.
        connection.execute(text("DROP TABLE alembic_version"))
    engine.dispose()

    with open_database(sessions_url)() as session:
        job = session.scalars(select(Job)).one()
        assert (job.cpus, job.memory, job.gpus, job.gpu_ids) == (3, 1024, 1, "")
        assert session.scalar(text("SELECT scope FROM clients")) == "jobs:read jobs:write"
        close(session)


@on_both
def test_the_migrations_make_the_tables_that_the_code_expects(sessions_url: str) -> None:
    engine = create_engine(sessions_url)
    upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
    engine.dispose()


@on_both
def test_a_database_of_a_newer_version_is_refused(sessions_url: str) -> None:
    engine = create_engine(sessions_url)
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ServiceNotStarted, match="created by a newer version of airflow-training"):
        upgrade(engine)
    engine.dispose()


@on_both
def test_two_commands_at_once_make_one_database(tmp_path: Path, database_url: str | None) -> None:
    options = RunningService(tmp_path, database_url=database_url).options_of_commands
    command = [sys.executable, "-m", "airflow_training.cli.main", "clients", "add", *options]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(4)]
    for process in running:
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--resource-plan", "large"], "The resource plan 'large' cannot be read: write it like large=cpus:8,"),
        (["--resource-plan", "a=cpus:x,memory:1"], "The resource plan 'a=cpus:x,memory:1' cannot be read"),
        (["--resource-plan", "a=cpu:1,memory:1"], "The resource plan 'a=cpu:1,memory:1' cannot be read"),
        (["--access-log", "/nowhere/log"], "The access log /nowhere/log cannot be written (No such file or"),
    ],
)
def test_an_option_that_cannot_be_used_is_one_sentence(tmp_path: Path, options: list[str], sentence: str) -> None:
    command = [sys.executable, "-m", "airflow_training.cli.main", "serve", "--data", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1
