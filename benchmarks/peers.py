"""What it costs to follow a job, beside other providers: `python -m benchmarks.peers`, a quarter of an hour.

300 running jobs are followed by as many real triggers in one event loop, each of which looks once a second: those of
the providers for Databricks, dbt Cloud and Airbyte, which ask for the status only, since there is no log; and ours,
which read the log as well, where each job prints a line a second. Ours with the log dropped, and with each line written
as a triggerer of Airflow writes it into the task log; and beside them the following alone, without triggers.

Measured are the processor time of the process with the loop, the requests that its server gets, both for each second
that each job is followed, and then the longest stall of the loop. In turns, three times; printed are medians, with the
least and the greatest. An argument is another number of jobs.

Made up are the services of the others (`parts/peer_server.py`), the jobs of ours (`parts/running_jobs.py`), and the
supervisor of the triggers (`parts/one_loop.py`). All speak plain HTTP on this machine. The others' triggers log as
well, a line for each look; that is dropped.
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
    """Where triggers ask: the connection that leads there, and how to count their requests."""

    connection: Mapping[str, Any]
    requests: Callable[[], int]


@dataclass(frozen=True)
class Measured:
    """Milliseconds of processor time, requests per job and second, and milliseconds of the longest stall."""

    processor: float
    requests: float
    stall: float


@contextmanager
def peer_servers() -> Iterator[dict[str, Server]]:
    """Run what the triggers of the others ask."""
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
    """Run a training service with so many running jobs."""
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
    """Run the triggers of one kind in a process of their own, for which Airflow has its files in a folder."""
    command = [sys.executable, "-m", "benchmarks.parts.one_loop", kind, str(number), str(SECONDS)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= {"AIRFLOW_HOME": home, "AIRFLOW_CONN_BENCHMARK": json.dumps(server.connection)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        if not process.stdout or process.stdout.readline() != "begin\n":
            raise RuntimeError(f"The triggers of {kind} do not run.")
        before = server.requests()
        told = json.loads(process.stdout.readline())
        asked = server.requests() - before
        told |= json.loads(process.stdout.readline())
    job_seconds = number * told["seconds"]
    return Measured(1000 * told["cpu"] / job_seconds, asked / job_seconds, 1000 * told["stall"])


def main() -> None:
    """Measure and print."""
    number = int(sys.argv[1]) if sys.argv[1:] else NUMBER
    measured: dict[str, list[Measured]] = {kind: [] for kind in (*PEERS, *OURS)}
    with guarded_folder("benchmark-") as folder:
        for turn in range(ROUNDS):
            # A service only where it is asked: ours sees to its jobs whether or not somebody follows them.
            with peer_servers() as servers:
                for kind in PEERS:
                    measured[kind].append(measure(kind, servers[kind], number, str(folder)))
            with our_server(folder / str(turn), number) as server:
                for kind in OURS:
                    measured[kind].append(measure(kind, server, number, str(folder)))
    print_all(measured)


def print_all(measured: Mapping[str, list[Measured]]) -> None:
    """Print the table, each figure, and how ours compare with the best of the others."""
    names = {**PEERS, **OURS}
    lines = []
    print(f"{'':22}{'ms of processor / job-second':>30}{'requests / job-second':>30}{'longest stall, ms':>30}")
    for kind, rounds in measured.items():
        cells = []
        for what, unit, values in (
            ("processor time", "ms/job-second", [each.processor for each in rounds]),
            ("requests", "1/job-second", [each.requests for each in rounds]),
            ("longest stall", "ms", [each.stall for each in rounds]),
        ):
            cells.append(f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})")
            lines.append(f"{names[kind]}, {what}: {median(values):.3f} {unit}")
        print(f"{names[kind]:22}" + "".join(f"{cell:>30}" for cell in cells))
    processor = {kind: median(each.processor for each in rounds) for kind, rounds in measured.items()}
    best = min(processor[kind] for kind in PEERS)
    lines += [f"best of the others / {names[kind]}: {best / processor[kind]:.2f} times" for kind in OURS]
    print("", *lines, sep="\n")


if __name__ == "__main__":
    main()
