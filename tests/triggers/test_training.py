"""The trigger with faults of Airflow; tests/airflow has the rest."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse, TaskStatesResult, XComResult
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
from airflow_training.following.deadlines import Limits
from airflow_training.following.follow_job import Superseded
from airflow_training.triggers import shared_watcher
from airflow_training.triggers import training as module
from airflow_training.triggers.training import TrainingTrigger, error_of, failure_event
from tests.patience import PATIENCE

JOB_ID = "8c3d5a3e-0000-5000-8000-000000000000"


class Log:
    """Records the log lines of a trigger."""

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
async def test_a_job_whose_task_state_cannot_be_read_is_not_canceled(
    trigger: TrainingTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(**_: Any) -> None:
        raise RuntimeError("database is locked")

    monkeypatch.setattr(XCom, "aget_one", broken)
    monkeypatch.setattr(module, "TASK_STATE", RetryPolicy(budget=0))

    await trigger.on_kill()

    assert Trigger.log.lines == [
        f"The training job {JOB_ID} is not canceled: the state of its task cannot be read (database is locked)"
    ]


def test_a_trigger_can_be_recreated_elsewhere(trigger: TrainingTrigger) -> None:
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
async def test_a_trigger_that_is_mistaken_for_that_of_the_next_try_waits_for_the_end_of_its_worker(
    trigger: TrainingTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    async def superseded(*_: object, **__: object) -> None:
        waits.clear()
        raise Superseded

    monkeypatch.setattr(module, "report", superseded)
    monkeypatch.setattr(Limits, "from_dict", dict)
    monkeypatch.setattr(trigger, "_shared_watcher", partial(asyncio.sleep, 0))
    monkeypatch.setattr(trigger, "_cursor", partial(asyncio.sleep, 0))
    monkeypatch.setattr(trigger, "_shown", list)
    monkeypatch.setattr(asyncio, "sleep", wait)

    event = await trigger._follow()

    assert (event, waits) == ({"job_id": JOB_ID}, [10.0])


@pytest.mark.anyio
async def test_an_unread_log_does_not_cost_the_event_of_the_job(
    trigger: TrainingTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise RuntimeError("the supervisor is away")

    monkeypatch.setattr(module, "log_is_read", broken)
    monkeypatch.setattr(module, "_SHORTEST", 0.0)
    monkeypatch.setattr(shared_watcher, "FOLLOW", RetryPolicy(budget=0, first=0.01))

    (event,) = [event async for event in trigger.run()]

    assert event.payload["error"] == "ServiceUnavailable"
    assert Trigger.log.lines[-1] == "The end of the log may be missing here: the supervisor is away"


class Airflow:
    """Answers the requests of a trigger to its supervisor."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def asend(self, _: Any) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


NO_XCOM = XComResult(key="training_job_id", value=None)


def refusal(status: int) -> AirflowRuntimeError:
    return AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": status}))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ([NO_XCOM, TaskStatesResult(task_states={"run": {"train": "deferred"}})], "deferred"),
        ([NO_XCOM, TaskStatesResult(task_states={})], None),
        ([refusal(404)], None),
        ([NO_XCOM, refusal(404)], None),
    ],
    ids=["it is there", "its run was deleted", "no XCom can be there", "no state can be there"],
)
async def test_a_task_that_is_not_found_has_ended(
    trigger: TrainingTrigger, monkeypatch: pytest.MonkeyPatch, answers: list[Any], state: str | None
) -> None:
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Airflow(*answers), raising=False)

    assert await trigger._state() == state


@pytest.mark.anyio
async def test_the_state_of_a_task_is_requested_again_after_a_temporary_failure(
    trigger: TrainingTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow = Airflow(refusal(500), NO_XCOM, TaskStatesResult(task_states={"run": {"train": "deferred"}}))
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", airflow, raising=False)

    await trigger.on_kill()

    assert Trigger.log.lines[-1] == f"The training job {JOB_ID} is not canceled: its task continues (state: deferred)"


@pytest.mark.anyio
async def test_whatever_keeps_a_job_from_being_canceled_is_in_the_log(
    trigger: TrainingTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = SimpleNamespace(cancel=AsyncMock(side_effect=OSError("no file descriptor left")))
    monkeypatch.setattr(trigger, "_watcher", SimpleNamespace(client=client))
    airflow = Airflow(NO_XCOM, TaskStatesResult(task_states={}))
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", airflow, raising=False)

    await trigger.on_kill()

    warning = f"The training job {JOB_ID} could not be canceled and may still run: no file descriptor left [AT-414]"
    assert Trigger.log.lines[-1] == warning


@pytest.mark.anyio
async def test_an_on_kill_that_airflow_cancels_is_completed(
    trigger: TrainingTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = asyncio.Event(), asyncio.Event()
    ended = asyncio.Event()

    class Client:
        async def cancel(self, _: str) -> bool:
            asked.set()
            await answered.wait()
            ended.set()
            return True

    monkeypatch.setattr(trigger, "_watcher", SimpleNamespace(client=Client()))
    monkeypatch.setattr(
        task_runner, "SUPERVISOR_COMMS", Airflow(NO_XCOM, TaskStatesResult(task_states={})), raising=False
    )

    killing = asyncio.ensure_future(trigger.on_kill())
    await asked.wait()
    for _ in range(3):
        killing.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([killing])
    await trigger.cleanup()
    assert killing.cancelled()
    answered.set()

    await asyncio.wait_for(ended.wait(), timeout=PATIENCE)


@pytest.mark.anyio
@pytest.mark.parametrize("lost", [False, True])
async def test_a_log_that_was_lost_with_its_triggerer_starts_again(
    trigger: TrainingTrigger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lost: bool
) -> None:
    written = tmp_path / "dag_id=dag" / "run_id=run" / "task_id=train" / "attempt=1.log.trigger.7.log"
    written.parent.mkdir(parents=True)
    written.touch()
    stored: dict[str, Any] = {}

    async def store(key: str, value: Any, **_: Any) -> None:
        stored[key] = value

    async def read(key: str, **_: Any) -> Any:
        return stored.get(key)

    monkeypatch.setattr(XCom, "aset", store)
    monkeypatch.setattr(XCom, "aget_one", read)
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path))
    await trigger._store("training_log_cursor", {"job_id": JOB_ID, "offset": 5, "metrics": {}})
    if lost:
        written.rename(written.with_name("attempt=1.log.trigger.8.log"))

    cursor = await trigger._cursor()

    assert cursor is None if lost else cursor["offset"] == 5
