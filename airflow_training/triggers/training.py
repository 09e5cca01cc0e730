"""The trigger that follows a training job, without a worker slot."""

from __future__ import annotations

import asyncio
import glob
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
from airflow_training.shielded import finish
from airflow_training.triggers.shared_watcher import shared_watcher
from airflow_training.xcom_keys import CURSOR_KEY, JOB_ID_KEY

# Seconds that a trigger takes at least. When a task resumes before the scheduler has noticed that the worker which
# deferred it has exited, the scheduler takes that exit for the end of the resumed one, and fails the task.
_SHORTEST = 10.0

# Seconds for which Airflow is asked again what became of a task, if it cannot be asked: a database that is locked, an
# API that restarts. Much later the answer would be about another try.
_ASK = 60.0

# The task has not been ended: it goes on with this job, or its next try sees to it.
_GOES_ON = frozenset({"deferred", "running", "up_for_retry", "up_for_reschedule"})

# The status with which Airflow says that the task, its run or its Dag has been deleted.
_NOT_FOUND = 404


# Statuses that are stored at once. Airflow answers one request in each of its rounds, in their order: triggers that
# begin and read their cursor so come before the statuses of thousands that have begun.
_storing = PerLoop(lambda: asyncio.Semaphore(2))

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
        self._used = AsyncExitStack()
        self._watcher: Watcher | None = None
        self._logs_here: list[str] = []

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
        # Airflow is about to empty the log that this triggerer wrote.
        comes_back = self._try() in _begun
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
                shown=[] if comes_back else await asyncio.to_thread(self._shown),
            )
            event = {"job_id": self.job_id, **outcome.to_dict()}
        except Superseded:
            # Airflow may take this trigger for that of the next try, whose worker may not have exited yet.
            await asyncio.sleep(_SHORTEST)
            event = {"job_id": self.job_id}
        except TrainingError as error:
            event = failure_event(self.job_id, error)
        _begun.pop(self._try(), None)
        return event

    async def _shared_watcher(self) -> Watcher:
        if self._watcher is None:
            # Until `cleanup`: when the task is ended, its job is canceled over the same connection.
            self._watcher = await self._used.enter_async_context(shared_watcher(self.training_conn_id, self.version))
        return self._watcher

    async def cleanup(self) -> None:
        """Leave the connection to those who still use it; Airflow calls this last, whatever ended the trigger."""
        await self._used.aclose()

    async def on_kill(self) -> None:
        """Cancel the job, if its task was ended: Airflow calls this also for a trigger that it moved elsewhere.

        Airflow (3.3) does not wait for it: it cancels this coroutine a second after it was called, whatever
        `[triggerer] on_kill_timeout` says, since it cancels each trigger that should be gone once a second.
        """
        await finish(self._end_job(self._used.pop_all()))

    async def _end_job(self, used: AsyncExitStack) -> None:
        async with used:
            if not self.cancel_on_kill:
                self.log.info("The training job %s is left alone, as cancel_on_kill=False asks for", self.job_id)
                return
            try:
                reason = await self._reason_to_leave_it()
            except asyncio.CancelledError:
                reason = "the triggerer was stopped before it could read what became of its task"
            except Exception as error:  # noqa: BLE001 - whatever it is: who does not know does not cancel
                reason = f"what became of its task cannot be read ({error})"
            if reason:
                self.log.warning("The training job %s is not canceled: %s", self.job_id, reason)
                return
            self.log.info("Canceling the training job %s, since its task was ended", self.job_id)
            try:
                watcher = self._watcher
                if watcher is None:
                    watcher = await used.enter_async_context(shared_watcher(self.training_conn_id, self.version))
                known = await self._cancel(watcher)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - nobody else reports that it may still run
                why = str(error) or "the triggerer was stopped."
                told = coded(
                    f"The training job {self.job_id} could not be canceled and may still run: {why}", code="AT-414"
                )
                self.log.error("%s", told)
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
            # Only a triggerer that is stopped cancels this, once, and then waits for it: for twenty seconds (3.3).
            return await watcher.client.cancel(self.job_id)

    async def _reason_to_leave_it(self) -> str:
        asking = AsyncRetrying(
            stop=stop_after_delay(_ASK), wait=wait_random_exponential(multiplier=0.5, max=10), reraise=True
        )
        state: str | None = await asking(self._state)
        return f"its task goes on, it is {state}" if state in _GOES_ON else ""

    async def _state(self) -> str | None:
        """What became of the task; None if it goes on with another job, or is no longer there."""
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
        # A mapped task's key has its index at its end; there is one task instance, or none if it was deleted.
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
            # Not before a cursor: it takes as long as the storing, and a cursor says which job it is of.
            if await self._is_superseded():
                raise Superseded
            await XCom.aset(key, value, **self._task())

    async def _cursor(self) -> Any:
        try:
            cursor = await XCom.aget_one(key=CURSOR_KEY, **self._task())
        except Exception as error:  # noqa: BLE001 - whatever ails Airflow's database: the job is well, and is followed
            self.log.warning("How far the log has been told cannot be read, it is told from its beginning: %s", error)
            return None
        if not isinstance(cursor, dict):
            return None
        # If none of the logs of this try that were there then is here now, a triggerer may have been lost with its
        # disk, and Airflow can no longer show what it wrote. If it can after all, its page shows each line once.
        if not set(cursor.get("logs", [])).intersection(path.name for path in await asyncio.to_thread(self._logs)):
            self.log.info(
                "The log begins again here: what was written before is not in the log folder of this triggerer"
            )
            return None
        return cursor

    def _shown(self) -> list[Span]:
        """The lines of the job that the logs of this try hold already."""
        try:
            return [span for log in self._logs() if (span := span_of(log))]
        except OSError as error:
            self.log.warning("What is in the log already cannot be read, lines may be there twice: %s", error)
            return []

    def _logs(self) -> list[Path]:
        """What triggerers wrote of this try, as far as it is in the log folder of this one."""
        try:
            folder = Path(conf.get("logging", "base_log_folder"))
            log = folder / log_filename_template_renderer()(ti=self.task_instance)
            return sorted(log.parent.glob(f"{glob.escape(log.name)}.trigger.*.log"))
        except Exception as error:  # noqa: BLE001 - the template is the administrator's, and may need what is not known here
            self.log.debug("The log of the task cannot be found: %s", error)
            return []

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
