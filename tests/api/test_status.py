"""The status object, as old services and ours write it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_training.api.status import JobState, JobStatus


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("PENDING", JobState.PENDING),
        ("Running", JobState.RUNNING),
        ("SUCCESSFUL", JobState.SUCCEEDED),
        ("succeeded", JobState.SUCCEEDED),
        ("FAILED", JobState.FAILED),
        ("CANCELLED", JobState.CANCELED),
        ("CANCELED", JobState.CANCELED),
        ("COMPLETING", JobState.UNKNOWN),
        (None, JobState.UNKNOWN),
    ],
)
def test_status_words_are_read_in_every_spelling(word: str | None, state: JobState) -> None:
    assert JobState.read(word) is state


def test_only_three_words_are_an_end() -> None:
    assert {state for state in JobState if state.ended} == {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED}


@pytest.mark.parametrize("unset", [None, "", "0001-01-01T00:00:00.000Z"])
def test_a_time_not_yet_reached_is_none(unset: str | None) -> None:
    status = JobStatus.model_validate({"job_id": "1", "status": "RUNNING", "startTime": unset, "finishTime": unset})

    assert (status.start_time, status.finish_time, status.duration) == (None, None, None)


def test_the_status_object_of_the_seed_is_read_and_written() -> None:
    wire = {
        "containerID": "",
        "finishTime": None,
        "job_id": "",
        "name": "",
        "startTime": "",
        "status": "Running",
        "submissionTime": "",
    }

    written = JobStatus.model_validate(wire).to_wire()

    assert written == {**wire, "status": "RUNNING", "startTime": None, "submissionTime": None, "message": ""}


def test_times_are_aware_and_give_the_duration() -> None:
    status = JobStatus.model_validate(
        {"job_id": "1", "status": "SUCCEEDED", "startTime": "2026-01-01T10:00:00", "finishTime": "2026-01-01T11:30:00Z"}
    )

    assert status.start_time == datetime(2026, 1, 1, 10, tzinfo=timezone.utc)
    assert status.duration == timedelta(minutes=90)
    assert JobStatus.model_validate(status.to_wire()) == status
