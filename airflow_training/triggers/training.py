"""The trigger that follows a training job, without a worker slot."""

from __future__ import annotations

import asyncio
import glob
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetTaskStates, TaskStatesResult
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseTrigger, TriggerEvent
from airflow.utils.helpers import log_filename_template_renderer
from tenacity import AsyncRetrying, stop_after_delay, wait_random_exponential

from airflow_training.client.follow.watcher import Watcher
from airflow_training.client.retry import TASK_STATE
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
from airflow_training.following import stats
from airflow_training.following.deadlines import Limits
from airflow_training.following.follow_job import Superseded, report
from airflow_training.following.log_backpressure import log_is_read
from airflow_training.following.task_log import LOGGER, Span, span_of
from airflow_training.per_loop import PerLoop
from airflow_training.shielded import run_to_completion
from airflow_training.triggers.shared_watcher import shared_watcher
from airflow_training.xcom_keys import CURSOR_KEY, JOB_ID_KEY

# Minimum duration of a trigger in seconds. If a task resumes before the scheduler has noticed the exit of the worker
# that deferred it, the scheduler takes that exit for the end of the resumed task, and fails it.
_SHORTEST = 10.0

# In these states the task continues with this job, or its next try decides about it.
_CONTINUES = frozenset({"deferred", "running", "up_for_retry", "up_for_reschedule"})

# The status with which Airflow reports that the task, its run or its Dag has been deleted.
_NOT_FOUND = 404


# Limits concurrent writes of statuses. Airflow answers one request in each of its rounds, in their order: new triggers,
# which read their cursor, come before the statuses of thousands of others.
_storing = PerLoop(lambda: asyncio.Semaphore(2))

# The cursors at which this triggerer started the logs of its unfinished triggers. A trigger that returns from another
# triggerer starts there again: Airflow empties the log that this triggerer wrote for it.
_begun: dict[tuple[Any, ...], Any] = {}


class TrainingTrigger(BaseTrigger):
    """Follows a job to its end: its log into the task log, its status into the XCom `training_status`.

    Its arguments are no secrets: Airflow stores them and shows them in logs.

    Args:
        training_conn_id: The connection to the training service.
        job_id: The job.
        version: The version of the job API, if it is not the connection's.
        limits: How long the job may take, from `Limits.to_dict`.
        cancel_on_kill: Whether the job is canceled when a user ends its task.

    Its one event is `{"job_id": …, "status": …, "last_lines": […], "metrics": {…}}`, or a `failure_event` if the job
    could not be followed to its end.
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
        self._used = AsyncExitStack()
        self._watcher: Watcher | None = None
        self._logs_here: list[str] = []

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments that recreate this trigger elsewhere."""
        names = ("training_conn_id", "job_id", "version", "limits", "cancel_on_kill")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Follow the job."""
        earliest_end = time.monotonic() + _SHORTEST
        event = await self._follow()
        try:
            await log_is_read()
        except Exception as error:  # noqa: BLE001 - the event of the job matters more
            self.log.warning("The end of the log may be missing here: %s", error)
        await asyncio.sleep(earliest_end - time.monotonic())
        yield TriggerEvent(event)

    async def _follow(self) -> dict[str, Any]:
        # Airflow then empties the log that this triggerer wrote.
        returns = self._try() in _begun
        cursor = _begun.setdefault(self._try(), await self._cursor())
        try:
            outcome = await report(
                await self._shared_watcher(),
                self.job_id,
                log=self.log,
                lines=structlog.get_logger(LOGGER),
                store=self._store,
                limits=Limits.from_dict(self.limits),
                cursor=cursor,
                shown=[] if returns else await asyncio.to_thread(self._shown),
            )
            event = {"job_id": self.job_id, **outcome.to_dict()}
        except Superseded:
            # Airflow may take this trigger for that of the next try, whose worker may still run.
            await asyncio.sleep(_SHORTEST)
            event = {"job_id": self.job_id}
        except TrainingError as error:
            event = failure_event(self.job_id, error)
        _begun.pop(self._try(), None)
        return event

    async def _shared_watcher(self) -> Watcher:
        if self._watcher is None:
            # Until `cleanup`: `on_kill` cancels the job over the same connection.
            self._watcher = await self._used.enter_async_context(shared_watcher(self.training_conn_id, self.version))
        return self._watcher

    async def cleanup(self) -> None:
        """Release the connection; Airflow calls this last, whatever ended the trigger."""
        await self._used.aclose()

    async def on_kill(self) -> None:
        """Cancel the job if its task was ended: Airflow calls this also for a trigger that it moved elsewhere.

        Airflow (3.3) cancels this coroutine after a second, whatever `[triggerer] on_kill_timeout` is, since it cancels
        each trigger that should be gone once a second.
        """
        await run_to_completion(self._cancel_unless_task_continues(self._used.pop_all()))

    async def _cancel_unless_task_continues(self, used: AsyncExitStack) -> None:
        async with used:
            if not self.cancel_on_kill:
                self.log.info("The training job %s is not canceled, since cancel_on_kill=False", self.job_id)
                return
            try:
                reason = await self._reason_to_continue()
            except asyncio.CancelledError:
                reason = "the triggerer was stopped before it could read the state of its task"
            except Exception as error:  # noqa: BLE001 - a job is not canceled for an unknown state
                reason = f"the state of its task cannot be read ({error})"
            if reason:
                self.log.warning("The training job %s is not canceled: %s", self.job_id, reason)
                return
            self.log.info("Canceling the training job %s, since its task was ended", self.job_id)
            try:
                watcher = self._watcher
                if watcher is None:
                    watcher = await used.enter_async_context(shared_watcher(self.training_conn_id, self.version))
                known = await self._cancel(watcher)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - nothing else reports that it may still run
                reason = str(error) or "the triggerer was stopped."
                message = coded(
                    f"The training job {self.job_id} could not be canceled and may still run: {reason}", code="AT-414"
                )
                self.log.error("%s", message)
                return
            if known:
                stats.canceled()
                self.log.info("Canceled the training job %s", self.job_id)
            else:
                self.log.info("There is no training job %s to cancel: the service does not know it", self.job_id)

    async def _cancel(self, watcher: Watcher) -> bool:
        try:
            return await watcher.client.cancel(self.job_id)
        except asyncio.CancelledError:
            # Only a triggerer that stops cancels this, once, and then waits twenty seconds for it (3.3).
            return await watcher.client.cancel(self.job_id)

    async def _reason_to_continue(self) -> str:
        retrying = AsyncRetrying(
            stop=stop_after_delay(TASK_STATE.budget),
            wait=wait_random_exponential(TASK_STATE.first, TASK_STATE.longest),
            reraise=True,
        )
        state: str | None = await retrying(self._state)
        return f"its task continues (state: {state})" if state in _CONTINUES else ""

    async def _state(self) -> str | None:
        """The state of the task; None if it was deleted or continues with another job."""
        task = self._task()
        query = GetTaskStates(
            dag_id=task["dag_id"], run_ids=[task["run_id"]], task_ids=[task["task_id"]], map_index=task["map_index"]
        )
        try:
            if await self._is_superseded():
                return None
            answer = await task_runner.SUPERVISOR_COMMS.asend(query)
        except AirflowRuntimeError as error:
            if (error.error.detail or {}).get("status_code") == _NOT_FOUND:
                return None
            raise
        if not isinstance(answer, TaskStatesResult):
            raise TypeError(f"Airflow answered with {type(answer).__name__}")
        # The key of a mapped task ends with its index; there is one task instance, or none if it was deleted.
        states: list[str | None] = list(answer.task_states.get(task["run_id"], {}).values())
        return states[0] if states else None

    async def _is_superseded(self) -> bool:
        """Whether a later try of the task has claimed a job of its own."""
        return await XCom.aget_one(key=JOB_ID_KEY, **self._task()) not in (None, self.job_id)

    async def _store(self, key: str, value: Any) -> None:
        if key == CURSOR_KEY:
            self._logs_here = self._logs_here or [path.name for path in await asyncio.to_thread(self._logs)]
            await XCom.aset(key, {**value, "logs": self._logs_here}, **self._task())
            return
        async with _storing.get():
            # A cursor is not checked: the check takes as long as the write, and a cursor names its job.
            if await self._is_superseded():
                raise Superseded
            await XCom.aset(key, value, **self._task())

    async def _cursor(self) -> Any:
        try:
            cursor = await XCom.aget_one(key=CURSOR_KEY, **self._task())
        except Exception as error:  # noqa: BLE001 - the job is followed, whatever Airflow's error
            self.log.warning("The log offset cannot be read; the log starts from the beginning: %s", error)
            return None
        if not isinstance(cursor, dict):
            return None
        # If none of the logs that this try had then exists here, a triggerer may have been lost with its disk, and
        # Airflow can no longer show what it wrote. If it still can, its page shows each line once.
        if not set(cursor.get("logs", [])).intersection(path.name for path in await asyncio.to_thread(self._logs)):
            self.log.info("The log starts again here: its earlier part is not in the log folder of this triggerer")
            return None
        return cursor

    def _shown(self) -> list[Span]:
        """The lines of the job that are in the logs of this try already."""
        try:
            return [span for log in self._logs() if (span := span_of(log))]
        except OSError as error:
            self.log.warning("The earlier logs of this try cannot be read; lines may be repeated: %s", error)
            return []

    def _logs(self) -> list[Path]:
        """The logs of this try that triggerers wrote into the log folder of this one."""
        try:
            folder = Path(conf.get("logging", "base_log_folder"))
            log = folder / log_filename_template_renderer()(ti=self.task_instance)
            return sorted(log.parent.glob(f"{glob.escape(log.name)}.trigger.*.log"))
        except Exception as error:  # noqa: BLE001 - the administrator's template may need values that are missing here
            self.log.debug("The log of the task cannot be found: %s", error)
            return []

    def _try(self) -> tuple[Any, ...]:
        """The key of this try of the task."""
        return (*self._task().values(), self.task_instance and self.task_instance.try_number)

    def _task(self) -> dict[str, Any]:
        task = self.task_instance
        if task is None:
            raise AssertionError("the triggerer sets the task instance before it runs a trigger")
        map_index = task.map_index if task.map_index is not None else -1
        return {"dag_id": task.dag_id, "task_id": task.task_id, "run_id": task.run_id, "map_index": map_index}


def failure_event(job_id: str, error: TrainingError) -> dict[str, Any]:
    """Serialize an error as an event, which the resumed worker raises again."""
    over = {"over": error.over} if isinstance(error, JobError) else {}
    event = {"job_id": job_id, "error": type(error).__name__, "message": error.message, "code": error.code}
    return event | {"retryable": error.retryable} | over


def error_of(event: dict[str, Any]) -> TrainingError:
    """Recreate the error of a `failure_event`."""
    name, message = event["error"], event["message"]
    if job_error := {kind.__name__: kind for kind in (JobLost, JobTimedOut)}.get(name):
        return job_error(message, code=event["code"], job_id=event["job_id"], over=event["over"])
    plain = (ServiceUnavailable, InvalidReply, AuthenticationError, InvalidConnection)
    error = {kind.__name__: kind for kind in plain}.get(name, ServiceError)(message, code=event["code"])
    error.retryable = event["retryable"]
    return error
