"""The overhead of Airflow for a training: `python -m benchmarks.overhead`, three minutes.

Trainings of twelve seconds run on a real Airflow and a real service, two at a time. Airflow's database is polled twenty
times a second. Measured are the time from the exit of the training's program to the event of its trigger; from the
event to the success of the task, up to a second of which Airflow needs to pass on the event; and the time for which the
task occupied a worker slot, without the upload.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median, quantiles

from airflow_training.local.airflow import LocalAirflow
from benchmarks.parts.airflow_and_service import airflow_and_service
from tests.airflow.support import ServiceUnderTest, Training

AT_ONCE, ROUNDS, INTERVAL = 2, 9, 0.05
SCRIPT = """
import time
from pathlib import Path
time.sleep(12)
Path("model").mkdir()
Path("model/saved_model.pb").touch()
Path("exit").write_text(str(time.time()))
"""


@dataclass
class Timeline:
    """When a task entered each state, and how long it occupied a worker slot."""

    entered: dict[str, float] = field(default_factory=dict)
    with_worker: float = 0.0
    _state: str = ""
    _since: float = 0.0

    def see(self, state: str, now: float) -> None:
        if state == self._state:
            return
        if self._state == "running":
            self.with_worker += now - self._since
        self._state, self._since = state, now
        self.entered[state] = now


def watch(airflow: LocalAirflow, trainings: list[Training]) -> dict[str, Timeline]:
    """Poll the states of tasks until all have ended."""
    timelines = {training.run: Timeline() for training in trainings}
    with closing(sqlite3.connect(f"file:{airflow.database}?mode=ro", uri=True, timeout=60)) as database:
        while not all({"success", "failed"} & set(timeline.entered) for timeline in timelines.values()):
            rows = database.execute("SELECT run_id, state FROM task_instance").fetchall()
            now = time.time()
            for run, state in rows:
                if run in timelines:
                    timelines[run].see(state or "", now)
            time.sleep(INTERVAL)
    return timelines


def logged_at(training: Training, begin: str) -> float | None:
    """The time of the first line in the task log that begins with a text; None if there is none."""
    times = [entry["timestamp"] for entry in training.log() if entry["event"].startswith(begin)]
    return datetime.fromisoformat(times[0].replace("Z", "+00:00")).timestamp() if times else None


def measure(airflow: LocalAirflow, service: ServiceUnderTest) -> None:
    """Run the trainings and print the figures."""
    to_event, to_success, with_worker = [], [], []
    unknown = 0
    for _ in range(ROUNDS):
        trainings = [Training(airflow, service, "once_deferred", script=SCRIPT) for _ in range(AT_ONCE)]
        timelines = watch(airflow, trainings)
        for training in trainings:
            exited = float((service.folder(training.jobs[0]) / "exit").read_text())
            began, ended = logged_at(training, "Uploading "), logged_at(training, "Uploaded ")
            if began and ended:
                with_worker.append(timelines[training.run].with_worker - (ended - began))
            if event := logged_at(training, "Trigger fired event"):
                to_event.append(event - exited)
                to_success.append(timelines[training.run].entered["success"] - event)
            else:
                # Airflow writes this line itself, sometimes after it has closed the log.
                unknown += 1
    # The first trainings meet an Airflow that has just started, whose workers have imported nothing.
    first, with_worker = with_worker[:AT_ONCE], with_worker[AT_ONCE:]
    print(f"{AT_ONCE * ROUNDS} trainings, {AT_ONCE} at a time; states are observed at most {INTERVAL:g} s late")
    print(f"trainings without a line of their event: {unknown}")
    print(f"worker slot of the first {AT_ONCE} trainings, without their uploads, at most: {max(first):.2f} s")
    for name, values in (
        ("exit of the program to the trigger's event", to_event),
        ("event to the task's success", to_success),
        ("worker slot of each other training, without its upload", with_worker),
    ):
        print(f"{name}, median: {median(values):.2f} s")
        print(f"{name}, 95 of 100 within: {quantiles(values, n=20, method='inclusive')[-1]:.2f} s")


def main() -> None:
    """Start an Airflow and a service, measure, and stop them."""
    with airflow_and_service() as (airflow, service):
        measure(airflow, service)


if __name__ == "__main__":
    main()
