"""The trigger where Airflow lets it down; how it follows a job is tested in tests/airflow."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.xcom import XCom

from airflow_training.client.retry import RetryPolicy
from airflow_training.exceptions import (
    AuthenticationError,
    InvalidConnection,
    InvalidReply,
    JobLost,
    JobTimedOut,
    RequestRejected,
    ServiceError,
    ServiceUnavailable,
    TrainingError,
)
from airflow_training.triggers import training as module
from airflow_training.triggers import watchers
from airflow_training.triggers.training import TrainingTrigger, error_of, failure_event

JOB_ID = "8c3d5a3e-0000-5000-8000-000000000000"


class Log:
    """Keeps what a trigger says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, line: str, *args: object) -> None:
        self.lines.append(line % args)

    warning = error = info


class Trigger(TrainingTrigger):
    """A trigger of a task, with a log that can be read."""

    log = Log()  # type: ignore[assignment]


@pytest.fixture
def trigger() -> TrainingTrigger:
    trigger = Trigger("no_such_connection", JOB_ID, None, {})
    task: Any = SimpleNamespace(dag_id="dag", task_id="train", run_id="run", map_index=-1, try_number=1)
    trigger.task_instance = task
    return trigger


@pytest.mark.anyio
async def test_a_job_whose_task_cannot_be_asked_about_is_left_alone(
    trigger: TrainingTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(**_: Any) -> None:
        raise RuntimeError("database is locked")

    monkeypatch.setattr(XCom, "aget_one", broken)

    await trigger.on_kill()

    assert Trigger.log.lines == [
        f"The training job {JOB_ID} is not canceled: what became of its task cannot be read (database is locked)"
    ]


def test_a_trigger_can_be_made_again_elsewhere(trigger: TrainingTrigger) -> None:
    _, arguments = trigger.serialize()

    assert TrainingTrigger(**arguments).serialize()[1] == arguments


@pytest.mark.parametrize(
    "error",
    [
        JobLost("lost", code="AT-405", job_id=JOB_ID),
        JobTimedOut("late", code="AT-412", job_id=JOB_ID, over=False),
        ServiceUnavailable("away", code="AT-201"),
        InvalidReply("nonsense", code="AT-221"),
        AuthenticationError("who?", code="AT-141"),
        InvalidConnection("no host", code="AT-102"),
        RequestRejected("no\nand more", status=403, code="AT-211"),
    ],
)
def test_an_error_in_the_triggerer_is_the_same_error_on_the_worker(error: TrainingError) -> None:
    again = error_of(json.loads(json.dumps(failure_event(JOB_ID, error))))

    assert type(again) is (ServiceError if isinstance(error, RequestRejected) else type(error))
    assert (str(again), again.code) == (str(error), error.code)
    assert again.retryable == error.retryable
    assert getattr(again, "over", None) == getattr(error, "over", None)


@pytest.mark.anyio
async def test_a_log_that_may_not_have_been_read_does_not_cost_what_became_of_the_job(
    trigger: TrainingTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise RuntimeError("the supervisor is away")

    monkeypatch.setattr(module, "log_is_read", broken)
    monkeypatch.setattr(module, "_SHORTEST", 0.0)
    monkeypatch.setattr(watchers, "PATIENCE", RetryPolicy(budget=0, first=0.01))

    (event,) = [event async for event in trigger.run()]

    assert event.payload["error"] == "ServiceUnavailable"
    assert Trigger.log.lines[-1] == "The end of the log may be missing here: the supervisor is away"
