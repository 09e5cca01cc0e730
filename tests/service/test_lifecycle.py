"""The service itself: starting, stopping, and being killed while jobs run."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from airflow_training.local.process import free_port
from tests.patience import PATIENCE, wait_for
from tests.service.support import RunningService, Tenant

UNTIL_TOLD = "i=0; while ! test -e go; do i=$((i+1)); echo $i; sleep 0.02; done; echo end; exit 7"


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_jobs_survive_a_restart_of_the_service(own_service: RunningService, own_tenant: Tenant, how: str) -> None:
    goes_on = own_tenant.submit(UNTIL_TOLD)
    ends_meanwhile = own_tenant.submit(UNTIL_TOLD)
    waits = own_tenant.submit("echo ran >> runs", resources={"cpus": 100_000})
    for job_id in (goes_on, ends_meanwhile):
        wait_for(lambda job_id=job_id: "2\n" in own_tenant.log(job_id), "the job to run")  # type: ignore[misc] # mypy cannot infer a lambda with a default
    before = own_tenant.wait(goes_on, "RUNNING")
    if how == "killed":
        own_service.process.kill()
    else:
        own_service.stop()
    (own_tenant.work(ends_meanwhile) / "go").touch()
    state = own_service.files.job_state(own_tenant.name, ends_meanwhile)
    wait_for((state / "exit.json").exists, "the end of a job while no service runs")
    own_service.start()
    assert own_tenant.wait(goes_on, "RUNNING", "FAILED") == before
    assert own_tenant.wait(ends_meanwhile)["message"] == "the command exited with status 7 [AT-451]"
    (own_tenant.work(goes_on) / "go").touch()
    assert own_tenant.wait(goes_on)["message"] == "the command exited with status 7 [AT-451]"
    for job_id in (goes_on, ends_meanwhile):
        *numbers, last = own_tenant.log(job_id).split()
        assert (numbers, last) == ([str(i) for i in range(1, len(numbers) + 1)], "end")
    assert own_tenant.wait(waits)["status"] == "SUCCEEDED"
    assert (own_tenant.folder(waits) / "runs").read_text() == "ran\n"


def test_a_job_whose_supervisor_was_killed_is_reported_honestly(
    own_service: RunningService, own_tenant: Tenant
) -> None:
    job_id = own_tenant.submit("echo $$; exec sleep 4321")
    command = psutil.Process(wait_for(lambda: int(own_tenant.log(job_id) or 0), "the job to run"))
    own_service.process.kill()
    (supervisor,) = own_service.supervisors()
    supervisor.kill()
    own_service.start()
    status = own_tenant.wait(job_id)
    assert status["status"] == "FAILED"
    assert status["message"] == "the job's supervisor was killed while the job ran [AT-464]"
    assert status["startTime"]
    wait_for(lambda: not command.is_running() or command.status() == psutil.STATUS_ZOMBIE, "the end of the command")


def test_a_supervisor_that_gets_sigterm_from_the_machine_does_not_cancel_the_job(
    own_service: RunningService, own_tenant: Tenant
) -> None:
    job_id = own_tenant.submit("exec sleep 4321")
    own_tenant.wait(job_id, "RUNNING")
    (supervisor,) = own_service.supervisors()
    supervisor.terminate()
    status = own_tenant.wait(job_id)
    assert status["status"] == "FAILED"
    assert "received SIGTERM" in status["message"]


def test_a_canceled_job_stays_canceled_when_the_service_is_killed_just_then(
    own_service: RunningService, own_tenant: Tenant
) -> None:
    job_id = own_tenant.submit("exec sleep 4321")
    own_tenant.wait(job_id, "RUNNING")
    own_tenant.http.delete(f"jobs/{job_id}")
    own_service.process.kill()
    own_service.start()
    assert own_tenant.wait(job_id)["status"] == "CANCELED"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_service_stops_soon_and_leaves_nothing_but_jobs(
    own_service: RunningService, number: signal.Signals
) -> None:
    endpoint = own_service.storage_endpoint()
    process = psutil.Process(own_service.process.pid)
    process.send_signal(number)
    assert process.wait(5) == 0
    assert not endpoint.is_running()
    lines = [line for line in own_service.process.output.read_text().splitlines() if "No control group" not in line]
    assert lines == [f"Training service ready at {own_service.url} (data in {own_service.data})"]


def test_the_endpoint_of_a_killed_service_is_ended_by_the_next(own_service: RunningService) -> None:
    orphan = own_service.storage_endpoint()
    own_service.process.kill()
    own_service.start()
    wait_for(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE, "the end of the endpoint")


def test_a_killed_service_starts_again_on_the_ports_that_were_given(tmp_path: Path) -> None:
    service = RunningService(tmp_path, options=("--storage-port", str(free_port())))
    with service.running():
        for _ in range(2):
            service.process.kill()
            service.start()


def test_two_services_on_one_folder_are_refused(service: RunningService) -> None:
    assert refusal(service.data) == (
        f"The data folder {service.data} is in use by another training service: stop that one, or choose another"
        " folder. [AT-503]\n"
    )


@pytest.mark.parametrize("option", ["--port", "--storage-port"])
def test_a_taken_port_is_refused(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refusal(tmp_path, option, str(port))
    assert message.startswith(f"The service cannot listen on 127.0.0.1 port {port} (Address already in use): ")


def test_a_data_folder_that_no_job_could_run_in_is_refused(tmp_path: Path) -> None:
    assert "cannot be part of a job's PATH" in refusal(tmp_path / "a:b")
    (tmp_path / "file").touch()
    assert "cannot be created or written to" in refusal(tmp_path / "file" / "data")
    assert "cannot be created or written to" in refusal(Path("/proc/self"))


def refusal(folder: Path, *options: str) -> str:
    command = [
        sys.executable,
        "-m",
        "airflow_training.cli.main",
        "serve",
        "--data",
        str(folder),
        "--port",
        "0",
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr
