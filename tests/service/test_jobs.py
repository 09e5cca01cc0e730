"""What becomes of a job."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from uuid import uuid4

import obstore
import psutil
import pytest

from tests.patience import wait_for
from tests.service.support import Tenant, keys, on_both

# More than any machine has: such a job gets the machine for itself.
WHOLE_MACHINE = {"cpus": 100_000}
UNTIL_TOLD = "while ! test -e go; do sleep 0.05; done"


def test_a_job_runs_in_its_folder_and_leaves_its_files_in_the_bucket(tenant: Tenant) -> None:
    store = tenant.storage()
    job_id = str(uuid4())
    obstore.put(
        store, f"jobs/job-{job_id}/train.py", b"open('model.bin', 'wb').write(open('train.py', 'rb').read()[:4])"
    )
    tenant.submit("mkdir -p export/1 && python3 train.py && cp model.bin export/1", job_id)
    assert tenant.wait(job_id)["status"] == "SUCCEEDED", tenant.whole_log(job_id)
    assert keys(store, f"jobs/job-{job_id}") == [
        f"jobs/job-{job_id}/{name}" for name in ("export/1/model.bin", "model.bin", "train.py")
    ]
    assert bytes(obstore.get(store, f"jobs/job-{job_id}/model.bin").bytes()) == b"open"


@on_both
def test_the_status_tells_the_whole_story_of_a_job(tenant: Tenant) -> None:
    before = time.time()
    status = tenant.wait(tenant.submit("true", name="census"))
    times = [datetime.fromisoformat(status[f"{event}Time"].replace("Z", "+00:00")) for event in STORY]
    assert times == sorted(times)
    assert before - 1 < times[0].timestamp() <= times[-1].timestamp() < time.time() + 1
    assert (status["name"], status["status"], status["message"]) == ("census", "SUCCEEDED", "")
    assert status["containerID"].startswith("process-")


STORY = ("submission", "start", "finish")


def test_the_job_sees_its_environment_and_nothing_of_the_services(tenant: Tenant) -> None:
    env = [{"name": "TRAIN_DATA", "value": "a b.csv"}, {"name": "EPOCHS", "value": 50}, {"name": "FAST", "value": True}]
    job_id = tenant.submit("env && readlink /proc/self/fd/0", env=env)
    tenant.wait(job_id)
    lines = tenant.log(job_id).splitlines()
    assert {"TRAIN_DATA=a b.csv", "EPOCHS=50", "FAST=true", "PYTHONUNBUFFERED=1", "TZ=UTC"} <= set(lines)
    assert not [line for line in lines if "secret" in line or line.startswith(("AIRFLOW__", "PYTHONPATH"))]
    assert lines[-1] == "/dev/null"


def test_the_job_has_a_python_of_its_own(tenant: Tenant) -> None:
    job_id = tenant.submit("python -c 'import sys; print(sys.prefix)' && pip3 --version && pip list --format=freeze")
    assert tenant.wait(job_id)["status"] == "SUCCEEDED", tenant.whole_log(job_id)
    prefix, pip, *packages = tenant.log(job_id).splitlines()
    assert prefix in pip
    assert job_id in prefix
    assert not [package for package in packages if package.startswith(("fastapi", "psutil", "apache"))]


def test_requirements_are_installed_for_the_job(tenant: Tenant) -> None:
    job_id = str(uuid4())
    (tenant.folder(job_id) / "requirements.txt").write_text("six>=1.16\n")
    tenant.submit("pip3 install -r requirements.txt && python3 -c 'import six; print(six.__name__)'", job_id)
    assert tenant.wait(job_id)["status"] == "SUCCEEDED", tenant.whole_log(job_id)
    # The command's own pip has nothing left to do.
    assert tenant.whole_log(job_id).split("[service] Running: ")[1].splitlines()[1:] == ["six"]


def test_the_environment_of_a_job_is_gone_after_it(tenant: Tenant) -> None:
    job_id = tenant.submit("true")
    tenant.wait(job_id)
    environment = tenant.service.files.job_state(tenant.name, job_id) / "env"
    wait_for(lambda: not environment.exists(), "the environment to be removed")


def test_requirements_that_cannot_be_installed_are_reported_by_the_commands_own_pip(tenant: Tenant) -> None:
    job_id = str(uuid4())
    (tenant.folder(job_id) / "requirements.txt").write_text("./no-such-package\n")
    tenant.submit("pip3 install -r requirements.txt && echo never", job_id)
    assert tenant.wait(job_id)["message"] == "the command exited with status 1 [AT-451]"
    log = tenant.whole_log(job_id)
    assert "[service] The installation failed; the command starts" in log
    assert "ERROR: " in log.split("[service] Running: ")[1]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("exit 3", "the command exited with status 3 [AT-451]"),
        ("kill -9 $$", "the command was killed by signal 9 (SIGKILL) [AT-451]"),
        ("kill -40 $$", "the command was killed by signal 40 (a real-time signal) [AT-451]"),
        (
            "sh -c 'kill -9 $$'; exit $?",
            "the command exited with status 137: a program of it was killed by signal 9 (SIGKILL) [AT-451]",
        ),
        ("no-such-program-anywhere", "the command exited with status 127 [AT-451]"),
    ],
    ids=["status", "killed", "by a real-time signal", "program killed", "unknown program"],
)
def test_a_failed_job_says_why(tenant: Tenant, command: str, message: str) -> None:
    status = tenant.wait(tenant.submit(command))
    assert (status["status"], status["message"]) == ("FAILED", message)


def test_the_image_is_said_to_be_ignored(tenant: Tenant) -> None:
    job_id = tenant.submit("true", image="tensorflow/tensorflow:2.21.0")
    tenant.wait(job_id)
    assert "the image tensorflow/tensorflow:2.21.0 is ignored" in tenant.whole_log(job_id)


@on_both
def test_a_repeated_submit_makes_no_second_job(tenant: Tenant) -> None:
    job_id = str(uuid4())
    job = {"job": {"name": "job", "execution": {"command": "echo run >> runs", "completionTime": 60}}}
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: tenant.http.post(f"jobs/{job_id}", json=job), range(8)))
    assert sorted(reply.status_code for reply in replies) == [200] * 7 + [202]
    tenant.wait(job_id)
    again = tenant.http.post(f"jobs/{job_id}", json=job)
    assert (again.status_code, again.json()["status"]) == (200, "SUCCEEDED")
    assert (tenant.folder(job_id) / "runs").read_text() == "run\n"
    assert len(tenant.http.get("jobs").json()["jobs"]) == 1


def test_an_id_that_is_taken_by_another_job_is_a_conflict(tenant: Tenant) -> None:
    job_id = tenant.submit("true")
    other = {"job": {"name": "job", "execution": {"command": "false", "completionTime": "1h"}}}
    reply = tenant.http.post(f"jobs/{job_id}", json=other)
    assert reply.status_code == 409
    assert "another description" in reply.json()["error"]["message"]


def test_a_cancelled_job_ends_with_all_its_children(tenant: Tenant) -> None:
    # One child in a session of its own, one whose parent is gone, one that ignores SIGTERM.
    job_id = tenant.submit(
        "setsid sleep 4321 & (setsid sleep 4321 &) ; (trap '' TERM; while :; do sleep 4321; done) & echo up; wait"
    )
    wait_for(lambda: "up" in tenant.log(job_id), "the job to be up")
    sleepers = wait_for(lambda: found if len(found := in_folder(tenant, job_id)) >= 5 else None, "its children")
    assert tenant.http.delete(f"jobs/{job_id}").status_code == 202
    status = tenant.wait(job_id)
    assert (status["status"], status["message"]) == ("CANCELED", "canceled on request")
    assert not [process for process in sleepers if process.is_running()]
    assert not in_folder(tenant, job_id)
    assert "up" in tenant.log(job_id)


def test_what_a_job_leaves_running_is_ended_with_it(tenant: Tenant) -> None:
    job_id = tenant.submit("sleep 4321 & setsid sleep 4321 & exit 0")
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    assert not in_folder(tenant, job_id)


def in_folder(tenant: Tenant, job_id: str) -> list[psutil.Process]:
    folder = str(tenant.work(job_id))
    return [process for process in psutil.process_iter(["cwd"]) if (process.info["cwd"] or "").startswith(folder)]


def test_a_job_that_closes_its_output_is_waited_for(tenant: Tenant) -> None:
    job_id = tenant.submit(f"exec >&- 2>&-; {UNTIL_TOLD}; touch done")
    tenant.wait(job_id, "RUNNING")
    (tenant.work(job_id) / "go").touch()
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    assert (tenant.folder(job_id) / "done").exists()


@on_both
def test_a_waiting_job_says_what_it_waits_for_and_starts_in_its_turn(tenant: Tenant) -> None:
    first, second, third = (tenant.submit(UNTIL_TOLD, resources=WHOLE_MACHINE) for _ in range(3))
    tenant.wait(first, "RUNNING")
    cpus = psutil.cpu_count()
    message = tenant.status(second)["message"]
    assert message.startswith(f"waiting for {cpus} of {cpus} CPUs and ")
    assert message.endswith(" MB of memory, 0 jobs ahead")
    assert tenant.status(third)["message"].endswith(", 1 job ahead")
    assert [job["message"] for job in tenant.http.get("jobs").json()["jobs"]] == [
        tenant.status(job_id)["message"] for job_id in (first, second, third)
    ]
    (tenant.work(first) / "go").touch()
    assert tenant.wait(second, "RUNNING", "FAILED")["status"] == "RUNNING"
    assert tenant.status(third)["status"] == "PENDING"
    for job_id in (second, third):
        (tenant.work(job_id) / "go").touch()
        assert tenant.wait(job_id)["status"] == "SUCCEEDED"


@on_both
def test_a_job_that_is_cancelled_while_it_waits_never_starts(tenant: Tenant) -> None:
    first = tenant.submit(UNTIL_TOLD, resources=WHOLE_MACHINE)
    second = tenant.submit("touch started", resources=WHOLE_MACHINE)
    assert tenant.http.delete(f"jobs/{second}").json()["status"] == "CANCELED"
    assert tenant.http.delete(f"jobs/{second}").status_code == 202
    (tenant.work(first) / "go").touch()
    tenant.wait(first)
    tenant.wait(tenant.submit("true"))
    assert tenant.status(second)["status"] == "CANCELED"
    assert tenant.status(second)["startTime"] is None
    assert not (tenant.folder(second) / "started").exists()


def test_a_tenant_cannot_see_another_tenants_job_or_files(new_tenant: Callable[[], Tenant]) -> None:
    one, other = new_tenant(), new_tenant()
    job_id = one.submit("echo mine > file")
    one.wait(job_id)
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/logs")):
        reply = other.http.request(method, f"jobs/{job_id}{path}")
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "404")
    assert other.http.get("jobs").json() == {"jobs": []}
    assert keys(one.storage()) == [f"jobs/job-{job_id}/file"]
    assert keys(other.storage()) == []
    # The same id is free for the other tenant, and is another job.
    assert other.wait(other.submit("false", job_id))["status"] == "FAILED"
    assert one.status(job_id)["status"] == "SUCCEEDED"
