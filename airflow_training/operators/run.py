"""One try of a training task on a worker: upload, submit, follow, result; and what becomes of its job when it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk.exceptions import AirflowTaskTimeout
from anyio import fail_after

from airflow_training.api.description import JobDescription
from airflow_training.api.parameters import TrainingParameters
from airflow_training.api.saved_model import choice_among
from airflow_training.client.cancel_after_exit import PATIENCE as PATIENCE_OF_STAND_IN
from airflow_training.client.cancel_after_exit import StandIn
from airflow_training.client.client import TrainingClient
from airflow_training.client.follow.watcher import Watcher
from airflow_training.client.storage import TransferLog, Upload
from airflow_training.exceptions import (
    FollowingFailed,
    JobCanceled,
    JobError,
    JobTimedOut,
    ServiceUnavailable,
    StorageError,
    TaskInterrupted,
    TrainingError,
    coded,
)
from airflow_training.following import stats
from airflow_training.following.deadlines import Limits
from airflow_training.following.follow_job import PATIENCE, Outcome, report
from airflow_training.hooks.training import TrainingHook
from airflow_training.operators.claim import Claim, ClaimStore
from airflow_training.operators.destination import copy_model
from airflow_training.operators.interruptible import Interruptible
from airflow_training.operators.masked_secrets import masks
from airflow_training.operators.result import Result, check_success, kept_metrics, saved_models
from airflow_training.operators.retry_or_clear import Reattachment, cancel, unused_generation
from airflow_training.urls import TASK_TAB, base_url, task_path
from airflow_training.xcom_keys import CLAIM_KEY, JOB_ID_KEY, RESULT_KEY, STATUS_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Logger

T = TypeVar("T")

# A task that Airflow ends has five seconds until it is killed; what takes longer is left to the stand-in.
_LAST_SECONDS = 2.0

Description = tuple[TrainingParameters, Sequence[Upload]]


class Attempt:
    """One try of a task.

    Args:
        context: The context that the task runs in.
        log: The task log.
        training_conn_id: The connection to the training service.
        durable: Whether a retry goes on with the job of the try before.
        cancel_on_kill: Whether a job whose task is ended is canceled.
    """

    def __init__(
        self, context: Context, log: Logger, *, training_conn_id: str, durable: bool, cancel_on_kill: bool
    ) -> None:
        self._ti = context["ti"]
        self._store = ClaimStore(context)
        self._log = log
        self._training_conn_id = training_conn_id
        self._durable = durable
        self._cancel_on_kill = cancel_on_kill
        self._work = Interruptible()
        self._claimed: Claim | None = None
        self._submitting = False
        self._job_ended = False

    def begin(self, describe: Callable[[], Description]) -> Claim:
        """Go on with the job of an earlier try, or start one.

        Args:
            describe: Finds what to train and with which files; raises InvalidParameters.
        """
        try:
            return self._run(self._begin(describe))
        except ServiceUnavailable as error:
            if not (self._claimed and self._submitting):
                raise
            # A submit whose reply did not come may have arrived.
            raise self.not_followed(self._claimed, error) from error

    def job_page(self, claim: Claim) -> str:
        """Where people see a job: where its connection says, or else the tab of the task in Airflow's UI."""
        ti = self._ti
        map_index = ti.map_index if ti.map_index is not None else -1
        tab = f"{base_url()}{task_path(ti.dag_id, ti.run_id, ti.task_id, map_index)}/plugin/{TASK_TAB}"
        return _hook(claim).job_page(claim.job_id) or tab

    def follow(self, claim: Claim, limits: Limits) -> Outcome:
        """Follow a job to its end, on this worker."""
        try:
            return self._run(self._follow(claim, limits))
        except TrainingError as error:
            raise self.not_followed(claim, error) from error

    def not_followed(self, claim: Claim, error: TrainingError) -> TrainingError:
        """See to a job that could not be followed to its end, and say what became of it.

        A retry goes on with it; where there is none, it is canceled.
        """
        if isinstance(error, (JobError, TaskInterrupted)):
            return error
        return self._see_to(claim, error)

    def without_trigger(self, reason: str) -> TrainingError:
        """See to the job whose trigger died."""
        error = FollowingFailed(f"The trigger that followed the training job died ({reason}).", code="AT-436")
        claim = self._store.read()
        return self.not_followed(claim, error) if claim and not claim.over else error

    def result(self, claim: Claim, outcome: Outcome, destination: str | None) -> Result:
        """Find the SavedModel of a job that ended, and hand it on; raises JobError where there is none.

        Args:
            claim: The job.
            outcome: How it ended.
            destination: Where a copy of the model is wanted, which then is the one that is handed on.
        """
        self._claimed, self._job_ended = claim, True
        return self._run(self._result(claim, outcome, destination))

    def interrupt(self) -> None:
        """Interrupt what runs, which then cancels its job. It may be called from a signal handler."""
        self._work.interrupt()

    def check_not_ended(self, claim: Claim) -> None:
        """Cancel the job, and raise JobCanceled, if a user ended the task while it was submitted.

        Airflow refuses the deferral of such a task, and its process ends without a word to us.
        """
        state = self._state()
        if state in (None, "running"):
            return
        if self._cancel_on_kill and asyncio.run(cancel(claim)):
            claim = self._over(claim)
        raise JobCanceled(
            f"The task was ended, it is {state}; {self._end(claim)}",
            code="AT-421",
            job_id=claim.job_id,
            over=claim.over,
        )

    @contextmanager
    def over_after_its_end(self, claim: Claim) -> Iterator[None]:
        """Remember that nothing can come of a job any more, so that the next try starts a new one."""
        try:
            yield
        except JobError as error:
            if error.over:
                self._over(claim)
            raise

    def _see_to(self, claim: Claim, error: TrainingError) -> FollowingFailed:
        job = f"the job {claim.job_id}"
        if self._retry_goes_on():
            return FollowingFailed(f"{error} The retry goes on with {job}.", code="AT-431")
        if not self._cancel_on_kill:
            return FollowingFailed(
                f"{error} No retry goes on with {job}; it is left alone, as cancel_on_kill=False asks for.",
                code="AT-432",
            )
        try:
            known = asyncio.run(cancel(claim))
        except TrainingError as other:
            return FollowingFailed(
                f"{error} No retry goes on with {job}, and it could not be canceled and may still run: {other}",
                code="AT-433",
            )
        if not known:
            return FollowingFailed(
                f"{error} No retry goes on with {job}, which the service does not know.", code="AT-434"
            )
        self._over(claim)
        return FollowingFailed(
            f"{error} No retry goes on with {job}, so it was canceled; clear the task to train again.", code="AT-435"
        )

    def _retry_goes_on(self) -> bool:
        return self._durable and self._ti.try_number <= self._store.max_tries

    def _over(self, claim: Claim) -> Claim:
        claim = replace(claim, over=True)
        try:
            self._store.write(claim)
        except Exception as error:  # noqa: BLE001 - that of a task that was cleared is closed: its next try knows it
            self._log.info("That the job %s is over could not be written down: %s", claim.job_id, error)
        return claim

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._work.run(work)
        except (asyncio.CancelledError, AirflowTaskTimeout) as error:
            claim = self._claimed
            if isinstance(error, AirflowTaskTimeout):
                if not claim:
                    raise
                raise JobTimedOut(
                    f"The execution_timeout passed; {self._end(claim)}",
                    code="AT-413",
                    job_id=claim.job_id,
                    over=claim.over,
                ) from None
            if claim and claim.over:
                raise JobCanceled(
                    f"The task was ended; {self._end(claim)}", code="AT-422", job_id=claim.job_id
                ) from None
            end = self._end(claim) if claim else "no training job was submitted."
            raise TaskInterrupted(f"The worker was told to end the task; {end}", code="AT-423") from None

    def _end(self, claim: Claim) -> str:
        became = "was canceled" if claim.over else "has ended" if self._job_ended else "may still run"
        return f"the training job {claim.name} ({claim.job_id}) {became}."

    def _state(self) -> str | None:
        """The state of this task in Airflow's database; None where it cannot be read."""
        ti = self._ti
        try:
            states = ti.get_task_states(
                dag_id=ti.dag_id, run_ids=[ti.run_id], task_ids=[ti.task_id], map_index=ti.map_index
            )
        except Exception as error:  # noqa: BLE001 - whatever it is: the job is well, and is gone on with
            self._log.warning("The state of the task cannot be read: %s", error)
            return None
        # A mapped task's key has its index at its end.
        return next(iter(states.get(ti.run_id, {}).values()), None)

    async def _begin(self, describe: Callable[[], Description]) -> Claim:
        decision = await Reattachment(
            self._store,
            self._log,
            training_conn_id=self._training_conn_id,
            durable=self._durable,
            cancel_on_kill=self._cancel_on_kill,
        ).decide()
        claim = decision if isinstance(decision, Claim) else await self._start(describe, decision)
        # Before the id, by which it is found.
        self._ti.xcom_push(CLAIM_KEY, claim.to_xcom())
        self._ti.xcom_push(JOB_ID_KEY, claim.job_id)
        return claim

    async def _start(self, describe: Callable[[], Description], generation: int | None) -> Claim:
        parameters, files = describe()
        async with await TrainingHook(self._training_conn_id).connect(version=parameters.version) as client:
            generation = generation or await unused_generation(self._store, client)
            claim = self._store.write(
                Claim(
                    job_id=self._store.job_id(generation),
                    generation=generation,
                    max_tries=self._store.max_tries,
                    name=parameters.job_name,
                    training_conn_id=self._training_conn_id,
                    version=parameters.version,
                    completion_time=parameters.completion_time,
                    inputs=sorted(parameters.data),
                )
            )
            async with self._canceled_on_kill(lambda: client, claim):
                await self._upload(client, claim, files)
                await self._submit(client, claim, parameters)
        return self._store.write(claim.accepted())

    async def _upload(self, client: TrainingClient, claim: Claim, files: Sequence[Upload]) -> None:
        storage = await client.storage()
        self._log.info("Uploading %s file%s to %s", f"{len(files):,}", "" if len(files) == 1 else "s", claim.folder)
        transfer = TransferLog(lambda line: self._log.info("%s", line), len(files), TransferLog.UPLOAD)

        def done(file: Upload, size: int, sent: bool) -> None:
            transfer.file_done(file.name, size, sent)

        await storage.upload(claim.folder, files, done, transfer.bytes_done)
        transfer.end()

    async def _submit(self, client: TrainingClient, claim: Claim, parameters: TrainingParameters) -> None:
        self._submitting = True
        submit = asyncio.ensure_future(client.submit(claim.job_id, JobDescription.of(parameters, masks(parameters))))
        try:
            status = await asyncio.shield(submit)
        except asyncio.CancelledError:
            # A request that is under way would arrive after the one that cancels its job.
            await asyncio.wait([submit], timeout=_LAST_SECONDS)
            submit.cancel()
            raise
        stats.submitted()
        self._log.info("Submitted job %s (%s) to %s", claim.job_id, status.state.value, client.settings.base_url)

    async def _follow(self, claim: Claim, limits: Limits) -> Outcome:
        async def push(key: str, value: Any) -> None:
            self._ti.xcom_push(key, value)

        async def connect() -> TrainingClient:
            return await _hook(claim).connect(version=claim.version, policy=PATIENCE, known=True)

        watcher = Watcher(await connect(), connect, patience=PATIENCE.budget)
        # Where the credentials were renewed, its client is another one in the end.
        async with watcher, self._canceled_on_kill(lambda: watcher.client, claim):
            return await report(watcher, claim.job_id, log=self._log, lines=self._log, store=push, limits=limits)

    @asynccontextmanager
    async def _canceled_on_kill(self, client: Callable[[], TrainingClient], claim: Claim) -> AsyncIterator[None]:
        self._claimed = claim
        try:
            yield
        except asyncio.CancelledError:
            if self._cancel_on_kill and not self._goes_on():
                await self._cancel_at_the_end(client(), claim)
            raise

    async def _cancel_at_the_end(self, client: TrainingClient, claim: Claim) -> None:
        """Cancel a job in the few seconds that are left to this process, or have it done after them."""
        try:
            stand_in = StandIn(client.settings, claim.job_id)
        except OSError as error:
            stand_in = None
            self._log.warning("The process that would go on with a cancellation cannot be started: %s", error)
        try:
            with fail_after(_LAST_SECONDS):
                known = await client.cancel(claim.job_id)
            # One that the service does not know yet may arrive there still.
            if known:
                if stand_in:
                    stand_in.dismiss()
                stats.canceled()
                self._claimed = self._over(claim)
        except Exception as error:  # noqa: BLE001 - the task ends in any case; this is for its log
            why = str(error).rstrip(".") or "no answer in time"
            rest = (
                f" A process of its own goes on trying for {PATIENCE_OF_STAND_IN / 60:g} minutes." if stand_in else ""
            )
            told = coded(f"The job {claim.job_id} could not be canceled yet: {why}.{rest}", code="AT-415")
            self._log.warning("%s", told)
        finally:
            if stand_in:
                stand_in.begin()

    def _goes_on(self) -> bool:
        """Whether the worker is told to end but the task is not: it is shut down, and a retry goes on with the job."""
        return self._work.interrupted and self._retry_goes_on() and self._state() in (None, "running")

    async def _result(self, claim: Claim, outcome: Outcome, destination: str | None) -> Result:
        status = outcome.status
        self._ti.xcom_push(STATUS_KEY, status.to_wire())
        check_success(outcome)
        async with await _hook(claim).connect(version=claim.version, known=True) as client:
            storage = await client.storage()
            keys = await storage.keys(claim.folder)
            models = saved_models(outcome, keys, claim.folder, claim.inputs)
            if choice := choice_among(models):
                self._log.info("%s", choice)
            key = models[0]
            try:
                metrics = await kept_metrics(storage, outcome, keys, claim.folder, claim.inputs)
            except StorageError as error:
                # The model is there: a training does not fail for its metrics.
                self._log.warning("The metrics beside the model could not be kept or read: %s", error)
                metrics = dict(outcome.metrics)
        location = f"training://{claim.training_conn_id}@data/{key}"
        if destination:
            ended = threading.Event()
            try:
                await asyncio.to_thread(copy_model, location, destination, claim.job_id, ended)
            finally:
                # A thread cannot be interrupted: it looks for this.
                ended.set()
            location = destination
        duration = status.duration.total_seconds() if status.duration else None
        result = Result(status.job_id, status.to_wire(), location, duration, metrics)
        self._ti.xcom_push(RESULT_KEY, result.to_dict())
        self._log.info("The SavedModel is at %s", location)
        return result


def _hook(claim: Claim) -> TrainingHook:
    return TrainingHook(claim.training_conn_id)
