"""The effect of a training that floods its log on another one: `python -m benchmarks.log_flood`.

A real Airflow with one triggerer follows a training that writes five lines a second, first alone and then beside one
that writes 200,000 lines at once. The output is the age of the quiet training's lines when they reach its task log, the
number of stalls of the triggerer's event loop over a tenth of a second, and the triggerer's memory.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timezone
from statistics import median

from airflow_training.local.airflow import LocalAirflow
from benchmarks.parts.airflow_and_service import airflow_and_service
from tests.airflow.support import WAIT, ServiceUnderTest, Training, peak_memory

LINES = 200_000
FLOOD = f"""
for number in range({LINES}):
    print("line", number)
from pathlib import Path
Path("model").mkdir()
Path("model/saved_model.pb").touch()
"""
ALONE_SECONDS = 60
MEGABYTE = 1024 * 1024


class Ages:
    """The ages of a training's lines when they reach its task log."""

    def __init__(self, training: Training) -> None:
        (self._file,) = training.airflow.home.glob(f"logs/dag_id=*/run_id={training.run}/task_id=train/*.trigger.*.log")
        self._offset = self._file.stat().st_size

    def collect_until(self, condition: Callable[[], bool]) -> list[float]:
        """Watch the log until a condition is true, which is checked each second."""
        ages: list[float] = []
        next_check = 0.0
        while True:
            ages += self._new()
            if time.monotonic() >= next_check:
                if condition():
                    return ages
                next_check = time.monotonic() + 1
            time.sleep(0.02)

    def _new(self) -> list[float]:
        with self._file.open("rb") as file:
            file.seek(self._offset)
            lines = [line for line in file.readlines() if line.endswith(b"\n")]
        now = datetime.now(timezone.utc)
        self._offset += sum(map(len, lines))
        entries = [json.loads(line) for line in lines]
        return [
            (now - datetime.fromisoformat(entry["timestamp"].replace("Z", "+00:00"))).total_seconds()
            for entry in entries
            if str(entry["event"]).startswith("waiting ")
        ]


def measure(airflow: LocalAirflow, service: ServiceUnderTest) -> None:
    """Follow the quiet training alone and beside the flood, and print both figures."""
    triggerer = airflow.components["triggerer"]

    def stalls() -> int:
        return triggerer.output.read_text(errors="replace").count("async thread was blocked")

    quiet = Training(airflow, service, "once_deferred", script=WAIT)
    # The first trigger of a triggerer is delayed by Airflow's own start.
    quiet.wait_for_line("waiting 50")
    ages = Ages(quiet)
    before, end = stalls(), time.monotonic() + ALONE_SECONDS
    alone = ages.collect_until(lambda: time.monotonic() > end)
    stalls_alone, memory_alone = stalls() - before, peak_memory(triggerer)

    flood = Training(airflow, service, "once_deferred", script=FLOOD)
    flood.wait_for_job(1, "SUCCEEDED")
    before, began = stalls(), time.monotonic()
    ages.collect_until(lambda: True)
    beside = ages.collect_until(lambda: flood.state != "deferred")
    seconds = time.monotonic() - began
    stalls_beside, memory_beside = stalls() - before, peak_memory(triggerer)
    quiet.go_on()
    quiet.end()
    flood.end()

    print(f"{LINES:,} lines were delivered in about {seconds:.0f} s")
    print(f"{'':44}{'alone':>10}{'beside a flood':>16}{'ratio':>8}")
    for what, one, other, unit in (
        ("age of a line in the task log, median", median(alone), median(beside), "s"),
        ("age of a line in the task log, greatest", max(alone), max(beside), "s"),
        ("peak memory of the triggerer", memory_alone / MEGABYTE, memory_beside / MEGABYTE, "MB"),
    ):
        print(f"{what:44}{one:>8.2f} {unit:2}{other:>12.2f} {unit:2}{other / one:>8.2f}")
    per_minute = (stalls_alone * 60 / ALONE_SECONDS, stalls_beside * 60 / seconds)
    print(f"{'stalls of the loop over 0.1 s, per minute':44}{per_minute[0]:>8.2f}   {per_minute[1]:>12.2f}")


def main() -> None:
    """Start an Airflow and a service, measure, and stop them."""
    with airflow_and_service() as (airflow, service):
        measure(airflow, service)


if __name__ == "__main__":
    main()
