"""The cost of following a job, compared with other providers: `python -m benchmarks.peers`, a quarter of an hour.

In one event loop, 300 running jobs are followed by as many real triggers, which check once a second. The triggers of
the providers for Databricks, dbt Cloud and Airbyte request the status only. Ours also read the log, to which each job
writes a line a second; they are measured with the log dropped, and with each line written as Airflow's triggerer writes
it into the task log. Following alone, without triggers, is measured too.

The figures are the CPU time of the process with the loop and the requests that the server gets, both per job and
second, and the longest stall of the loop: medians of three alternating rounds, with minimum and maximum. An argument
sets another number of jobs.

Simulated are the services of the others (`parts/peer_server.py`), our jobs (`parts/running_jobs.py`), and the
supervisor of the triggers (`parts/one_loop.py`). All use plain HTTP on this machine. The other triggers log a line for
each check; these lines are dropped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import requests

from airflow_training.local.guard import guarded_folder
from benchmarks.parts.running_jobs import TENANT, running_jobs

NUMBER, SECONDS, ROUNDS = 300, 15, 3
PEERS = {"databricks": "Databricks, status", "dbt_cloud": "dbt Cloud, status", "airbyte": "Airbyte, status"}
OURS = {
    "following": "ours, following",
    "training": "ours, lines dropped",
    "training_with_log": "ours, lines written",
}


@dataclass(frozen=True)
class Server:
    """A server that triggers query: its connection, and a function that counts its requests."""

    connection: Mapping[str, Any]
    requests: Callable[[], int]


@dataclass(frozen=True)
class Measured:
    """Milliseconds of CPU time and requests, both per job and second, and milliseconds of the longest stall."""

    cpu: float
    requests: float
    stall: float


@contextmanager
def peer_servers() -> Iterator[dict[str, Server]]:
    """Run the server for the triggers of the others."""
    command = [sys.executable, "-m", "benchmarks.parts.peer_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            host = f"127.0.0.1:{int(process.stdout.readline()) if process.stdout else 0}"
            url = f"http://{host}"
            address = {"host": "127.0.0.1", "port": urlsplit(url).port, "schema": "http"}
            connections: dict[str, dict[str, Any]] = {
                "databricks": {"conn_type": "databricks", "password": "token", **address},
                "dbt_cloud": {"conn_type": "dbt_cloud", "login": "1", "password": "token", "host": host},
                "airbyte": {"conn_type": "airbyte", "host": url},
            }

            def count() -> int:
                return int(requests.get(f"{url}/count", timeout=60).text)

            yield {name: Server(connection, count) for name, connection in connections.items()}
        finally:
            process.kill()


@contextmanager
def our_server(folder: Path, number: int) -> Iterator[Server]:
    """Run a training service with running jobs."""
    with running_jobs(folder, number) as service:
        credentials = service.add_client("benchmark", TENANT)
        url = urlsplit(service.url)
        connection = {
            "conn_type": "training",
            "schema": url.scheme,
            "host": url.hostname,
            "port": url.port,
            "login": credentials.client_id,
            "password": credentials.client_secret,
            "extra": {"oauth_token_url": f"{service.url}/oauth/token"},
        }

        def count() -> int:
            metrics = requests.get(f"{service.url}/metrics", timeout=60).text.splitlines()
            counts = [
                line for line in metrics if line.startswith("training_request_seconds_count{") and "/api/" in line
            ]
            return sum(int(float(line.rsplit(maxsplit=1)[1])) for line in counts)

        yield Server(connection, count)


def measure(kind: str, server: Server, number: int, home: str) -> Measured:
    """Run the triggers of one kind in a new process, with a home folder for Airflow."""
    command = [sys.executable, "-m", "benchmarks.parts.one_loop", kind, str(number), str(SECONDS)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= {"AIRFLOW_HOME": home, "AIRFLOW_CONN_BENCHMARK": json.dumps(server.connection)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        if not process.stdout or process.stdout.readline() != "begin\n":
            raise RuntimeError(f"The triggers of {kind} do not run.")
        before = server.requests()
        output = json.loads(process.stdout.readline())
        requested = server.requests() - before
        output |= json.loads(process.stdout.readline())
    job_seconds = number * output["seconds"]
    return Measured(1000 * output["cpu"] / job_seconds, requested / job_seconds, 1000 * output["stall"])


def main() -> None:
    """Measure and print."""
    number = int(sys.argv[1]) if sys.argv[1:] else NUMBER
    measured: dict[str, list[Measured]] = {kind: [] for kind in (*PEERS, *OURS)}
    with guarded_folder("benchmark-") as folder:
        for turn in range(ROUNDS):
            # A service runs only while it is measured: ours uses CPU time for its jobs even if nobody follows them.
            with peer_servers() as servers:
                for kind in PEERS:
                    measured[kind].append(measure(kind, servers[kind], number, str(folder)))
            with our_server(folder / str(turn), number) as server:
                for kind in OURS:
                    measured[kind].append(measure(kind, server, number, str(folder)))
    print_all(measured)


def print_all(measured: Mapping[str, list[Measured]]) -> None:
    """Print the table, each figure, and the ratio to the best of the others."""
    names = {**PEERS, **OURS}
    lines = []
    print(f"{'':22}{'CPU ms / job-second':>30}{'requests / job-second':>30}{'longest stall, ms':>30}")
    for kind, rounds in measured.items():
        cells = []
        for what, unit, values in (
            ("CPU time", "ms/job-second", [each.cpu for each in rounds]),
            ("requests", "1/job-second", [each.requests for each in rounds]),
            ("longest stall", "ms", [each.stall for each in rounds]),
        ):
            cells.append(f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})")
            lines.append(f"{names[kind]}, {what}: {median(values):.3f} {unit}")
        print(f"{names[kind]:22}" + "".join(f"{cell:>30}" for cell in cells))
    cpu = {kind: median(each.cpu for each in rounds) for kind, rounds in measured.items()}
    best = min(cpu[kind] for kind in PEERS)
    lines += [f"best of the others / {names[kind]}: {best / cpu[kind]:.2f} times" for kind in OURS]
    print("", *lines, sep="\n")


if __name__ == "__main__":
    main()
