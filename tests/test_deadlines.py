"""How long a job may take."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from airflow_training.api.durations import read_duration
from airflow_training.api.status import JobState, JobStatus
from airflow_training.following.deadlines import Limits

NOON = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("20h", 20 * HOUR),
        ("90m", 90 * MINUTE),
        ("1d", 24 * HOUR),
        ("1h30m", 90 * MINUTE),
        ("1 hour 30 min", 90 * MINUTE),
        ("1.5H", 90 * MINUTE),
        (" 2 days ", 48 * HOUR),
        ("45s", timedelta(seconds=45)),
        ("PT1H30M", 90 * MINUTE),
        ("P1DT0.5H", 24.5 * HOUR),
        (10000, timedelta(seconds=10000)),
        ("10000", timedelta(seconds=10000)),
        ("0.5", timedelta(seconds=0.5)),
    ],
)
def test_a_completion_time_is_read_in_every_form_that_people_use(text: str | int, time: timedelta) -> None:
    assert read_duration(text) == time


@pytest.mark.parametrize("text", ["", "soon", "P1M", "P", "PT", "1h later", "-1h", "0", "0h", "1e9d", "9" * 60, "h"])
def test_what_cannot_be_read_is_left_to_the_service(text: str) -> None:
    assert read_duration(text) is None


def status(state: JobState, started: datetime | None = None, message: str = "") -> JobStatus:
    return JobStatus.model_validate({"job_id": "a", "status": state.value, "startTime": started, "message": message})


def test_the_earliest_end_counts() -> None:
    limits = Limits(NOON, deadline=NOON + 2 * HOUR, completion_time=HOUR, pending_timeout=MINUTE)

    assert limits.next_end(None) == (NOON + 2 * HOUR, "has not ended within the task's execution_timeout")
    end, said = limits.next_end(status(JobState.PENDING, message="waiting for 2 cpus.")) or (None, "")
    assert end == NOON + MINUTE
    assert said == "has not started within its pending_timeout of 0:01:00: waiting for 2 cpus"
    end, said = limits.next_end(status(JobState.RUNNING, NOON + MINUTE)) or (None, "")
    assert end == NOON + MINUTE + HOUR
    assert said == "has exceeded its completion_time of 1:00:00"
    end, _ = limits.next_end(status(JobState.RUNNING, NOON + 90 * MINUTE)) or (None, "")
    assert end == NOON + 2 * HOUR


def test_a_service_whose_clock_is_slow_shortens_no_job() -> None:
    limits = Limits(NOON, completion_time=HOUR)

    end, _ = limits.next_end(status(JobState.RUNNING, NOON - 3 * HOUR)) or (None, "")

    assert end == NOON + HOUR


def test_without_limits_there_is_no_end() -> None:
    assert Limits(NOON).next_end(status(JobState.RUNNING, NOON)) is None


@pytest.mark.parametrize("limits", [Limits(NOON), Limits(NOON, NOON, HOUR, MINUTE)])
def test_limits_survive_their_way_into_airflows_database(limits: Limits) -> None:
    assert Limits.from_dict(json.loads(json.dumps(limits.to_dict()))) == limits
