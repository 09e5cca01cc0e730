"""A training task on a worker: submit the job or continue an earlier one, defer or follow, result.

Also what becomes of the job when the task fails, is killed, times out or loses its trigger.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from airflow.sdk.exceptions import AirflowFailException, AirflowTaskTimeout
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.context import context_to_airflow_vars
from anyio import fail_after

from airflow_training.api.description import JobDescription
from airflow_training.api.durations import read_duration
from airflow_training.api.model import describe_choice, without_inputs
from airflow_training.api.parameters import SAVED_MODEL, TrainingParameters
from airflow_training.client.cancel_after_exit import StandIn
from airflow_training.client.client import TrainingClient
from airflow_training.client.follow.watcher import Watcher
from airflow_training.client.retry import CANCEL_AFTER_EXIT, FOLLOW
from airflow_training.client.storage import TransferLog, Upload
from airflow_training.exceptions import (
    FollowingFailed,
    InvalidParameters,
    JobCanceled,
    JobError,
    JobTimedOut,
    RequestRejected,
    ServiceUnavailable,
    StorageError,
    TaskInterrupted,
    TrainingError,
    coded,
)
from airflow_training.following import stats
from airflow_training.following.deadlines import Limits
from airflow_training.following.follow_job import Outcome, report
from airflow_training.hooks.training import TrainingHook
from airflow_training.operators import files
from airflow_training.operators.claim import Claim, ClaimStore
from airflow_training.operators.destination import copy_model, destination_errors
from airflow_training.operators.interruption import Interruptible
from airflow_training.operators.links import TrainingJobLink
from airflow_training.operators.masked_secrets import mask_given, masks, unmasked
from airflow_training.operators.result import (
    Result,
    check_success,
    kept_metrics,
    models_of,
    update_asset_events,
)
from airflow_training.operators.retry_or_clear import job_of_earlier_try, unused_job_number
from airflow_training.triggers.training import TrainingTrigger, error_of
from airflow_training.urls import TASK_TAB, base_url, task_path
from airflow_training.xcom_keys import CLAIM_KEY, JOB_ID_KEY, RESULT_KEY, STATUS_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_training.operators.training import TrainingOperator

T = TypeVar("T")

# Airflow kills a task five seconds after it asked it to end; what takes longer is left to the stand-in.
_LAST_SECONDS = 2.0

# A claim is a value in Airflow's database: of a folder of code, it has so many names.
_MOST_CODE = 1_000


class TaskRun:
    """A training task on a worker: once to start it, and once more for the result if a trigger followed the job.

    Args:
        task: The task, its templates rendered.
        context: The context that it runs in.

    Attributes:
        claim: The job of the task; None until it has one.
        location: The location that the task returned.
    """

    def __init__(self, task: TrainingOperator, context: Context) -> None:
        self._task = task
        self._context = context
        self._ti = context["ti"]
        self._log = task.log
        self._store = ClaimStore(context)
        self._work = Interruptible()
        self.claim: Claim | None = None
        self.location: str | None = None
        self._submitting = False
        self._job_ended = False

    def execute(self) -> str:
        """Submit the job or continue an earlier one, then defer or follow it here."""
        with _ErrorsForAirflow(), self._work.between_requests():
            self._begin()
            self._store_link()
            # Under `airflow dags test` a trigger would not get its connection (Airflow 3.3).
            if self._task.deferrable and hasattr(task_runner.SUPERVISOR_COMMS, "asend"):
                self._check_not_ended()
                self._defer()
            with self._mark_over():
                return self._return(self._follow())

    def complete(self, event: dict[str, Any], claim: dict[str, Any]) -> str:
        """Return the result of a job that a trigger followed to its end."""
        self.claim = Claim(**claim)
        if event["job_id"] != self.claim.job_id:
            # SQLite reuses the id of a deleted trigger: Airflow then takes the event of an earlier try's trigger for
            # that of this try's, which it never starts.
            self._defer()
        with _ErrorsForAirflow(), self._work.between_requests(), self._mark_over():
            if "error" in event:
                raise self._not_followed(error_of(event))
            return self._return(Outcome.from_dict(event))

    def without_trigger(self, reason: str) -> NoReturn:
        """Handle the job whose trigger died, and raise the error that reports it."""
        with _ErrorsForAirflow(), self._work.between_requests():
            error = FollowingFailed(f"The trigger that followed the training job died ({reason}).", code="AT-436")
            self.claim = self._store.read()
            raise self._not_followed(error) if self.claim and not self.claim.over else error

    def interrupt(self) -> None:
        """Interrupt the current step, which then cancels its job. Safe in a signal handler."""
        self._work.interrupt()

    # The job: submitted, or continued from an earlier try.

    def _begin(self) -> None:
        try:
            self._run(self._submit_or_continue())
        except ServiceUnavailable as error:
            if not (self.claim and self._submitting):
                raise
            # A submit without a response may have arrived.
            raise self._not_followed(error) from error

    async def _submit_or_continue(self) -> None:
        earlier = await job_of_earlier_try(self._task, self._store)
        if isinstance(earlier, Claim):
            self.claim = earlier
        else:
            await self._start(earlier)
        # Before the id, by which it is found.
        self._ti.xcom_push(CLAIM_KEY, self._job.to_xcom())
        self._ti.xcom_push(JOB_ID_KEY, self._job.job_id)

    async def _start(self, job_number: int | None) -> None:
        parameters, uploads = self.describe()
        conn_id = self._task.training_conn_id
        async with await TrainingHook(conn_id).connect(version=parameters.version) as client:
            job_number = job_number or await unused_job_number(self._store, client)
            self.claim = self._store.write(
                Claim(
                    job_id=self._store.job_id(job_number),
                    job_number=job_number,
                    max_tries=self._store.max_tries,
                    name=parameters.job_name,
                    training_conn_id=conn_id,
                    version=parameters.version,
                    completion_time=parameters.completion_time,
                    inputs=sorted(parameters.data),
                    code_files=without_inputs((upload.name for upload in uploads), parameters.data)[:_MOST_CODE],
                    model=parameters.model,
                    parameters=unmasked(parameters, files.given(self._task)["args"]),
                )
            )
            async with self._canceled_on_kill(lambda: client):
                await self._upload(client, uploads)
                await self._submit(client, parameters)
        self.claim = self._store.write(self._job.accepted())

    def describe(self) -> tuple[TrainingParameters, list[Upload]]:
        """Find all errors before the first byte is sent."""
        folder = files.dag_folder(self._task)
        parameters: TrainingParameters | None = None
        values: dict[str, Any] = {}
        errors: list[str] = []
        try:
            values, errors = files.with_requirements(files.given(self._task), folder)
            mask_given(values)
            parameters = TrainingParameters.read(values, limited=self._task.execution_timeout is not None)
        except InvalidParameters as error:
            errors += error.errors
        errors += files.input_errors(values, folder)
        errors += destination_errors(self._destination, values.get("model", SAVED_MODEL))
        if errors or parameters is None:
            raise InvalidParameters(errors)
        return parameters, files.uploads(parameters, folder)

    async def _upload(self, client: TrainingClient, uploads: Sequence[Upload]) -> None:
        folder = self._job.folder
        storage = await client.storage()
        self._log.info("Uploading %s file%s to %s", f"{len(uploads):,}", "" if len(uploads) == 1 else "s", folder)
        transfer = TransferLog(lambda line: self._log.info("%s", line), len(uploads), TransferLog.UPLOAD)
        await storage.upload(folder, uploads, transfer.file_done, transfer.bytes_done)
        transfer.end()

    async def _submit(self, client: TrainingClient, parameters: TrainingParameters) -> None:
        self._submitting = True
        job_id = self._job.job_id
        description = JobDescription.of(parameters, masks(parameters), self._variables())
        submit = asyncio.ensure_future(client.submit(job_id, description))
        try:
            status = await asyncio.shield(submit)
        except RequestRejected as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            # A submit of an earlier try has arrived since, and its description names that try.
            status = await client.status(job_id)
        except asyncio.CancelledError:
            # A submit in flight would arrive after the request that cancels its job.
            await asyncio.wait([submit], timeout=_LAST_SECONDS)
            submit.cancel()
            raise
        stats.submitted()
        self._log.info("Submitted job %s (%s) to %s", job_id, status.state.value, client.settings.base_url)

    def _variables(self) -> dict[str, str]:
        """The variables by which Airflow's own tasks know who they are, and the map index."""
        named = context_to_airflow_vars(self._context, in_env_var_format=True)
        map_index = self._store.map_index
        return named | ({"AIRFLOW_CTX_MAP_INDEX": str(map_index)} if map_index >= 0 else {})

    def _store_link(self) -> None:
        ti = self._ti
        try:
            tab = f"{base_url()}{task_path(ti.dag_id, ti.run_id, ti.task_id, self._store.map_index)}/plugin/{TASK_TAB}"
            page = TrainingHook(self._job.training_conn_id).job_page(self._job.job_id) or tab
            ti.xcom_push(TrainingJobLink().xcom_key, page)
        except Exception as error:  # noqa: BLE001 - the job has been submitted, and is followed without a link
            self._log.warning("The link to the job could not be stored: %s", error)

    # Following.

    def _defer(self) -> NoReturn:
        task, job = self._task, self._job
        limits = self._limits().to_dict()
        task.defer(
            trigger=TrainingTrigger(job.training_conn_id, job.job_id, job.version, limits, task.cancel_on_kill),
            method_name=task.execute_complete.__name__,
            kwargs={"claim": asdict(job)},
        )

    def _follow(self) -> Outcome:
        try:
            return self._run(self._report())
        except TrainingError as error:
            raise self._not_followed(error) from error

    async def _report(self) -> Outcome:
        async def push(key: str, value: Any) -> None:
            self._ti.xcom_push(key, value)

        connect = partial(self._job.connect, FOLLOW)
        watcher = Watcher(await connect(), connect, patience=FOLLOW.budget)
        # The watcher replaces its client when the credentials are renewed.
        async with watcher, self._canceled_on_kill(lambda: watcher.client):
            return await report(
                watcher, self._job.job_id, log=self._log, lines=self._log, store=push, limits=self._limits()
            )

    def _limits(self) -> Limits:
        started, timeout = self._ti.start_date, self._task.execution_timeout
        return Limits(
            submitted=datetime.fromisoformat(self._job.submitted or started.isoformat()),
            # Airflow does not enforce it while the task is deferred.
            deadline=started + timeout if timeout else None,
            completion_time=read_duration(self._job.completion_time),
            pending_timeout=self._task.pending_timeout,
        )

    # The result.

    def _return(self, outcome: Outcome) -> str:
        """Publish the result of a job that ended; raises JobError if it has none."""
        self._job_ended = True
        result = self._run(self._result(outcome))
        self.location = result.location
        update_asset_events(self._context, self._task.outlets, result)
        return result.location

    async def _result(self, outcome: Outcome) -> Result:
        job, status = self._job, outcome.status
        self._ti.xcom_push(STATUS_KEY, status.to_wire())
        check_success(outcome)
        async with await job.connect() as client:
            storage = await client.storage()
            keys = await storage.keys(job.folder)
            models = models_of(job, keys)
            if choice := describe_choice(models, job.model):
                self._log.info("%s", choice)
            try:
                metrics = await kept_metrics(storage, outcome, keys, job.folder, job.inputs)
            except StorageError as error:
                # The model is there: a training does not fail for its metrics.
                self._log.warning("The metrics beside the model could not be stored or read: %s", error)
                metrics = dict(outcome.metrics)
        location = f"training://{job.training_conn_id}@data/{PurePosixPath(job.folder, models[0])}"
        if destination := self._destination:
            ended = threading.Event()
            try:
                location = await asyncio.to_thread(copy_model, location, destination, job.job_id, ended)
            finally:
                # A thread cannot be interrupted: it checks this event.
                ended.set()
        duration = status.duration.total_seconds() if status.duration else None
        result = Result(
            status.job_id, status.to_wire(), location, duration, metrics, self._job.parameters, self._store.map_index
        )
        self._ti.xcom_push(RESULT_KEY, asdict(result))
        handed_on = {SAVED_MODEL: "SavedModel is", None: "files of the job are"}.get(job.model, "model is")
        self._log.info("The %s at %s", handed_on, location)
        return result

    @property
    def _destination(self) -> str | None:
        given = self._task.model_destination
        return str(given) if given else None

    # The job of a task that ends early.

    def _not_followed(self, error: TrainingError) -> TrainingError:
        """Decide about a job that could not be followed to its end: a retry continues with it, or it is canceled."""
        if isinstance(error, (JobError, TaskInterrupted)):
            return error
        job_id = self._job.job_id
        if self._retry_continues():
            return FollowingFailed(f"{error} The retry continues with the job {job_id}.", code="AT-431")
        if not self._task.cancel_on_kill:
            return FollowingFailed(
                f"{error} No retry continues with the job {job_id}; it is not canceled, since cancel_on_kill=False.",
                code="AT-432",
            )
        try:
            known = asyncio.run(self._job.cancel())
        except TrainingError as failure:
            return FollowingFailed(
                f"{error} No retry continues with the job {job_id}, and it could not be canceled and may still run:"
                f" {failure}",
                code="AT-433",
            )
        if not known:
            return FollowingFailed(
                f"{error} No retry continues with the job {job_id}, which the service does not know.", code="AT-434"
            )
        self._set_over()
        return FollowingFailed(
            f"{error} No retry continues with the job {job_id}, so it was canceled; clear the task to train again.",
            code="AT-435",
        )

    def _check_not_ended(self) -> None:
        """Cancel the job and raise JobCanceled if a user ended the task while it was submitted.

        Airflow refuses to defer such a task, and ends its process without `on_kill`.
        """
        state = self._state()
        if state in (None, "running"):
            return
        if self._task.cancel_on_kill and asyncio.run(self._job.cancel()):
            self._set_over()
        raise JobCanceled(
            f"The task was ended (state: {state}); {self._fate()}",
            code="AT-421",
            job_id=self._job.job_id,
            over=self._job.over,
        )

    @contextmanager
    def _mark_over(self) -> Iterator[None]:
        """Mark a job that can have no result any more, so that the next try starts a new one."""
        try:
            yield
        except JobError as error:
            if error.over:
                self._set_over()
            raise

    def _set_over(self) -> None:
        self.claim = replace(self._job, over=True)
        try:
            self._store.write(self.claim)
        except Exception as error:  # noqa: BLE001 - the store of a cleared task is closed; its next try knows of the clear
            self._log.info("The end of the job %s could not be stored: %s", self.claim.job_id, error)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a step; raise the error of this package that reports its interruption."""
        try:
            return self._work.run(work)
        except AirflowTaskTimeout:
            if not self.claim:
                raise
            raise JobTimedOut(
                f"The execution_timeout passed; {self._fate()}",
                code="AT-413",
                job_id=self.claim.job_id,
                over=self.claim.over,
            ) from None
        except asyncio.CancelledError:
            if self.claim and self.claim.over:
                raise JobCanceled(
                    f"The task was ended; {self._fate()}", code="AT-422", job_id=self.claim.job_id
                ) from None
            raise TaskInterrupted(f"The task was interrupted; {self._fate()}", code="AT-423") from None

    @asynccontextmanager
    async def _canceled_on_kill(self, client: Callable[[], TrainingClient]) -> AsyncIterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            if self._task.cancel_on_kill and not self._continues():
                await self._cancel_in_time(client())
            raise

    async def _cancel_in_time(self, client: TrainingClient) -> None:
        """Cancel the job in the few seconds that are left to this process, or leave it to a process that survives."""
        job_id = self._job.job_id
        try:
            stand_in = StandIn(client.settings, job_id)
        except OSError as error:
            stand_in = None
            self._log.warning("The process that keeps trying to cancel the job cannot be started: %s", error)
        try:
            with fail_after(_LAST_SECONDS):
                known = await client.cancel(job_id)
            # A job that the service does not know yet may still arrive.
            if known:
                if stand_in:
                    stand_in.dismiss()
                stats.canceled()
                self._set_over()
        except Exception as error:  # noqa: BLE001 - the task ends in any case; this is for its log
            reason = str(error).rstrip(".") or "no response in time"
            rest = (
                f" A separate process keeps trying for {CANCEL_AFTER_EXIT.budget / 60:g} minutes." if stand_in else ""
            )
            warning = coded(f"The job {job_id} could not be canceled yet: {reason}.{rest}", code="AT-415")
            self._log.warning("%s", warning)
        finally:
            if stand_in:
                stand_in.begin()

    def _fate(self) -> str:
        if not self.claim:
            return "no training job was submitted."
        became = "was canceled" if self._job.over else "has ended" if self._job_ended else "may still run"
        return f"the training job {self._job.name} ({self._job.job_id}) {became}."

    def _retry_continues(self) -> bool:
        return self._task.durable and self._ti.try_number <= self._store.max_tries

    def _continues(self) -> bool:
        """Whether only the worker is shut down, not the task, and a retry continues with the job."""
        return self._work.interrupted and self._retry_continues() and self._state() in (None, "running")

    def _state(self) -> str | None:
        """The state of this task in Airflow's database; None if it cannot be read."""
        ti = self._ti
        try:
            states = ti.get_task_states(
                dag_id=ti.dag_id, run_ids=[ti.run_id], task_ids=[ti.task_id], map_index=ti.map_index
            )
        except Exception as error:  # noqa: BLE001 - the job is well, whatever the database's error
            self._log.warning("The state of the task cannot be read: %s", error)
            return None
        # The key of a mapped task ends with its index.
        return next(iter(states.get(ti.run_id, {}).values()), None)

    @property
    def _job(self) -> Claim:
        if self.claim is None:
            raise AssertionError("a job is claimed before it is used")
        return self.claim


class _ErrorsForAirflow(AbstractContextManager[None]):
    """Gives Airflow one clear sentence, and no retries if a retry cannot help.

    The cause remains available to a debugger (`__context__`), but its stack is not in the task log.
    """

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, TrainingError):
            if error.retryable:
                raise error.with_traceback(None) from None
            raise AirflowFailException(str(error)) from None
