"""The speed of the training service: `python -m benchmarks.service`, two to four minutes.

Real services run in a temporary folder and get requests over HTTP on the same machine. Measured are

1. submissions per second of jobs that wait, with one connection and with eight; compared with status requests over the
   same connections;
2. read requests with 100,000 jobs in the table, nearly all of which have ended; compared with 100 jobs;
3. the time from a submission to the first line of the job's program, for a client that polls every 20 milliseconds;
   compared with its parts: a start of Python, and a Python environment made by `uv`.

Compared figures are measured alternately. The output is a table, and each figure as `name: value unit`.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlsplit
from uuid import uuid4

import requests
from sqlalchemy import insert
from uv import find_uv_bin

from airflow_training.api.status import JobState
from airflow_training.local.guard import guarded_folder
from airflow_training.local.process import wait_until
from airflow_training.local.service import Credentials, LocalService
from airflow_training.service.database.models import Job, now, open_database
from airflow_training.service.runners.supervisor.environment import clean_environment, create_commands
from airflow_training.service.settings import DataFolder

TENANT = "benchmark"
AT_ONCE, ROUNDS, SUBMITS = 8, 5, 200
MANY, FEW, WAITING, REQUESTS = 100_000, 100, 10, 200
JOBS = 15

Figure = tuple[str, float, str, str, float]
"""A measurement: name, value and unit, and name and value of the comparison."""


class Connection(http.client.HTTPConnection):
    """A persistent connection of a client to a service."""

    def __init__(self, service: LocalService, credentials: Credentials) -> None:
        super().__init__(urlsplit(service.url).netloc, timeout=60)
        secret = (credentials.client_id, credentials.client_secret)
        grant = {"grant_type": "client_credentials"}
        reply = requests.post(f"{service.url}/oauth/token", grant, auth=secret, timeout=60)
        self._headers = {"Authorization": f"Bearer {reply.json()['access_token']}"}
        self._used = 0.0

    def ask(self, path: str, method: str = "GET", body: str | None = None) -> str:
        # The service closes a connection that was idle for five seconds.
        if time.monotonic() - self._used > 3:
            self.close()
        self._used = time.monotonic()
        self.request(method, path, body, self._headers)
        reply = self.getresponse()
        text = reply.read().decode()
        if not 200 <= reply.status < 300:
            raise RuntimeError(f"{method} {path} returned {reply.status}: {text}")
        return text

    def submit(self, command: str, cpus: int = 1) -> str:
        path = f"/api/v2/jobs/{uuid4()}"
        execution = {"command": command, "completionTime": "1h", "resources": {"cpus": cpus, "memory": 100}}
        self.ask(path, "POST", json.dumps({"job": {"name": "benchmark", "execution": execution}}))
        return path

    def wait(self, job: str, state: JobState) -> None:
        wait_until(lambda: json.loads(self.ask(job))["status"] == state.value, state.value, timeout=60)


@contextmanager
def connected(service: LocalService, number: int = 1) -> Iterator[list[Connection]]:
    """Run a service, with connections to it."""
    credentials = service.add_client("benchmark", TENANT)
    with service.running():
        yield [Connection(service, credentials) for _ in range(number)]


def submissions(folder: Path) -> Iterator[Figure]:
    """Submissions per second while another job occupies the whole machine."""
    measured: dict[int, list[tuple[float, float]]] = {1: [], AT_ONCE: []}
    with connected(LocalService(folder / "submissions"), AT_ONCE) as connections:
        running = connections[0].submit("sleep 1000", cpus=100_000)
        connections[0].wait(running, JobState.RUNNING)
        for _ in range(ROUNDS):
            for number, rates in measured.items():
                submits = rate(connections[:number], lambda connection: connection.submit("true"))
                rates.append((submits, rate(connections[:number], lambda connection: connection.ask(running))))
    for number, rates in measured.items():
        submits, statuses = map(median, zip(*rates, strict=True))
        yield (f"submissions, {number} at once", submits, "1/s", "status of a job", statuses)


def rate(connections: Sequence[Connection], request: Callable[[Connection], object]) -> float:
    """Requests per second, one after another on each connection."""
    each = SUBMITS // len(connections)

    def work(connection: Connection) -> None:
        for _ in range(each):
            request(connection)

    with ThreadPoolExecutor(len(connections)) as threads:
        return each * len(connections) / seconds(lambda: list(threads.map(work, connections)))


def reading(folder: Path) -> Iterator[Figure]:
    """Response times with many jobs in the table, and with few."""
    many, few = (LocalService(folder / f"jobs{number}", options=["--gpus", "0"]) for number in (MANY, FEW))
    fill(many, MANY)
    fill(few, FEW)
    paths = {f"jobs?finished={number}": f"/api/v2/jobs?finished={number}" for number in (1000, 100)}
    paths |= {"status of a job": "/api/v2/jobs/ended-50", "metrics": "/metrics"}
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in paths}
    with connected(many) as (large,), connected(few) as (small,):
        for name in list(paths) * REQUESTS:
            for connection, measured in zip((large, small), times[name], strict=True):
                measured.append(1000 * seconds(lambda: connection.ask(paths[name])))  # noqa: B023 - called at once
    for name, both in times.items():
        for percent in (50, 99):
            value, other = (quantiles(measured, n=100)[percent - 1] for measured in both)
            yield (f"{name}, p{percent}", value, "ms", f"{FEW} jobs", other)


def fill(service: LocalService, number: int) -> None:
    """Insert jobs into the table of a service that has not been started yet."""
    command = "python3 train.py" + " --epochs=50" * 30
    common = {"tenant": TENANT, "name": "train", "description": command, "cpus": 1, "memory": 4096}
    over = {**common, "gpus": 0, "state": JobState.SUCCEEDED, "claimed": True, "container_id": "process-1"}
    first = now() - timedelta(minutes=number)
    # There is no GPU, so a job that requests one waits.
    waiting = [{**common, "id": f"waiting-{index}", "gpus": 1, "submitted": first} for index in range(WAITING)]
    ended = []
    for index in range(number - WAITING):
        times = dict.fromkeys(("submitted", "started", "finished"), first + timedelta(minutes=index))
        ended.append({**over, **times, "id": f"ended-{index}"})
    sessions = open_database(DataFolder.at(service.data).database_url)
    with sessions.begin() as session:
        session.execute(insert(Job), waiting)
        session.execute(insert(Job), ended)
    sessions.kw["bind"].dispose()


def first_line(folder: Path) -> Iterator[Figure]:
    """The time to the first line of a job without requirements, on an idle service."""
    jobs, python, uv = [], [], []

    def run(*command: str) -> float:
        return seconds(lambda: subprocess.run(command, env=clean_environment(os.environ), check=True))

    with connected(LocalService(folder / "first_line")) as (connection,):
        for number in range(JOBS):
            began = time.perf_counter()
            job = connection.submit("echo up")
            while "up" not in connection.ask(f"{job}/logs").splitlines():
                time.sleep(0.02)
            jobs.append(time.perf_counter() - began)
            connection.wait(job, JobState.SUCCEEDED)
            python.append(run(sys.executable, "-c", "pass"))
            uv.append(run(*create_commands(find_uv_bin(), folder / f"env{number}", sys.executable)[0]))
    for what, pick in (("median", median), ("greatest", max)):
        for beside, other in (("python -c pass", python), ("uv venv --seed --offline", uv)):
            yield (f"first line of a job, {what}", pick(jobs), "s", beside, pick(other))


def seconds(action: Callable[[], object]) -> float:
    """The duration of an action."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main() -> None:
    """Measure everything, and print it."""
    with guarded_folder("benchmark-") as folder:
        figures = [figure for part in (submissions, reading, first_line) for figure in part(folder)]
    for name, value, unit, beside, other in figures:
        print(f"{name:30}{value:>9.2f} {unit:5}{beside:>16}{other:>9.2f} {unit:5}ratio{value / other:>7.2f}")
    lines = {name: f"{value:.2f} {unit}" for name, value, unit, _, _ in figures}
    lines |= {f"{name}, {beside}": f"{other:.2f} {unit}" for name, _, unit, beside, other in figures}
    print("", *map(": ".join, lines.items()), sep="\n")


if __name__ == "__main__":
    main()
