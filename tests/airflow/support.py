"""A training under test: the run of a Dag on a real Airflow, and its jobs on a real service."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import psutil
import pytest

from airflow_training.api.insights import ModelSummary
from airflow_training.api.status import JobStatus
from airflow_training.client import run_sync
from airflow_training.client.client import TrainingClient
from airflow_training.client.settings import ClientSettings
from airflow_training.local.airflow import LocalAirflow
from airflow_training.local.process import LocalProcess, LocalProcessError
from airflow_training.local.service import Credentials, LocalService
from tests.patience import wait_for

T = TypeVar("T")

SAVE = "from pathlib import Path\nPath('model/1').mkdir(parents=True)\nPath('model/1/saved_model.pb').write_text('m')\n"
WAIT = "scripts/wait_then_save.py"
"""A script that prints lines until its job folder has a file `go`."""

READ_DAGS_ONCE = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "86400"}
"""Seconds. No test changes a Dag file, and reading all of them twice a minute takes a twentieth of a run."""

TIME_OF_LATER_LINE = re.compile(r"^\d\d:\d\d:\d\d\.\d{3}Z ")

# A job is followed by one function in both.
BOTH = ("deferred", pytest.param("in_worker", marks=pytest.mark.slow))


class ServiceUnderTest:
    """A service and its client."""

    def __init__(self, service: LocalService, credentials: Credentials) -> None:
        self.local = service
        self.credentials = credentials
        self._settings = ClientSettings(service.url, credentials.client_id, credentials.client_secret)

    def jobs(self, name: str) -> list[JobStatus]:
        """The jobs of a name, oldest first."""

        async def ask() -> Sequence[JobStatus]:
            async with TrainingClient(self._settings) as client:
                # By default only the newest of the jobs that have ended, and a hundred may be newer.
                return await client.jobs(finished=10_000)

        found = [job for job in run_sync.run(ask()) if job.name == name]
        return sorted(found, key=lambda job: str(job.submission_time))

    def cancel(self, job: JobStatus) -> None:
        async def ask() -> None:
            async with TrainingClient(self._settings) as client:
                await client.cancel(job.job_id)

        run_sync.run(ask())

    def model(self, job: JobStatus) -> ModelSummary:
        """The service's description of a job's model, once its signatures have been read."""

        async def ask() -> ModelSummary | None:
            async with TrainingClient(self._settings) as client:
                return await client.model(job.job_id)

        def read() -> ModelSummary | None:
            model = run_sync.run(ask())
            return model if model and not model.reason.endswith("try again.") else None

        return wait_for(read, f"The model of {job.name}")

    def work(self, job: JobStatus) -> Path:
        """The working directory of a job; created before its start if needed."""
        tenant = self.folder(job).relative_to(self.local.data / "tenants").parts[0]
        folder = self.local.data / "jobs" / tenant / job.job_id / "files"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def folder(self, job: JobStatus) -> Path:
        (folder,) = self.local.data.glob(f"tenants/*/data/jobs/{job.name}-{job.job_id}")
        return folder


class Training:
    """A run of a Dag of `dags/reliability.py`.

    Args:
        airflow: The Airflow of the run.
        service: The service of its jobs.
        dag_id: The Dag.
        connection: The connection it uses.
        job: Parameters of the job.
    """

    def __init__(
        self,
        airflow: LocalAirflow,
        service: ServiceUnderTest,
        dag_id: str,
        connection: str = "training_default",
        **job: Any,
    ) -> None:
        self.airflow = airflow
        self.service = service
        self.dag_id = dag_id
        self.name = f"{dag_id.replace('_', '-')}-{uuid4().hex[:8]}"
        airflow.wait_for_dag(dag_id)
        self._conf = {"connection": connection, "job": {"job_name": self.name, "script": SAVE, **job}}
        self.run = airflow.trigger(dag_id, self._conf)

    @property
    def task(self) -> dict[str, Any]:
        return self.airflow.task(self.dag_id, self.run, "train")

    @property
    def state(self) -> str:
        return str(self.task["state"])

    @property
    def jobs(self) -> list[JobStatus]:
        return self.service.jobs(self.name)

    def wait(self, condition: Callable[[], T], what: str) -> T:
        """Wait for a state of this training, and return the last value read."""
        try:
            return wait_for(condition, what)
        except Exception as error:
            error.args = (f"{error}\n{self.describe()}",)
            raise

    def wait_for_state(self, *states: str) -> str:
        return self.wait(lambda: self.state if self.state in states else "", f"{states} of {self.name}")

    def wait_for_job(self, number: int = 1, *states: str) -> JobStatus:
        """Wait until the service has so many jobs of this training, and the last one is in one of the states."""
        wanted = states or ("RUNNING",)

        def reached() -> JobStatus | None:
            jobs = self.jobs
            return jobs[number - 1] if len(jobs) >= number and jobs[number - 1].state.value in wanted else None

        found = self.wait(reached, f"Job {number} of {self.name}, {wanted}")
        assert found
        return found

    def wait_for_line(self, line: str, try_number: int = 1) -> None:
        self.wait(lambda: line in self.lines(try_number), f"The line {line!r} of {self.name}")

    def go_on(self, number: int = 1) -> None:
        """Let a waiting script save its model and end."""
        (self.service.work(self.jobs[number - 1]) / "go").touch()

    def leave(self) -> None:
        """End what a failed test left running, to free the machine for others."""
        run = f"/dags/{self.dag_id}/dagRuns/{self.run}"
        with suppress(LocalProcessError):  # a test may have deleted it
            if self.airflow.api("GET", run)["state"] not in {"success", "failed"}:
                self.airflow.api("PATCH", run, body={"state": "failed"})
        for job in self.jobs:
            if not job.state.ended:
                self.service.cancel(job)

    def end(self, expected: str = "success") -> None:
        """Wait for the end of the run."""
        state = self.wait(lambda: self.airflow.wait_for_run(self.dag_id, self.run), "the end")
        assert state == expected, self.describe()

    def log(self, try_number: int = 1) -> list[dict[str, Any]]:
        begun = self.task["try_number"] >= try_number
        return self.airflow.log(self.dag_id, self.run, "train", try_number) if begun else []

    def lines(self, try_number: int = 1) -> list[str]:
        return lines_of(self.log(try_number))

    def waited(self, try_number: int = 1) -> list[int]:
        """The numbers of the lines that the waiting script wrote."""
        return [int(line.split()[1]) for line in self.lines(try_number) if line.startswith("waiting ")]

    def errors(self, try_number: int = 1) -> list[dict[str, Any]]:
        """The entries of the task log that are warnings or worse."""
        return [entry for entry in self.log(try_number) if entry.get("level") in ("warning", "error", "critical")]

    def failure(self, try_number: int = 1) -> tuple[str, str]:
        """Type and text of the exception that ended a try."""
        errors = [entry for entry in self.log(try_number) if entry.get("error_detail")]
        # Before the whole log, of whose middle the report of a failed test may lack a part.
        assert len(errors) == 1, f"{errors}\n{self.describe()}"
        detail = errors[0]["error_detail"][0]
        return detail["exc_type"], detail["exc_value"]

    def xcom(self, key: str = "return_value") -> Any:
        return self.airflow.xcom(self.dag_id, self.run, "train", key)

    def is_followed(self) -> bool:
        """Whether the trigger has seen the job."""
        try:
            return self.xcom("training_status") is not None
        except LocalProcessError:  # there is none yet
            return False

    def clear(self) -> None:
        self.airflow.clear(self.dag_id, self.run, "train")

    def delete_and_run_again(self) -> None:
        """Delete the run and create one with the same id."""
        self.airflow.api("DELETE", f"/dags/{self.dag_id}/dagRuns/{self.run}")
        self.airflow.trigger(self.dag_id, self._conf, self.run)

    def mark(self, state: str) -> None:
        self.airflow.mark(self.dag_id, self.run, "train", state)

    def mark_run(self, state: str) -> None:
        self.airflow.api("PATCH", f"/dags/{self.dag_id}/dagRuns/{self.run}", body={"state": state})

    def describe(self) -> str:
        """The output for a failed test."""
        try:
            task = self.task
        except LocalProcessError as error:  # a test may have deleted it
            return f"{self.name}: {error}\n" + "\n".join(str(job.to_wire()) for job in self.jobs)
        tries = range(1, max(1, task["try_number"]) + 1)
        logs = [f"--- try {number} ---\n" + "\n".join(map(json.dumps, self.log(number))) for number in tries]
        jobs = "\n".join(str(job.to_wire()) for job in self.jobs)
        return f"{self.name} is {task['state']}, try {task['try_number']}\n{jobs}\n" + "\n".join(logs)


def lines_of(log: list[dict[str, Any]]) -> list[str]:
    """The lines of a task log: late lines of a job, as on a busy machine, are one record."""
    return [TIME_OF_LATER_LINE.sub("", line) for entry in log for line in entry["event"].split("\n")]


def places(airflow: LocalAirflow, training: Training) -> Iterator[str]:
    """Everything that a user of Airflow can read: log, triggerer's log, XComs, rendered template fields."""
    yield str(training.log())
    yield airflow.components["triggerer"].output.read_text(errors="replace")
    task = f"/dags/{training.dag_id}/dagRuns/{training.run}/taskInstances/train"
    for entry in airflow.api("GET", f"{task}/xcomEntries")["xcom_entries"]:
        yield str(airflow.api("GET", f"{task}/xcomEntries/{entry['key']}"))
    yield str(training.task["rendered_fields"])


class Counts:
    """Receives the metrics that an Airflow sends to StatsD (UDP, `name:value|kind`), and counts it.

    Attributes:
        port: Its port.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._seen: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def count(self, name: str) -> int:
        """How often a metric was sent, without Airflow's prefix."""
        return self._seen[name]

    def close(self) -> None:
        # Only a last message wakes the receiving thread.
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _receive(self) -> None:
        while message := self._socket.recv(65536):
            self._seen.update(line.split(":")[0].removeprefix("airflow.") for line in message.decode().splitlines())


@contextmanager
def frozen_triggerer(airflow: LocalAirflow) -> Iterator[None]:
    """A paused triggerer, as on an overloaded machine."""
    parent = psutil.Process(airflow.components["triggerer"].pid)
    processes = [parent, *parent.children(recursive=True)]

    def stands_still() -> bool:
        for each in processes:
            each.suspend()
        if _can_be_written(airflow.database):
            return True
        for each in processes:
            each.resume()
        return False

    try:
        wait_for(stands_still, "A moment in which the triggerer does not hold the database")
        yield
    finally:
        for each in processes:
            each.resume()


def _can_be_written(database: Path) -> bool:
    with closing(sqlite3.connect(database, timeout=1, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True


def peak_memory(process: LocalProcess) -> int:
    """The peak memory of a process and its children, in bytes."""
    parent = psutil.Process(process.pid)
    statuses = [Path(f"/proc/{each.pid}/status").read_text() for each in (parent, *parent.children(recursive=True))]
    return sum(int(status.split("VmHWM:")[1].split()[0]) * 1024 for status in statuses)
