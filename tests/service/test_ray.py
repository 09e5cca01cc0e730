"""Jobs on Ray: waiting for it, its failures, and what remains in it."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from airflow_training.api.log import NDJSON
from airflow_training.local.process import free_port
from tests.engines.ray import RayCluster, running_ray
from tests.patience import PATIENCE, wait_for
from tests.service.support import RunningService, Tenant

# Ray reports the symptom that it notices first.
NODE_DIED = "The actor died because its node has died|Job entrypoint command failed with exit code -9$"

# One cluster for all tests: it takes long to start.
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]


@pytest.fixture(scope="module")
def service(ray: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that runs jobs on Ray."""
    options = ("--runner", "ray", *ray.options(), "--job-disk", "20")
    service = RunningService(tmp_path_factory.mktemp("ray"), options=options)
    with service.running():
        yield service


def ray_job(ray: RayCluster, tenant: Tenant, job_id: str) -> dict[str, Any]:
    """Ray's status of a job."""
    found = httpx.get(f"{ray.address}/api/jobs/").raise_for_status().json()
    mine = {"tenant": tenant.name, "job_id": job_id}
    return next(job for job in found if job["metadata"] == mine)


@contextlib.contextmanager
def busy_head(ray: RayCluster) -> Iterator[None]:
    """Have another job occupy all CPUs of the first node."""
    job = {"entrypoint": "sleep 600", "entrypoint_num_cpus": 4}
    found = httpx.post(f"{ray.address}/api/jobs/", json=job).raise_for_status().json()
    job_of_others = f"{ray.address}/api/jobs/{found['submission_id']}"
    wait_for(lambda: httpx.get(job_of_others).json()["status"] == "RUNNING", "the other job")
    try:
        yield
    finally:
        httpx.post(f"{job_of_others}/stop")


def logged(tenant: Tenant, job_id: str, text: str) -> bool:
    return text in tenant.log(job_id)


def temporary_keys(service: RunningService) -> list[Path]:
    return list((service.files.storage / "temporary-keys").glob("*"))


def test_bytes_arrive_as_they_were_written(tenant: Tenant) -> None:
    written = bytes(range(256)) + b"\r\n" + "ü€\n".encode() + b"x" * 200_000 + b"\nlast"
    store = tenant.storage()
    store.put("jobs/job-bytes/bytes", written)
    tenant.submit("cat bytes", job_id="bytes")
    assert tenant.wait("bytes")["status"] == "SUCCEEDED"
    log = tenant.http.get("jobs/bytes/logs").content
    assert log.endswith(written)


def test_the_signal_that_killed_a_command_is_reported(tenant: Tenant) -> None:
    job_id = tenant.submit("kill -SEGV $$")
    assert tenant.wait(job_id)["message"] == "the command was killed by signal 11 (SIGSEGV) [AT-451]"


def test_a_job_that_fills_its_disk_is_ended(tenant: Tenant) -> None:
    job_id = tenant.submit("head -c 60000000 /dev/zero > big; sleep 600")
    status = tenant.wait(job_id)
    assert status["status"] == "FAILED"
    assert status["message"].startswith("out of disk: used ")


def test_a_job_installs_its_requirements(tenant: Tenant) -> None:
    tenant.storage().put("jobs/job-needs/requirements.txt", b"packaging==24.2\n")
    tenant.submit("python3 -c 'import packaging; print(packaging.__version__)'", job_id="needs")
    assert tenant.wait("needs")["status"] == "SUCCEEDED"
    assert tenant.log("needs").splitlines()[-1] == "24.2"


def test_a_job_is_limited_to_the_resources_of_the_largest_node(tenant: Tenant) -> None:
    job_id = tenant.submit("echo up", resources={"cpus": 64})
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    assert "The job requested 64 CPUs" in tenant.whole_log(job_id)


def test_a_job_for_python_2_is_refused(tenant: Tenant) -> None:
    execution = {"command": "true", "completionTime": "1h", "pythonMajorVersion": 2}
    reply = tenant.http.post("jobs/old", json={"job": {"name": "job", "execution": execution}})
    assert reply.status_code == 422
    assert "use the container runner" in reply.json()["error"]["message"]


def test_a_job_for_a_python_that_its_node_lacks_fails_with_those_that_the_node_has(tenant: Tenant) -> None:
    job_id = tenant.submit("true", pythonVersion="3.3")
    message = tenant.wait(job_id)["message"]
    assert re.match(r"the job needs Python 3\.3, but the machine that runs it has only Python 3\.", message)


def test_nothing_is_left_of_a_job_that_has_ended(service: RunningService, tenant: Tenant, ray: RayCluster) -> None:
    job_id = tenant.submit("echo up; sleep 602 & sleep 0.1")
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    assert not temporary_keys(service)
    assert ray_job(ray, tenant, job_id)["status"] == "SUCCEEDED"
    assert not [process for process in psutil.process_iter() if "602" in _words(process)]


def test_ray_shows_no_secret_of_a_job(service: RunningService, tenant: Tenant, ray: RayCluster) -> None:
    job_id = tenant.submit("echo up; sleep 600", env=[{"name": "API_KEY", "value": "s3cret"}])
    wait_for(lambda: "up" in tenant.log(job_id), "the job to run")
    [key] = temporary_keys(service)
    shown = str(ray_job(ray, tenant, job_id))
    tenant.http.delete(f"jobs/{job_id}")
    tenant.wait(job_id)
    assert key.stem not in shown
    assert "s3cret" not in shown


def test_a_job_that_is_stopped_in_ray_has_failed(tenant: Tenant, ray: RayCluster) -> None:
    job_id = tenant.submit("echo 1 > written; echo up; sleep 600")
    wait_for(lambda: "up" in tenant.log(job_id), "the job to run")
    submission = ray_job(ray, tenant, job_id)["submission_id"]
    httpx.post(f"{ray.address}/api/jobs/{submission}/stop").raise_for_status()
    status = tenant.wait(job_id)
    assert (status["status"], status["message"]) == (
        "FAILED",
        "the job was stopped in Ray, and not by this service [AT-486]",
    )
    assert (tenant.folder(job_id) / "written").exists()


def test_a_job_that_waits_for_a_node_can_be_canceled(tenant: Tenant, ray: RayCluster) -> None:
    with busy_head(ray):
        job_id = tenant.submit("echo up", resources={"cpus": 1, "memory": 500})
        wait_for(lambda: "a Ray node" in tenant.status(job_id)["message"], "the job to wait for a node")
        assert tenant.status(job_id)["status"] == "PENDING"
        tenant.http.delete(f"jobs/{job_id}")
        assert tenant.wait(job_id)["status"] == "CANCELED"


@pytest.mark.parametrize("retries", [0, 1])
def test_a_job_on_a_node_that_dies_is_reported_or_run_again(tenant: Tenant, ray: RayCluster, retries: int) -> None:
    node = ray.add_node(1)
    with busy_head(ray):
        job_id = tenant.submit(
            "test -e again && exit 0; echo up; sleep 601", resources={"cpus": 1, "memory": 500}, retries=retries
        )
        wait_for(lambda: "up" in tenant.log(job_id), "the job to run")
        tenant.storage().put(f"jobs/job-{job_id}/again", b"")
        node.raylet().kill()
    status = tenant.wait(job_id)
    if retries:
        assert status["status"] == "SUCCEEDED"
    else:
        assert status["status"] == "FAILED"
        assert re.match(f"Ray lost the job: ({NODE_DIED})", status["message"]), status
    wait_for(lambda: not [one for one in psutil.process_iter() if "601" in _words(one)], "the end of what the node ran")


def test_a_job_outlives_all_processes_of_the_service_and_its_log_is_whole(
    service: RunningService, tenant: Tenant
) -> None:
    lines = "for i in $(seq 600); do echo line $i; sleep 0.02; done"
    job_id = tenant.submit(f"echo run >> runs; {lines}; test -e fine", retries=0)
    tenant.storage().put(f"jobs/job-{job_id}/fine", b"")
    for seen in (1, 150, 300):
        wait_for(partial(logged, tenant, job_id, f"line {seen}\n"), "the job to run")
        service.process.kill()
        for process in service.supervisors():
            process.kill()
        service.start()
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    expected = [f"line {number}" for number in range(1, 601)]
    assert tenant.log(job_id).splitlines() == expected
    records = tenant.http.get(f"jobs/{job_id}/logs", headers={"Accept": NDJSON}).text.splitlines()
    assert [line for record in records if not (line := json.loads(record)["line"]).startswith("[service]")] == expected
    assert (tenant.folder(job_id) / "runs").read_text() == "run\n"
    assert tenant.whole_log(job_id).count("[service] Running:") == 1


def test_a_job_that_has_no_supervisor_can_be_canceled(service: RunningService, tenant: Tenant) -> None:
    job_id = tenant.submit("trap 'echo asked to end; exit 0' TERM; echo up; sleep 602 & wait")
    wait_for(lambda: "up" in tenant.log(job_id), "the job to run")
    for process in service.supervisors():
        process.kill()
    tenant.http.delete(f"jobs/{job_id}")
    assert tenant.wait(job_id)["status"] == "CANCELED"
    assert tenant.log(job_id) == "up\nasked to end\n"
    assert not [one for one in psutil.process_iter() if "602" in _words(one)]


def test_a_supervisor_that_ends_before_the_job_has_room_makes_no_second_one(
    service: RunningService, tenant: Tenant, ray: RayCluster
) -> None:
    with busy_head(ray):
        job_id = tenant.submit("echo run >> runs", resources={"cpus": 1, "memory": 500})
        wait_for(lambda: "a Ray node" in tenant.status(job_id)["message"], "the job to wait for a node")
        for process in service.supervisors():
            process.kill()
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    assert ray_job(ray, tenant, job_id)["status"] == "SUCCEEDED"
    assert (tenant.folder(job_id) / "runs").read_text() == "run\n"


def test_a_job_waits_for_an_unreachable_cluster(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        ray = RayCluster()
        service = RunningService(tmp_path, options=("--runner", "ray", *ray.options()))
        stack.enter_context(service.running())
        tenant = Tenant(service)
        stack.callback(tenant.leave)
        job_id = tenant.submit("echo up")
        wait_for(lambda: "which is unreachable" in tenant.status(job_id)["message"], "the reason")
        assert tenant.status(job_id)["status"] == "PENDING"
        stack.enter_context(running_ray(cluster=ray))
        assert tenant.wait(job_id)["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--runner", "ray"), "--runner ray and --ray-address go together"),
        (("--ray-address", "http://127.0.0.1:1"), "--runner ray and --ray-address go together"),
        (("--runner", "ray", "--ray-address", "ray://head:10001"), "--ray-address must be a URL such as"),
        (("--runner", "ray", "--ray-address", "http://127.0.0.1:1"), "--storage-port 8901"),
        (("--runner", "ray", "--ray-address", "http://192.0.2.7:1", "--storage-port", "2"), "add --host 0.0.0.0"),
    ],
)
def test_invalid_options_for_ray_are_refused(tmp_path: Path, options: tuple[str, ...], error: str) -> None:
    port, storage_port = str(free_port()), str(free_port())
    options = tuple(storage_port if word == "2" else word for word in options)
    command = [sys.executable, "-m", "airflow_training.cli.main", "serve", "--data", str(tmp_path), "--port", port]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 1
    assert error in " ".join(done.stderr.split())


def _words(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []
