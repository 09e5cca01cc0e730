"""Steps that Airflow's signals interrupt."""

from __future__ import annotations

import asyncio
import signal

import pytest
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout

from airflow_training.operators.interruption import Interruptible

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

    with timeout(_LONG), pytest.raises(AirflowTaskTimeout):
        Interruptible().run(work())
    assert done == ["the answer is read", "the job is canceled"]


def test_an_execution_timeout_during_the_last_response_is_raised() -> None:
    async def work() -> None:
        signal.raise_signal(signal.SIGALRM)

    with timeout(_LONG), pytest.raises(AirflowTaskTimeout):
        Interruptible().run(work())


def test_an_execution_timeout_between_two_steps_is_raised_at_once() -> None:
    with timeout(_LONG):
        Interruptible().run(asyncio.sleep(0))
        with pytest.raises(AirflowTaskTimeout):
            signal.raise_signal(signal.SIGALRM)
