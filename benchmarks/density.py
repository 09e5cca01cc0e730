"""How many trainings one triggerer can follow: `python -m benchmarks.density`, ten minutes or more.

The triggerer of a real Airflow follows 10, 100, 1,000 and 3,000 running jobs of a real training service on this
machine, or the numbers given as arguments. Each job prints a line a second. When each training has caught up with the
earlier output of its job and the time `--settle` has passed, half a minute is measured:

1. the age of the lines when they appear in the task logs of fifty trainings, which are read every 20 ms;
2. the CPU time of the triggerer with all its processes, and of the service;
3. the longest stall of the triggerer's event loop, by a trigger that repeatedly sleeps ten milliseconds, and the number
   of Airflow's own warnings of a blocked loop;
4. the memory of the triggerer.

For comparison, the same is measured with as many triggers that sleep, each time in a new triggerer. Two parts are
simulated: the jobs, see `parts/running_jobs.py`, and the deferral of the tasks, see `parts/deferred_tasks.py`. `--busy`
adds loops that use a core each, `--alone` omits the triggers that sleep, `--every` sets the seconds between two lines
of a job, and `--patience` limits the time until all trainings have caught up.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from statistics import median, quantiles

import psutil

from airflow_training.local.airflow import LocalAirflow
from airflow_training.local.guard import guarded_folder
from airflow_training.local.process import LocalProcess, LocalProcessError, wait_until
from benchmarks.parts.names import DAG, SLEEPING, STALL, TRAININGS
from benchmarks.parts.running_jobs import LINE, TENANT, running_jobs

NUMBERS = (10, 100, 1000, 3000)
SECONDS, FRESH, SAMPLED = 30.0, 10.0, 50
# The time of each line of a record after the first.
LATER_LINE = re.compile(rf"^(\d\d:\d\d:\d\d\.\d+)Z {LINE}", re.MULTILINE)
MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Measured:
    """The measurements of a triggerer: times in seconds, CPU time as a fraction of a core, memory in bytes."""

    came_up: float
    ages: list[float]
    records: int
    triggerer: float
    service: float
    memory: int
    stall: float
    warnings: int


class TaskLog:
    """The log of a task that a triggerer writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> list[dict[str, object]]:
        """The entries since the last call."""
        if not self._path.exists() or self._path.stat().st_size == self._offset:
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            lines = [line for line in file.readlines() if line.endswith(b"\n")]
        self._offset += sum(map(len, lines))
        return [json.loads(line) for line in lines]


class Triggerer:
    """The triggerer of an Airflow with deferred tasks of a run."""

    def __init__(self, airflow: LocalAirflow, run_id: str, number: int, kind: str, patience: float) -> None:
        self.process: LocalProcess = airflow.components["triggerer"]
        self._number = number
        self.patience = patience
        self._logs = airflow.home / "logs" / f"dag_id={DAG}"
        self._defer = [sys.executable, "-m", "benchmarks.parts.deferred_tasks", run_id, str(number), kind]

    @contextmanager
    def running(self, environment: dict[str, str]) -> Iterator[None]:
        """Run the triggers in a new triggerer."""
        shutil.rmtree(self._logs, ignore_errors=True)
        subprocess.run(self._defer, env=environment, check=True)
        self.process.start()
        try:
            yield
        finally:
            self.process.stop(grace=30)

    def logs(self) -> list[TaskLog]:
        """The logs of all tasks in their order; the last is that of the trigger that measures the loop."""
        all_there = f"{self._number} task logs"
        wait_until(lambda: len(self._paths()) > self._number, all_there, timeout=self.patience, interval=1)
        return [TaskLog(path) for path in self._paths()]

    def _paths(self) -> list[Path]:
        found = self._logs.glob("run_id=*/task_id=*/map_index=*/*.trigger.*.log")
        return sorted(found, key=lambda path: int(path.parent.name.partition("=")[2]))

    def warnings(self) -> int:
        """The number of Airflow's warnings of a blocked loop."""
        return self.process.output.read_text(errors="replace").count("async thread was blocked")


def measure(triggerer: Triggerer, service: LocalProcess, kind: str, settle: float) -> Measured:
    """Wait until all triggers have caught up, and measure."""
    started = time.monotonic()
    *all_trainings, loop = triggerer.logs()
    left = list(all_trainings) if kind == TRAININGS else []

    def all_caught_up() -> bool:
        triggerer.process.check()
        now = datetime.now(timezone.utc)
        left[:] = [log for log in left if not any((now - line).total_seconds() < FRESH for line in new_lines(log)[1])]
        return not left

    all_lines = f"a new line from each of {len(all_trainings)} trainings"
    wait_until(all_caught_up, all_lines, timeout=triggerer.patience, interval=1)
    came_up = time.monotonic() - started
    time.sleep(settle)
    trainings = all_trainings[:: max(1, len(all_trainings) // SAMPLED)]
    for log in (*trainings, loop):
        log.new()
    warnings, began = triggerer.warnings(), time.monotonic()
    before = {process: cpu_time(process) for process in (triggerer.process, service)}
    ages, records = [], 0
    while time.monotonic() < began + SECONDS:
        for log in trainings:
            (new, lines), found = new_lines(log), datetime.now(timezone.utc)
            records += new
            ages += [(found - line).total_seconds() for line in lines]
        time.sleep(0.02)
    seconds = time.monotonic() - began
    used = {process: (cpu_time(process) - before[process]) / seconds for process in before}
    return Measured(
        came_up=came_up,
        ages=ages,
        records=records,
        triggerer=used[triggerer.process],
        service=used[service],
        memory=sum(process.memory_info().rss for process in family(triggerer.process)),
        stall=max(float(str(entry["seconds"])) for entry in loop.new() if entry["event"] == STALL),
        warnings=triggerer.warnings() - warnings,
    )


def new_lines(log: TaskLog) -> tuple[int, list[datetime]]:
    """The number of new records with lines of the job in a task log, and the time of each of these lines."""
    records = [entry for entry in log.new() if str(entry["event"]).startswith(LINE)]
    return len(records), [time for record in records for time in written(record)]


def written(record: dict[str, object]) -> Iterator[datetime]:
    """The times of the lines of a record."""
    yield (first := datetime.fromisoformat(str(record["timestamp"]).replace("Z", "+00:00")))
    for time_of_day in LATER_LINE.findall(str(record["event"])):
        later = datetime.combine(first, datetime.fromisoformat(f"2000-01-01T{time_of_day}").time(), timezone.utc)
        yield later if later + timedelta(seconds=1) > first else later + timedelta(days=1)


def family(process: LocalProcess) -> list[psutil.Process]:
    """A process and its children."""
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


def cpu_time(process: LocalProcess) -> float:
    """The CPU seconds of a process and its children."""
    return sum(times.user + times.system for times in (each.cpu_times() for each in family(process)))


def measure_all(
    airflow: LocalAirflow, folder: Path, options: argparse.Namespace
) -> Iterator[tuple[int, Measured, Measured | None]]:
    """Measure each number of trainings, and as many triggers that sleep."""
    # The program that defers the tasks needs the database and the secrets of this Airflow.
    environment = psutil.Process(airflow.components["triggerer"].pid).environ()
    airflow.components["triggerer"].stop()
    airflow.wait_for_dag(DAG)
    run_id = airflow.trigger(DAG)
    for number in options.numbers:
        with running_jobs(folder / str(number), number, options.every) as service:
            credentials = service.add_client(f"benchmark-{number}", TENANT)
            airflow.connect("training_default", service.url, credentials)
            measured = []
            for kind in (TRAININGS,) if options.alone else (TRAININGS, SLEEPING):
                triggerer = Triggerer(airflow, run_id, number, kind, options.patience)
                with triggerer.running(environment), busy_loops(options.busy):
                    measured.append(measure(triggerer, service.process, kind, options.settle))
            airflow.api("DELETE", "/connections/training_default")
        yield number, measured[0], measured[1] if measured[1:] else None


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """Run programs that use as much of a core as they can."""
    with ExitStack() as loops:
        for _ in range(number):
            loop = loops.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            loops.callback(loop.kill)
        yield


def figures(
    number: int, trainings: Measured, sleeping: Measured | None, few: tuple[int, int]
) -> dict[str, tuple[float, str]]:
    """The figures of a number of trainings: name → value and unit. `few` is a smaller number, and the memory for it."""
    percentiles = quantiles(trainings.ages, n=100)
    half = len(trainings.ages) // 2
    found = {
        "came up after": (trainings.came_up, "s"),
        "age of a line, p50": (percentiles[49], "s"),
        "age of a line, p50 of the first half": (median(trainings.ages[:half]), "s"),
        "age of a line, p50 of the second half": (median(trainings.ages[half:]), "s"),
        "age of a line, p99": (percentiles[98], "s"),
        "lines delivered": (len(trainings.ages) / SECONDS / min(number, SAMPLED), "1/s per training"),
        "lines of a record": (len(trainings.ages) / trainings.records, "lines"),
        "triggerer": (100 * trainings.triggerer, "% of a core"),
        "service": (100 * trainings.service, "% of a core"),
        "longest stall": (1000 * trainings.stall, "ms"),
        "warnings of a blocked loop": (trainings.warnings * 60 / SECONDS, "1/min"),
        "memory of the triggerer": (trainings.memory / MEGABYTE, "MB"),
    }
    if sleeping:
        found["triggerer, all sleep"] = (100 * sleeping.triggerer, "% of a core")
        found["triggerer, more than asleep"] = (100 * (trainings.triggerer - sleeping.triggerer), "% of a core")
        found["longest stall, all sleep"] = (1000 * sleeping.stall, "ms")
        found["memory, all sleep"] = (sleeping.memory / MEGABYTE, "MB")
    if number > few[0]:
        found["memory per trigger"] = ((trainings.memory - few[1]) / (number - few[0]) / 1024, "kB")
    return found


def main() -> None:
    """Start an Airflow, measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.density")
    parser.add_argument("numbers", nargs="*", type=int, default=NUMBERS, metavar="NUMBER", help="number of trainings")
    parser.add_argument("--alone", action="store_true", help="omit the triggers that sleep")
    parser.add_argument("--busy", type=int, default=0, help="number of busy loops")
    parser.add_argument("--every", type=float, default=1, help="seconds between two lines of a job")
    parser.add_argument("--patience", type=float, default=600, help="seconds until all trainings must have caught up")
    parser.add_argument("--settle", type=float, default=10, help="seconds from then until the measurement")
    options = parser.parse_args()
    here = str(Path(__file__).parents[1])
    settings = {
        "BENCHMARK_TASKS": str(max(options.numbers) + 1),
        "PYTHONPATH": os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH")))),
        "AIRFLOW__CORE__MAX_MAP_LENGTH": str(max(options.numbers) + 1),
        "AIRFLOW__TRIGGERER__CAPACITY": str(max(options.numbers) + 1),
    }
    table: dict[int, dict[str, tuple[float, str]]] = {}
    with guarded_folder("benchmark-") as folder:
        airflow = LocalAirflow(folder / "airflow", Path(__file__).parent / "parts" / "dags", settings)
        try:
            airflow.migrate()
            airflow.start()
            few = (0, 0)
            for number, trainings, sleeping in measure_all(airflow, folder, options):
                few = few if few[0] else (number, trainings.memory)
                table[number] = figures(number, trainings, sleeping, few)
        except LocalProcessError as error:
            print(f"Stopped early: {error}", file=sys.stderr)
        finally:
            airflow.stop()
    print(f"{'trainings':40}" + "".join(f"{number:>12,}" for number in table))
    for name in dict.fromkeys(name for found in table.values() for name in found):
        values = (found.get(name) for found in table.values())
        print(f"{name:40}" + "".join(f"{value[0]:>12.2f}" if value else f"{'':12}" for value in values))
    print()
    for number, found in table.items():
        for name, (value, unit) in found.items():
            print(f"{name}, {number} trainings: {value:.2f} {unit}")


if __name__ == "__main__":
    main()
