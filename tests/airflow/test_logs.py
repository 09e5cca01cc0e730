"""A job that floods its log: what fits is shown, the rest is reported as omitted, and no other training waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_training.local.airflow import LocalAirflow
from tests.airflow.support import WAIT, Training, lines_of, peak_memory
from tests.patience import PATIENCE

# Airflow reads 4 KB of the triggerer's log in each of its rounds, of which a slow machine does eighty a second.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * PATIENCE)]

Train = Callable[..., Training]

LINES = 60_000
MEGABYTE = 1024 * 1024
# The triggerer's additional memory for a flood: 20 to 40 MB are measured, even for 200,000 lines.
MEMORY = 100 * MEGABYTE

FLOOD = f"""
import sys
from pathlib import Path
out = sys.stdout.buffer
for number in range(1, {LINES} + 1):
    out.write(b"line %d\\n" % number)
out.write(b"long " + 10 * {MEGABYTE} * b"x" + b"\\n")
out.write(b"binary " + bytes(range(128, 256)) * 20 + b"\\n")
for percent in range(101):
    out.write(b"\\r%d %% done" % percent)
out.write(b"\\n\\x1b[32mgreen\\x1b[0m\\nERROR: a level of its own\\n")
Path("model").mkdir()
Path("model/saved_model.pb").touch()
"""


def test_a_flood_of_log_is_shown_and_delays_no_other_training(train: Train, airflow: LocalAirflow) -> None:
    other = train("once_deferred", script=WAIT)
    other.wait_for_line("waiting 5")
    before = peak_memory(airflow.components["triggerer"])

    flood = train("once_deferred", script=FLOOD)
    flood.wait_for_job(1, "SUCCEEDED")
    shown = max(other.waited())
    other.wait_for_line(f"waiting {shown + 25}")
    assert flood.state == "deferred", "the log of the other training grows during the flood"
    other.go_on()
    flood.end()

    entries = flood.log()
    lines = lines_of(entries)
    assert [line for line in lines if line.startswith("line ")] == [f"line {number}" for number in range(1, LINES + 1)]
    (long,) = [line for line in lines if line.startswith("long ")]
    assert long.endswith(f"x … [{10 * MEGABYTE + 5 - 16 * 1024:,} more bytes of this line omitted]")
    (binary,) = [line for line in lines if line.startswith("binary ")]
    assert set(binary.removeprefix("binary ")) == {"\N{REPLACEMENT CHARACTER}"}
    assert [line for line in lines if "% done" in line] == ["100 % done"], "the last state of a progress bar"
    assert "green" in lines
    assert [entry["level"] for entry in entries if "ERROR: a level of its own" in lines_of([entry])] == ["error"]
    other.end()
    numbers = other.waited()
    assert numbers == list(range(1, len(numbers) + 1))
    assert peak_memory(airflow.components["triggerer"]) - before < MEMORY
