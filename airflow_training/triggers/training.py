"""The trigger that follows a training job, without a worker slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetTaskStates, TaskStatesResult
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseTrigger, TriggerEvent
from anyio import fail_after

from airflow_training import stats
from airflow_training.exceptions import (
    AuthenticationError,
    InvalidConnection,
    InvalidReply,
    JobError,
    JobLost,
    JobTimedOut,
    ServiceError,
    ServiceUnavailable,
    TrainingError,
    coded,
)
from airflow_training.jobs.limits import Limits
from airflow_training.reporting import Superseded, report
from airflow_training.triggers.log_delivery import log_is_read
from airflow_training.triggers.watchers import shared_watcher
from airflow_training.xcoms import CURSOR_KEY, JOB_ID_KEY

# Seconds that a trigger takes at least. When a task resumes before the scheduler has noticed that the worker which
# deferred it has exited, the scheduler takes that exit for the end of the resumed one, and fails the task.
_SHORTEST = 10.0

# Seconds for a cancellation: Airflow gives half a minute to all that is done for a task that was ended.
_CANCEL = 25.0

# The task has not been ended: it goes on with this job, or its next try sees to it.
_GOES_ON = frozenset({"deferred", "running", "up_for_retry", "up_for_reschedule"})


# Where this triggerer began to tell the logs of triggers that it has not seen the end of. One that it gets again, after
# another triggerer had it, begins there once more: Airflow empties the log that this triggerer wrote of it.
_begun: dict[tuple[Any, ...], Any] = {}


class TrainingTrigger(BaseTrigger):
    """Follows a job to its end: its log into the task log, its status into the XCom `training_status`.

    It holds no secret: its arguments are stored by Airflow and shown in logs.

    Args:
        training_conn_id: The connection to the training service.
        job_id: The job.
        version: The job API's version, where it is not the connection's.
        limits: How long the job may take, as `Limits.to_dict` writes it.
        cancel_on_kill: Whether a job whose task is ended by a user is canceled.

    Its one event is `{"job_id": …, "status": …, "last_lines": […], "metrics": {…}}`, or what `failure_event` makes of
    an error where the job could not be followed to its end.
    """

    def __init__(
        self,
        training_conn_id: str,
        job_id: str,
        version: str | None,
        limits: dict[str, Any],
        cancel_on_kill: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's base is not typed there
        self.training_conn_id = training_conn_id
        self.job_id = job_id
        self.version = version
        self.limits = limits
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments that make this trigger again elsewhere."""
        names = ("training_conn_id", "job_id", "version", "limits", "cancel_on_kill")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Follow the job."""
        shortest = asyncio.ensure_future(asyncio.sleep(_SHORTEST))
        try:
            event = await self._follow()
            await self._log_is_read()
            await shortest
        finally:
            shortest.cancel()
        yield TriggerEvent(event)

    async def _log_is_read(self) -> None:
        try:
            await log_is_read()
        except Exception as error:  # noqa: BLE001 - whatever it is: what became of the job is known, and counts more
            self.log.warning("The end of the log may be missing here: %s", error)

    async def _follow(self) -> dict[str, Any]:
        cursor = _begun.setdefault(self._try(), await self._cursor())
        try:
            async with shared_watcher(self.training_conn_id, self.version) as watcher:
                outcome = await report(
                    watcher,
                    self.job_id,
                    log=self.log,
                    store=self._store,
                    limits=Limits.from_dict(self.limits),
                    cursor=cursor,
                )
            event = {"job_id": self.job_id, **outcome.to_dict()}
        except Superseded:
            event = {"job_id": self.job_id}
        except TrainingError as error:
            event = failure_event(self.job_id, error)
        _begun.pop(self._try(), None)
        return event

    async def on_kill(self) -> None:
        """Cancel the job, if its task was ended: Airflow calls this also for a trigger that it moved elsewhere."""
        if not self.cancel_on_kill:
            self.log.info("The training job %s is left alone, as cancel_on_kill=False asks for", self.job_id)
            return
        try:
            reason = await self._reason_to_leave_it()
        except Exception as error:  # noqa: BLE001 - whatever it is: who does not know does not cancel
            reason = f"what became of its task cannot be read ({error})"
        if reason:
            self.log.warning("The training job %s is not canceled: %s", self.job_id, reason)
            return
        try:
            async with shared_watcher(self.training_conn_id, self.version) as watcher:
                with fail_after(_CANCEL):
                    known = await watcher.client.cancel(self.job_id)
                if known:
                    stats.canceled()
        except (TrainingError, TimeoutError) as error:
            said = str(error) or "the service does not answer."
            told = coded(
                f"The training job {self.job_id} could not be canceled and may still run: {said}", code="AT-414"
            )
            self.log.error("%s", told)
        else:
            self.log.info("Canceled the training job %s, since its task was ended", self.job_id)

    async def _reason_to_leave_it(self) -> str:
        if await self._is_superseded():
            return ""
        task = self._task()
        query = GetTaskStates(
            dag_id=task["dag_id"], run_ids=[task["run_id"]], task_ids=[task["task_id"]], map_index=task["map_index"]
        )
        answer = await task_runner.SUPERVISOR_COMMS.asend(query)
        if not isinstance(answer, TaskStatesResult):
            raise TypeError(f"Airflow answered with {type(answer).__name__}")
        # A mapped task's key has its index at its end; there is one task instance, or none where it was removed.
        (state,) = list(answer.task_states.get(task["run_id"], {}).values()) or [None]
        return f"its task goes on, it is {state}" if state in _GOES_ON else ""

    async def _is_superseded(self) -> bool:
        """Whether a later try of the task has claimed a job of its own."""
        return await XCom.aget_one(key=JOB_ID_KEY, **self._task()) not in (None, self.job_id)

    async def _store(self, key: str, value: Any) -> None:
        # Not before each: it takes as long as the storing. A cursor says which job it is of.
        if key != CURSOR_KEY and await self._is_superseded():
            raise Superseded
        await XCom.aset(key, value, **self._task())

    async def _cursor(self) -> Any:
        try:
            return await XCom.aget_one(key=CURSOR_KEY, **self._task())
        except Exception as error:  # noqa: BLE001 - whatever ails Airflow's database: the job is well, and is followed
            self.log.warning("How far the log has been told cannot be read, it is told from its beginning: %s", error)
            return None

    def _try(self) -> tuple[Any, ...]:
        """The try of the task whose log this is."""
        return (*self._task().values(), self.task_instance and self.task_instance.try_number)

    def _task(self) -> dict[str, Any]:
        task = self.task_instance
        if task is None:
            raise AssertionError("the triggerer sets the task instance before it runs a trigger")
        map_index = task.map_index if task.map_index is not None else -1
        return {"dag_id": task.dag_id, "task_id": task.task_id, "run_id": task.run_id, "map_index": map_index}


def failure_event(job_id: str, error: TrainingError) -> dict[str, Any]:
    """Write an error as an event: the worker that resumes raises it again."""
    over = {"over": error.over} if isinstance(error, JobError) else {}
    event = {"job_id": job_id, "error": type(error).__name__, "message": error.message, "code": error.code}
    return event | {"retryable": error.retryable} | over


def error_of(event: dict[str, Any]) -> TrainingError:
    """Make the error again that `failure_event` wrote."""
    name, message = event["error"], event["message"]
    if job_error := {kind.__name__: kind for kind in (JobLost, JobTimedOut)}.get(name):
        return job_error(message, code=event["code"], job_id=event["job_id"], over=event["over"])
    plain = (ServiceUnavailable, InvalidReply, AuthenticationError, InvalidConnection)
    error = {kind.__name__: kind for kind in plain}.get(name, ServiceError)(message, code=event["code"])
    error.retryable = event["retryable"]
    return error
