"""The service is killed at any moment, the supervisor too, and the machine reboots: no job is lost and none lies."""

from __future__ import annotations

import json
import random
import re
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from airflow_training.api.log import NDJSON
from airflow_training.service.runners.process.cgroup import Cgroup
from airflow_training.service.runners.run_folder import Started, SupervisorRecord, unique_name
from tests.patience import wait_for
from tests.service.support import POSTGRESQL, SQLITE, RunningService, Tenant

# Each job prints once that it began, writes a log that can be checked, and ends in its own way.
SHORT = "echo run >> runs; for i in 1 2 3 4 5; do echo line $i; sleep 0.05; done; exit {status}"
FAILS_ONCE = "test -e before && echo again && exit 0; touch before; echo first; exit 3"


@pytest.mark.parametrize(
    ("database", "seed"),
    [
        (SQLITE, 0),
        pytest.param(SQLITE, 1, marks=pytest.mark.slow),
        pytest.param(SQLITE, 2, marks=pytest.mark.slow),
        (POSTGRESQL, 3),
        (POSTGRESQL, 4),
    ],
    indirect=["database"],
)
def test_a_service_that_is_killed_again_and_again_loses_no_job(
    own_service: RunningService, own_tenant: Tenant, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test's chance need not be a secret
    jobs: dict[str, int] = {}
    for _ in range(10):
        for status in (0, 7):
            jobs[own_tenant.submit(SHORT.format(status=status))] = status
        # Not a wait for anything: the moment is what is tried out.
        time.sleep(chance.uniform(0, 1.5))
        own_service.process.kill()
        own_service.start()
    for job_id, status in jobs.items():
        ended = own_tenant.wait(job_id)
        assert ended["status"] == ("FAILED" if status else "SUCCEEDED"), ended
        assert ended["message"] == (f"the command exited with status {status} [AT-451]" if status else "")
        assert own_tenant.log(job_id) == "".join(f"line {i}\n" for i in range(1, 6))
        records = own_tenant.http.get(f"jobs/{job_id}/logs", headers={"Accept": NDJSON}).text.splitlines()
        assert [json.loads(record)["line"] for record in records][-5:] == [f"line {i}" for i in range(1, 6)]
        assert (own_tenant.folder(job_id) / "runs").read_text() == "run\n"
    # A job has ended a moment before its supervisor.
    wait_for(lambda: not own_service.supervisors(), "the end of the supervisors")


def test_a_job_that_failed_is_run_again_as_often_as_it_may(tenant: Tenant) -> None:
    job_id = tenant.submit(FAILS_ONCE, retries=2)
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    assert tenant.log(job_id) == "first\nagain\n"
    assert (
        "Attempt 1 failed: the command exited with status 3 [AT-451]. The job runs again, attempt 2 of 3."
        in tenant.whole_log(job_id)
    )
    for_good = tenant.submit("echo tried; exit 3", retries=1)
    assert tenant.wait(for_good)["message"] == "the command exited with status 3 [AT-451]"
    assert tenant.log(for_good) == "tried\ntried\n"


def test_a_job_that_waits_for_its_next_attempt_can_be_cancelled(tenant: Tenant) -> None:
    job_id = tenant.submit("exit 3", retries=100)
    wait_for(lambda: "attempt 4 of" in tenant.whole_log(job_id), "some attempts")
    tenant.http.delete(f"jobs/{job_id}")
    assert tenant.wait(job_id)["status"] == "CANCELED"


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("how", ["the supervisor is killed", "the machine reboots"])
def test_a_job_that_was_cut_off_is_reported_or_run_again(
    own_service: RunningService, own_tenant: Tenant, how: str, retries: int
) -> None:
    command = "test -e before && echo again && exit 0; touch before; setsid sleep 4321 & echo half; exec sleep 4321"
    job_id = own_tenant.submit(command, retries=retries)
    wait_for(lambda: "half" in own_tenant.log(job_id), "the job to run")
    own_service.process.kill()
    cut_off(own_service, own_tenant, job_id, reboot=how == "the machine reboots")
    left = in_folder(own_tenant.work(job_id))
    own_service.start()

    status = own_tenant.wait(job_id)
    why = {
        "the supervisor is killed": "the job's supervisor was killed while the job ran [AT-464]",
        "the machine reboots": "the machine rebooted while the job ran [AT-463]",
    }[how]
    if retries:
        assert status["status"] == "SUCCEEDED"
        assert own_tenant.log(job_id) == "half\nagain\n"
        assert f"The job runs again: {why}. This is attempt 2." in own_tenant.whole_log(job_id)
    else:
        assert (status["status"], status["message"]) == ("FAILED", why)
    assert left
    wait_for(lambda: not in_folder(own_tenant.work(job_id)), "the end of what the job had started")
    name = unique_name(own_service.files.job_state(own_tenant.name, job_id))
    wait_for(lambda: Cgroup.find(name) is None, "the end of its control group")


def cut_off(service: RunningService, tenant: Tenant, job_id: str, *, reboot: bool) -> None:
    """End the supervisor; for a reboot, which no test can make, have it been of an earlier boot."""
    (supervisor,) = service.supervisors()
    supervisor.kill()
    supervisor.wait()
    if reboot:
        state = service.files.job_state(tenant.name, job_id)
        replace(SupervisorRecord.read(state), boot_id="the one before").write(state)


def in_folder(folder: Path) -> list[psutil.Process]:
    found = psutil.process_iter(["cwd", "status"])
    here = [process for process in found if (process.info["cwd"] or "").startswith(str(folder))]
    return [process for process in here if process.info["status"] != psutil.STATUS_ZOMBIE]


def test_a_machine_that_shuts_down_leaves_the_job_to_the_next_attempt(
    own_service: RunningService, own_tenant: Tenant
) -> None:
    job_id = own_tenant.submit("test -e before && echo again && exit 0; touch before; exec sleep 4321", retries=1)
    wait_for((own_tenant.work(job_id) / "before").exists, "the job to run")
    own_service.process.kill()
    (supervisor,) = own_service.supervisors()
    supervisor.terminate()
    wait_for(lambda: not own_service.supervisors(), "the end of the supervisor")
    own_service.start()
    assert own_tenant.wait(job_id)["status"] == "SUCCEEDED"
    assert own_tenant.log(job_id) == "again\n"
    assert len(re.findall("as at a shutdown of the machine", own_tenant.whole_log(job_id))) == 1


def test_a_pid_that_now_belongs_to_another_is_left_alone(own_service: RunningService, own_tenant: Tenant) -> None:
    innocent = own_tenant.submit("while ! test -e go; do sleep 0.05; done")
    wait_for(lambda: own_tenant.status(innocent)["status"] == "RUNNING", "the other job")
    process = int(own_tenant.status(innocent)["containerID"].removeprefix("process-"))
    job_id = own_tenant.submit("exec sleep 4321")
    own_tenant.wait(job_id, "RUNNING")
    own_service.process.kill()
    state = own_service.files.job_state(own_tenant.name, job_id)
    supervisor = psutil.Process(SupervisorRecord.read(state).pid)
    supervisor.kill()
    wait_for(lambda: not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE, "its end")
    # The pids that were written down belong to the innocent one now.
    replace(SupervisorRecord.read(state), pid=process).write(state)
    replace(Started.read(state), container_id=f"process-{process}").write(state)
    own_service.start()
    assert own_tenant.wait(job_id)["status"] == "FAILED"
    own_tenant.http.delete(f"jobs/{job_id}")
    (own_tenant.work(innocent) / "go").touch()
    assert own_tenant.wait(innocent)["status"] == "SUCCEEDED"
