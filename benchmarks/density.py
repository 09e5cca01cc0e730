"""How many trainings one triggerer follows, and how well: `python -m benchmarks.density`, ten minutes or more.

A real Airflow and a real training service on this machine. The triggerer of the one follows 10, 100, 1,000 and 3,000
running jobs of the other, or as many as the arguments say, each of which prints a line a second. Measured for half a
minute, when each training has told what its job wrote before, are

1. the age of the lines when they are found in the task logs, of fifty trainings that are looked at each 20 ms;
2. the processor time of the triggerer, all its processes, and of the service;
3. the longest stall of the triggerer's loop, by a trigger that sleeps ten milliseconds again and again, and how often
   Airflow itself warns of one;
4. the memory of the triggerer.

Beside it, in turns, the same with as many triggers that sleep. Two things are made up: the jobs, see
`parts/running_jobs.py`, and the way of the tasks into deferral, see `parts/deferred_tasks.py`. Each time the triggerer
is another process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import quantiles

import psutil

from airflow_training.local.airflow import LocalAirflow
from airflow_training.local.process import LocalProcess, LocalProcessError, wait_until
from benchmarks.parts.names import DAG, SLEEPING, STALL, TRAININGS
from benchmarks.parts.running_jobs import LINE, TENANT, running_jobs

NUMBERS = (10, 100, 1000, 3000)
SECONDS, SETTLE, FRESH, LOOKED_AT = 30.0, 10.0, 3.0, 50
# Triggers start by and by, and each asks for a token first.
PATIENCE = 600
MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Measured:
    """What was measured of a triggerer; times in seconds, processor time in parts of a core, memory in bytes."""

    ages: list[float]
    triggerer: float
    service: float
    memory: int
    stall: float
    warnings: int


class TaskLog:
    """What a triggerer writes into the log of a task."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> list[dict[str, object]]:
        """The entries that were written since the last look."""
        if not self._path.exists() or self._path.stat().st_size == self._offset:
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            lines = [line for line in file.readlines() if line.endswith(b"\n")]
        self._offset += sum(map(len, lines))
        return [json.loads(line) for line in lines]


class Triggerer:
    """The triggerer of an Airflow, with the first tasks of a run deferred."""

    def __init__(self, airflow: LocalAirflow, run_id: str, number: int, kind: str) -> None:
        self.process: LocalProcess = airflow.components["triggerer"]
        self._number = number
        self._logs = airflow.home / "logs" / f"dag_id={DAG}"
        self._defer = [sys.executable, "-m", "benchmarks.parts.deferred_tasks", run_id, str(number), kind]

    @contextmanager
    def running(self, environment: dict[str, str]) -> Iterator[None]:
        """Have it run the triggers, from their start on."""
        shutil.rmtree(self._logs, ignore_errors=True)
        subprocess.run(self._defer, env=environment, check=True)
        self.process.start()
        try:
            yield
        finally:
            self.process.stop(grace=30)

    def logs(self) -> list[TaskLog]:
        """The task logs of all, in the order of the tasks, and at last of the one that measures the loop."""
        wait_until(lambda: len(self._paths()) > self._number, f"{self._number} task logs", timeout=PATIENCE, interval=1)
        return [TaskLog(path) for path in self._paths()]

    def _paths(self) -> list[Path]:
        found = self._logs.glob("run_id=*/task_id=*/map_index=*/*.trigger.*.log")
        return sorted(found, key=lambda path: int(path.parent.name.partition("=")[2]))

    def warnings(self) -> int:
        """How often Airflow warned that the loop stood still."""
        return self.process.output.read_text(errors="replace").count("async thread was blocked")


def measure(triggerer: Triggerer, service: LocalProcess, kind: str) -> Measured:
    """Wait until all triggers are at work, and measure them."""
    *all_trainings, loop = triggerer.logs()
    left = list(all_trainings) if kind == TRAININGS else []

    def all_caught_up() -> bool:
        triggerer.process.check()
        now = datetime.now(timezone.utc)
        left[:] = [log for log in left if not any(is_fresh(entry, now) for entry in log.new())]
        return not left

    wait_until(all_caught_up, f"A new line of each of {len(all_trainings)} trainings", timeout=PATIENCE, interval=1)
    time.sleep(SETTLE)
    trainings = all_trainings[:: max(1, len(all_trainings) // LOOKED_AT)]
    for log in (*trainings, loop):
        log.new()
    warnings, began = triggerer.warnings(), time.monotonic()
    before = {process: processor_time(process) for process in (triggerer.process, service)}
    ages = []
    while time.monotonic() < began + SECONDS:
        for log in trainings:
            entries, found = log.new(), datetime.now(timezone.utc)
            ages += [(found - written(entry)).total_seconds() for entry in entries if is_line(entry)]
        time.sleep(0.02)
    seconds = time.monotonic() - began
    used = {process: (processor_time(process) - before[process]) / seconds for process in before}
    return Measured(
        ages=ages,
        triggerer=used[triggerer.process],
        service=used[service],
        memory=sum(process.memory_info().rss for process in family(triggerer.process)),
        stall=max(float(str(entry["seconds"])) for entry in loop.new() if entry["event"] == STALL),
        warnings=triggerer.warnings() - warnings,
    )


def is_line(entry: dict[str, object]) -> bool:
    """Whether an entry of a task log is a line of a job."""
    return str(entry["event"]).startswith(LINE)


def is_fresh(entry: dict[str, object], now: datetime) -> bool:
    """Whether an entry is a line that was written just now."""
    return is_line(entry) and (now - written(entry)).total_seconds() < FRESH


def written(entry: dict[str, object]) -> datetime:
    """When the job wrote a line."""
    return datetime.fromisoformat(str(entry["timestamp"]).replace("Z", "+00:00"))


def family(process: LocalProcess) -> list[psutil.Process]:
    """A process and its children."""
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


def processor_time(process: LocalProcess) -> float:
    """The seconds that a process and its children have had of a processor."""
    return sum(times.user + times.system for times in (each.cpu_times() for each in family(process)))


def measure_all(airflow: LocalAirflow, folder: Path, numbers: list[int]) -> Iterator[tuple[int, Measured, Measured]]:
    """Measure each number of trainings, and as many that sleep."""
    # What its database and its secrets are, our program needs to know as well.
    environment = psutil.Process(airflow.components["triggerer"].pid).environ()
    airflow.components["triggerer"].stop()
    airflow.wait_for_dag(DAG)
    run_id = airflow.trigger(DAG)
    for number in numbers:
        with running_jobs(folder / str(number), number) as service:
            credentials = service.add_client(f"benchmark-{number}", TENANT)
            airflow.connect("training_default", service.url, credentials)
            measured = []
            for kind in (TRAININGS, SLEEPING):
                triggerer = Triggerer(airflow, run_id, number, kind)
                with triggerer.running(environment):
                    measured.append(measure(triggerer, service.process, kind))
            airflow.api("DELETE", "/connections/training_default")
        yield number, measured[0], measured[1]


def figures(number: int, trainings: Measured, sleeping: Measured, few: tuple[int, int]) -> dict[str, tuple[float, str]]:
    """The figures of so many trainings: name → value and unit; `few` is a smaller number, and the memory with it."""
    percentiles = quantiles(trainings.ages, n=100)
    found = {
        "age of a line, p50": (percentiles[49], "s"),
        "age of a line, p99": (percentiles[98], "s"),
        "lines told": (len(trainings.ages) / SECONDS / min(number, LOOKED_AT), "1/s per training"),
        "triggerer": (100 * trainings.triggerer, "% of a core"),
        "triggerer, all sleep": (100 * sleeping.triggerer, "% of a core"),
        "triggerer, more than asleep": (100 * (trainings.triggerer - sleeping.triggerer), "% of a core"),
        "service": (100 * trainings.service, "% of a core"),
        "longest stall": (1000 * trainings.stall, "ms"),
        "longest stall, all sleep": (1000 * sleeping.stall, "ms"),
        "warnings of a blocked loop": (trainings.warnings * 60 / SECONDS, "1/min"),
        "memory of the triggerer": (trainings.memory / MEGABYTE, "MB"),
        "memory, all sleep": (sleeping.memory / MEGABYTE, "MB"),
    }
    if number > few[0]:
        found["memory per trigger"] = ((trainings.memory - few[1]) / (number - few[0]) / 1024, "kB")
    return found


def main() -> None:
    """Start an Airflow, measure, and print."""
    numbers = [int(word) for word in sys.argv[1:]] or list(NUMBERS)
    here = str(Path(__file__).parents[1])
    settings = {
        "BENCHMARK_TASKS": str(max(numbers) + 1),
        "PYTHONPATH": os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH")))),
        "AIRFLOW__CORE__MAX_MAP_LENGTH": str(max(numbers) + 1),
        "AIRFLOW__TRIGGERER__CAPACITY": str(max(numbers) + 1),
    }
    table: dict[int, dict[str, tuple[float, str]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        airflow = LocalAirflow(Path(folder, "airflow"), Path(__file__).parent / "parts" / "dags", settings)
        try:
            airflow.migrate()
            airflow.start()
            few = (0, 0)
            for number, trainings, sleeping in measure_all(airflow, Path(folder), numbers):
                few = few if few[0] else (number, trainings.memory)
                table[number] = figures(number, trainings, sleeping, few)
        except LocalProcessError as error:
            print(f"It ends here: {error}", file=sys.stderr)
        finally:
            airflow.stop()
    print(f"{'trainings':30}" + "".join(f"{number:>12,}" for number in table))
    for name in dict.fromkeys(name for found in table.values() for name in found):
        values = (found.get(name) for found in table.values())
        print(f"{name:30}" + "".join(f"{value[0]:>12.2f}" if value else f"{'':12}" for value in values))
    print()
    for number, found in table.items():
        for name, (value, unit) in found.items():
            print(f"{name}, {number} trainings: {value:.2f} {unit}")


if __name__ == "__main__":
    main()
