"""Steps that Airflow's signals interrupt."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import asdict
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout

from airflow_training.exceptions import JobTimedOut
from airflow_training.operators.claim import Claim
from airflow_training.operators.interruption import Interruptible
from airflow_training.operators.run import TaskRun
from airflow_training.triggers.training import failure_event

# Seconds, which do not pass: the tests raise the alarm themselves.
_LONG = 600


def test_an_execution_timeout_during_a_request_to_airflow_waits_for_the_response() -> None:
    done = []

    async def work() -> None:
        signal.raise_signal(signal.SIGALRM)
        done.append("the answer is read")
        try:
            await asyncio.sleep(_LONG)
        finally:
            done.append("the job is canceled")

    step = Interruptible()
    with timeout(_LONG), step.between_requests(), pytest.raises(AirflowTaskTimeout):
        step.run(work())
    assert done == ["the answer is read", "the job is canceled"]


def test_an_execution_timeout_during_a_last_response_is_raised() -> None:
    async def work() -> None:
        signal.raise_signal(signal.SIGALRM)

    step = Interruptible()
    with timeout(_LONG), step.between_requests(), pytest.raises(AirflowTaskTimeout):
        step.run(work())


def test_an_execution_timeout_between_two_steps_interrupts_the_next() -> None:
    step = Interruptible()
    with timeout(_LONG), step.between_requests():
        step.run(asyncio.sleep(0))
        signal.raise_signal(signal.SIGALRM)
        with pytest.raises(AirflowTaskTimeout):
            step.run(asyncio.sleep(_LONG))


def test_an_execution_timeout_while_the_end_of_a_job_is_stored_hides_no_error() -> None:
    stored: list[Any] = []

    def store(_key: str, claim: Any) -> None:
        # The response to this request would stay unread.
        signal.raise_signal(signal.SIGALRM)
        stored.append(claim)

    context: Any = {"ti": MagicMock(), "task_state_store": MagicMock(set=store)}
    claim = asdict(Claim("1", 1, 0, "a", "training", None, "1h"))
    event = failure_event("1", JobTimedOut("The job took too long.", code="AT-411", job_id="1"))

    with timeout(_LONG), pytest.raises(JobTimedOut, match="The job took too long"):
        TaskRun(MagicMock(), context).complete(event, claim)
    assert stored == [{**claim, "over": True}]


def test_after_a_step_an_execution_timeout_is_raised_at_once_again() -> None:
    step = Interruptible()
    with timeout(_LONG):
        with step.between_requests():
            step.run(asyncio.sleep(0))
        with pytest.raises(AirflowTaskTimeout):
            signal.raise_signal(signal.SIGALRM)
